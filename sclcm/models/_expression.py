"""Cell vectors that are sums of gene vectors weighted by expression, chunk by chunk."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from sclcm._settings import settings
from sclcm.models._gene_vectors import OWN
from sclcm.nn.table_configs import ExpressionSum

if TYPE_CHECKING:
    from sclcm.encoding.chunks import CellChunk
    from sclcm.models._pass import Input
    from sclcm.models._pretrained import Pretrained
    from sclcm.zoo._spec import Recipe


def embed_by_expression(data: Input, pretrained: Pretrained, recipe: Recipe) -> np.ndarray:
    """Return the vector of each cell by a recipe that sums gene vectors, shape `(n_obs, D)`, float32.

    Products are of double precision, since thousands of terms are added; the matrix stays sparse.
    """
    if not isinstance(recipe.pooling, ExpressionSum):
        msg = f"`recipe` is {recipe!r}; expected one that pools by `ExpressionSum`."
        raise TypeError(msg)
    measured = np.unique(data.alignment.feature_index)
    table = combined_table(pretrained, recipe.pooling)[measured]
    out = np.zeros((data.source.shape[0], table.shape[1]), dtype=np.float32)
    with tqdm(total=len(out), unit="cell", desc=pretrained.name, disable=not settings.progress) as bar:
        for chunk in data.chunks(pretrained):
            cells = chunk.counts[:, measured].astype(np.float64) @ table
            cells /= _divisor(recipe.pooling, chunk, n_genes=data.alignment.n_var)[:, None]
            if recipe.l2_normalize:
                length = np.linalg.norm(cells, axis=1, keepdims=True)
                cells = np.divide(cells, length, out=np.zeros_like(cells), where=length > 0)
            out[chunk.start : chunk.start + chunk.n_cells] = cells
            bar.update(chunk.n_cells)
    return out


def combined_table(pretrained: Pretrained, pooling: ExpressionSum) -> np.ndarray:
    """Return the vectors of the vocabulary's genes as a pooling combines them, shape `(features, D)`, float64."""
    tables = [_own_table(pretrained) if name == OWN else pretrained.arrays[name] for name in pooling.tables]
    if pooling.combine == "concat":
        return np.concatenate(tables, axis=1, dtype=np.float64)
    return np.asarray(np.sum(tables, axis=0, dtype=np.float64))


def _own_table(pretrained: Pretrained) -> np.ndarray:
    rows = torch.from_numpy(pretrained.vocabulary.token_ids.astype(np.int64)).to(pretrained.device)
    with torch.inference_mode():
        return pretrained.lcm.embed.genes(rows).cpu().double().numpy()


def _divisor(pooling: ExpressionSum, chunk: CellChunk, *, n_genes: int) -> np.ndarray:
    if pooling.over == "genes":
        return np.full(chunk.n_cells, float(n_genes))
    return np.where(chunk.totals > 0, chunk.totals, 1.0)
