from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import scanpy as sc
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from sclcm.pp._recover_counts import recover_counts


def some_counts(seed: int, *, n_cells: int = 40, n_genes: int = 80, depth: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    counts = rng.poisson(rng.gamma(0.5, 2 * depth, (n_cells, n_genes)))
    counts[:, 0] = np.arange(n_cells) % 3 + 1  # no empty cell
    return counts


def table(n_cells: int, **columns: object) -> pd.DataFrame:
    return pd.DataFrame(columns, index=[str(i) for i in range(n_cells)])


def normalised(counts: np.ndarray, total: float) -> np.ndarray:
    return counts / counts.sum(axis=1, keepdims=True) * total


def assert_recovers(counts: np.ndarray, values: np.ndarray | sparse.spmatrix, **options: object) -> None:
    obs = pd.DataFrame({"total": counts.sum(axis=1)}, index=[f"c{i}" for i in range(len(counts))])
    recovered = recover_counts(ad.AnnData(values, obs=obs), **options).X
    assert type(recovered) is sparse.csr_matrix
    assert recovered.dtype == np.float32
    np.testing.assert_array_equal(recovered.toarray(), counts)


@given(
    seed=st.integers(0, 99),
    total=st.sampled_from([1.0, 1e3, 1e4, 2183.0, 1e6]),
    use_log=st.booleans(),
    dtype=st.sampled_from([np.float32, np.float64]),
)
@settings(deadline=None, max_examples=25)
def test_counts_come_back_exactly(seed, total, use_log, dtype):
    counts = some_counts(seed)
    values = normalised(counts, total).astype(dtype)
    assert_recovers(counts, sparse.csr_matrix(np.log1p(values) if use_log else values))


@pytest.mark.parametrize(
    "forward",
    [
        lambda c: c,
        np.log1p,
        lambda c: np.log2(normalised(c, 1e4) + 1),
        lambda c: np.log10(normalised(c, 1e4) + 1),
        np.sqrt,
        lambda c: np.expm1(np.log1p(c.astype(np.float32))),
        lambda c: np.log1p(c / np.linspace(0.5, 2, len(c))[:, None]),
    ],
    ids=["counts", "log1p", "log2", "log10", "square root", "rounding noise", "size factors"],
)
def test_other_scales_are_undone_too(forward):
    assert_recovers(some_counts(1), forward(some_counts(1)))


def test_cells_without_single_counts_are_recovered():
    counts = some_counts(2)
    counts[::2][counts[::2] == 1] = 2
    counts[::2, 0] = 3
    assert_recovers(counts, np.log1p(normalised(counts, 1e4)).astype(np.float32))


def test_totals_settle_what_the_smallest_value_cannot():
    counts = some_counts(3)
    counts[5] *= 4
    values = np.log1p(normalised(counts, 1e4)).astype(np.float32)
    assert_recovers(counts, values, total_key="total")
    with pytest.raises(AssertionError):
        assert_recovers(counts, values)


def test_a_panel_needs_the_totals_of_the_library_or_none():
    counts = some_counts(4)
    adata = ad.AnnData(np.log1p(normalised(counts, 1e4))[:, :40], obs=table(40, n_counts=counts.sum(axis=1)))
    adata.obs["n_panel"] = counts[:, :40].sum(axis=1)
    for key in (None, "n_counts"):
        np.testing.assert_array_equal(recover_counts(adata, total_key=key).X.toarray(), counts[:, :40])
    with pytest.raises(ValueError, match=r"totals in `obs\['n_panel'\]` give no integers for any N"):
        recover_counts(adata, total_key="n_panel")
    del adata.obs["n_counts"]
    np.testing.assert_array_equal(recover_counts(adata).X.toarray(), counts[:, :40])


def test_a_column_of_totals_is_used_where_it_fits_and_passed_over_where_not():
    counts = some_counts(3)
    counts[5] *= 4
    adata = ad.AnnData(np.log1p(normalised(counts, 1e4)), obs=table(40, n_counts=1, total_counts=counts.sum(axis=1)))
    np.testing.assert_array_equal(recover_counts(adata).X.toarray(), counts)


def test_empty_cells_stay_empty():
    counts = some_counts(5)
    values = np.log1p(normalised(counts, 1e4))
    counts[7], values[7] = 0, 0
    assert_recovers(counts, values)


def test_a_result_that_is_not_exact_is_refused_with_the_worst_value():
    values = np.random.default_rng(0).gamma(0.5, 2, (30, 60))
    adata = ad.AnnData(np.log1p(normalised(values, 1e4)))
    with pytest.raises(
        ValueError, match=r"do not come out of `.X` exactly: .* counts, 0.\d+ from an integer. Start from"
    ):
        recover_counts(adata)
    adata.layers["counts"] = some_counts(0, n_cells=30, n_genes=60)
    with pytest.raises(ValueError, match=r"`.layers\['counts'\]` holds raw counts: use `layer='counts'`"):
        recover_counts(adata)


def test_one_wrong_value_beyond_the_sample_is_found(monkeypatch):
    monkeypatch.setattr("sclcm.data.recovery._SAMPLE", 16)
    values = np.log1p(normalised(some_counts(6, n_cells=200), 1e4))
    gene = int(np.flatnonzero(values[198])[1])
    values[198, gene] += 0.05
    with pytest.raises(ValueError, match=rf"cell '198', gene '{gene}'"):
        recover_counts(ad.AnnData(values))
    counts = some_counts(6, n_cells=200).astype(float)
    counts[198, gene] = 2.97
    with pytest.raises(ValueError, match=r"2.97 .* is 2.97 counts, 0.03 from an integer"):
        recover_counts(ad.AnnData(counts))
    values[198, gene] = -1
    with pytest.raises(ValueError, match=rf"`.X` holds -1 \(cell '198', gene '{gene}'\), which is negative"):
        recover_counts(ad.AnnData(values))


def test_totals_are_checked():
    counts = some_counts(7)
    adata = ad.AnnData(np.log1p(normalised(counts, 1e4)), obs=table(40, n=counts.sum(axis=1), donor="d"))
    with pytest.raises(KeyError, match=r"`obs` has no column 'total'; its columns are \['n', 'donor'\]"):
        recover_counts(adata, total_key="total")
    with pytest.raises(TypeError, match=r"`obs\['donor'\]` holds"):
        recover_counts(adata, total_key="donor")
    adata.obs["n"] = 0
    with pytest.raises(ValueError, match=r"`obs\['n'\]` holds 0 \(cell '0'\); expected totals > 0"):
        recover_counts(adata, total_key="n")


def test_cells_with_few_genes_bring_a_warning():
    counts = some_counts(8)
    counts[3, 1:] = 0
    adata = ad.AnnData(np.log1p(normalised(counts, 1e4)), obs=table(40, n=counts.sum(axis=1)))
    with pytest.warns(UserWarning, match="1 cells of `.X` have fewer than 5 expressed genes"):
        recover_counts(adata)
    recover_counts(adata, total_key="n")


def test_obs_var_and_obsm_are_copied_and_the_original_stays():
    adata = sc.datasets.pbmc68k_reduced()
    before = adata.raw.X.copy()
    recovered = recover_counts(adata, use_raw=True)
    assert recovered.X.max() == 259
    pd.testing.assert_frame_equal(recovered.obs, adata.obs)
    assert list(recovered.var_names) == list(adata.raw.var_names)
    recovered.obs["louvain"] = "x"
    recovered.obsm["X_umap"][:] = 0
    assert adata.obs["louvain"].nunique() > 1
    assert np.abs(adata.obsm["X_umap"]).sum() > 0
    assert (before != adata.raw.X).nnz == 0


def test_infinite_values_are_named_without_further_warnings():
    x = np.random.default_rng(0).random((20, 30)) + 0.1
    x[3, 4] = np.inf
    with pytest.raises(ValueError, match=r"holds inf \(cell '3', gene '4'\), which is no number to compute with"):
        recover_counts(ad.AnnData(x, obs=table(20)))


def test_column_of_totals_that_is_not_there_is_named_even_where_counts_are():
    with pytest.raises(KeyError, match="`obs` has no column 'depth'"):
        recover_counts(ad.AnnData(np.ones((3, 4)), obs=table(3)), total_key="depth")
