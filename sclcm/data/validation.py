"""Refuse values that cannot be counts, and say where counts are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from sclcm.data.sampling import argument_for, count_places, recoverable_places, recovery_call, sample_rows
from sclcm.data.verdicts import are_counts

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from sclcm.data.matrix import MatrixSource

Check = Literal["counts", "log1p", "any"]

_HIGHEST_LOG1P = 9.211
"""Just above log1p of 10,000."""

_HIGHEST = 1e30
"""What is larger would leave float32 once it is summed, or scaled to a common total."""

_UNITS = {
    "counts": "raw counts",
    "log1p": "log1p of counts per 10,000",
    "any": "values that are finite and not negative",
}


def check_values(
    rows: csr_matrix, source: MatrixSource, *, start: int, check: Check = "counts", consumer: str = "This call"
) -> None:
    """Raise unless every stored value is finite and not negative, for `"counts"` an integer, for `"log1p"` small.

    Parameters
    ----------
    rows
        Rows of the source, canonical CSR.
    source
        Where they come from; messages name it and, where they can, the place that does hold counts.
    start
        Row number of the first of them.
    check
        `"counts"`, `"log1p"` (log1p of counts per 10,000) or `"any"`.
    consumer
        Who needs the counts, as messages name it.
    """
    position, wrong = _first_wrong(rows.data, check)
    if position is None:
        return
    value = float(rows.data[position])
    row = int(np.searchsorted(rows.indptr, position, side="right")) - 1
    cell, gene = source.obs_names[start + row], source.var.index[rows.indices[position]]
    msg = (
        f"`{source.name}` holds {_shown(value)} (cell {str(cell)!r}, gene {str(gene)!r}), {wrong}. {consumer} needs "
        f"{_UNITS[check]}; {LOG1P_REMEDY if check == 'log1p' and value > 0 else _remedy(source, value)}"
    )
    raise ValueError(msg)


def _shown(value: float) -> str:
    """Write a number in six digits, or in as many as tell it from a whole number."""
    short = f"{value:.6g}"
    return short if not np.isfinite(value) or value == np.rint(value) or float(short) != np.rint(value) else repr(value)


LOG1P_REMEDY = "of raw counts, `sc.pp.normalize_total(adata, target_sum=1e4)` and `sc.pp.log1p(adata)` make them"


def refuse_counts(source: MatrixSource, *, consumer: str, instead: str) -> None:
    """Raise if a matrix holds raw counts, where logarithms are to be read.

    Parameters
    ----------
    source
        The matrix, of which a sample is looked at.
    consumer
        Who reads it, as messages name it.
    instead
        What to do, as messages say it.
    """
    _, rows = sample_rows(source, 256)
    if are_counts(rows.data):
        msg = f"`{source.name}` holds raw counts, but {consumer} reads log1p of counts per 10,000 here; {instead}."
        raise ValueError(msg)


def _first_wrong(values: np.ndarray, check: Check) -> tuple[int | None, str]:
    if not values.size:
        return None, ""
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        return int(np.flatnonzero(~np.isfinite(values))[0]), "which is no number to compute with"
    if low < 0:
        return int(np.flatnonzero(values < 0)[0]), "which is negative"
    if high > _HIGHEST:
        return int(values.argmax()), "too large to compute with"
    wrong, what = np.zeros(0, dtype=bool), ""
    if check == "log1p" and high > _HIGHEST_LOG1P:
        wrong, what = values > _HIGHEST_LOG1P, "more than log1p of 10,000"
    elif check == "counts":
        wrong, what = values != np.rint(values), "not a raw count"
    return (int(wrong.argmax()), what) if wrong.any() else (None, "")


def _remedy(source: MatrixSource, value: float) -> str:
    if not np.isfinite(value):
        return "find where it came from, and drop those cells or genes"
    found = [place for place in count_places(source.adata) if place != source.name]
    if found:
        return "; ".join(f"`{place}` holds them: pass {argument_for(place)}" for place in found)
    recoverable = recoverable_places(source.adata)
    if recoverable:
        return f"they can be recovered exactly: `{recovery_call(recoverable[0])}`"
    return "neither `.X`, `.layers` nor `.raw` holds any; `sclcm.pp.check_counts(adata)` says what is there"
