"""Values that stand for expression at a token: each step turns normalised values into what the model reads."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sclcm._sizes import Size, as_int
from sclcm.encoding.fixed_bins import LinearBins, LogBins

if TYPE_CHECKING:
    from sclcm.encoding.draws import CellRandom


@dataclass(frozen=True, kw_only=True)
class Normalized:
    """The normalised value itself."""

    def apply(self, data: np.ndarray, indptr: np.ndarray, random: CellRandom) -> np.ndarray:
        """Return the values as they are, shape `(values,)`, float32."""
        return data


@dataclass(frozen=True, kw_only=True)
class Floored:
    """The whole part of the normalised value, as far as a table of values goes; values above that count as its last.

    Parameters
    ----------
    n_values
        Rows of the table.
    n_marks
        Rows at its end that are no value, such as the one that hides another.
    """

    n_values: Size
    n_marks: int = 0

    def apply(self, data: np.ndarray, indptr: np.ndarray, random: CellRandom) -> np.ndarray:
        """Return whole numbers for values of all cells, one after the other, shape `(values,)`, float32."""
        return np.floor(np.minimum(data, np.float32(as_int(self.n_values) - self.n_marks - 1)))


@dataclass(frozen=True, kw_only=True)
class WholePart:
    """The whole part of the normalised value."""

    def apply(self, data: np.ndarray, indptr: np.ndarray, random: CellRandom) -> np.ndarray:
        """Return whole numbers for values of all cells, one after the other, shape `(values,)`, float32."""
        return np.trunc(data)


@dataclass(frozen=True, kw_only=True)
class Bins:
    """The bin of a value among the expressed values of its cell, by quantiles; zeros stay zero.

    The edges are `n_bins - 1` quantiles, equally spaced from the smallest value to the largest. A value that lies on
    several edges, as counts do, falls into one of their bins at random, drawn for that cell alone.

    Parameters
    ----------
    n_bins
        Number of bins, that of the zeros included.
    """

    n_bins: Size

    def apply(self, data: np.ndarray, indptr: np.ndarray, random: CellRandom) -> np.ndarray:
        """Return bins for values of all cells, one after the other, shape `(values,)`, float32."""
        bins = np.zeros(len(data), dtype=np.float32)
        n_bins = as_int(self.n_bins)
        for cell, (start, stop) in enumerate(itertools.pairwise(indptr.tolist())):
            values = data[start:stop]
            binned = values != 0
            lowest, highest = quantile_bins(values[binned], n_bins)
            if (lowest == highest).all():
                bins[start:stop][binned] = highest
            else:
                drawn = random.uniforms("bins", cell, start=start, stop=stop)[binned]
                bins[start:stop][binned] = spread(lowest, highest, drawn)
        return bins


@dataclass(frozen=True, kw_only=True)
class EqualWidthBins:
    """The bin of a value among bins of equal width from zero to the largest value of its cell, counted from one.

    Parameters
    ----------
    n_bins
        Number of bins.
    """

    n_bins: Size

    def apply(self, data: np.ndarray, indptr: np.ndarray, random: CellRandom) -> np.ndarray:
        """Return bins for values of all cells, one after the other, shape `(values,)`, float32."""
        bins = np.zeros(len(data), dtype=np.float32)
        for start, stop in itertools.pairwise(indptr.tolist()):
            if stop > start:
                edges = np.linspace(0, data[start:stop].max(), as_int(self.n_bins) + 1)
                bins[start:stop] = np.digitize(data[start:stop], edges, right=True)
        return bins


ValueStep = Normalized | Floored | WholePart | Bins | EqualWidthBins | LogBins | LinearBins


def quantile_edges(values: np.ndarray, n_bins: int) -> np.ndarray:
    """Return the edges between bins, `n_bins - 1` equally spaced quantiles, shape `(edges,)`, float64."""
    ordered = np.sort(values)
    place = np.linspace(0, 1, n_bins - 1) * (len(ordered) - 1)
    below = np.floor(place).astype(np.int64)
    low, high = ordered[below], ordered[np.minimum(below + 1, len(ordered) - 1)]
    # In this form, and in these types, as NumPy interpolates: an edge that is off by a rounding is another bin.
    share, step = place - below, high - low
    return np.where(share < 0.5, low + step * share, high - step * (1 - share))


def quantile_bins(values: np.ndarray, n_bins: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the lowest and the highest bin that each value may fall into, each of shape `(values,)`, int64.

    Parameters
    ----------
    values
        Expressed values of a cell, shape `(values,)`.
    n_bins
        Number of bins, that of the zeros included.
    """
    if not len(values):
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    edges = quantile_edges(values, n_bins)
    counts = _as_counts(values)
    looked_up = values if counts is None else np.arange(counts.max() + 1)
    highest = edges.searchsorted(looked_up, side="right")
    lowest = np.minimum(edges.searchsorted(looked_up, side="left") + 1, highest)
    return (lowest, highest) if counts is None else (lowest[counts], highest[counts])


def _as_counts(values: np.ndarray) -> np.ndarray | None:
    """Return values as integers if they are small whole numbers, each of which is then looked up only once."""
    if not 0 <= values.min() <= values.max() < len(values):
        return None
    counts = values.astype(np.int64)
    return counts if (counts == values).all() else None


def spread(lowest: np.ndarray, highest: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """Return a bin from the lowest to the highest for each value, all equally likely; a number of zero: the highest."""
    n_more = np.where(highest > lowest, highest - lowest + 1, 0)
    return np.ceil(highest - uniforms * n_more)
