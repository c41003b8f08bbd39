"""Counts of every gene that a model expects of a cell, from its vector."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import torch

from sclcm.models._cell_vectors import cell_vectors
from sclcm.nn.count_decoder import CountDecoder, rescale

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sclcm.models._pass import Input
    from sclcm.models._pretrained import Pretrained
    from sclcm.zoo._recipes import GeneRecipe

CELLS = 4_096
"""Cells of which all genes are decoded at a time."""


def impute_counts(
    data: Input, pretrained: Pretrained, recipe: GeneRecipe, *, batch_size: int | None
) -> Iterator[tuple[slice, np.ndarray]]:
    """Decode the counts of the data's genes from cell vectors.

    Parameters
    ----------
    data
    batch_size
        The cells, and how many at a time.
    pretrained
        The model.
    recipe
        One with a head for counts, which reads the cell vectors of a recipe.

    Yields
    ------
    Which cells, and the counts of the var that the model knows, `data.alignment.var_index`, shape `(cells, var)`,
    float32: they add up to the counts that the cell has in the genes it knows.
    """
    chosen = pretrained.recipe(recipe.cells or "embed")
    vectors = cell_vectors(data, pretrained, chosen, batch_size=batch_size)
    known, place = np.unique(data.alignment.feature_index, return_inverse=True)
    totals = _known_totals(data, pretrained)
    for start in range(0, len(vectors), CELLS):
        part = slice(start, min(start + CELLS, len(vectors)))
        z_nz = torch.from_numpy(vectors[part]).to(pretrained.device)
        yield part, counts_of(pretrained, recipe.head or "", z_nz, known=known, totals=totals[part])[:, place]


def counts_of(
    pretrained: Pretrained, head: str, z_nz: torch.Tensor, *, known: np.ndarray, totals: np.ndarray
) -> np.ndarray:
    """Return the counts of some features, scaled to the totals of the cells, shape `(cells, features)`, float32."""
    decoder = pretrained.lcm.heads[head]
    if not isinstance(decoder, CountDecoder):
        msg = f"The head {head!r} of {pretrained.name!r} gives no counts of genes."
        raise TypeError(msg)
    with torch.inference_mode():
        mean_ng = decoder(z_nz)[:, torch.from_numpy(known).to(z_nz.device)]
        return rescale(mean_ng, torch.from_numpy(totals[:, None]).to(mean_ng)).float().cpu().numpy()


def _known_totals(data: Input, pretrained: Pretrained) -> np.ndarray:
    """Return how many counts each cell has in genes that the model knows, shape `(n_obs,)`."""
    again = dataclasses.replace(data, empty_cells=[])  # what is read a second time is no more account kept of
    return np.concatenate([np.asarray(chunk.counts.sum(1)).ravel() for chunk in again.chunks(pretrained)])
