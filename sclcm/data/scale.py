"""On which scale values are: the function whose inverse turns them into integers times one unit per cell."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable

    from scipy.sparse import csr_matrix

# A few units in the last place of float32: the precision of most normalisation, whatever type stores its result.
_FLOAT32 = 4 * 2.0**-24
_LARGEST_DIVISOR = 12  # a cell's smallest count is looked for from 1 to this
_ENOUGH_BITS = 30.0  # how surprising it must be that values are multiples, had they not been made from counts


@dataclass(frozen=True, kw_only=True)
class Scale:
    """A function that was applied to (scaled) counts.

    Parameters
    ----------
    name
        What messages call it.
    inverse
        Undoes it.
    highest
        No matrix of this scale holds larger values, which bounds overflow too.
    """

    name: str
    inverse: Callable[[np.ndarray], np.ndarray]
    highest: float


LINEAR = Scale(name="linear", inverse=lambda x: x, highest=np.inf)
LOG1P = Scale(name="log1p", inverse=np.expm1, highest=25.0)
LOG2 = Scale(name="log2(x + 1)", inverse=lambda x: np.expm1(x * np.log(2.0)), highest=35.0)
LOG10 = Scale(name="log10(x + 1)", inverse=lambda x: np.expm1(x * np.log(10.0)), highest=11.0)
SQRT = Scale(name="square root", inverse=np.square, highest=1e5)
LOG1P_TWICE = Scale(name="log1p of log1p", inverse=lambda x: np.expm1(np.expm1(x)), highest=3.3)
SCALES = (LINEAR, LOG1P, LOG2, LOG10, SQRT, LOG1P_TWICE)
LOG_BASES: dict[str, Literal["e", "2", "10"]] = {LOG1P.name: "e", LOG2.name: "2", LOG10.name: "10"}


@dataclass(frozen=True, kw_only=True, eq=False)
class Units:
    """How rows divide into integers: `value = count x unit`, one unit per cell.

    Parameters
    ----------
    units
        Unit of each cell, NaN where none was found or the cell is empty.
    counts
        Each stored value over its cell's unit, not rounded.
    tolerance
        How far each may be from an integer, given the precision of the stored values.
    bits
        How much evidence the multiples are: about log2 of how unlikely they were by chance.
    """

    units: np.ndarray
    counts: np.ndarray
    tolerance: np.ndarray
    bits: float

    @property
    def deviation(self) -> np.ndarray:
        """Distance of each count from the nearest integer; NaN where no unit was found."""
        return np.abs(self.counts - np.rint(self.counts))


@dataclass(frozen=True, kw_only=True)
class Precision:
    """How far a stored value may be from what it was before it was stored: `relative x value + absolute`."""

    relative: float = _FLOAT32
    absolute: float = 0.0


def precision_of(values: np.ndarray) -> Precision:
    """Tell the precision of stored values: that of float32 or half precision, or of a few decimals."""
    with np.errstate(over="ignore", invalid="ignore"):  # what is infinite is refused when it is read
        is_half = np.array_equal(values.astype(np.float16), values)
        relative = 2.0**-11 if is_half else _FLOAT32
        for decimals in range(1, 5):
            shifted = values * 10.0**decimals
            if np.all(np.abs(shifted - np.rint(shifted)) <= 2 * _FLOAT32 * np.abs(shifted)):
                return Precision(relative=relative, absolute=0.5 * 10.0**-decimals)
    return Precision(relative=relative)


def relative_error(values: np.ndarray, scale: Scale, precision: Precision) -> np.ndarray:
    """Return the relative error that the stored precision leaves in the value on the linear scale."""
    error, linear = values * precision.relative + precision.absolute, scale.inverse(values)
    return (scale.inverse(values + error) - linear) / np.maximum(linear, np.finfo(float).tiny) + _FLOAT32


def row_sums(rows: csr_matrix, stored: np.ndarray) -> np.ndarray:
    """Sum an array that lies along the stored values, per row."""
    edges = np.concatenate([[0.0], np.cumsum(stored, dtype=np.float64)])
    return edges[rows.indptr[1:]] - edges[rows.indptr[:-1]]


def constant_sum(sums: np.ndarray) -> float | None:
    """Return the total that all cells share, rounded where it is nearly round; `None` where they differ."""
    if not sums.size or not np.isfinite(sums).all():
        return None
    total = round_if_near(float(np.median(sums)))
    is_shared = np.percentile(np.abs(sums / total - 1), 95) <= 2e-3
    # One or two cells always agree; then the total itself has to be one that people normalise to.
    return total if is_shared and (sums.size >= 3 or _is_usual(total)) else None


def round_if_near(total: float, *, within: float = 3e-4) -> float:
    """Return the number of two digits that is nearest, if it is near; else drop the errors of summing."""
    rounded = float(f"{total:.2g}")
    if abs(total / rounded - 1) < within:
        return rounded
    half = round(2 * total) / 2  # a median of integers
    return half if abs(total - half) < 1e-6 * total else total


def _is_usual(total: float) -> bool:
    return total >= 100 and bool(np.isclose(np.log10(total) % 1, [0, np.log10(5), 1], atol=1e-9).any())


def find_units(rows: csr_matrix, scale: Scale, precision: Precision) -> Units:
    """Find each cell's unit: its smallest value over 1, 2, 3, ..., whichever makes all its values integers.

    Parameters
    ----------
    rows
        Canonical CSR with positive values.
    scale
        The scale they are taken to be on.
    precision
        Of the stored values.
    """
    values = rows.data.astype(np.float64)
    linear, error = scale.inverse(values), relative_error(values, scale, precision)
    owner = np.repeat(np.arange(rows.shape[0]), np.diff(rows.indptr))
    smallest = row_minima(rows, linear)
    is_smallest = linear <= smallest[owner]
    error = error + row_minima(rows, np.where(is_smallest, error, np.inf))[owner]
    divisor = _divisors(linear / smallest[owner], error, owner, n_rows=rows.shape[0])
    units = smallest / divisor
    counts = linear / units[owner]
    tolerance = counts * error + 1e-9
    informative = tolerance[~is_smallest & np.isfinite(counts)]
    bits = np.log2(0.5 / np.minimum(informative, 0.5)).sum() - np.log2(np.nan_to_num(divisor, nan=1.0)).sum()
    return Units(units=units, counts=counts, tolerance=tolerance, bits=float(bits))


def row_minima(rows: csr_matrix, stored: np.ndarray) -> np.ndarray:
    """Return the smallest stored value of each row; NaN for an empty row."""
    minima = np.full(rows.shape[0], np.nan)
    filled = np.flatnonzero(np.diff(rows.indptr))
    if filled.size:
        minima[filled] = np.minimum.reduceat(stored, rows.indptr[filled])
    return minima


def _divisors(ratio: np.ndarray, error: np.ndarray, owner: np.ndarray, *, n_rows: int) -> np.ndarray:
    """Return the smallest count of each cell, NaN where none up to the largest tried makes all values integers."""
    divisor = np.full(n_rows, np.nan)
    undecided = np.arange(len(ratio))
    for candidate in range(1, _LARGEST_DIVISOR + 1):
        counts, cells = ratio[undecided] * candidate, owner[undecided]
        tolerance = np.minimum(counts * error[undecided] + 1e-9, 0.5)
        off = np.bincount(cells, np.abs(counts - np.rint(counts)) > tolerance, minlength=n_rows)
        seen = np.bincount(cells, minlength=n_rows)
        divisor[(seen > 0) & (off == 0)] = candidate
        undecided = undecided[np.isnan(divisor[cells])]
        if not undecided.size:
            break
    return divisor


def are_multiples(units: Units) -> bool:
    """Tell whether every value is an integer multiple of its cell's unit, exactly so and not by chance."""
    found = units.counts[np.isfinite(units.counts)]
    is_exact = found.size == units.counts.size > 0 and units.tolerance.max() < 0.5
    return bool(is_exact and units.bits >= _ENOUGH_BITS)


def are_integers(values: np.ndarray, scale: Scale, precision: Precision) -> bool:
    """Tell whether the inverse of the scale gives integers as they are, within the stored precision."""
    linear = scale.inverse(values)
    tolerance = linear * relative_error(values, scale, precision) + 1e-9
    is_close = np.abs(linear - np.rint(linear)) <= tolerance
    bits = np.sum(np.log2(0.5 / np.minimum(tolerance, 0.5)))
    return bool(is_close.all() and linear.min() > 0.5 and bits >= _ENOUGH_BITS)
