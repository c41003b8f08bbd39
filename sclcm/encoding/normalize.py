"""The published normalisations: each step turns the stored counts of a chunk into values; zeros stay out of sight."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sclcm.encoding.factors import DivideByChosen, ScaleKnown

if TYPE_CHECKING:
    from sclcm._sizes import Number
    from sclcm.encoding.chunks import CellChunk

Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True, kw_only=True)
class DivideByFactor:
    """Divide each count by a factor of its gene, such as its non-zero median over the training corpus.

    A per-cell scale cancels out where only the order within a cell matters, and is left out.

    Parameters
    ----------
    factors
        Name of the companion array with one factor a feature, shape `(features,)`.
    """

    factors: str

    def apply(self, data: np.ndarray, chunk: CellChunk, arrays: Arrays) -> np.ndarray:
        """Return values for the stored counts, shape `(stored,)`, float32."""
        factors = arrays[self.factors].astype(np.float32, copy=False).take(chunk.counts.indices)
        return np.divide(data, factors, out=factors)


@dataclass(frozen=True, kw_only=True)
class LogNormalize:
    """log1p of counts per `target_sum`, by the total of the full row.

    Parameters
    ----------
    target_sum
        Counts per cell after scaling.
    total_key
        Column of `obs` with the true library size, for panels that hold a part of each library. It is read where
        it exists; the row sum otherwise.
    """

    target_sum: Number = 1e4
    total_key: str | None = None

    def apply(self, data: np.ndarray, chunk: CellChunk, arrays: Arrays) -> np.ndarray:
        """Return values for the stored counts, shape `(stored,)`, float32."""
        totals = library_sizes(chunk, self.total_key)
        _check_totals(totals, chunk, self.total_key)
        return _log_per(float(self.target_sum), data, chunk=chunk, totals=totals)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class LogNormalizeNamed:
    """log1p of counts per `target_sum`, by the total over the wider list of genes that the vocabulary brings.

    Parameters
    ----------
    target_sum
        Counts per cell after scaling.
    """

    target_sum: Number = 1e4

    def apply(self, data: np.ndarray, chunk: CellChunk, arrays: Arrays) -> np.ndarray:
        """Return values for the stored counts, shape `(stored,)`, float32."""
        if chunk.named_totals is None:
            msg = "The vocabulary brings no wider list of genes, over which totals are to be taken; use `LogNormalize`."
            raise ValueError(msg)
        return _log_per(float(self.target_sum), data, chunk=chunk, totals=chunk.named_totals)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class LogNormalizeKnown:
    """log1p of counts per `target_sum`, by the total over the genes that the model knows.

    Parameters
    ----------
    target_sum
        Counts per cell after scaling.
    """

    target_sum: Number = 1e4

    def apply(self, data: np.ndarray, chunk: CellChunk, arrays: Arrays) -> np.ndarray:
        """Return values for the stored counts, shape `(stored,)`, float32."""
        return _log_per(float(self.target_sum), data, chunk=chunk, totals=known_totals(chunk))  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class LogNormalizeToMedian:
    """log1p of counts scaled to the median total of the data set, by the total over the genes that the model knows.

    A sample's values then depend on the samples beside it, as bulk samples are normalised by some authors.
    """

    def apply(self, data: np.ndarray, chunk: CellChunk, arrays: Arrays) -> np.ndarray:
        """Return values for the stored counts, shape `(stored,)`, float32."""
        if chunk.typical_total is None:
            msg = "The median total of the data set is not known here; use `LogNormalizeKnown` with a `target_sum`."
            raise ValueError(msg)
        return _log_per(chunk.typical_total, data, chunk=chunk, totals=known_totals(chunk))


@dataclass(frozen=True, kw_only=True)
class LogCounts:
    """log1p of the counts themselves, not scaled."""

    def apply(self, data: np.ndarray, chunk: CellChunk, arrays: Arrays) -> np.ndarray:
        """Return values for the stored counts, shape `(stored,)`, float32."""
        return np.log1p(data)


@dataclass(frozen=True, kw_only=True)
class MinMax:
    """Values from `lowest` to one, between the smallest and the largest that are stored of a cell.

    Parameters
    ----------
    lowest
        What the smallest value becomes. Where all are equal there is no scale, and they become NaN.
    """

    lowest: float

    def apply(self, data: np.ndarray, chunk: CellChunk, arrays: Arrays) -> np.ndarray:
        """Return values for the stored counts, shape `(stored,)`, float32."""
        lengths = np.diff(chunk.counts.indptr)
        starts = chunk.counts.indptr[:-1][lengths > 0]
        if not len(starts):
            return data
        low, high = (by.reduceat(data, starts) for by in (np.minimum, np.maximum))
        low, spread = (np.repeat(each, lengths[lengths > 0]) for each in (low, high - low))
        with np.errstate(invalid="ignore"):
            return (self.lowest + (data - low) / spread * (1 - self.lowest)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class ToBase2:
    """Natural logarithms become logarithms to base 2."""

    def apply(self, data: np.ndarray, chunk: CellChunk, arrays: Arrays) -> np.ndarray:
        """Return values for the stored counts, shape `(stored,)`, float32."""
        return (data / np.log(2.0)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Log2:
    """Logarithm to base two of one plus the value."""

    def apply(self, data: np.ndarray, chunk: CellChunk, arrays: Arrays) -> np.ndarray:
        """Return values for the stored counts, shape `(stored,)`, float32."""
        return np.log2(1 + data.astype(np.float64)).astype(np.float32)


@dataclass(frozen=True, kw_only=True)
class Standardize:
    """Subtract a corpus mean and divide by a corpus deviation, gene by gene, then clip.

    Parameters
    ----------
    mean
    deviation
        Names of companion arrays, each of shape `(features,)`.
    clip
        Largest absolute value kept.
    """

    mean: str
    deviation: str
    clip: float

    def apply(self, data: np.ndarray, chunk: CellChunk, arrays: Arrays) -> np.ndarray:
        """Return values for the stored counts, shape `(stored,)`, float32."""
        genes = chunk.counts.indices
        scaled = (data - arrays[self.mean][genes]) / arrays[self.deviation][genes]
        return np.clip(scaled, -self.clip, self.clip).astype(np.float32)


NormalizeStep = (
    DivideByFactor
    | LogNormalize
    | LogNormalizeNamed
    | LogNormalizeKnown
    | LogNormalizeToMedian
    | LogCounts
    | ToBase2
    | Log2
    | MinMax
    | Standardize
    | ScaleKnown
    | DivideByChosen
)


def known_totals(chunk: CellChunk) -> np.ndarray:
    """Return the sum of each cell over the model's features, shape `(cells,)`, float64."""
    return np.asarray(chunk.counts.sum(axis=1, dtype=np.float64)).ravel()


