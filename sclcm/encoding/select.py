"""Which genes of a cell become tokens, and in which order."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class ByRank:
    """Genes in descending order of their value; equal values in vocabulary order, so that var order does not matter."""

    def rows(self, values: np.ndarray, indptr: np.ndarray, limit: int) -> list[np.ndarray]:
        """Return, for each cell, the positions of its tokens among the stored values, at most `limit` of them."""
        keys = descending_keys(values)
        bounds = list(itertools.pairwise(indptr.tolist()))
        for start, stop in bounds:
            keys[start:stop].sort()
        positions = (keys & np.uint64(0xFFFFFFFF)).astype(np.int64)
        return [positions[start : min(stop, start + limit)] for start, stop in bounds]


@dataclass(frozen=True, kw_only=True)
class LargestMagnitude:
    """The genes whose values lie furthest from zero, in descending order of magnitude; ties in vocabulary order."""

    def rows(self, values: np.ndarray, indptr: np.ndarray, limit: int) -> list[np.ndarray]:
        """Return, for each cell, the positions of its tokens among the stored values, at most `limit` of them."""
        return ByRank().rows(np.abs(values), indptr, limit)


SelectStep = ByRank | LargestMagnitude


def descending_keys(values: np.ndarray) -> np.ndarray:
    """Return uint64 keys whose ascending order is a stable descending order of float32 values.

    The bits of the value, those below the sign inverted unless it is negative, then the position: sorting plain
    integers is several times faster than a stable argsort of floats, and the order does not depend on the processor.
    """
    bits = np.ascontiguousarray(values, dtype=np.float32).view(np.int32)
    descending = (bits ^ (~(bits >> 31) & 0x7FFFFFFF)).view(np.uint32)
    return (descending.astype(np.uint64) << np.uint64(32)) | np.arange(len(bits), dtype=np.uint64)
