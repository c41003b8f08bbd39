"""`recover_counts`: raw counts out of counts per N or their logarithm, exactly or not at all."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sclcm.data.matrix import choose_matrix
from sclcm.data.recovery import recover

if TYPE_CHECKING:
    from anndata import AnnData


def recover_counts(
    adata: AnnData, *, layer: str | None = None, use_raw: bool = False, total_key: str | None = None
) -> AnnData:
    """Recover raw counts from counts per N or their logarithm, exactly or not at all.

    A cell's values are integer multiples of one unit: its smallest value if that is one count, else a simple fraction
    of it; or N over the cell's total where `total_key` names the totals. Every value is checked to be an integer
    within the precision it was stored with.

    Parameters
    ----------
    adata
        Cells x genes; it is not changed.
    layer
        Name of a layer; `None` reads `.X`.
    use_raw
        Read `.raw.X`; the result then has the genes of `.raw.var`.
    total_key
        Column of `obs` with the total that each cell was normalised by, over all genes measured then. `None` uses a
        column of well-known name, such as `n_counts`, if it makes integers of all values; else the smallest value of
        each cell tells, which leaves cells with few genes uncertain (there is a warning).

    Returns
    -------
    A new AnnData with raw counts in `.X` (CSR, float32) and copies of `obs`, `var` and `obsm`.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sclcm
    >>> counts = sclcm.pp.recover_counts(sc.datasets.pbmc68k_reduced(), use_raw=True, total_key="n_counts")
    >>> counts.X.max()
    np.float32(259.0)
    """
    return recover(choose_matrix(adata, layer=layer, use_raw=use_raw), total_key=total_key)
