"""One pass over token batches: forward, then reducers that keep what was asked for."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar

import torch
from torch import Tensor

from sclcm._sizes import as_int
from sclcm.nn.pooling import pool
from sclcm.nn.tokens import TokenTensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    import numpy as np

    from sclcm.encoding.batches import TokenBatch
    from sclcm.nn.lcm import LCM
    from sclcm.nn.readouts import Pooling

logger = logging.getLogger("sclcm")

Todo = TypeVar("Todo")

CPU_TOKENS = 2_048
"""Tokens in a batch on a CPU: enough for the products to be efficient, few enough to stay near the cache."""

CPU_TOKENS_CONTINUED = 4_096
"""The same where sentences are continued: each step reads all weights, which more cells then share."""

DEVICE_TOKENS = 131_072
"""Largest number of tokens in a batch on an accelerator."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Step:
    """What a forward pass over one batch gave.

    Parameters
    ----------
    lcm
        The model.
    x_bld
        Token vectors, shape `(cells, tokens, width)`.
    tokens
        The batch on the device.
    rows
        Row number of each cell in the data set, shape `(cells,)`.
    """

    lcm: LCM
    x_bld: Tensor
    tokens: TokenTensors
    rows: np.ndarray


class Reducer(Protocol):
    """Keeps what it needs of each batch; nothing else survives the pass."""

    def update(self, step: Step) -> None:
        """Take the token vectors of a batch; if memory ends, none of them."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CellVectors:
    """Pools each cell and writes its row.

    Parameters
    ----------
    out
        Where rows go, shape `(cells of the data set, width)`, float32.
    pooling
        How token vectors become one vector.
    head
        A head applied to the pooled vector, or `None`.
    l2_normalize
        Whether vectors are scaled to length one.
    """

    out: np.ndarray
    pooling: Pooling
    head: str | None = None
    l2_normalize: bool = False

    def update(self, step: Step) -> None:
        """Pool the cells of a batch into their rows."""
        cells_bd = pool(self.pooling, step.x_bld, step.tokens)
        if self.head is not None:
            cells_bd = step.lcm.heads[self.head](cells_bd.to(step.x_bld.dtype)).float()
        if self.l2_normalize:
            cells_bd = torch.nn.functional.normalize(cells_bd, dim=-1)
        self.out[step.rows] = cells_bd.cpu().numpy()


@dataclass(frozen=True, kw_only=True, eq=False)
class ClassLogits:
    """Scores the classes of each cell by a head and writes its row.

    Parameters
    ----------
    out
        Where rows go, shape `(cells of the data set, classes)`, float32.
    head
        Name of the head.
    """

    out: np.ndarray
    head: str

    def update(self, step: Step) -> None:
        """Score the cells of a batch into their rows; the first token is the cell's vector, for heads that read one."""
        logits_bc = step.lcm.read(self.head, step.x_bld, step.tokens, step.x_bld[:, 0])
        self.out[step.rows] = logits_bc.float().cpu().numpy()


class FeatureMeans:
    """Average vector of each feature over the cells in which it is a token; special tokens have rows of their own.

    Parameters
    ----------
    n_tokens
        Tokens of the vocabulary.
    width
        Width of a token vector.
    device
        Where sums are kept.
    """

    def __init__(self, *, n_tokens: int, width: int, device: torch.device) -> None:
        exact = torch.float32 if device.type == "mps" else torch.float64
        self._sums = torch.zeros(n_tokens, width, dtype=exact, device=device)
        self._counts = torch.zeros(n_tokens, dtype=torch.int64, device=device)

    def update(self, step: Step) -> None:
        """Add the tokens of a batch."""
        ids_bl, mask_bl = step.tokens.token_ids_bl, step.tokens.mask_bl
        real_bl = torch.ones_like(ids_bl, dtype=torch.bool) if mask_bl is None else mask_bl
        ids_n = ids_bl[real_bl]
        ones_n, x_nd = torch.ones_like(ids_n), step.x_bld[real_bl].to(self._sums.dtype)
        self._sums.index_add_(0, ids_n, x_nd)
        self._counts.index_add_(0, ids_n, ones_n)

    def means(self) -> tuple[np.ndarray, np.ndarray]:
        """Return means, shape `(tokens of the vocabulary, width)`, float32, NaN where never seen, and counts."""
        means = self._sums / self._counts.unsqueeze(-1)
        return means.float().cpu().numpy(), self._counts.cpu().numpy()


