"""Results as data frames."""

from __future__ import annotations

from types import SimpleNamespace

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sclcm import get


@pytest.fixture
def adata():
    adata = anndata.AnnData(
        np.ones((3, 4), dtype=np.float32),
        obs=pd.DataFrame(index=["a", "b", "c"]),
        var=pd.DataFrame(index=["g1", "g2", "g3", "g4"]),
    )
    adata.obsm["X_sclcm_mini"] = np.arange(6, dtype=np.float32).reshape(3, 2)
    adata.obsm["mine"] = np.zeros((3, 5))
    adata.varm["sclcm_mini_genes"] = np.array([[1, 2], [np.nan, np.nan], [3, np.nan], [5, 6]], dtype=np.float32)
    adata.obs["sclcm_mini_label"] = pd.Categorical(["B", "T", "B"])
    adata.obs["sclcm_mini_label_score"] = [0.9, 0.5, 0.7]
    return adata


def test_embedding_has_a_row_for_each_cell(adata):
    found = get.embedding(adata)
    assert list(found.index) == ["a", "b", "c"]
    assert found.to_numpy().tolist() == [[0, 1], [2, 3], [4, 5]]
    assert get.embedding(adata, "sclcm-mini").equals(found)
    assert get.embedding(adata, key="mine").shape == (3, 5)


def test_gene_vectors_leave_out_genes_without_one(adata):
    found = get.gene_embedding(adata)
    assert list(found.index) == ["g1", "g3", "g4"]
    assert found.loc["g4"].tolist() == [5, 6]
    assert list(get.gene_embedding(adata, dropna=False).index) == ["g1", "g2", "g3", "g4"]
    adata.varm["k"] = adata.varm["sclcm_mini_genes"]
    assert get.gene_embedding(adata, key="k").equals(found)


def test_annotation_has_labels_and_scores(adata):
    found = get.annotation(adata)
    assert found["label"].tolist() == ["B", "T", "B"]
    assert found["score"].tolist() == [0.9, 0.5, 0.7]
    assert list(found.index) == ["a", "b", "c"]


def test_frames_are_copies(adata):
    found = get.embedding(adata)
    found.iloc[:, :] = -1
    found.index = ["x", "y", "z"]
    assert adata.obsm["X_sclcm_mini"].min() == 0
    assert list(adata.obs_names) == ["a", "b", "c"]
    genes = get.gene_embedding(adata, dropna=False)
    genes.iloc[:, :] = -1
    assert adata.varm["sclcm_mini_genes"][0, 0] == 1
    labels = get.annotation(adata)
    labels["score"] = 0.0
    assert adata.obs["sclcm_mini_label_score"].iloc[0] == 0.9


@pytest.mark.parametrize(
    ("function", "slot", "where", "call"),
    [
        (
            get.embedding,
            "X_geneformer",
            r"`adata\.obsm` has no 'X_geneformer'; it has \['X_sclcm_mini', 'mine'\]",
            "tl.embed`",
        ),
        (get.gene_embedding, "geneformer_genes", r"`adata\.varm` has no 'geneformer_genes'", "tl.embed_genes`"),
        (get.annotation, "geneformer_label", r"`adata\.obs` has no 'geneformer_label'", "tl.annotate`"),
    ],
)
def test_missing_slot_names_those_that_exist_and_the_call(adata, function, slot, where, call):
    with pytest.raises(KeyError, match=rf"{where}.*Call `sclcm\.{call} first"):
        function(adata, "geneformer")
    with pytest.raises(KeyError, match="has no 'nothing'"):
        function(adata, key="nothing")


def test_slots_are_found_for_names_with_dots_and_hyphens(adata):
    adata.obsm["X_geneformer_v2_104m"] = np.zeros((3, 2))
    assert get.embedding(adata, "geneformer.v2-104m").shape == (3, 2)


def test_a_loaded_model_is_as_good_as_its_name(adata):
    model = SimpleNamespace(name="sclcm-mini")
    for function in (get.embedding, get.gene_embedding, get.annotation):
        assert function(adata, model).equals(function(adata))
        with pytest.raises(TypeError, match="`model` is a int; expected a model, or its name"):
            function(adata, 3)


def test_what_is_no_anndata_is_refused():
    for function in (get.embedding, get.gene_embedding, get.annotation):
        with pytest.raises(TypeError, match="`adata` is a dict; expected an AnnData"):
            function({})


def test_sparse_embedding_is_given_as_numbers_and_what_has_no_name_is_refused():
    adata = anndata.AnnData(np.ones((2, 2)), obsm={"X_toy": sparse.csr_matrix([[0.0, 1], [2, 0]])})
    assert get.embedding(adata, "toy").to_numpy().tolist() == [[0, 1], [2, 0]]
    with pytest.raises(TypeError, match="`model` is a object; expected a model, or its name"):
        get.embedding(adata, object())
