"""The vector of each cell by a recipe, whatever the model makes of cells."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import torch

from sclcm.engine.infer import CellVectors
from sclcm.models._expression import embed_by_expression
from sclcm.models._generation import embed_by_decoding
from sclcm.models._pass import one_pass
from sclcm.models._set_pass import embed_by_sets
from sclcm.nn.table_configs import ExpressionSum
from sclcm.zoo._recipes import BlockMean, BlockSum

if TYPE_CHECKING:
    from sclcm.models._pass import Input
    from sclcm.models._pretrained import Pretrained
    from sclcm.zoo._spec import Recipe

ROWS = 65_536
"""Cells that a head reads at a time."""


def cell_vectors(data: Input, pretrained: Pretrained, recipe: Recipe, *, batch_size: int | None) -> np.ndarray:
    """Return the vector of each cell by a recipe, shape `(n_obs, D)`, float32."""
    if pretrained.token_unit == "cell":
        return embed_by_sets(data, pretrained, recipe, batch_size=batch_size)
    if isinstance(recipe.pooling, ExpressionSum):
        return embed_by_expression(data, pretrained, recipe)
    if recipe.decoding is not None:
        return embed_by_decoding(data, pretrained, recipe, batch_size=batch_size)
    if isinstance(recipe.layer, BlockMean | BlockSum):
        return _over_blocks(data, pretrained, recipe, batch_size=batch_size)
    out = np.zeros((data.source.shape[0], pretrained.width(recipe)), dtype=np.float32)
    reducer = CellVectors(out=out, pooling=recipe.pooling, head=recipe.head, l2_normalize=recipe.l2_normalize)
    n_blocks, places = pretrained.depth(recipe), pretrained.places(recipe)
    how = {"n_places": places, "mask_padding": recipe.mask_padding}
    one_pass(data, pretrained, [reducer], batch_size=batch_size, n_blocks=n_blocks, **how)  # type: ignore[arg-type]
    return out


def _over_blocks(data: Input, pretrained: Pretrained, recipe: Recipe, *, batch_size: int | None) -> np.ndarray:
    """Average or add up what is pooled of several blocks, each in a pass of its own, and apply the head to that."""
    found = []
    for number, block in enumerate(pretrained.blocks(recipe)):
        single = dataclasses.replace(recipe, layer=block - pretrained.lcm.n_blocks, head=None, l2_normalize=False)
        # Only the first pass keeps account of what is read.
        source = data if number == 0 else dataclasses.replace(data, empty_cells=[])
        found.append(cell_vectors(source, pretrained, single, batch_size=batch_size))
    out = np.sum(found, axis=0) if isinstance(recipe.layer, BlockSum) else np.mean(found, axis=0)
    if recipe.head is not None:
        out = read_cells(pretrained, recipe.head, out)
    return out / np.linalg.norm(out, axis=1, keepdims=True) if recipe.l2_normalize else out


def read_cells(pretrained: Pretrained, head: str, vectors: np.ndarray) -> np.ndarray:
    """Return what a head makes of cell vectors, shape `(cells, ...)`, float32."""
    found = []
    with torch.inference_mode():
        for start in range(0, len(vectors), ROWS):
            x_nd = torch.from_numpy(vectors[start : start + ROWS]).to(pretrained.device, pretrained.dtype)
            found.append(pretrained.lcm.heads[head](x_nd).float().cpu().numpy())
    return np.concatenate(found)
