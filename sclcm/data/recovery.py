"""`recover`: raw counts out of counts per N or their logarithm, exactly or not at all."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
from anndata import AnnData
from pandas.api.types import is_numeric_dtype
from scipy import sparse
from scipy.sparse import csr_matrix

from sclcm._warnings import warn_user
from sclcm.data.counts import TOTAL_COLUMNS
from sclcm.data.matrix import as_frame
from sclcm.data.sampling import argument_for, count_places, sample_rows
from sclcm.data.scale import (
    LINEAR,
    SCALES,
    Precision,
    constant_sum,
    find_units,
    precision_of,
    relative_error,
    row_minima,
)
from sclcm.data.validation import check_values
from sclcm.data.verdicts import close_look, judge

if TYPE_CHECKING:
    from sclcm.data.matrix import MatrixSource
    from sclcm.data.scale import Scale
    from sclcm.data.verdicts import Verdict

_logger = logging.getLogger("sclcm")

_CHUNK_SIZE = 2048
_SAMPLE = 2048
_USUAL_TARGETS = (1e4, 1e6, 1e5, 1e3)
_FEW_GENES = 5  # fewer leave open what the smallest count of a cell is


def recover(source: MatrixSource, *, total_key: str | None = None) -> AnnData:
    """Recover the raw counts of a matrix; `sclcm.pp.recover_counts` says how.

    Parameters
    ----------
    source
        The matrix.
    total_key
        Column of `obs` with the total that each cell was normalised by.

    Returns
    -------
    A new AnnData with raw counts in `.X` (CSR, float32) and copies of `obs`, `var` and `obsm`.
    """
    rule = _choose_rule(source, total_key)
    counts = [_recover(source, rule, start) for start in range(0, source.shape[0], _CHUNK_SIZE)]
    if rule.units is None:
        _warn_of_few_genes(counts, source)
    return AnnData(
        X=csr_matrix(sparse.vstack(counts), dtype=np.float32),
        obs=as_frame(source.adata.obs).copy(),
        var=source.var.copy(),
        obsm={key: _copied(value) for key, value in source.adata.obsm.items()},
    )


def _copied(value: Any) -> Any:
    return np.array(value) if isinstance(value, np.ndarray) else value.copy()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Rule:
    """How values become counts: undo the scale, then divide by the unit of the cell."""

    scale: Scale
    precision: Precision
    units: np.ndarray | None = None  # of each cell; None: look for it in the cell's values


def _choose_rule(source: MatrixSource, total_key: str | None) -> _Rule:
    given = None if total_key is None else _totals(source, total_key)
    numbers, rows = sample_rows(source, _SAMPLE)
    values = rows.data.astype(np.float64)
    verdict = judge(rows)
    rule = _Rule(scale=verdict.scale, precision=precision_of(values))
    if verdict.is_unscaled:
        exact = rule.precision if verdict.scale is not LINEAR else Precision()
        return replace(rule, precision=exact, units=np.ones(source.shape[0]))
    if not values.size or not (np.isfinite(values) & (values > 0)).all():
        return rule  # the value that is wrong will be named when its chunk is read
    if total_key is not None and given is not None:
        found = _rule_from_totals(source, rows, numbers, totals=given)
        if found is None:
            raise ValueError(_wrong_totals(source, total_key))
        return found
    return _rule_from_known_columns(source, rows, numbers) or _rule_from_values(source, rows, numbers, verdict=verdict)


def _rule_from_totals(
    source: MatrixSource, rows: csr_matrix, numbers: np.ndarray, *, totals: np.ndarray
) -> _Rule | None:
    """Find the scale and the N for which a sample of cells comes out as integers."""
    precision, chosen = precision_of(rows.data.astype(np.float64)), close_look(rows)
    few, few_totals = rows[chosen], totals[numbers[chosen]]
    for scale in (scale for scale in SCALES if rows.data.max() <= scale.highest):
        rule = _Rule(scale=scale, precision=precision)
        suggested = constant_sum(find_units(few, scale, precision).units * few_totals)
        for target in (suggested, *_USUAL_TARGETS, float(np.median(totals))):
            if target is not None and not _are_wrong(*_over(few, target / few_totals, rule)).any():
                return replace(rule, units=target / totals)
    return None


def _rule_from_known_columns(source: MatrixSource, rows: csr_matrix, numbers: np.ndarray) -> _Rule | None:
    """Use a column of well-known name if its totals make integers of all values of a sample, which is no accident."""
    for column in (name for name in TOTAL_COLUMNS if name in as_frame(source.adata.obs)):
        try:
            totals = _totals(source, column)
        except (TypeError, ValueError):
            continue
        rule = _rule_from_totals(source, rows, numbers, totals=totals)
        if rule is not None:
            _logger.info("`%s` is divided by the totals in `obs[%r]`", source.name, column)
            return rule
    return None


def _rule_from_values(source: MatrixSource, rows: csr_matrix, numbers: np.ndarray, *, verdict: Verdict) -> _Rule:
    rule = _Rule(scale=verdict.scale, precision=precision_of(rows.data.astype(np.float64)))
    if not verdict.invertible:
        raise ValueError(_inexact(source, rows, rule, numbers=numbers))
    return rule


def _wrong_totals(source: MatrixSource, total_key: str) -> str:
    return (
        f"`{source.name}` and the totals in `obs[{total_key!r}]` give no integers for any N that was tried; check that "
        f"the column holds the totals that were used for normalisation, or leave `total_key` out"
    )


def _totals(source: MatrixSource, total_key: str) -> np.ndarray:
    obs = as_frame(source.adata.obs)
    if total_key not in obs:
        msg = f"`obs` has no column {total_key!r}; its columns are {list(obs.columns)}"
        raise KeyError(msg)
    if not is_numeric_dtype(obs[total_key]):
        msg = f"`obs[{total_key!r}]` holds {obs[total_key].dtype}; expected the cells' totals, which are numbers"
        raise TypeError(msg)
    totals = obs[total_key].to_numpy(dtype=np.float64)
    wrong = np.flatnonzero(~(totals > 0) | ~np.isfinite(totals))
    if wrong.size:
        cell, value = source.obs_names[wrong[0]], totals[wrong[0]]
        msg = f"`obs[{total_key!r}]` holds {value:.6g} (cell {str(cell)!r}); expected totals > 0: drop such cells"
        raise ValueError(msg)
    return totals


def _recover(source: MatrixSource, rule: _Rule, start: int) -> csr_matrix:
    rows = source.read(start, start + _CHUNK_SIZE)
    numbers = np.arange(start, start + rows.shape[0])
    check_values(rows, source, start=start, check="any", consumer="`recover_counts`")
    counts, tolerance = _divide(rows, rule, numbers)
    if _are_wrong(counts, tolerance).any():
        raise ValueError(_inexact(source, rows, rule, numbers=numbers))
    return csr_matrix((np.rint(counts).astype(np.float32), rows.indices, rows.indptr), shape=rows.shape)


def _divide(rows: csr_matrix, rule: _Rule, numbers: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return values over units, not rounded, and how far each may be from an integer."""
    if rule.units is None:
        found = find_units(rows, rule.scale, rule.precision)
        return found.counts, found.tolerance
    return _over(rows, rule.units[numbers], rule)


