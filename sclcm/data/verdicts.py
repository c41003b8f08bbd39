"""What values are, judged from the values alone: one rule after another, the first that applies decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np

from sclcm.data.scale import (
    LINEAR,
    LOG1P,
    LOG_BASES,
    SCALES,
    SQRT,
    are_integers,
    are_multiples,
    constant_sum,
    find_units,
    precision_of,
    round_if_near,
    row_sums,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from scipy.sparse import csr_matrix

    from sclcm.data.scale import Scale, Units

Kind = Literal["counts", "counts_per_n", "log1p_counts_per_n", "log1p", "scaled", "bulk", "other", "empty"]

_CLOSE_LOOK = 256  # cells whose values are taken apart
_CLOSE_LOOK_VALUES = 500_000  # and of those, about so many values
_BULK_TOTAL = 1e7  # no single cell has more molecules or reads
_BULK_GENES = 12_000  # nor so many genes expressed, with a tenth of that total
_HIGHEST_LOG = 25.0


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What values are; the fields are those of `CountsReport`, and whether cells were left at their own totals."""

    kind: Kind
    scale: Scale = LINEAR
    target_sum: float | None = None
    invertible: bool = False
    is_unscaled: bool = False
    problems: tuple[str, ...] = ()

    @property
    def log_base(self) -> Literal["e", "2", "10"] | None:
        """Base of the logarithm, where the values are logarithms."""
        return LOG_BASES.get(self.scale.name)


def judge(rows: csr_matrix) -> Verdict:
    """Tell what sampled rows hold.

    Parameters
    ----------
    rows
        Canonical CSR.
    """
    values = rows.data
    if not values.size:
        return Verdict(kind="empty")
    if not np.isfinite(values).all():
        n_wrong = int((~np.isfinite(values)).sum())
        return Verdict(kind="other", problems=(f"{n_wrong:,} of the values read are NaN or infinite",))
    if values.min() < 0:
        return _negative(values)
    if are_counts(values):
        return _integers(rows)
    return next(_fractions(rows[close_look(rows)], rows))


def are_counts(values: np.ndarray) -> bool:
    """Tell whether there are values, all of them integers >= 0."""
    if not values.size or not np.isfinite(values).all():
        return False
    return bool(values.min() >= 0 and np.array_equal(values, np.rint(values)))


def _negative(values: np.ndarray) -> Verdict:
    share = float((values < 0).mean())
    if np.array_equal(values, np.rint(values)):
        return Verdict(kind="other", problems=(f"integers, {share:.2%} of them negative, which no count is",))
    return Verdict(kind="scaled", problems=(f"{share:.2%} of the values read are negative",))


def _integers(rows: csr_matrix) -> Verdict:
    totals, n_genes = row_sums(rows, rows.data), np.diff(rows.indptr)
    totals, n_genes = totals[n_genes > 0], n_genes[n_genes > 0]
    bulk = _bulk(float(np.median(totals)), float(np.median(n_genes)))
    if bulk is not None:
        return bulk
    if rows.data.max() == 1 and np.median(n_genes) >= 200:
        return Verdict(kind="other", problems=("all stored values are 1: whether a gene was seen, not how often",))
    total = _rounded_total(rows, totals)
    if total is not None:
        problem = f"integers, but totals are all nearly {total:,.6g} and few cells hold a 1: counts per N, rounded"
        return Verdict(kind="counts_per_n", target_sum=total, problems=(problem,))
    if _is_underdispersed(rows):
        problem = "integers, but they vary far less than counts of their size do: logarithms, rounded"
        return Verdict(kind="other", problems=(problem,))
    return Verdict(kind="counts", invertible=True, is_unscaled=True)


def _bulk(total: float, n_genes: float) -> Verdict | None:
    if total < _BULK_TOTAL and not (total > _BULK_TOTAL / 10 and n_genes > _BULK_GENES):
        return None
    problem = f"a median of {total:,.0f} counts and {n_genes:,.0f} genes per sample is beyond a single cell"
    return Verdict(kind="bulk", problems=(problem,))


def _rounded_total(rows: csr_matrix, totals: np.ndarray) -> float | None:
    """Return the N of normalised values that were rounded: totals nearly agree, and single counts are gone."""
    median = float(np.median(totals))
    if totals.size < 10 or totals.min() == totals.max() or np.percentile(np.abs(totals / median - 1), 90) > 0.15:
        return None
    holds_one = row_sums(rows, rows.data == 1)[np.diff(rows.indptr) > 0] > 0
    return round_if_near(median, within=0.05) if holds_one.mean() < 0.5 else None


def _is_underdispersed(rows: csr_matrix) -> bool:
    """Rounded logarithms have a variance well below their mean, which counts do not have in many genes."""
    if rows.shape[0] < 30 or rows.data.max() > 16:
        return False
    mean = np.asarray(rows.mean(axis=0)).ravel()
    variance = np.asarray(rows.power(2).mean(axis=0)).ravel() - mean**2
    high = mean > 1.5
    return bool(high.sum() >= 50 and np.percentile(variance[high] / mean[high], 10) < 0.5)


