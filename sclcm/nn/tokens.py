"""`TokenTensors`: a batch of sentences on the device."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class TokenTensors:
    """A batch of sentences on the device.

    Parameters
    ----------
    token_ids_bl
        Token ids, shape `(cells, tokens)`.
    mask_bl
        Which tokens are real, shape `(cells, tokens)`; `None` if all are.
    gene_mask_bl
        Which tokens are genes, neither special nor padding, shape `(cells, tokens)`.
    value_bl
        Values, shape `(cells, tokens)`, or `None`.
    condition_b
        Number of each cell's condition, such as its batch, shape `(cells,)`, or `None`.
    species_b
        Number of each cell's species, shape `(cells,)`, or `None`.
    place_bl
        Place of each token in its sentence, shape `(cells, tokens)`; `None` counts from the left.
    unread_ids_bm
    unread_value_bm
        Tokens that are in no sentence though they have a value, which a decoder reads, with those values, each of shape
        `(cells, unread tokens)`, or `None`. Of a token that is in the sentence as well, the sentence counts.
    asked_ids_bm
    asked_mask_bm
        Tokens of a decoder whose values are asked for, and which of them are real, each of shape `(cells, places of the
        decoder)`, or `None`.
    """

    token_ids_bl: Tensor
    mask_bl: Tensor | None
    gene_mask_bl: Tensor
    value_bl: Tensor | None = None
    condition_b: Tensor | None = None
    species_b: Tensor | None = None
    place_bl: Tensor | None = None
    unread_ids_bm: Tensor | None = None
    unread_value_bm: Tensor | None = None
    asked_ids_bm: Tensor | None = None
    asked_mask_bm: Tensor | None = None

    def without_first(self) -> TokenTensors:
        """Return all tokens but the first of each sentence, which move up to its place."""

        def rest(channel_bl: Tensor | None) -> Tensor | None:
            return None if channel_bl is None else channel_bl[:, 1:]

        return replace(
            self,
            token_ids_bl=self.token_ids_bl[:, 1:],
            mask_bl=rest(self.mask_bl),
            gene_mask_bl=self.gene_mask_bl[:, 1:],
            value_bl=rest(self.value_bl),
            place_bl=None if self.place_bl is None else self.place_bl[:, 1:] - 1,
        )

    def lengths(self) -> Tensor:
        """Return the number of real tokens of each cell, shape `(cells,)`."""
        if self.mask_bl is None:
            n_cells, length = self.token_ids_bl.shape
            return torch.full((n_cells,), length, device=self.token_ids_bl.device)
        return self.mask_bl.sum(1)


@dataclass(frozen=True, kw_only=True)
class CellTensors:
    """Cells that are tokens, on the device: the values of their genes, one cell after the other.

    Parameters
    ----------
    token_ids_v
        Token ids of genes, shape `(values,)`.
    value_v
        Their values, shape `(values,)`, float32.
    start_n
        Where each cell starts, shape `(cells,)`.
    position_n2
        Where each cell lies, two coordinates from 0 to 1, shape `(cells, 2)`, or `None`.
    """

    token_ids_v: Tensor
    value_v: Tensor
    start_n: Tensor
    position_n2: Tensor | None = None
