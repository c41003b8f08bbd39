from __future__ import annotations

import numpy as np
import scanpy as sc
from scipy import sparse

import sclcm


def test_counts_are_those_of_the_log_values_and_totals_to_a_thousandth():
    adata, source = sclcm.datasets.pbmc68k_reduced(), sc.datasets.pbmc68k_reduced()
    assert adata.shape == (700, 765)
    assert sparse.issparse(adata.X)
    exact = np.expm1(source.raw.X.toarray().astype(float)) * source.obs["n_counts"].to_numpy()[:, None] / 1e4
    np.testing.assert_allclose(exact, adata.X.toarray(), rtol=1e-3)
    assert (adata.X.data == np.rint(adata.X.data)).all()


def test_annotation_and_library_totals_are_kept():
    adata = sclcm.datasets.pbmc68k_reduced()
    share = np.asarray(adata.X.sum(axis=1)).ravel() / adata.obs["n_counts"]
    assert 0.1 < share.min() < share.mean() < 0.21
    assert adata.obs["bulk_labels"].nunique() == 10
    assert list(adata.obsm) == ["X_umap_scanpy"]
    assert sclcm.pp.check_counts(adata).kind == "counts"


def test_both_ways_to_recover_the_counts_agree():
    source = sc.datasets.pbmc68k_reduced()
    recovered = sclcm.pp.recover_counts(source, use_raw=True)
    assert (recovered.X != sclcm.datasets.pbmc68k_reduced().X).nnz == 0
