from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from scipy import sparse

from sclcm.pp._check_counts import check_counts


@pytest.fixture
def adata() -> ad.AnnData:
    counts = np.random.default_rng(3).poisson(0.8, (90, 60))
    logs = np.log1p(counts / np.maximum(counts.sum(axis=1, keepdims=True), 1) * 1e4).astype(np.float32)
    return ad.AnnData(sparse.csr_matrix(logs), layers={"counts": sparse.csr_matrix(counts)})


def test_it_names_the_layers_and_raw_that_hold_counts(adata):
    adata.raw = ad.AnnData(adata.layers["counts"], obs=adata.obs)
    report = check_counts(adata)
    assert (report.source, report.kind, report.target_sum) == (".X", "log1p_counts_per_n", 1e4)
    assert report.raw_counts_in == (".layers['counts']", ".raw.X")
    assert report.example == pytest.approx(float(adata.X.data[0]))
    assert "Raw counts are in `.layers['counts']`: pass `layer='counts'`." in str(report)
    assert str(report).startswith("`.X` holds log1p of counts per 10,000.")
    assert check_counts(adata, "counts").kind == check_counts(adata, use_raw=True).kind == "counts"


def test_it_says_where_counts_can_be_recovered_from(adata):
    del adata.layers["counts"]
    adata.raw = adata
    adata.X = adata.X.toarray() - np.asarray(adata.X.mean(axis=0))
    report = check_counts(adata)
    assert (report.kind, report.invertible, report.raw_counts_in) == ("scaled", False, ())
    assert report.recoverable_from == (".raw.X",)
    assert "`sclcm.pp.recover_counts(adata, use_raw=True)`" in str(report)
    assert check_counts(adata, use_raw=True).invertible
    adata.raw = None
    assert "cannot be recovered" in str(check_counts(adata))


def test_scanpys_panel_has_the_n_of_its_library():
    adata = sc.datasets.pbmc68k_reduced()
    report = check_counts(adata, use_raw=True)
    assert (report.kind, report.target_sum, report.invertible) == ("log1p_counts_per_n", 1e4, True)
    adata.obs = adata.obs.rename(columns={"n_counts": "unusual"})
    assert check_counts(adata, use_raw=True).target_sum is None
    assert check_counts(adata).kind == "scaled"


def test_it_reads_a_sample_of_many_cells_and_says_so():
    counts = sparse.random(5000, 30, density=0.3, format="csr", random_state=0)
    counts.data = np.ceil(counts.data * 5)
    report = check_counts(ad.AnnData(counts))
    assert (report.kind, report.n_sampled, report.n_cells) == ("counts", 2048, 5000)
    assert "2,048 of 5,000 cells" in str(report)
    assert check_counts(ad.AnnData(counts)) == report


def test_problems_are_told_beside_the_kind():
    counts = np.random.default_rng(0).poisson(2, (20, 9))
    counts[:2] = 0
    adata = ad.AnnData(counts, obs=pd.DataFrame(index=["a", *map(str, range(19))]))
    adata.var_names = [*"abcdefgg", "h"]
    report = check_counts(adata)
    assert (report.kind, report.n_empty_cells) == ("counts", 2)
    assert report.problems[0].startswith("2 of the 20 cells read have no counts")
    assert report.problems[1] == "1 names of genes occur more than once, such as 'g'"


@pytest.mark.parametrize(("shape", "problem"), [((0, 5), "no cells"), ((5, 0), "no genes")])
def test_a_matrix_without_cells_or_genes_is_empty(shape, problem):
    report = check_counts(ad.AnnData(np.zeros(shape)))
    assert report.kind == "empty"
    assert problem in report.problems
    assert str(report).startswith("`.X` holds no counts at all.")


def test_backed_and_lazy_data_are_checked_without_being_loaded(adata, tmp_path):
    adata.write_h5ad(tmp_path / "cells.h5ad")
    backed = ad.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    assert check_counts(backed) == check_counts(adata)
    assert backed.isbacked
    backed.file.close()


def test_checking_changes_nothing(adata):
    before = adata.copy()
    check_counts(adata)
    check_counts(adata[::2], "counts")
    assert (adata.X != before.X).nnz == 0
    assert repr(adata) == repr(before)
