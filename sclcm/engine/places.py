"""Averages of token vectors by their place in the sentence."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from sclcm.engine.infer import Step


class PlaceMeans:
    """Average vector of the tokens at each place, over the cells that have one there; and the genes of the first cell.

    Parameters
    ----------
    device
        Where sums are kept.
    """

    def __init__(self, *, device: torch.device) -> None:
        exact = torch.float32 if device.type == "mps" else torch.float64
        self._sums = torch.zeros(0, 0, dtype=exact, device=device)
        self._counts = torch.zeros(0, dtype=exact, device=device)
        self._first: tuple[np.ndarray, np.ndarray] = (np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64))

    def update(self, step: Step) -> None:
        """Add the tokens of a batch."""
        tokens, x_bld = step.tokens, step.x_bld.to(self._sums.dtype)
        real_bl = torch.ones_like(tokens.gene_mask_bl) if tokens.mask_bl is None else tokens.mask_bl
        self._make_room(x_bld.shape[1], x_bld.shape[2])
        self._sums[: x_bld.shape[1]] += (x_bld * real_bl.unsqueeze(-1)).sum(0)
        self._counts[: x_bld.shape[1]] += real_bl.sum(0)
        for row in np.flatnonzero(step.rows == 0).tolist():
            is_gene = tokens.gene_mask_bl[row].cpu().numpy()
            self._first = (np.flatnonzero(is_gene), tokens.token_ids_bl[row].cpu().numpy()[is_gene])

    def _make_room(self, n_places: int, width: int) -> None:
        if n_places > len(self._counts):
            sums = self._sums.new_zeros(n_places, width)
            counts = self._counts.new_zeros(n_places)
            sums[: len(self._sums)], counts[: len(self._counts)] = self._sums.reshape(-1, width), self._counts
            self._sums, self._counts = sums, counts

    def means(self) -> np.ndarray:
        """Return means, shape `(places, width)`, float32, NaN at a place that no cell has."""
        return (self._sums / self._counts.unsqueeze(-1)).float().cpu().numpy()

    def first_genes(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the places of the genes of the data set's first cell, and their token ids."""
        return self._first
