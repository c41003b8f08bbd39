"""One pass of a model whose tokens are cells over an AnnData: cells meet within their sets."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

import numpy as np
import torch
from tqdm import tqdm

from sclcm._settings import settings
from sclcm._sizes import as_int
from sclcm.encoding.draws import CellRandom
from sclcm.engine.sets import CellRows, ReadCell, allocate, cells_at_once, run_sets, to_cells
from sclcm.nn.set_configs import MixtureLatent, MixtureReadout

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from torch import Tensor

    from sclcm.encoding.chunks import CellChunk
    from sclcm.encoding.draws import Draws
    from sclcm.engine.sets import SetReducer
    from sclcm.models._pass import Input
    from sclcm.models._pretrained import Pretrained
    from sclcm.zoo._spec import Recipe

CLUSTERS = "clusters"
"""Name of the step that draws the cluster of a cell."""


def embed_by_sets(
    data: Input, pretrained: Pretrained, recipe: Recipe, *, batch_size: int | None, draws: Draws | None = None
) -> np.ndarray:
    """Return the vector of each cell by a recipe, shape `(n_obs, D)`, float32.

    Parameters
    ----------
    data
        The matrix, with the set of each cell.
    pretrained
        A model whose tokens are cells.
    recipe
        The recipe.
    batch_size
        Cells that are worked on at a time; `None` follows from the memory. Results do not depend on it.
    draws
        Uniform numbers that take the place of our own, by the name of the step, shape `(n_obs, draws)`.
    """
    out = np.zeros((data.source.shape[0], pretrained.width(recipe)), dtype=np.float32)
    reducer = CellRows(out=out, read=ReadCell(head=recipe.head, l2_normalize=recipe.l2_normalize))
    n_blocks, n_draws = pretrained.depth(recipe), _n_draws(pretrained, recipe)
    set_pass(data, pretrained, [reducer], batch_size=batch_size, n_blocks=n_blocks, n_draws=n_draws, draws=draws)
    return out


def set_pass(
    data: Input,
    pretrained: Pretrained,
    reducers: Iterable[SetReducer],
    *,
    batch_size: int | None = None,
    n_blocks: int | None = None,
    n_draws: int = 0,
    draws: Draws | None = None,
) -> None:
    """Run the model over all cells once, with a progress bar, and feed the reducers.

    Each cell becomes one vector as it is read; these vectors are all that is kept of the matrix.

    Parameters
    ----------
    data
    pretrained
    batch_size
    draws
        As for `embed_by_sets`.
    reducers
        What is kept.
    n_blocks
        Depth that the reducers see; `None` is the whole model.
    n_draws
        Uniform numbers that are drawn for each cell, from its counts and the seed alone.
    """
    lcm, device = pretrained.lcm, pretrained.device
    x_nd, uniform_nk = read_cells(data, pretrained, n_draws=n_draws, draws=draws)
    done = run_sets(
        lcm,
        x_nd,
        members(data),
        reducers=reducers,
        n_blocks=n_blocks,
        n_at_once=cells_at_once(lcm, device) if batch_size is None else batch_size,
        uniform_nk=uniform_nk,
    )
    with tqdm(total=len(x_nd), unit="cell", desc=pretrained.name, disable=not settings.progress) as bar:
        for n_cells in done:
            bar.update(n_cells)


def read_cells(
    data: Input, pretrained: Pretrained, *, n_draws: int = 0, draws: Draws | None = None
) -> tuple[Tensor, Tensor | None]:
    """Read the matrix in one stream, and return the vector of each cell and its uniform numbers.

    Returns
    -------
    What enters the first block, on the device of the model, shape `(n_obs, width)`, and numbers of [0, 1), shape
    `(n_obs, draws)`, or `None` where nothing is drawn.
    """
    device = pretrained.device
    x_nd = allocate(data.source.shape[0], pretrained.lcm, device)
    uniform_nk = torch.empty(len(x_nd), n_draws, device=device) if n_draws else None

    def drawn(chunk: CellChunk) -> Mapping[str, np.ndarray]:
        given = {step: numbers[chunk.start : chunk.start + chunk.n_cells] for step, numbers in (draws or {}).items()}
        random = CellRandom(counts=chunk.counts, random_state=data.random_state, draws=given)
        return {CLUSTERS: np.stack([random.numbers(CLUSTERS, cell, n=n_draws) for cell in range(chunk.n_cells)])}

    with closing(data.pieces(pretrained, more=drawn if n_draws else None)) as read, torch.inference_mode():
        for piece in read:
            rows = torch.from_numpy(piece.sentences.rows).to(device)
            # Under autocast they are made in half precision; what is kept of them is of the model's type.
            x_nd[rows] = pretrained.lcm.cells(to_cells(piece.sentences, device, data.positions)).to(x_nd.dtype)
            if uniform_nk is not None:
                uniform_nk[rows] = torch.from_numpy(piece.sentences.scalars[CLUSTERS].astype(np.float32)).to(device)
    return x_nd, uniform_nk


def members(data: Input) -> list[np.ndarray]:
    """Return the row numbers of the cells of each set, in order."""
    if data.sets is None:
        msg = "The input has no sets of cells; it was opened for a model whose tokens are genes."
        raise ValueError(msg)
    order = np.argsort(data.sets, kind="stable")
    return np.split(order, np.cumsum(np.bincount(data.sets))[:-1])


def _n_draws(pretrained: Pretrained, recipe: Recipe) -> int:
    """Return how many uniform numbers a recipe needs for each cell."""
    heads = pretrained.architecture.heads
    head = None if recipe.head is None else heads[recipe.head]
    if not isinstance(head, MixtureReadout) or head.clusters != "drawn":
        return 0
    latent = heads[head.latent]
    return as_int(latent.n_clusters) if isinstance(latent, MixtureLatent) else 0
