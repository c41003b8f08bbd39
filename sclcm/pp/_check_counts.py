"""`check_counts`: what the values of an AnnData are, and where its raw counts are."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sclcm.data.counts import inspect_matrix
from sclcm.data.matrix import open_matrix

if TYPE_CHECKING:
    from anndata import AnnData

    from sclcm.data.counts import CountsReport


def check_counts(adata: AnnData, layer: str | None = None, *, use_raw: bool = False) -> CountsReport:
    """Tell what a matrix holds: raw counts, counts per N, their log1p, scaled values, bulk expression or other values.

    At most 2,048 cells are read, spread evenly over the data; nothing is written.

    Parameters
    ----------
    adata
        Cells x genes, in memory or backed.
    layer
        Name of a layer; `None` reads `.X`.
    use_raw
        Read `.raw.X`.

    Returns
    -------
    A report with the fields `kind`, `target_sum` (the N), `invertible` (whether raw counts can be recovered exactly),
    `raw_counts_in` (where raw counts are), `problems` and others. Printing it gives a readable paragraph.

    Raises
    ------
    KeyError
        There is no such layer.
    ValueError
        The chosen matrix is missing.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sclcm
    >>> report = sclcm.pp.check_counts(sc.datasets.pbmc68k_reduced(), use_raw=True)
    >>> report.kind, report.target_sum, report.invertible
    ('log1p_counts_per_n', 10000.0, True)
    """
    return inspect_matrix(open_matrix(adata, layer=layer, use_raw=use_raw))
