"""One pass over cells that are tokens: they become vectors, meet within their sets, and reducers keep what is asked."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from sclcm.engine.infer import is_out_of_memory
from sclcm.nn.tokens import CellTensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from sclcm.encoding.sentences import CellSentences
    from sclcm.nn.backbone import Block
    from sclcm.nn.flow_attention import Sums
    from sclcm.nn.lcm import LCM

logger = logging.getLogger("sclcm")

CPU_CELLS = 4_096
"""Cells at a time on a CPU: enough for the products to be efficient, few enough for flat memory."""

DEVICE_CELLS = 65_536
"""Largest number of cells at a time on an accelerator."""

BUFFERS = 24
"""Vectors of the width of the model that a block holds of each cell at once, about."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SetStep:
    """What a forward pass gave of some cells of a set.

    Parameters
    ----------
    lcm
        The model.
    x_nd
        Vectors of the cells, shape `(cells, width)`.
    rows
        Row number of each cell in the data set, shape `(cells,)`.
    uniform_nk
        Uniform numbers of each cell, for heads that draw, shape `(cells, draws)`, or `None`.
    """

    lcm: LCM
    x_nd: Tensor
    rows: np.ndarray
    uniform_nk: Tensor | None = None


class SetReducer(Protocol):
    """Keeps what it needs of each set; nothing else survives the pass."""

    def update(self, step: SetStep) -> None:
        """Take the vectors of some cells; if memory ends, none of them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CellRows:
    """Reads each cell and writes its row.

    Parameters
    ----------
    out
        Where rows go, shape `(cells of the data set, ...)`, float32.
    read
        What is read of the cells of a step, shape `(cells, ...)`.
    """

    out: np.ndarray
    read: Callable[[SetStep], Tensor]

    def update(self, step: SetStep) -> None:
        """Write the rows of some cells."""
        self.out[step.rows] = self.read(step).float().cpu().numpy()


@dataclass(frozen=True, kw_only=True)
class ReadCell:
    """A head applied to the vector of each cell.

    Parameters
    ----------
    head
        Its name; `None` takes the vector itself.
    l2_normalize
        Whether vectors are scaled to length one.
    """

    head: str | None = None
    l2_normalize: bool = False

    def __call__(self, step: SetStep) -> Tensor:
        """Return what is read, shape `(cells, width of the head)`."""
        x_nd = step.x_nd if self.head is None else step.lcm.read_cells(self.head, step.x_nd, step.uniform_nk)
        return torch.nn.functional.normalize(x_nd.float(), dim=-1) if self.l2_normalize else x_nd


def to_cells(sentences: CellSentences, device: torch.device, positions: np.ndarray | None = None) -> CellTensors:
    """Move the genes and values of cells that are tokens, and where these lie, to the device.

    Parameters
    ----------
    sentences
        Genes and values of some cells.
    device
        Where to.
    positions
        Coordinates of all cells of the data set from 0 to 1, shape `(cells, 2)`, or `None`.
    """
    return CellTensors(
        token_ids_v=torch.from_numpy(sentences.token_ids).to(device),
        value_v=torch.from_numpy(sentences.values["value"]).to(device),
        start_n=torch.from_numpy(sentences.indptr[:-1].astype(np.int32)).to(device),
        position_n2=None if positions is None else torch.from_numpy(positions[sentences.rows]).to(device),
    )


def allocate(n_cells: int, lcm: LCM, device: torch.device) -> Tensor:
    """Return room for the vectors of all cells, shape `(cells, width)`; `MemoryError` says how many fit."""
    table = lcm.embed.gene.weight
    width, n_bytes = table.shape[1], table.element_size()
    if device.type == "cuda":
        fitting = int(torch.cuda.mem_get_info(device)[0] * 0.6) // (width * n_bytes)
        if n_cells > fitting:
            raise _too_many(n_cells, fitting, device)
    try:
        return torch.empty(n_cells, width, dtype=table.dtype, device=device)
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise _too_many(n_cells, None, device) from error


def _too_many(n_cells: int, fitting: int | None, device: torch.device) -> MemoryError:
    fits = "fewer" if fitting is None else f"about {fitting:,}"
    return MemoryError(
        f"Cells of a set inform each other, so that the vectors of all {n_cells:,} cells are kept on {device}, but "
        f"{fits} fit. Embed some sets at a time, as in `adata[adata.obs[batch_key] == name]`, or use `device='cpu'`."
    )


def cells_at_once(lcm: LCM, device: torch.device) -> int:
    """Return how many cells a block works on at a time, from the width of the model and the free memory."""
    if device.type != "cuda":
        return CPU_CELLS
    free, _ = torch.cuda.mem_get_info(device)
    return int(min(DEVICE_CELLS, max(1_024, free // 2 // (BUFFERS * 4 * lcm.embed.gene.embedding_dim))))


def run_sets(
    lcm: LCM,
    x_nd: Tensor,
    sets: Iterable[np.ndarray],
    *,
    reducers: Iterable[SetReducer],
    n_blocks: int | None,
    n_at_once: int,
    uniform_nk: Tensor | None = None,
) -> Iterator[int]:
    """Let the cells of each set meet, and feed the reducers.

    Parameters
    ----------
    lcm
        The model.
    x_nd
        Vectors that enter the first block, of all cells, on the device of the model, shape `(cells, width)`.
    sets
        Row numbers of the cells of each set.
    reducers
        What is kept.
    n_blocks
        Depth that the reducers see; `None` is the whole model.
    n_at_once
        Cells that a block works on at a time. Where the memory of the device does not suffice, it is halved. Results
        do not depend on it.
    uniform_nk
        Uniform numbers of all cells, for heads that draw.

    Yields
    ------
    The number of cells done with, after each set.
    """
    pieces = Pieces(n_at_once)
    reducers = tuple(reducers)
    for rows in sets:
        with torch.inference_mode():
            places = torch.from_numpy(rows).to(x_nd.device)
            set_nd = through_blocks(lcm, x_nd[places], n_blocks=n_blocks, pieces=pieces)
            whole = SetStep(
                lcm=lcm, x_nd=set_nd, rows=rows, uniform_nk=None if uniform_nk is None else uniform_nk[places]
            )
            for reducer in reducers:
                pieces.each(len(rows), partial(_feed, whole, reducer))
        yield len(rows)


def _feed(whole: SetStep, reducer: SetReducer, part: slice) -> None:
    uniform_nk = None if whole.uniform_nk is None else whole.uniform_nk[part]
    reducer.update(replace(whole, x_nd=whole.x_nd[part], rows=whole.rows[part], uniform_nk=uniform_nk))


def through_blocks(lcm: LCM, x_nd: Tensor, *, n_blocks: int | None, pieces: Pieces) -> Tensor:
    """Run the cells of one set through the blocks; the given vectors are used up.

    A set that is larger than a piece is gone over several times in each block where its attention needs sums over all
    cells alone; other attention has to see it at once.
    """
    depth = lcm.n_blocks if n_blocks is None else n_blocks
    for module in lcm.backbone.blocks[:depth]:
        block = cast("Block", module)
        at_once = _at_once(block, x_nd) if block.n_rounds is None or len(x_nd) <= pieces.size else None
        if at_once is None:
            _in_pieces(block, x_nd, pieces)
        else:
            x_nd = at_once
    return lcm.backbone.normalize(x_nd) if depth == lcm.n_blocks else x_nd


def _at_once(block: Block, x_nd: Tensor) -> Tensor | None:
    """Run a block over a whole set; `None` where memory does not suffice, but would for pieces."""
    try:
        return block(x_nd.unsqueeze(0), None)[0]
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        if block.n_rounds is None:
            msg = (
                f"A set of {len(x_nd):,} cells does not fit into the memory of {x_nd.device}, and this model has to "
                "see it at once. Name smaller sets by `batch_key`, or use `device='cpu'`."
            )
            raise MemoryError(msg) from error
        return None


def _in_pieces(block: Block, x_nd: Tensor, pieces: Pieces) -> None:
    """Run a block over one set in pieces, in place."""
    known: tuple[Sums, ...] = ()
    for _ in range(block.n_rounds or 0):
        sums: list[Sums] = []

        def gather(part: slice, known: tuple[Sums, ...] = known, sums: list[Sums] = sums) -> None:
            added = block.gather(x_nd[part].unsqueeze(0), known)
            sums[:] = [tuple(a + b for a, b in zip(sums[0], added, strict=True)) if sums else added]

        pieces.each(len(x_nd), gather)
        known = (*known, sums[0])

    def mix(part: slice) -> None:
        x_nd[part] = block.mix(x_nd[part].unsqueeze(0), known)[0]

    pieces.each(len(x_nd), mix)


class Pieces:
    """Cuts cells into pieces, smaller ones from then on where the memory of the device does not suffice.

    Parameters
    ----------
    size
        Cells of a piece.
    """

    def __init__(self, size: int) -> None:
        self.size = size

    def each(self, n_cells: int, work: Callable[[slice], None]) -> None:
        """Work on each piece; work that runs out of memory has changed nothing, and is done again in smaller ones."""
        start = 0
        while start < n_cells:
            part = slice(start, min(start + self.size, n_cells))
            try:
                work(part)
            except RuntimeError as error:
                if not is_out_of_memory(error) or self.size == 1:
                    raise
            else:
                start = part.stop
                continue
            self.halve(part.stop - part.start)  # here, where the error no longer holds the tensors of the attempt

    def halve(self, n_cells: int) -> None:
        """Take no more than half of so many cells from now on."""
        self.size = max(1, min(self.size, n_cells) // 2)
        logger.warning("out of memory; going on with at most %d cells at a time", self.size)
        if torch.cuda.is_available():
            torch.cuda.empty_cache()
