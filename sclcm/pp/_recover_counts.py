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

    A cell's normalised values are integer multiples of one unit: its smallest value, if that is one count, or a simple
    fraction of it; or N divided by the cell's total, if `total_key` names the totals. Every result is checked to be an
    integer within the precision with which the value was stored.

    Parameters
    ----------
    adata
        Cells x genes; it is not changed.
    layer
        Name of a layer; `None` reads `.X`.
    use_raw
        Read `.raw.X`; the result then has the genes of `.raw.var`.
    total_key
        Column of `obs` with the total by which each cell was normalised, over all genes measured at that time. `None`
        uses a well-known column, such as `n_counts`, if it turns all values into integers, and otherwise the smallest
        value of each cell, which is uncertain for cells with few genes (there is a warning).

    Returns
    -------
    A new AnnData with raw counts in `.X` (CSR, float32) and copies of `obs`, `var` and `obsm`.

    Raises
    ------
    ValueError
        Raw counts cannot be recovered exactly; the message names the value that is farthest from an integer.
    KeyError
        There is no such layer or column.

    Examples
    --------
    >>> import scanpy as sc
    >>> import sclcm
    >>> counts = sclcm.pp.recover_counts(sc.datasets.pbmc68k_reduced(), use_raw=True, total_key="n_counts")
    >>> counts.X.max()
    np.float32(259.0)
    """
    return recover(choose_matrix(adata, layer=layer, use_raw=use_raw), total_key=total_key)
