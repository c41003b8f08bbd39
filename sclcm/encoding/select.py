"""Which genes of a cell become tokens, and in which order."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from sclcm.encoding.groups import SampledGroups

if TYPE_CHECKING:
    from collections.abc import Callable

    from sclcm.encoding.draws import CellRandom


@dataclass(frozen=True, kw_only=True)
class ByRank:
    """Genes in descending order of their value; equal values in vocabulary order, so that var order does not matter."""

    def rows(self, values: np.ndarray, indptr: np.ndarray, limit: int) -> list[np.ndarray]:
        """Return, for each cell, the positions of its tokens among the stored values, at most `limit` of them."""
        # The place behind the key makes a plain sort stable, and of plain sorts NumPy has vectorised ones: 11 against
        # 38 microseconds for the 1,750 values of a cell, ordered half by half by radix.
        keys = descending_keys(values).astype(np.uint64)
        keys <<= np.uint64(32)
        keys |= np.arange(len(keys), dtype=np.uint64)
        cells = list(itertools.pairwise(indptr.tolist()))
        for start, stop in cells:
            keys[start:stop].sort()
        keys &= np.uint64(0xFFFFFFFF)
        order = keys.view(np.int64)
        return [order[start : min(stop, start + limit)] for start, stop in cells]


@dataclass(frozen=True, kw_only=True)
class ByQuicksort:
    """Genes in descending order of their value; equal values in the order that numba's quicksort leaves them in.

    That order follows from the values in vocabulary order alone, so that var order does not matter. Values that are
    not numbers come last.
    """

    def rows(self, values: np.ndarray, indptr: np.ndarray, limit: int) -> list[np.ndarray]:
        """Return, for each cell, the positions of its tokens among the stored values, at most `limit` of them."""
        order = _compiled_argsort()
        keys = -values.astype(np.float64)
        return [start + order(keys[start:stop])[:limit] for start, stop in itertools.pairwise(indptr.tolist())]


@cache
def _compiled_argsort() -> Callable[[np.ndarray], np.ndarray]:
    """Compile numba's own argsort, which is neither stable nor in the order of numpy's; once, in about two seconds."""
    import numba

    @numba.njit("int64[:](float64[::1])", nogil=True)
    def order(keys: np.ndarray) -> np.ndarray:
        return np.argsort(keys)

    return order


@dataclass(frozen=True, kw_only=True)
class LargestMagnitude:
    """The genes whose values lie furthest from zero, in descending order of magnitude; ties in vocabulary order."""

    def rows(self, values: np.ndarray, indptr: np.ndarray, limit: int) -> list[np.ndarray]:
        """Return, for each cell, the positions of its tokens among the stored values, at most `limit` of them."""
        return ByRank().rows(np.abs(values), indptr, limit)


@dataclass(frozen=True, kw_only=True)
class InOrder:
    """All genes with a value, in vocabulary order; of more than a sentence takes, a random sample keyed by the cell."""

    def sample(self, indptr: np.ndarray, limit: int, random: CellRandom) -> list[np.ndarray]:
        """Return, for each cell, the positions of its tokens among the stored values, at most `limit` of them."""
        rows = []
        for cell, (start, stop) in enumerate(itertools.pairwise(indptr.tolist())):
            if stop - start > limit:
                drawn = random.uniforms("sample", cell, start=start, stop=stop)
                # The smallest numbers, found without ordering them all; equal ones at the limit by place.
                largest = np.partition(drawn, limit - 1)[limit - 1] if limit else -1.0
                below, level = np.flatnonzero(drawn < largest), np.flatnonzero(drawn == largest)
                rows.append(start + np.sort(np.concatenate([below, level[: limit - len(below)]])))
            else:
                rows.append(np.arange(start, stop))
        return rows


@dataclass(frozen=True, kw_only=True)
class WeightedSample:
    """All genes with a value, in vocabulary order; of more than a sentence takes, a random sample keyed by the cell.

    It is drawn without replacement, one gene after the other, with chances as `log1p` of the values of those left.
    """

    def sample(self, values: np.ndarray, indptr: np.ndarray, *, limit: int, random: CellRandom) -> list[np.ndarray]:
        """Return, for each cell, the positions of its tokens among the stored values, at most `limit` of them."""
        rows = []
        for cell, (start, stop) in enumerate(itertools.pairwise(indptr.tolist())):
            if stop - start > limit:
                drawn = random.uniforms("sample", cell, start=start, stop=stop)
                # Exponential waiting times, each at its own rate: who comes first is such a sample.
                waits = -np.log1p(-drawn) / np.log1p(values[start:stop].astype(np.float64))
                rows.append(start + np.sort(np.argsort(waits, kind="stable")[:limit]))
            else:
                rows.append(np.arange(start, stop))
        return rows


@dataclass(frozen=True, kw_only=True)
class InVarOrder:
    """All genes with a value, in the order of var in the data; of more than a sentence takes, the first."""

    def rows(self, values: np.ndarray, indptr: np.ndarray, limit: int) -> list[np.ndarray]:
        """Return, for each cell, the positions of its tokens among the stored values, at most `limit` of them."""
        return [np.arange(start, min(stop, start + limit)) for start, stop in itertools.pairwise(indptr.tolist())]


@dataclass(frozen=True, kw_only=True)
class Reversed:
    """All genes with a value, against vocabulary order, the last of the vocabulary first."""

    def rows(self, values: np.ndarray, indptr: np.ndarray, limit: int) -> list[np.ndarray]:
        """Return, for each cell, the positions of its tokens among the stored values, at most `limit` of them."""
        return [np.arange(start, stop)[::-1][:limit] for start, stop in itertools.pairwise(indptr.tolist())]


SelectStep = ByRank | ByQuicksort | LargestMagnitude | InOrder | InVarOrder | WeightedSample | Reversed | SampledGroups


def descending_keys(values: np.ndarray) -> np.ndarray:
    """Return uint32 keys whose ascending order is the descending order of float32 values, ties for equal values.

    The bits of the value, those below the sign inverted unless it is negative: integers are ordered faster than
    floats, and the order does not depend on the processor.
    """
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.int32)
    return (bits ^ (~(bits >> 31) & 0x7FFFFFFF)).view(np.uint32)
