"""`tl.embed` and `tl.annotate` with a model that says types: the authors' numbers, every kind of matrix, refusals."""

from __future__ import annotations

import shutil
import warnings
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from scipy import sparse

import sclcm
import sclcm.reference
from sclcm.models import load
from sclcm.zoo._spec import Recipe

FOLDER = Path(sclcm.reference.__file__).parent / "scmulan"


@pytest.fixture(scope="module")
def said():
    return load(FOLDER / "checkpoint", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def expected():
    with np.load(FOLDER / "expected.npz") as stored:
        return dict(stored)


@pytest.fixture
def blood():
    return anndata.read_h5ad(FOLDER / "input.h5ad")


def coarse_of(expected):
    """The third token from the end, where it is a type that was added."""
    types = set(expected["cell_type_entities"].tolist()) - {"Unclassified"}
    names = load(FOLDER / "checkpoint", device="cpu", dtype="float32").vocabulary.labels
    labels = []
    for row, n_added in zip(expected["generated_ids"], expected["n_generated"], strict=True):
        name = names(row[row >= 0][-3:-2])[0]
        labels.append(name if n_added > 2 and name in types else "unknown")
    return labels


def with_matrix(adata, kind, path):
    adata = adata.copy()
    if kind == "dense":
        adata.X = adata.X.toarray()
    elif kind == "csc":
        adata.X = sparse.csc_matrix(adata.X)
    elif kind == "integers":
        adata.X = adata.X.astype(np.int64)
    elif kind == "backed":
        adata.write_h5ad(path / "backed.h5ad")
        return anndata.read_h5ad(path / "backed.h5ad", backed="r+")
    return adata


@pytest.mark.parametrize("kind", ["csr", "dense", "csc", "integers", "backed"])
def test_labels_and_vectors_are_the_authors(blood, said, expected, kind, tmp_path):
    adata = with_matrix(blood, kind, tmp_path)
    sclcm.tl.embed(adata, said)
    sclcm.tl.annotate(adata, said)
    np.testing.assert_allclose(adata.obsm["X_scmulan"], expected["X_scMulan"], rtol=1e-4, atol=1e-5)
    assert adata.obs["scmulan_label"].astype(str).tolist() == expected["cell_type"].tolist()
    assert adata.obs["scmulan_label_coarse"].astype(str).tolist() == coarse_of(expected)
    assert adata.obs["scmulan_label_score"].between(0, 1, inclusive="neither").all()
    assert list(sclcm.get.annotation(adata, "scmulan")) == ["label", "score", "coarse"]
    params = adata.uns["scmulan_label"]["params"]
    assert params["model"] == "scmulan"
    assert "Unclassified" not in params["labels"]
    assert params["matched_genes"] == 104


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_batches_and_order_change_nothing(blood, said, batch_size):
    backwards = blood[::-1].copy()
    for adata, size in ((blood, None), (backwards, batch_size)):
        sclcm.tl.embed(adata, said, batch_size=size)
        sclcm.tl.annotate(adata, said, batch_size=size)
    np.testing.assert_allclose(backwards.obsm["X_scmulan"][::-1], blood.obsm["X_scmulan"], rtol=1e-4, atol=1e-5)
    for column, values in blood.obs.filter(like="scmulan").items():
        found = backwards.obs[column].iloc[::-1]
        if column.endswith("score"):
            np.testing.assert_allclose(found, values, rtol=1e-4)
        else:
            assert found.tolist() == values.tolist()


def test_cell_without_a_known_gene_is_unknown_and_zero(blood, said):
    counts = blood.X.tolil()
    counts[3] = 0
    blood.X = counts.tocsr()
    with pytest.warns(
        UserWarning, match="1 of .* cells express no gene that 'scmulan' knows .*their rows are zeros"
    ) as seen:
        sclcm.tl.embed(blood, said)
    assert len(seen) == 1
    assert not blood.obsm["X_scmulan"][3].any()
    assert blood.obsm["X_scmulan"][2].any()
    with pytest.warns(UserWarning, match="their label is 'unknown'") as seen:
        sclcm.tl.annotate(blood, said)
    assert len(seen) == 1
    row = blood.obs.iloc[3]
    assert (row["scmulan_label"], row["scmulan_label_coarse"], row["scmulan_label_score"]) == ("unknown", "unknown", 0)


def test_neighbours_of_a_cell_do_not_matter_even_if_all_counts_are_small(blood, said):
    """Upstream would take a matrix of small values for normalised data."""
    blood.X.data[:] = np.minimum(blood.X.data, 9)
    alone = blood[:1].copy()
    counts = blood.X.tolil()
    counts[4, :5] = 500
    blood.X = counts.tocsr()
    for adata in (blood, alone):
        sclcm.tl.embed(adata, said)
    np.testing.assert_allclose(alone.obsm["X_scmulan"][0], blood.obsm["X_scmulan"][0], rtol=1e-4, atol=1e-5)


def test_a_bound_abstains_from_fine_labels_only(blood, said):
    sclcm.tl.annotate(blood, said, key_added="free")
    sclcm.tl.annotate(blood, said, key_added="strict", min_score=0.9)
    sure = blood.obs["free_score"] >= 0.9
    assert 0 < sure.sum() < blood.n_obs
    assert (blood.obs["strict"].astype(str) == blood.obs["free"].astype(str).where(sure, "unknown")).all()
    assert (blood.obs["strict_coarse"].astype(str) == blood.obs["free_coarse"].astype(str)).all()
    assert blood.uns["strict"]["params"]["min_score"] == 0.9


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": ["B cell"]}, r"`labels` is \['B cell'\], but 'scmulan' says its labels freely"),
        ({"use_rep": "X_scmulan"}, r"`use_rep` is 'X_scmulan', but 'scmulan' says its labels, which no embedding"),
        ({"min_score": 2}, r"`min_score` is 2"),
        ({"layer": "log"}, r"not a raw count.*'scmulan' needs raw counts"),
    ],
)
def test_wrong_calls_leave_the_data_alone(blood, said, unchanged, arguments, message):
    blood.layers["log"] = np.log1p(blood.X)
    with unchanged(blood), pytest.raises(ValueError, match=message):
        sclcm.tl.annotate(blood, said, **arguments)


