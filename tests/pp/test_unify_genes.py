"""`pp.unify_genes`: one column per gene, in every storage format, with an honest report."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse

from sclcm.genes.names import resolve
from sclcm.pp import unify_genes
from sclcm.pp._columns import make_plan

NAMES = ["SEPT2", "CD3E", "1-Mar", "SEPTIN2", "QARS1"]
COUNTS = np.array([[1, 2, 10, 3, 0], [0, 5, 0, 4, 1], [0, 0, 0, 0, 0]])

FORMATS = {
    "dense": lambda x: x.astype(np.float32),
    "fortran": lambda x: np.asfortranarray(x, dtype=np.float64),
    "csr": lambda x: sparse.csr_matrix(x, dtype=np.float32),
    "csc": lambda x: sparse.csc_matrix(x, dtype=np.float32),
    "csr array": lambda x: sparse.csr_array(x, dtype=np.float32),
    "csc array": lambda x: sparse.csc_array(x, dtype=np.float64),
    "int64": lambda x: sparse.csr_matrix(x, dtype=np.int64),
    "uint8": lambda x: x.astype(np.uint8),
}


def make(x=None, names=NAMES, **slots):
    x = COUNTS if x is None else x
    obs = pd.DataFrame(index=[f"cell{i}" for i in range(x.shape[0])])
    return ad.AnnData(x, obs=obs, var=pd.DataFrame(index=pd.Index(names, dtype=object)), **slots)


def dense(x):
    return x.toarray() if sparse.issparse(x) else np.asarray(x)


@pytest.mark.parametrize("form", FORMATS)
def test_counts_are_summed_in_every_format(form):
    x = FORMATS[form](COUNTS)
    unified = unify_genes(make(x, layers={"counts": x.copy()}), to="symbol")
    assert unified.var_names.tolist() == ["SEPTIN2", "CD3E", "QARS1"]
    for matrix in (unified.X, unified.layers["counts"]):
        assert dense(matrix).tolist() == [[4, 2, 0], [4, 5, 1], [0, 0, 0]]
        assert sparse.issparse(matrix) == sparse.issparse(x)
        assert isinstance(matrix, sparse.sparray) == isinstance(x, sparse.sparray)
        assert getattr(matrix, "format", None) == getattr(x, "format", None)
    assert unified.X.dtype == (np.int32 if form == "uint8" else x.dtype)


def test_small_integers_do_not_overflow():
    unified = unify_genes(make(np.array([[200, 0, 0, 100, 0]], dtype=np.uint8)), to="symbol")
    assert unified.X[0, 0] == 300


def test_ensembl_ids_are_the_default():
    unified = unify_genes(make())
    assert unified.var_names.tolist() == ["ENSG00000168385", "ENSG00000198851", "ENSG00000172053"]


def test_input_is_untouched_views_included():
    adata = make(sparse.csr_matrix(COUNTS, dtype=np.float32), obsm={"X_pca": np.ones((3, 2))}, uns={"a": {"b": [1]}})
    view = adata[[1, 0], [3, 0, 1]]
    unified = unify_genes(view, to="symbol")
    assert view.is_view
    assert dense(unified.X).tolist() == [[4, 5], [4, 2]]
    unified.X.data[:] = 9
    unified.obsm["X_pca"][:] = 9
    unified.uns["a"]["b"].append(2)
    assert dense(adata.X).tolist() == COUNTS.tolist()
    assert adata.var_names.tolist() == NAMES
    assert (adata.obsm["X_pca"] == 1).all()
    assert adata.uns == {"a": {"b": [1]}}


def test_renaming_alone_shares_no_memory_with_the_input():
    adata = make(COUNTS[:, 1:].astype(np.float32), NAMES[1:])
    unified = unify_genes(adata, to="symbol")
    unified.X[:] = 9
    assert adata.X.tolist() == COUNTS[:, 1:].tolist()


def test_report_says_what_happened(tmp_path):
    names = ["SEPT2", "CD3E", "1-Mar", "SEPTIN2", "SELL", "CD62L"]
    x = np.array([[1, 2, 4, 3, 0, 0], [1, 1, 0, 0, 1, 1]], dtype=np.float32)
    unified = unify_genes(make(x, names), to="symbol")
    unified.write_h5ad(tmp_path / "unified.h5ad")
    stored = ad.read_h5ad(tmp_path / "unified.h5ad")
    for report in (unified.uns["unify_genes"], stored.uns["unify_genes"]):
        assert dict(zip(report["renamed"]["from"], report["renamed"]["to"], strict=True)) == {"SEPT2": "SEPTIN2"}
        assert list(report["merged"]["from"]) == ["SEPT2", "SEPTIN2"]
        assert list(report["ambiguous"]) == ["CD62L"]
        assert list(report["unknown"]) == ["1-Mar"]
        assert list(report["dropped"]) == ["1-Mar", "CD62L"]
        assert report["counts_lost"] == pytest.approx(5 / 14)
        assert report["counts_lost_worst_cell"] == pytest.approx(0.4)
        assert (report["n_var_before"], report["n_var_after"], report["n_mapped"]) == (6, 3, 4)
        assert report["params"]["species"] == "human"
        assert report["tables"]["human"]
    assert stored.var["original_name"].tolist() == ["SEPT2|SEPTIN2", "CD3E", "SELL"]
    assert dense(stored.X).tolist() == [[4, 2, 0], [1, 1, 1]]


def test_unmapped_columns_can_be_kept():
    names = ["SEPT2", "1-Mar", "SEPTIN2", "1-Mar", "CD62L", "SELL"]
    with pytest.warns(UserWarning, match="Variable names are not unique"):
        adata = make(np.arange(6, dtype=np.float32)[None], names)
    unified = unify_genes(adata, to="symbol", unmapped="keep")
    assert unified.var_names.tolist() == ["SEPTIN2", "1-Mar", "1-Mar-1", "CD62L", "SELL"]
    assert unified.X.tolist() == [[2, 1, 3, 4, 5]]
    assert unified.uns["unify_genes"]["counts_lost"] == 0
    assert list(unified.uns["unify_genes"]["dropped"]) == []


@pytest.mark.parametrize("form", ["dense", "csr"])
def test_values_that_are_no_counts_are_not_summed(form):
    logged = FORMATS[form](np.log1p(COUNTS))
    with pytest.raises(ValueError, match=r"`\.X` holds 0\.6931, not a count.*\['SEPT2', 'SEPTIN2'\].*adata\.X = "):
        unify_genes(make(logged), to="symbol")
    adata = make(layers={"logged": logged, "raw": COUNTS})
    with pytest.raises(ValueError, match=r"`\.layers\['logged'\]` holds 0\.6931"):
        unify_genes(adata, to="symbol")
    assert list(unify_genes(adata, to="symbol", layers=["raw"]).layers.keys() - {None}) == [
        "raw"
    ]  # None: .X, of anndata 0.13


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0])
def test_nan_infinite_and_negative_values_are_not_summed(value):
    x = COUNTS.astype(np.float64)
    x[1, 3] = value
    if np.isinf(value):
        x[1, 0] = -value
    with pytest.raises(ValueError, match="not a count"):
        unify_genes(make(x), to="symbol")


def test_values_that_are_no_counts_can_be_renamed():
    x = np.log1p(COUNTS[:, 1:]) - 1
    unified = unify_genes(make(x, NAMES[1:]), to="symbol")
    assert unified.X.tolist() == x[:, [0, 2, 3]].tolist()
    assert np.isnan(unified.uns["unify_genes"]["counts_lost"])


def test_slots_over_genes_stay_when_genes_are_only_renamed():
    adata = make(
        COUNTS[:, 1:].astype(np.float32),
        NAMES[1:],
        varm={"PCs": np.arange(8).reshape(4, 2)},
        varp={"net": sparse.eye(4).tocsr()},
    )
    unified = unify_genes(adata, to="symbol")
    assert unified.varm["PCs"].tolist() == [[0, 1], [4, 5], [6, 7]]
    assert unified.varp["net"].shape == (3, 3)
    assert list(unified.uns["unify_genes"]["dropped_slots"]) == []


def test_slots_over_genes_go_when_genes_are_merged_and_cells_keep_theirs():
    adata = make(
        COUNTS.astype(np.float32),
        varm={"PCs": np.ones((5, 2))},
        obsm={"X_pca": np.ones((3, 2)), "frame": pd.DataFrame({"a": [1, 2, 3]}, index=["cell0", "cell1", "cell2"])},
        obsp={"distances": sparse.eye(3).tocsr()},
    )
    adata.raw = adata
    adata.obs["batch"] = ["a", "b", "a"]
    unified = unify_genes(adata, to="symbol")
    assert list(unified.uns["unify_genes"]["dropped_slots"]) == ["varm['PCs']", "raw"]
    assert not unified.varm
    assert unified.raw is None
    assert set(unified.obsm) == {"X_pca", "frame"}
    assert unified.obsp["distances"].shape == (3, 3)
    assert unified.obs["batch"].tolist() == ["a", "b", "a"]


def test_merged_gene_has_the_var_row_of_its_current_name():
    adata = make()
    adata.var["origin"] = pd.Categorical(["old", "a", "b", "new", "c"])
    adata.var["hvg"] = [True, False, True, False, True]
    unified = unify_genes(adata, to="symbol")
    assert unified.var["origin"].tolist() == ["new", "a", "c"]
    assert unified.var["hvg"].dtype == bool


def test_column_that_reads_most_is_taken_and_ids_before_equal_names():
    adata = make(COUNTS, ["a", "b", "c", "d", "e"])
    adata.var["symbol"] = NAMES
    assert unify_genes(adata).uns["unify_genes"]["params"]["gene_key"] == "symbol"
    adata.var["gene_ids"] = ["ENSG00000168385.1", "ENSG00000198851.2", None, "ENSG00000168385.1", "ENSG00000172053"]
    unified = unify_genes(adata, to="symbol")
    assert unified.uns["unify_genes"]["params"]["gene_key"] == "gene_ids"
    assert unified.var_names.tolist() == ["SEPTIN2", "CD3E", "QARS1"]
    assert unify_genes(adata, gene_key="symbol").uns["unify_genes"]["params"]["gene_key"] == "symbol"


def test_categorical_column_of_names_is_read():
    adata = make(COUNTS, ["a", "b", "c", "d", "e"])
    adata.var["names"] = pd.Categorical(NAMES)
    assert unify_genes(adata, to="symbol", gene_key="names").n_vars == 3


def test_gene_names_are_found_in_the_columns_in_which_embedding_finds_them():
    adata = ad.AnnData(np.ones((2, 3), dtype=np.float32))
    adata.var["HGNC_symbol"] = ["CD3E", "MS4A1", "LYZ"]
    assert unify_genes(adata).uns["unify_genes"]["params"]["gene_key"] == "HGNC_symbol"
    adata.var_names = ["CD8A", "CD19", "NKG7"]
    assert list(unify_genes(adata, to="symbol", gene_key="var_names").var_names) == ["CD8A", "CD19", "NKG7"]


def test_missing_matrix_stays_missing():
    adata = ad.AnnData(obs=pd.DataFrame(index=["a"]), var=pd.DataFrame(index=NAMES), layers={"counts": COUNTS[:1]})
    unified = unify_genes(adata, to="symbol")
    assert unified.X is None
    assert unified.layers["counts"].tolist() == [[4, 2, 0]]
    assert np.isnan(unified.uns["unify_genes"]["counts_lost"])


def test_mouse_genes_are_read_as_mouse():
    unified = unify_genes(make(COUNTS[:, :3], ["Gnb2l1", "Rack1", "Actb"]), to="symbol")
    assert unified.var_names.tolist() == ["Rack1", "Actb"]
    assert unified.uns["unify_genes"]["params"]["species"] == "mouse"


def test_backed_data_are_refused_with_the_way(tmp_path):
    make(COUNTS.astype(np.float32)).write_h5ad(tmp_path / "a.h5ad")
    backed = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    with pytest.raises(ValueError, match=r"adata\.to_memory\(\)"):
        unify_genes(backed)
    assert unify_genes(backed.to_memory()).n_vars == 3
    backed.file.close()


def test_dask_is_refused_with_the_way():
    array = pytest.importorskip("dask.array")
    with pytest.raises(TypeError, match=r"adata\.to_memory\(\)"):
        unify_genes(make(array.from_array(COUNTS.astype(np.float32))))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"to": "entrez"}, "`to` is 'entrez'"),
        ({"unmapped": "guess"}, "`unmapped` is 'guess'"),
        ({"species": "rat"}, "`species` is 'rat'"),
        ({"gene_key": "nope"}, "var has no column 'nope'"),
        ({"layers": ["nope"]}, r"`layers` names \['nope'\]"),
    ],
)
def test_wrong_arguments_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        unify_genes(make(), **options)


def test_unknown_genes_alone_are_refused_and_few_known_warned_of():
    with pytest.raises(ValueError, match="none of the 5 names in 'var_names' is a known gene, such as"):
        unify_genes(make(names=list("vwxyz")))
    names = ["CD3E", *(f"g{i}x" for i in range(20))]
    with pytest.warns(UserWarning, match="only 1 of 21 names"):
        unify_genes(make(np.ones((1, 21)), names))


@given(x=arrays(np.int64, (3, 6), elements=st.integers(0, 9)), order=st.permutations(range(6)))
def test_order_of_var_changes_order_of_genes_only(x, order):
    names = np.array(["SEPT2", "CD3E", "1-Mar", "SEPTIN2", "ENSG00000168385.4", "QARS"], dtype=object)
    straight = unify_genes(make(x, names), to="symbol")
    mixed = unify_genes(make(x[:, order], names[list(order)]), to="symbol")
    pd.testing.assert_frame_equal(straight.to_df(), mixed.to_df()[straight.var_names])
    kept = straight.uns["unify_genes"]["counts_lost"]
    assert mixed.uns["unify_genes"]["counts_lost"] == kept
    assert straight.X.sum() == x.sum() - x[:, 2].sum()


@given(x=arrays(np.float32, (3, 5), elements=st.integers(0, 9)), to=st.sampled_from(["symbol", "ensembl"]))
def test_unifying_twice_changes_nothing(x, to):
    once = unify_genes(make(sparse.csr_matrix(x)), to=to)
    twice = unify_genes(once, to=to)
    pd.testing.assert_frame_equal(once.to_df(), twice.to_df())
    assert list(twice.uns["unify_genes"]["dropped"]) == []


@pytest.mark.parametrize("form", ["coo_matrix", "lil_matrix", "dok_array"])
def test_formats_without_columns_to_take_become_rows(form):
    plan = make_plan(NAMES, resolve(NAMES, to="symbol"), keep=False)
    unified = plan.apply(getattr(sparse, form)(COUNTS.astype(np.float32)), name=".X", remedy="")
    assert unified.toarray().tolist() == [[4, 2, 0], [4, 5, 1], [0, 0, 0]]
    assert unified.format == "csr"


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (COUNTS.astype(object), r"`\.X` holds values of type object; expected numbers"),
        (COUNTS.astype(str), r"`\.X` holds values of type <U\d+; expected numbers"),
        (COUNTS.astype(complex), r"`\.X` holds values of type complex128"),
        (np.ma.masked_array(COUNTS, COUNTS > 2), r"`\.X` is a masked array.*fill it"),
    ],
)
def test_what_is_no_matrix_of_numbers_is_refused(x, message):
    with pytest.raises(TypeError, match=message):
        unify_genes(make(x, layers={"plain": COUNTS.copy()}), to="symbol")


def test_names_with_blanks_around_and_columns_that_are_there_twice_are_read():
    adata = make(names=[f" {name}\t" for name in NAMES])
    assert unify_genes(adata, to="symbol").var_names.tolist() == ["SEPTIN2", "CD3E", "QARS1"]
    twice = pd.DataFrame({"symbol": NAMES}, index=adata.var_names)
    adata.var = pd.concat([twice, twice], axis=1)
    assert unify_genes(adata, to="symbol").var_names.tolist() == ["SEPTIN2", "CD3E", "QARS1"]
    with pytest.raises(ValueError, match="var has 2 columns 'symbol'; rename all but one"):
        unify_genes(adata, gene_key="symbol")
    with pytest.raises(ValueError, match=r"var has no column \['symbol'\]"):
        unify_genes(adata, gene_key=["symbol"])


def test_infinite_values_that_are_only_renamed_bring_no_warnings():
    adata = make(np.array([[1.0, np.inf, 2.0]]), names=["CD3E", "LYZ", "unknown"])
    assert unify_genes(adata, to="symbol").X.tolist() == [[1.0, np.inf]]
