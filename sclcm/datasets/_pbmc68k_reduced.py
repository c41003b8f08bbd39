"""`pbmc68k_reduced`: scanpy's bundled blood cells, with their raw counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sclcm.data.matrix import choose_matrix
from sclcm.data.recovery import recover

if TYPE_CHECKING:
    from anndata import AnnData


def pbmc68k_reduced() -> AnnData:
    """Load 700 blood cells x 765 genes with raw counts; offline, from the file that scanpy bundles.

    The counts are recovered from its log-normalised `.raw` and the cells' totals, and checked to be integers. The genes
    are a panel with about a fifth of each library; `obs["n_counts"]` holds the total of the whole library.

    Returns
    -------
    An AnnData with raw counts in `.X` (CSR, float32), the annotation of Zheng et al. (2017) in `.obs["bulk_labels"]`,
    the original's UMAP in `.obsm["X_umap_scanpy"]`.

    Examples
    --------
    >>> import sclcm
    >>> adata = sclcm.datasets.pbmc68k_reduced()
    >>> adata.shape
    (700, 765)
    """
    import scanpy as sc

    adata = recover(choose_matrix(sc.datasets.pbmc68k_reduced(), use_raw=True), total_key="n_counts")
    umap = adata.obsm.pop("X_umap")
    adata.obsm.clear()
    adata.obsm["X_umap_scanpy"] = umap
    return adata
