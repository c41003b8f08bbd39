"""What a pass keeps account of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sclcm.encoding.chunks import CellChunk


@dataclass(frozen=True, kw_only=True, eq=False)
class Account:
    """What has been seen of some cells."""

    total: float
    kept: float
    empty_cells: list[int]


def account_of(chunk: CellChunk) -> Account:
    """Return what has been seen of the cells of a chunk."""
    empty = chunk.start + np.flatnonzero(np.diff(chunk.counts.indptr) == 0)
    return Account(
        total=float(chunk.totals.sum()),
        kept=_sum(chunk.counts.data),
        empty_cells=empty.tolist(),
    )


def _sum(counts: np.ndarray) -> float:
    """Add counts up; in their own precision where that is exact for integers, at a tenth of the cost."""
    total = float(counts.sum())
    return total if total < _EXACT_BELOW else float(counts.sum(dtype=np.float64))


_EXACT_BELOW = 2**24
"""Integers below are exact in float32, and so is any sum of them."""