def _over(rows: csr_matrix, units: np.ndarray, rule: _Rule) -> tuple[np.ndarray, np.ndarray]:
    values = rows.data.astype(np.float64)
    counts = rule.scale.inverse(values) / np.repeat(units, np.diff(rows.indptr))
    return counts, counts * relative_error(values, rule.scale, rule.precision) + 1e-9


def _are_wrong(counts: np.ndarray, tolerance: np.ndarray) -> np.ndarray:
    """Tell which quotients are no integers >= 1, or too large for the stored precision to tell which."""
    is_close = np.abs(counts - np.rint(counts)) <= np.minimum(tolerance, 0.5)
    return ~(is_close & (tolerance < 0.5) & (counts > 0.5))


def _inexact(source: MatrixSource, rows: csr_matrix, rule: _Rule, *, numbers: np.ndarray) -> str:
    """Say which value is farthest from an integer, and what to do."""
    counts, tolerance = _divide(rows, rule, numbers)
    is_wrong = _are_wrong(counts, tolerance)
    if np.isnan(counts).any():  # cells without a unit: show what their smallest value leads to
        counts, _ = _over(rows, row_minima(rows, rule.scale.inverse(rows.data.astype(np.float64))), rule)
    off = np.where(is_wrong, np.abs(counts - np.rint(counts)), 0.0)
    worst = int(off.argmax())
    cell = source.obs_names[numbers[np.searchsorted(rows.indptr, worst, side="right") - 1]]
    gene = source.var.index[rows.indices[worst]]
    return (
        f"raw counts do not come out of `{source.name}` exactly: {rows.data[worst]:.6g} (cell {str(cell)!r}, gene "
        f"{str(gene)!r}) is {counts[worst]:.6g} counts, {off[worst]:.3g} from an integer. {_advice(source, rule)}"
    )


def _advice(source: MatrixSource, rule: _Rule) -> str:
    found = [place for place in count_places(source.adata) if place != source.name]
    if found:
        return f"`{found[0]}` holds raw counts: use {argument_for(found[0])}"
    if rule.units is not None:
        return "Check the totals, or leave `total_key` out; `sclcm.pp.check_counts(adata)` says what the values are"
    return "Start from the raw counts, or pass `total_key` if `obs` has the totals that were used for normalisation"


def _warn_of_few_genes(counts: list[csr_matrix], source: MatrixSource) -> None:
    n_genes = np.concatenate([np.diff(chunk.indptr) for chunk in counts])
    n_cells = int(((n_genes > 0) & (n_genes < _FEW_GENES)).sum())
    if n_cells:
        msg = (
            f"{n_cells:,} cells of `{source.name}` have fewer than {_FEW_GENES} expressed genes; the smallest value of "
            f"each was taken for one count. Pass `total_key` if `obs` has the cells' totals"
        )
        warn_user(msg)
