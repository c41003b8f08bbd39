"""Which genes of a cell become tokens, and in which order."""

from __future__ import annotations

import itertools
import sys
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from sclcm.encoding.groups import SampledGroups
from sclcm.encoding.taken import StoredValues, Taken

if TYPE_CHECKING:
    from collections.abc import Callable


@dataclass(frozen=True, kw_only=True)
class ByRank:
    """Genes in descending order of their value; equal values in vocabulary order, so that var order does not matter."""

    def take(self, cells: StoredValues, limit: int) -> Taken:
        """Take at most `limit` genes of each cell."""
        if not cells.keeps_places:
            columns, lengths = ranked(cells.values, cells.columns, cells.indptr, limit=limit)
            return Taken(columns=columns, lengths=lengths)
        return cells.at(*ranked(cells.values, np.arange(len(cells.values)), cells.indptr, limit=limit))


@dataclass(frozen=True, kw_only=True)
class ByQuicksort:
    """Genes in descending order of their value; equal values in the order that numba's quicksort leaves them in.

    That order follows from the values in vocabulary order alone, so that var order does not matter. Values that are
    not numbers come last.
    """

    def take(self, cells: StoredValues, limit: int) -> Taken:
        """Take at most `limit` genes of each cell."""
        order = _compiled_argsort()
        keys = -cells.values.astype(np.float64)
        return cells.rows([start + order(keys[start:stop])[:limit] for start, stop in cells.spans()])


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

    def take(self, cells: StoredValues, limit: int) -> Taken:
        """Take at most `limit` genes of each cell."""
        return ByRank().take(replace(cells, values=np.abs(cells.values)), limit)


@dataclass(frozen=True, kw_only=True)
class InOrder:
    """All genes with a value, in vocabulary order; of more than a sentence takes, a random sample keyed by the cell."""

    def take(self, cells: StoredValues, limit: int) -> Taken:
        """Take at most `limit` genes of each cell."""
        rows = []
        for cell, (start, stop) in enumerate(cells.spans()):
            if stop - start > limit:
                drawn = cells.random.uniforms("sample", cell, start=start, stop=stop)
                # The smallest numbers, found without ordering them all; equal ones at the limit by place.
                largest = np.partition(drawn, limit - 1)[limit - 1] if limit else -1.0
                below, level = np.flatnonzero(drawn < largest), np.flatnonzero(drawn == largest)
                rows.append(start + np.sort(np.concatenate([below, level[: limit - len(below)]])))
            else:
                rows.append(np.arange(start, stop))
        return cells.rows(rows)


@dataclass(frozen=True, kw_only=True)
class WeightedSample:
    """All genes with a value, in vocabulary order; of more than a sentence takes, a random sample keyed by the cell.

    It is drawn without replacement, one gene after the other, with chances as `log1p` of the values of those left.
    """

    def take(self, cells: StoredValues, limit: int) -> Taken:
        """Take at most `limit` genes of each cell."""
        rows = []
        for cell, (start, stop) in enumerate(cells.spans()):
            if stop - start > limit:
                drawn = cells.random.uniforms("sample", cell, start=start, stop=stop)
                # Exponential waiting times, each at its own rate: who comes first is such a sample.
                waits = -np.log1p(-drawn) / np.log1p(cells.values[start:stop].astype(np.float64))
                rows.append(start + np.sort(np.argsort(waits, kind="stable")[:limit]))
            else:
                rows.append(np.arange(start, stop))
        return cells.rows(rows)


@dataclass(frozen=True, kw_only=True)
class InVarOrder:
    """All genes with a value, in the order of var in the data; of more than a sentence takes, the first."""

    def take(self, cells: StoredValues, limit: int) -> Taken:
        """Take at most `limit` genes of each cell."""
        return cells.at(*_cut(np.arange(len(cells.values)), cells.indptr, limit))


@dataclass(frozen=True, kw_only=True)
class Reversed:
    """All genes with a value, against vocabulary order, the last of the vocabulary first."""

    def take(self, cells: StoredValues, limit: int) -> Taken:
        """Take at most `limit` genes of each cell."""
        return cells.rows([np.arange(start, stop)[::-1][:limit] for start, stop in cells.spans()])


SelectStep = ByRank | ByQuicksort | LargestMagnitude | InOrder | InVarOrder | WeightedSample | Reversed | SampledGroups


def ranked(values: np.ndarray, labels: np.ndarray, indptr: np.ndarray, *, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the labels of each cell's highest values, in descending order of these, ties in ascending order of labels.

    Parameters
    ----------
    values
        Of all cells, one after the other, shape `(stored,)`, float32.
    labels
        Likewise, integers from zero to below 2^31; within a cell no two are the same.
    indptr
        Where each cell begins.
    limit
        Most labels of a cell.

    Returns
    -------
    Labels, one cell after the other, shape `(taken,)`, int32, and how many there are of each cell.
    """
    # A label behind its key makes a plain sort stable, and of plain sorts NumPy has vectorised ones: 7 against 38
    # microseconds for the 1,750 values of a cell, ordered half by half by radix.
    pairs_n2 = np.empty((len(values), 2), dtype=np.uint32)
    pairs_n2[:, _LOW] = labels
    descending_keys(values, out=pairs_n2[:, _HIGH])
    keys_n = pairs_n2.view(np.uint64)[:, 0]
    for start, stop in itertools.pairwise(indptr.tolist()):
        keys_n[start:stop].sort()
    return _cut(pairs_n2[:, _LOW].view(np.int32), indptr, limit)


_LOW, _HIGH = (0, 1) if sys.byteorder == "little" else (1, 0)


def descending_keys(values: np.ndarray, *, out: np.ndarray | None = None) -> np.ndarray:
    """Return uint32 keys whose ascending order is the descending order of float32 values, ties for equal values.

    The bits of the value, those below the sign inverted unless it is negative: integers are ordered faster than
    floats, and the order does not depend on the processor.
    """
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.int32)
    if not len(bits) or bits.min() >= 0:
        return np.bitwise_xor(bits.view(np.uint32), np.uint32(0x7FFFFFFF), out=out)
    return np.bitwise_xor(bits.view(np.uint32), (~(bits >> 31) & 0x7FFFFFFF).view(np.uint32), out=out)


def _cut(flat: np.ndarray, indptr: np.ndarray, limit: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the first `limit` numbers of each cell, contiguous, and how many these are."""
    lengths = np.diff(indptr)
    if lengths.max(initial=0) <= limit:
        return np.ascontiguousarray(flat), lengths
    lengths = np.minimum(lengths, limit)
    starts = indptr[:-1].tolist()
    return np.concatenate([flat[at : at + n] for at, n in zip(starts, lengths.tolist(), strict=True)]), lengths
