"""`inspect_matrix`: what a matrix holds, told from a deterministic sample of its cells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from pandas.api.types import is_numeric_dtype

from sclcm.data.matrix import as_frame
from sclcm.data.sampling import argument_for, count_places, recoverable_places, recovery_call, sample_rows
from sclcm.data.scale import constant_sum, find_units, precision_of
from sclcm.data.verdicts import close_look, judge

if TYPE_CHECKING:
    from anndata import AnnData
    from scipy.sparse import csr_matrix

    from sclcm.data.matrix import MatrixSource
    from sclcm.data.scale import Scale
    from sclcm.data.verdicts import Kind

TOTAL_COLUMNS = ("n_counts", "total_counts", "nCount_RNA", "n_umi", "n_umis", "nUMI", "total_umis")
"""Columns of `obs` in which tools store the totals of cells."""


@dataclass(frozen=True, kw_only=True)
class CountsReport:
    """What a matrix holds.

    Parameters
    ----------
    source
        The matrix: `.X`, `.layers['counts']`, `.raw.X`.
    kind
        `"counts"`, `"counts_per_n"`, `"log1p_counts_per_n"` (natural log), `"log1p"` (natural log, not of a constant
        total), `"scaled"` (negative values, or unit variance per gene), `"bulk"` (TPM, or totals beyond single cells),
        `"empty"`, or `"other"`, which `problems` describes.
    target_sum
        The total of a cell that counts were normalised to, where that could be told.
    invertible
        Whether raw counts can be recovered exactly, with `sclcm.pp.recover_counts`.
    example
        A value that is not a raw count.
    n_cells, n_sampled
        Cells of the matrix, and how many were read for this report.
    n_empty_cells
        How many of those read have no counts.
    log_base
        `"e"`, `"2"` or `"10"` where values are logarithms of (scaled) counts plus 1.
    raw_counts_in
        Places of the AnnData that hold raw counts.
    recoverable_from
        Where there are no raw counts: places from which `sclcm.pp.recover_counts` gets them exactly.
    problems
        What you should know before you use the matrix, one sentence each.
    """

    source: str
    kind: Kind
    target_sum: float | None = None
    invertible: bool = False
    example: float | None = None
    n_cells: int = 0
    n_sampled: int = 0
    n_empty_cells: int = 0
    log_base: Literal["e", "2", "10"] | None = None
    raw_counts_in: tuple[str, ...] = ()
    recoverable_from: tuple[str, ...] = ()
    problems: tuple[str, ...] = ()

    def __str__(self) -> str:
        """Return a readable paragraph."""
        sentences = [f"`{self.source}` holds {self._what()}."]
        if self.kind not in ("counts", "empty"):
            sentences.append(self._where())
        sentences += [problem[:1].upper() + problem[1:] + "." for problem in self.problems]
        if self.n_sampled < self.n_cells:
            sentences.append(f"Told from {self.n_sampled:,} of {self.n_cells:,} cells.")
        return " ".join(sentences)

    def _what(self) -> str:
        per = "a total that was not recognised" if self.target_sum is None else f"{self.target_sum:,.6g}"
        return {
            "counts": "raw counts",
            "counts_per_n": f"counts per {per}",
            "log1p_counts_per_n": f"log1p of counts per {per}",
            "log1p": "log1p of counts that were not normalised" if self.invertible else "what looks like log1p values",
            "scaled": "scaled values",
            "bulk": "bulk expression",
            "other": "no raw counts",
            "empty": "no counts at all",
        }[self.kind]

    def _where(self) -> str:
        if self.raw_counts_in:
            return " ".join(f"Raw counts are in `{place}`: pass {argument_for(place)}." for place in self.raw_counts_in)
        if self.recoverable_from:
            calls = " or ".join(f"`{recovery_call(place)}`" for place in self.recoverable_from)
            return f"Raw counts can be recovered exactly: {calls}."
        return "No raw counts were found in `.X`, `.layers` or `.raw`, and they cannot be recovered exactly."


def inspect_matrix(source: MatrixSource, *, n_rows: int = 2048) -> CountsReport:
    """Tell what a matrix holds.

    Parameters
    ----------
    source
        The matrix.
    n_rows
        How many cells are read: all where there are no more, else blocks spread evenly over the matrix.

    Returns
    -------
    The report.
    """
    numbers, rows = sample_rows(source, n_rows)
    verdict = judge(rows)
    if verdict.kind in ("counts_per_n", "log1p_counts_per_n") and verdict.target_sum is None:
        verdict = replace(verdict, target_sum=target_from_obs(source.adata, numbers, rows, scale=verdict.scale))
    counts_in = count_places(source.adata)
    return CountsReport(
        source=source.name,
        kind=verdict.kind,
        target_sum=verdict.target_sum,
        invertible=verdict.invertible,
        example=_example(rows.data),
        n_cells=source.shape[0],
        n_sampled=rows.shape[0],
        n_empty_cells=int((np.diff(rows.indptr) == 0).sum()),
        log_base=verdict.log_base,
        raw_counts_in=counts_in,
        recoverable_from=() if counts_in else recoverable_places(source.adata),
        problems=verdict.problems + _problems(source, rows),
    )


def target_from_obs(adata: AnnData, numbers: np.ndarray, rows: csr_matrix, *, scale: Scale) -> float | None:
    """Tell the N of a part of the genes, from a column of `obs` with the cells' totals over all genes."""
    chosen = close_look(rows)
    units = find_units(rows[chosen], scale, precision_of(rows.data.astype(np.float64))).units
    obs = as_frame(adata.obs)
    for column in (name for name in TOTAL_COLUMNS if name in obs and is_numeric_dtype(obs[name])):
        target = constant_sum(units * obs[column].to_numpy(dtype=np.float64)[numbers[chosen]])
        if target is not None:
            return target
    return None


def _example(values: np.ndarray) -> float | None:
    with np.errstate(invalid="ignore"):
        wrong = np.flatnonzero((values != np.rint(values)) | (values < 0) | ~np.isfinite(values))
    return float(values[wrong[0]]) if wrong.size else None


def _problems(source: MatrixSource, rows: csr_matrix) -> tuple[str, ...]:
    n_empty = int((np.diff(rows.indptr) == 0).sum())
    found = [f"no {what}" for n, what in zip(source.shape, ("cells", "genes"), strict=True) if n == 0]
    if n_empty:
        found.append(f"{n_empty:,} of the {rows.shape[0]:,} cells read have no counts")
    for names, what in ((source.obs_names, "cells"), (source.var.index, "genes")):
        repeated = names[names.duplicated()].unique()
        if len(repeated):
            found.append(f"{len(repeated):,} names of {what} occur more than once, such as {str(repeated[0])!r}")
    return tuple(found)