def close_look(rows: csr_matrix) -> np.ndarray:
    """Choose some of the rows, fewer where rows are full, those without counts left out."""
    n_genes = np.diff(rows.indptr)
    filled = np.flatnonzero(n_genes)
    n_rows = min(_CLOSE_LOOK, filled.size, max(16, int(_CLOSE_LOOK_VALUES / max(n_genes.mean(), 1))))
    return filled[np.unique(np.linspace(0, filled.size - 1, n_rows).astype(int))]


def _fractions(few: csr_matrix, rows: csr_matrix) -> Iterator[Verdict]:
    scales = [scale for scale in SCALES if few.data.max() <= scale.highest]
    values = few.data.astype(np.float64)
    precision = precision_of(values)
    yield from (_unscaled(scale) for scale in scales if are_integers(values, scale, precision))
    for scale in (scale for scale in scales if scale is not SQRT):
        total = constant_sum(row_sums(few, scale.inverse(values)))
        if total is not None:
            yield _per_total(few, find_units(few, scale, precision), scale=scale, total=total)
    for scale in scales:
        if are_multiples(find_units(few, scale, precision)):
            yield _scaled(scale, target_sum=None, is_exact=True)
    yield _no_pattern(rows)


def _unscaled(scale: Scale) -> Verdict:
    """Judge integers once the scale is undone: nothing was normalised."""
    if scale is LOG1P:
        return Verdict(kind="log1p", scale=scale, invertible=True, is_unscaled=True)
    what = "integers but for rounding errors" if scale is LINEAR else f"{scale.name} of raw counts"
    problem = f"the values are {what}"
    return Verdict(kind="other", scale=scale, invertible=True, is_unscaled=True, problems=(problem,))


def _per_total(few: csr_matrix, units: Units, *, scale: Scale, total: float) -> Verdict:
    """Judge values whose total per cell is the same once the scale is undone."""
    if are_multiples(units):
        depth = total / float(np.median(units.units))
        bulk = _bulk(depth, float(np.median(np.diff(few.indptr))))
        return bulk or _scaled(scale, target_sum=total, is_exact=True)
    if scale is LINEAR and np.isclose(total, 1e6, rtol=1e-3):
        return Verdict(kind="bulk", target_sum=total, problems=("cells sum to a million, as TPM do",))
    return _scaled(scale, target_sum=total, is_exact=False)


def _scaled(scale: Scale, *, target_sum: float | None, is_exact: bool) -> Verdict:
    """Judge counts that were scaled per cell."""
    problems = []
    kind: Kind = "counts_per_n" if scale is LINEAR else "log1p_counts_per_n" if scale is LOG1P else "other"
    if kind == "other":
        per = "scaled counts" if target_sum is None else f"counts per {target_sum:,.6g}"
        problems.append(f"the values are {scale.name} of {per}")
    if not is_exact:
        problems.append("the values of a cell are no multiples of one count, so raw counts cannot be recovered exactly")
    return Verdict(kind=kind, scale=scale, target_sum=target_sum, invertible=is_exact, problems=tuple(problems))


def _no_pattern(rows: csr_matrix) -> Verdict:
    values = rows.data
    whole = float((values == np.rint(values)).mean())
    large = values[values > 0.5]
    near = float((np.abs(large - np.rint(large)) < 0.05).mean()) if large.size else 0.0
    if whole > 0.5:
        problem = f"{1 - whole:.2%} of the values read are no integers; estimated or corrected counts can be rounded"
        return Verdict(kind="other", problems=(problem,))
    if near > 0.35:
        return Verdict(kind="other", problems=("the values lie close to integers: corrected counts, not raw ones",))
    if _has_unit_variance(rows):
        return Verdict(kind="scaled", problems=("each gene has a standard deviation of 1",))
    if values.max() <= _HIGHEST_LOG and rows.shape[1] >= 50:
        problem = "the size of the values is that of logarithms, but neither a common total nor multiples of one count"
        return Verdict(kind="log1p", scale=LOG1P, problems=(problem + " were found",))
    total = float(np.median(row_sums(rows, values)))
    if total > _BULK_TOTAL / 20:
        return Verdict(kind="bulk", problems=(f"fractions with a median total of {total:,.0f}, as TPM and FPKM have",))
    return Verdict(kind="other", problems=("the values are neither integers nor a known function of integers",))


def _has_unit_variance(rows: csr_matrix) -> bool:
    if rows.shape[0] < 10:
        return False
    mean = np.asarray(rows.mean(axis=0, dtype=np.float64)).ravel()
    variance = np.asarray(rows.astype(np.float64).power(2).mean(axis=0)).ravel() - mean**2
    expressed = np.bincount(rows.indices, minlength=rows.shape[1]) >= 3
    return bool(expressed.any() and np.percentile(np.abs(variance[expressed] - 1), 80) < 0.15)