def to_tensors(batch: TokenBatch, device: torch.device) -> TokenTensors:
    """Move a batch to the device, from pinned memory where that is faster."""

    def move(array: np.ndarray) -> Tensor:
        tensor = torch.from_numpy(array)
        return tensor.pin_memory().to(device, non_blocking=True) if device.type == "cuda" else tensor.to(device)

    return TokenTensors(
        token_ids_bl=move(batch.token_ids).long(),
        mask_bl=None if batch.mask.all() else move(batch.mask),
        gene_mask_bl=move(batch.features >= 0),
        value_bl=move(batch.values["value"]) if "value" in batch.values else None,
        condition_b=move(batch.scalars["condition"]) if "condition" in batch.scalars else None,
        species_b=move(batch.scalars["species"]) if "species" in batch.scalars else None,
        unread_ids_bm=move(batch.scalars["depth_ids"]) if "depth_ids" in batch.scalars else None,
        unread_value_bm=move(batch.scalars["depth_values"]) if "depth_values" in batch.scalars else None,
    )


def token_budget(lcm: LCM, device: torch.device, *, continued: bool = False) -> int:
    """Return how many tokens a batch may have, from the width of the model and the free memory of the device.

    Parameters
    ----------
    lcm
        The model.
    device
        Where it computes.
    continued
        Whether the sentences are to be continued, token by token.
    """
    if device.type != "cuda":
        return CPU_TOKENS_CONTINUED if continued else CPU_TOKENS
    free, _ = torch.cuda.mem_get_info(device)
    width = as_int(lcm.config.d_model)
    return int(min(DEVICE_TOKENS, max(4_096, free // 4 // (64 * width))))


def run(
    lcm: LCM, batches: Iterable[TokenBatch], reducers: Iterable[Reducer], *, device: torch.device, n_blocks: int | None
) -> Iterator[int]:
    """Run the model over batches and feed the reducers.

    Parameters
    ----------
    lcm
        The model, on `device`.
    batches
        Sentences in rectangles.
    reducers
        What is kept.
    device
        Where to compute.
    n_blocks
        Depth that the reducers see; `None` is the whole model.

    Yields
    ------
    The number of cells done with, after each piece of a batch. Where the memory of the device does not suffice, the
    budget is halved and the pass goes on.
    """
    reducers = tuple(reducers)

    def work(piece: TokenBatch, pending: list[Reducer]) -> None:
        _step(lcm, piece, pending, device=device, n_blocks=n_blocks)

    yield from in_pieces(batches, reducers, work, device=device)


def in_pieces(
    batches: Iterable[TokenBatch],
    todo: Sequence[Todo],
    work: Callable[[TokenBatch, list[Todo]], None],
    *,
    device: torch.device,
) -> Iterator[int]:
    """Work on batches, and on halves of them where the memory of the device does not suffice.

    Parameters
    ----------
    batches
        Sentences in rectangles.
    todo
        What is to be done with each batch.
    work
        Works on a batch, and takes from its list what is done, so that after an error only the rest is done again.
    device
        Whose memory it is.

    Yields
    ------
    The number of cells done with, after each piece of a batch.
    """
    largest = None
    for batch in batches:
        waiting = [(batch, list(todo))]
        while waiting:
            piece, pending = waiting.pop()
            if largest is not None and piece.token_ids.size > largest and piece.n_cells > 1:
                waiting.extend((half, list(pending)) for half in reversed(piece.halves()))
                continue
            try:
                work(piece, pending)
            except RuntimeError as error:
                if not is_out_of_memory(error) or piece.n_cells == 1:
                    raise
                largest = piece.token_ids.size // 2
                waiting.append((piece, pending))
            else:
                yield piece.n_cells
                continue
            _make_room(device, largest)  # here, where the error no longer holds the tensors of the attempt


def is_out_of_memory(error: Exception) -> bool:
    """Whether an error says that the memory of a device is exhausted."""
    words = ("out of memory", "can't allocate memory", "not enough memory")
    return isinstance(error, torch.OutOfMemoryError) or any(word in str(error).lower() for word in words)


def _make_room(device: torch.device, n_tokens: int) -> None:
    logger.warning("out of memory on %s; going on with at most %d tokens at a time", device, n_tokens)
    if device.type == "cuda":
        torch.cuda.empty_cache()


def _step(lcm: LCM, batch: TokenBatch, pending: list[Reducer], *, device: torch.device, n_blocks: int | None) -> None:
    """Feed the pending reducers one by one; those that had the batch are taken out, so that none ever has it twice."""
    with torch.inference_mode():
        tokens = to_tensors(batch, device)
        step = Step(lcm=lcm, x_bld=lcm(tokens, n_blocks=n_blocks), tokens=tokens, rows=batch.rows)
        while pending:
            pending[0].update(step)
            del pending[0]