def _log_per(target_sum: float, data: np.ndarray, *, chunk: CellChunk, totals: np.ndarray) -> np.ndarray:
    scale = np.divide(target_sum, totals, out=np.zeros_like(totals), where=totals > 0)
    return np.log1p(data * np.repeat(scale, np.diff(chunk.counts.indptr))).astype(np.float32)


def library_sizes(chunk: CellChunk, total_key: str | None) -> np.ndarray:
    """Return the total counts of each cell, shape `(cells,)`: from `obs` where the column exists, else the row sum."""
    if total_key is None or total_key not in chunk.obs:
        return chunk.totals
    try:
        return np.asarray(chunk.obs[total_key], dtype=np.float64)
    except (TypeError, ValueError) as error:
        msg = (
            f"`.obs[{total_key!r}]` should be the total number of counts of each cell, but not all of it are numbers: "
            f"{error}. Correct the column, or rename it to use the sums of the rows."
        )
        raise ValueError(msg) from error


def _check_totals(totals: np.ndarray, chunk: CellChunk, total_key: str | None) -> None:
    """A library holds at least the counts that the matrix has of it; rounding is forgiven."""
    wrong = np.flatnonzero(~(np.isfinite(totals) & (totals >= 0.99 * chunk.totals)))
    if len(wrong):
        cell = int(wrong[0])
        msg = (
            f"`.obs[{total_key!r}]` is {totals[cell]:.10g} for cell {chunk.start + cell}, but its row sums to "
            f"{chunk.totals[cell]:.10g}. It must be the total of the whole library; correct the column, or rename "
            "it to use the sums of the rows."
        )
        raise ValueError(msg)


def normalize(steps: tuple[NormalizeStep, ...], chunk: CellChunk, arrays: Arrays) -> np.ndarray:
    """Apply steps in order to the stored counts of a chunk, shape `(stored,)`, float32 unless a step says otherwise."""
    data = chunk.counts.data.astype(np.float32, copy=False)
    for step in steps:
        data = step.apply(data, chunk, arrays)
    return data