def test_data_of_which_too_little_is_known_are_refused(blood, said, unchanged):
    blood.var_names = [f"gene{i}" for i in range(blood.n_vars)]
    blood.var = blood.var[[]]
    with unchanged(blood), pytest.raises(ValueError, match="'scmulan' knows 0 of the 224 genes"):
        sclcm.tl.embed(blood, said)


def test_model_without_labels_names_those_that_have_some(cells, v1):
    with pytest.raises(ValueError, match="gives no labels itself; models that label are 'sclcm-mini', 'scmulan'"):
        sclcm.tl.annotate(cells.copy(), v1)


def test_recipe_that_decodes_pools_from_the_end(said):
    recipe = said.recipe("embed")
    for wrong in (
        Recipe(decoding=recipe.decoding),
        Recipe(decoding=recipe.decoding, pooling=recipe.pooling, layer=-2),
    ):
        with pytest.raises(ValueError, match="what is decoded is pooled by `FromEnd`"):
            said.recipe(wrong)


def test_vectors_can_be_scaled_to_length_one(blood, said):
    recipe = said.recipe("embed")
    unit = Recipe(decoding=recipe.decoding, pooling=recipe.pooling, l2_normalize=True)
    sclcm.tl.embed(blood, said)
    sclcm.tl.embed(blood, said, recipe=unit, key_added="unit")
    x = blood.obsm["X_scmulan"]
    np.testing.assert_allclose(blood.obsm["unit"], x / np.linalg.norm(x, axis=1, keepdims=True), rtol=1e-5)


def test_half_precision_gives_labels_and_close_vectors(blood, expected):
    said = load(FOLDER / "checkpoint", device="cpu", dtype="bfloat16")
    sclcm.tl.embed(blood, said, dtype="bfloat16")
    sclcm.tl.annotate(blood, said, dtype="bfloat16")
    found, wanted = blood.obsm["X_scmulan"], expected["X_scMulan"]
    cosine = (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
    assert np.median(cosine) > 0.99
    assert (blood.obs["scmulan_label"].astype(str) == expected["cell_type"]).mean() > 0.5


def test_compiled_blocks_say_the_same(blood, said, expected):
    """`aot_eager` traces without a C++ compiler."""
    model = load(FOLDER / "checkpoint", device="cpu", dtype="float32")
    for block in model.lcm.backbone.blocks:
        block.prefill = torch.compile(block.prefill, backend="aot_eager", dynamic=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sclcm.tl.embed(blood, model)
    np.testing.assert_allclose(blood.obsm["X_scmulan"], expected["X_scMulan"], rtol=1e-4, atol=1e-5)


def test_saved_model_says_the_same(blood, said, tmp_path):
    said.save(tmp_path / "saved")
    again = load(tmp_path / "saved", device="cpu", dtype="float32")
    assert again.labels == said.labels
    assert again.vocabulary.digest() == said.vocabulary.digest()
    for model, key in ((said, "a"), (again, "b")):
        sclcm.tl.annotate(blood, model, key_added=key)
        sclcm.tl.embed(blood, model, key_added=key)
    assert (blood.obs["a"].astype(str) == blood.obs["b"].astype(str)).all()
    assert (blood.obsm["a"] == blood.obsm["b"]).all()


def test_without_the_authors_synonyms_the_resolver_reads_names(blood, said, tmp_path):
    folder = shutil.copytree(FOLDER / "checkpoint", tmp_path / "release")
    (folder / "GeneSymbolRef_upd0731.csv").unlink()
    plain = load(folder, device="cpu", dtype="float32")
    assert plain.vocabulary.universe.synonyms is None
    assert plain.sha256 != said.sha256
    sclcm.tl.annotate(blood, plain)
    assert (blood.obs["scmulan_label"] != "unknown").any()
