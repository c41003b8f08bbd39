"""Normalisation by companion arrays, of which each cell has its own."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy.sparse import csr_matrix

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sclcm._sizes import Number
    from sclcm.encoding.chunks import CellChunk
    from sclcm.encoding.context import ArrayChoice


@dataclass(frozen=True, kw_only=True)
class ScaleKnown:
    """Counts per `target_sum` of those in genes of the vocabulary: what lies outside it does not count.

    Parameters
    ----------
    target_sum
        Counts per cell after scaling.
    precision
        In which it is computed. Values of two genes that are equal in one may differ by a rounding in the other, which
        decides their order by rank.
    """

    target_sum: Number = 1e4
    precision: Literal["float32", "float64"] = "float32"

    def apply(self, data: np.ndarray, chunk: CellChunk, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return values for the stored counts, shape `(stored,)`."""
        indptr = chunk.counts.indptr
        running = np.concatenate([[0.0], np.cumsum(data, dtype=np.float64)])
        totals = (running[indptr[1:]] - running[indptr[:-1]]).astype(self.precision)
        totals[totals == 0] = 1
        scale = totals.dtype.type(self.target_sum) / totals
        return data.astype(self.precision) * np.repeat(scale, np.diff(indptr))


@dataclass(frozen=True, kw_only=True)
class DivideByChosen:
    """Divide each count by a factor of its gene, from the array that is chosen for the cell; a factor of 0 counts as 1.

    Parameters
    ----------
    choice
        Which array a cell has.
    """

    choice: ArrayChoice

    def apply(self, data: np.ndarray, chunk: CellChunk, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
        """Return values for the stored counts, shape `(stored,)`, float64."""
        numbers = chosen_numbers(self.choice, chunk)
        number_of = np.repeat(numbers, np.diff(chunk.counts.indptr))
        out = data.astype(np.float64)
        for number, name in enumerate(self.choice.arrays.values()):
            if (numbers == number).any():
                mine = slice(None) if (numbers == number).all() else number_of == number
                factors = arrays[name][chunk.counts.indices[mine]]
                out[mine] /= np.where(factors == 0, 1, factors)
        return out


@dataclass(frozen=True, kw_only=True)
class StoreUndefined:
    """Store a count, zero if need be, of every gene whose factor is not a number: such genes are tokens of every cell.

    Zero over such a factor is no number either, and not zero.

    Parameters
    ----------
    choice
        Which array a cell has.
    """

    choice: ArrayChoice

    def apply(self, chunk: CellChunk, arrays: Mapping[str, np.ndarray]) -> CellChunk:
        """Return the chunk with these genes stored."""
        undefined = {-1: np.zeros(0, dtype=np.int64)} | {
            number: np.flatnonzero(np.isnan(arrays[name]))
            for number, name in enumerate(self.choice.arrays.values())
            if name in arrays
        }
        counts = chunk.counts
        indices, data = [], []
        stops = itertools.pairwise(counts.indptr.tolist())
        for (start, stop), number in zip(stops, chosen_numbers(self.choice, chunk).tolist(), strict=True):
            stored = counts.indices[start:stop]
            indices.append(np.union1d(stored, undefined[number]))
            data.append(np.zeros(len(indices[-1]), dtype=counts.dtype))
            data[-1][np.searchsorted(indices[-1], stored)] = counts.data[start:stop]
        indptr = np.concatenate([[0], np.cumsum([len(row) for row in indices])])
        stored = (np.concatenate([*data, []]), np.concatenate([*indices, []]).astype(np.int32), indptr)
        return dataclasses.replace(chunk, counts=csr_matrix(stored, shape=counts.shape, dtype=counts.dtype))


def chosen_numbers(choice: ArrayChoice, chunk: CellChunk) -> np.ndarray:
    """Return which of the arrays each cell has, `-1` for none, shape `(cells,)`."""
    if choice.name not in chunk.obs:
        msg = f"The cells come without {choice.name!r}, which chooses what their counts are divided by."
        raise ValueError(msg)
    return np.asarray(chunk.obs[choice.name])
