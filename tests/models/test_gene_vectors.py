"""Models that are tables of gene vectors: the formulas, tables of one's own, and files that hold none."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import sclcm.reference
from sclcm._settings import settings
from sclcm.models import build, from_gene_vectors, load
from sclcm.nn.table_configs import ExpressionSum
from sclcm.tl import embed, embed_genes
from sclcm.zoo._spec import Recipe

REFERENCE = Path(sclcm.reference.__file__).parent / "scelmo"
GENES = [f"GENE{i}" for i in range(40)]


@pytest.fixture(autouse=True)
def _few_genes(monkeypatch):
    monkeypatch.setattr(settings, "min_genes_matched", 5)
    monkeypatch.setattr(settings, "progress", False)


@pytest.fixture
def vectors():
    """Vectors of all genes but the last ten."""
    return pd.DataFrame(np.random.default_rng(0).normal(size=(30, 4)), index=GENES[:30])


@pytest.fixture
def adata():
    """Six cells in another order of genes; the last expresses only a gene without a vector."""
    counts = np.random.default_rng(1).poisson(0.8, (6, 40)).astype(np.float32)
    counts[5] = 0
    counts[5, 35] = 3
    data = anndata.AnnData(sparse.csr_matrix(counts))
    data.var_names, data.obs_names = GENES, [f"cell{i}" for i in range(6)]
    return data[:, np.random.default_rng(2).permutation(40)].copy()


def plain(adata, vectors, over):
    table = vectors.reindex(adata.var_names, fill_value=0.0).to_numpy()
    counts = adata.X.toarray().astype(np.float64)
    return counts @ table / (adata.n_vars if over == "genes" else counts.sum(1, keepdims=True))


@pytest.mark.filterwarnings("ignore:.* cells express no gene")
@pytest.mark.parametrize(("recipe", "over"), [("embed", "total"), ("wa", "total"), ("aa", "genes")])
def test_cells_are_sums_of_vectors_weighted_by_expression(adata, vectors, recipe, over):
    embed(adata, from_gene_vectors(vectors), recipe=recipe)
    found = adata.obsm["X_gene_vectors"]
    assert found == pytest.approx(plain(adata, vectors, over), rel=1e-5, abs=1e-7)
    assert found.dtype == np.float32


def test_cells_without_any_vector_are_zeros_and_named(adata, vectors):
    with pytest.warns(UserWarning, match="1 of .* cells express no gene that 'mine' knows .'cell5'"):
        embed(adata, from_gene_vectors(vectors, name="mine"))
    assert not adata.obsm["X_mine"][5].any()


@pytest.mark.filterwarnings("ignore:.* cells express no gene")
def test_unit_is_taken_as_it_is(adata, vectors):
    adata.layers["log"] = adata.X.log1p() * 0.37
    embed(adata, from_gene_vectors(vectors), layer="log")
    logged = adata.copy()
    logged.X = adata.layers["log"]
    assert adata.obsm["X_gene_vectors"] == pytest.approx(plain(logged, vectors, "total"), rel=1e-5, abs=1e-7)


@pytest.mark.filterwarnings("ignore:.* cells express no gene")
def test_several_tables_are_added_or_stand_side_by_side(adata, vectors):
    other = pd.DataFrame(np.random.default_rng(5).normal(size=(20, 4)), index=GENES[20:])
    model = from_gene_vectors(vectors, others={"other": other})
    assert model.vocabulary.n_features == 40
    parts = [plain(adata, table, "total") for table in (vectors, other)]
    embed(adata, model, recipe="sum", key_added="sum")
    embed(adata, model, recipe="concat", key_added="concat")
    assert adata.obsm["sum"] == pytest.approx(parts[0] + parts[1], rel=1e-5, abs=1e-6)
    assert adata.obsm["concat"] == pytest.approx(np.hstack(parts), rel=1e-5, abs=1e-6)
    scaled = Recipe(pooling=ExpressionSum(over="genes"), l2_normalize=True)
    embed(adata, model, recipe=scaled, key_added="unit")
    assert np.linalg.norm(adata.obsm["unit"][:5], axis=1) == pytest.approx(1, abs=1e-6)


def test_tables_of_different_widths_stand_side_by_side_only(adata, vectors):
    model = from_gene_vectors(vectors, others={"wide": {gene: np.ones(7) for gene in GENES}})
    embed(adata, model, recipe="concat")
    assert adata.obsm["X_gene_vectors"].shape == (6, 11)
    with pytest.raises(ValueError, match=r"Tables of widths \[4, 7\] cannot be added"):
        embed(adata, model, recipe="sum")
    with pytest.raises(ValueError, match="names 'none'; 'gene_vectors' has the tables 'vectors', 'wide'"):
        embed(adata, model, recipe=Recipe(pooling=ExpressionSum(over="total", tables=("none",))))


@pytest.mark.filterwarnings("ignore:.* cells express no gene")
def test_cells_do_not_depend_on_others_on_chunks_or_storage(adata, vectors):
    model = from_gene_vectors(vectors)
    embed(adata, model)
    many = anndata.concat([adata] * 200, index_unique="-")
    many.X = many.X.tocsc()
    embed(many, model, batch_size=3)
    assert np.array_equal(many.obsm["X_gene_vectors"], np.tile(adata.obsm["X_gene_vectors"], (200, 1)))
    few = adata[[4, 1]].copy()
    few.X = few.X.toarray()
    embed(few, model)
    assert np.array_equal(few.obsm["X_gene_vectors"], adata.obsm["X_gene_vectors"][[4, 1]])


@pytest.mark.filterwarnings("ignore:.* cells express no gene")
def test_model_is_saved_and_loaded(adata, vectors, tmp_path):
    model = from_gene_vectors(vectors, others={"other": vectors * 2})
    model.save(tmp_path / "saved")
    again = load(tmp_path / "saved", device="cpu")
    for recipe in model.recipes:
        embed(adata, model, recipe=recipe, key_added="one")
        embed(adata, again, recipe=recipe, key_added="other")
        assert np.array_equal(adata.obsm["one"], adata.obsm["other"])
    assert (again.needs, again.accepts_bulk, again.lcm.n_blocks) == ("expression", True, 0)


def test_vectors_of_genes_are_those_that_were_given(adata, vectors):
    model = from_gene_vectors(vectors)
    embed_genes(adata, model)
    wanted = vectors.reindex(adata.var_names).to_numpy()
    assert adata.varm["gene_vectors_genes"] == pytest.approx(wanted, rel=1e-6, nan_ok=True)
    with pytest.raises(ValueError, match="table of gene vectors, the same in all cells"):
        embed_genes(adata, model, how="contextual")


def test_numbers_stay_as_precise_as_they_are_unless_asked_otherwise(vectors):
    assert from_gene_vectors(vectors).to("cpu", "auto").dtype == torch.float64
    assert from_gene_vectors(vectors.astype(np.float32)).to("cpu", "auto").dtype == torch.float32
    assert from_gene_vectors(vectors).to("cpu", "bfloat16").dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("table", "kind", "message"),
    [
        ([1.0], TypeError, "`vectors` is a list; expected a data frame"),
        (pd.DataFrame({"a": ["x"]}, index=["A"]), ValueError, "columns that hold no numbers"),
        (pd.DataFrame({"a": [1.0, 2.0]}, index=["A", "A"]), ValueError, "names 'A' twice"),
        ({"A": [1.0, 2.0], "B": [1.0]}, ValueError, "vectors of one length of 1 or more; 'A' has 2, 'B' has 1"),
        ({"A": "text"}, ValueError, "something else than numbers for 'A'"),
        ({"A": [1.0, np.nan]}, ValueError, "vector of 'A' with numbers that are not finite"),
        ({"A": [[1.0, 2.0], [3.0]]}, ValueError, "something else than numbers for 'A'"),
        ({3: [1.0]}, ValueError, "has 3 among its genes"),
        ({}, ValueError, "The tables of vectors name no genes"),
    ],
)
def test_what_is_no_table_of_vectors_is_refused(table, kind, message):
    with pytest.raises(kind, match=message):
        from_gene_vectors(table)


def test_table_may_not_go_by_the_name_of_the_first(vectors):
    with pytest.raises(ValueError, match="`others` has a table 'vectors'"):
        from_gene_vectors(vectors, others={"vectors": vectors})


def test_failing_call_leaves_the_data_as_they_were(adata, vectors):
    adata.X.data[0] = -1
    with pytest.raises(ValueError, match="which is negative"):
        embed(adata, from_gene_vectors(vectors))
    assert not adata.obsm
    assert not adata.uns


# ---- the authors' files ----


@pytest.fixture
def folder(tmp_path):
    for file in REFERENCE.glob("*.pickle"):
        shutil.copy(file, tmp_path / file.name)
    return tmp_path


def test_companion_table_brings_its_recipes(folder):
    both = load(folder, family="scelmo")
    assert set(both.recipes) == {"embed", "wa", "aa", "sum", "concat"}
    (folder / "GPT_3_5_gene_embeddings.pickle").unlink()
    alone = load(folder)
    assert alone.family == "scelmo"
    assert set(alone.recipes) == {"embed", "wa", "aa"}
    assert alone.vocabulary.n_features < both.vocabulary.n_features


def test_each_family_reads_its_own_table(folder):
    (folder / "ensem_emb_gpt3.5all.pickle").unlink()
    model = load(folder)
    assert model.family == "genept"
    assert model.recipes["embed"].l2_normalize
    with pytest.raises(FileNotFoundError, match="ensem_emb"):
        load(folder, family="scelmo")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"A": "text"}, "something else than numbers for 'A'"),
        ({"A": [1.0], "B": [1.0], "C": [1.0, 2.0]}, "vectors of one length of 1 or more; 'A' has 1, 'C' has 2"),
        (dict.fromkeys(map(str, range(100)), np.ones(1000)), "gives 100 genes 1 vectors"),
        ({"A": [float("inf")]}, "not finite"),
        ([1, 2], "holds a list; expected a dictionary"),
    ],
)
def test_damaged_dictionaries_are_refused(folder, content, message):
    (folder / "ensem_emb_gpt3.5all.pickle").write_bytes(pickle.dumps(content))
    with pytest.raises((ValueError, TypeError), match=message):
        load(folder, family="scelmo")


def test_nothing_is_built_anew_of_a_family_without_training():
    with pytest.raises(ValueError, match=r"is a table of gene vectors, not trained; `sclcm.models.from_gene_vectors`"):
        build("genept", GENES)
