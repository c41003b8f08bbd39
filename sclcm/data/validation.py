"""Refuse values that cannot be counts, and say where counts are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np

from sclcm.data.sampling import argument_for, count_places, recoverable_places, recovery_call

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

    from sclcm.data.matrix import MatrixSource

Check = Literal["counts", "any"]


def check_values(
    rows: csr_matrix, source: MatrixSource, *, start: int, check: Check = "counts", consumer: str = "This call"
) -> None:
    """Raise unless every stored value is finite and not negative, and for `"counts"` an integer.

    Parameters
    ----------
    rows
        Rows of the source, canonical CSR.
    source
        Where they come from; messages name it and, where they can, the place that does hold counts.
    start
        Row number of the first of them.
    check
        `"counts"` or `"any"`.
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
        f"`{source.name}` holds {value:.6g} (cell {str(cell)!r}, gene {str(gene)!r}), {wrong}. {consumer} needs "
        f"{'raw counts' if check == 'counts' else 'values that are finite and not negative'}; {_remedy(source, value)}"
    )
    raise ValueError(msg)


def _first_wrong(values: np.ndarray, check: Check) -> tuple[int | None, str]:
    if not values.size:
        return None, ""
    low, high = values.min(), values.max()
    if not (np.isfinite(low) and np.isfinite(high)):
        return int(np.flatnonzero(~np.isfinite(values))[0]), "which is no number to compute with"
    if low < 0:
        return int(np.flatnonzero(values < 0)[0]), "which is negative"
    if check == "any":
        return None, ""
    fractional = values != np.rint(values)
    if not fractional.any():
        return None, ""
    return int(np.flatnonzero(fractional)[0]), "not a raw count"


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
