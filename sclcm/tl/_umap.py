"""UMAP of an embedding."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from scipy.sparse import issparse

from sclcm._compat import recorded_versions
from sclcm._keys import UmapKeys, umap_keys
from sclcm.encoding.draws import check_random_state
from sclcm.tl._write import check_copy

if TYPE_CHECKING:
    from anndata import AnnData

logger = logging.getLogger("sclcm")

_FEWEST_CELLS = 4


def umap(
    adata: AnnData,
    key: str = "X_sclcm_mini",
    *,
    n_neighbors: int = 15,
    metric: Literal["euclidean", "cosine"] = "euclidean",
    min_dist: float = 0.5,
    random_state: int = 0,
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Compute a UMAP of an embedding.

    Calls :func:`scanpy.pp.neighbors` and :func:`scanpy.tl.umap`. Each embedding has its own slots for both results.

    Parameters
    ----------
    adata
        Annotated data with an embedding, for example from :func:`sclcm.tl.embed`.
    key
        Name of the embedding in `adata.obsm`.
    n_neighbors
        Number of neighbours of each cell in the graph, at most the number of cells minus one.
    metric
        Distance between cells.
    min_dist
        How close together points may be.
    random_state
        Seed of the layout.
    key_added
        Name under which the results are stored, in place of the default names below.
    copy
        Return a changed copy and leave `adata` as it is.

    Returns
    -------
    `None`, or the changed copy if `copy=True`. `<base>` stands for the name of the embedding without `X_`. Writes:

    `adata.obsm['X_umap_<base>' | key_added]` : array `(n_obs, 2)`, float32
        The layout.
    `adata.uns['X_umap_<base>' | key_added]` : dict
        Parameters and versions.
    `adata.obsp['<base>_neighbors_distances' | '<key_added>_neighbors_distances']` : csr
        Distances to the neighbours.
    `adata.obsp['<base>_neighbors_connectivities' | '<key_added>_neighbors_connectivities']` : csr
        The graph; use it with `neighbors_key='<base>_neighbors'`, for example in :func:`scanpy.tl.leiden`.
    `adata.uns['<base>_neighbors' | '<key_added>_neighbors']` : dict
        What scanpy records about the graph.

    Raises
    ------
    KeyError
        There is no such embedding.
    ValueError
        There are fewer than four cells, or the embedding is not finite.
    """
    check_copy(adata, copy=copy)
    embedding = _finite_embedding(adata, key)
    keys = umap_keys(key, key_added)
    _check_numbers(n_neighbors, min_dist)
    check_random_state(random_state)
    if metric not in ("euclidean", "cosine"):
        msg = f"`metric` is {metric!r}; expected 'euclidean' or 'cosine'."
        raise ValueError(msg)
    if copy:
        adata = adata.copy()
    n_neighbors = min(n_neighbors, adata.n_obs - 1)
    params = {
        "key": key,
        "n_neighbors": n_neighbors,
        "metric": metric,
        "min_dist": min_dist,
        "random_state": random_state,
    }
    _write(adata, _laid_out(embedding, keys, params), keys)
    noted = params | {"neighbors_key": keys.neighbors}
    adata.uns[keys.uns] = {"params": noted, "versions": recorded_versions()}
    logger.info("The UMAP of `.obsm[%r]` is in `.obsm[%r]`. Next: `sclcm.pl.umap(adata, %r)`", key, keys.obsm, key)
    return adata if copy else None


def _check_numbers(n_neighbors: int, min_dist: float) -> None:
    """Refuse what no graph or layout can be made with."""
    if isinstance(n_neighbors, bool) or not isinstance(n_neighbors, int | np.integer) or n_neighbors < 2:
        msg = f"`n_neighbors` is {n_neighbors!r}; expected a number of cells, 2 or more."
        raise ValueError(msg)
    if isinstance(min_dist, bool) or not isinstance(min_dist, float | int | np.number) or not 0 <= min_dist <= 1:
        msg = f"`min_dist` is {min_dist!r}; expected a distance between 0 and 1."
        raise ValueError(msg)


def _finite_embedding(adata: AnnData, key: str) -> np.ndarray:
    if key not in adata.obsm:
        msg = (
            f"`.obsm` holds no {key!r}, only {sorted(adata.obsm)}. Call `sclcm.tl.embed(adata)`, or pass another `key`."
        )
        raise KeyError(msg)
    embedding = adata.obsm[key].toarray() if issparse(adata.obsm[key]) else np.asarray(adata.obsm[key])
    require_cells(adata.n_obs)
    bad = np.flatnonzero(~np.isfinite(embedding).all(axis=1))
    if bad.size:
        msg = (
            f"`.obsm[{key!r}]` is not finite for {bad.size} of {adata.n_obs} cells, first {adata.obs_names[bad[0]]!r}; "
            "take those cells out first."
        )
        raise ValueError(msg)
    return embedding


def require_cells(n_cells: int) -> None:
    """Refuse fewer cells than a UMAP needs."""
    if n_cells < _FEWEST_CELLS:
        msg = f"A UMAP needs at least {_FEWEST_CELLS} cells, but `adata` has {n_cells}."
        raise ValueError(msg)


def _laid_out(embedding: np.ndarray, keys: UmapKeys, params: dict[str, Any]) -> AnnData:
    """Build graph and layout beside the user's object, so that a call that fails leaves it as it was."""
    import scanpy as sc
    from anndata import AnnData

    scratch = AnnData(obsm={params["key"]: embedding}, shape=(len(embedding), 0))
    sc.pp.neighbors(
        scratch,
        n_neighbors=params["n_neighbors"],
        use_rep=params["key"],
        metric=params["metric"],
        random_state=params["random_state"],
        key_added=keys.neighbors,
    )
    sc.tl.umap(
        scratch,
        min_dist=params["min_dist"],
        random_state=params["random_state"],
        neighbors_key=keys.neighbors,
        key_added=keys.obsm,
    )
    return scratch


def _write(adata: AnnData, scratch: AnnData, keys: UmapKeys) -> None:
    if adata.is_view:
        adata._init_as_actual(adata.copy())
    adata.uns[keys.neighbors] = scratch.uns[keys.neighbors]
    for name in ("distances_key", "connectivities_key"):
        slot = scratch.uns[keys.neighbors][name]
        adata.obsp[slot] = scratch.obsp[slot]
    adata.obsm[keys.obsm] = scratch.obsm[keys.obsm].astype(np.float32)
