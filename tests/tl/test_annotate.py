"""`tl.annotate` with the default model: slots, reuse of an embedding, restriction, refusals."""

from __future__ import annotations

import numpy as np
import pytest

import sclcm

LINEAGES = (
    ("CD19+ B", "B cell|B lineage"),
    ("CD14+ Monocyte", "onocyte"),
)


@pytest.fixture(scope="module")
def cells():
    adata = sclcm.datasets.pbmc68k_reduced()[:60].copy()
    sclcm.tl.embed(adata, dtype="float32")
    sclcm.tl.annotate(adata, use_rep="X_sclcm_mini", dtype="float32")
    return adata


def test_labels_scores_and_ontology_are_written(cells):
    assert cells.obs["sclcm_mini_label"].dtype == "category"
    assert cells.obs["sclcm_mini_label_score"].between(0, 1).all()
    known = cells.obs["sclcm_mini_label"] != "unknown"
    assert known.mean() > 0.5
    assert cells.obs["sclcm_mini_label_ontology_term_id"][known].str.match(r"CL:\d{7}").all()
    assert cells.uns["sclcm_mini_label"]["params"]["model"] == "sclcm-mini"


def test_annotation_is_that_of_a_pass_of_its_own(cells):
    again = sclcm.tl.annotate(cells, copy=True, key_added="again", dtype="float32")
    assert (again.obs["again"].astype(str) == cells.obs["sclcm_mini_label"].astype(str)).all()
    np.testing.assert_allclose(again.obs["again_score"], cells.obs["sclcm_mini_label_score"], rtol=1e-5)


def test_b_cells_monocytes_and_killers_are_told_apart():
    adata = sclcm.datasets.pbmc68k_reduced()
    sclcm.tl.annotate(adata, dtype="float32")
    found = sclcm.get.annotation(adata)
    assert set(found.columns) == {"label", "score", "ontology_term_id"}
    for author, word in LINEAGES:
        labels = found["label"][adata.obs["bulk_labels"] == author].astype(str)
        assert labels.str.contains(word).mean() > 0.5, author


def test_labels_can_be_restricted(cells):
    wanted = sorted(set(sclcm.models.load("sclcm-mini").prototypes.labels))[:2]
    some = sclcm.tl.annotate(cells, labels=wanted, use_rep="X_sclcm_mini", dtype="float32", key_added="two", copy=True)
    assert set(some.obs["two"].unique()) <= {*wanted, "unknown"}
    assert some.uns["two"]["params"]["labels"] == wanted


def test_a_bound_of_one_abstains_everywhere(cells):
    strict = sclcm.tl.annotate(
        cells, min_score=1.0, use_rep="X_sclcm_mini", dtype="float32", key_added="strict", copy=True
    )
    assert (strict.obs["strict"] == "unknown").all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"min_score": 1.5}, r"`min_score` is 1.5"),
        ({"labels": ["no such cell"]}, r"'no such cell', for which the model has no prototype. Of its 201"),
        ({"use_rep": "X_umap_scanpy"}, r"not recorded as an embedding by 'sclcm-mini'"),
    ],
)
def test_wrong_arguments_are_refused(cells, arguments, message):
    before = set(cells.obs)
    with pytest.raises(ValueError, match=message):
        sclcm.tl.annotate(cells, **arguments, key_added="refused")
    assert set(cells.obs) == before


def test_a_missing_embedding_is_named(cells):
    with pytest.raises(KeyError, match="X_other"):
        sclcm.tl.annotate(cells, use_rep="X_other")


def test_warning_points_at_the_line_of_the_caller(cells):
    adata = cells.copy()
    adata.X.data[: adata.X.indptr[1]] = 0
    with pytest.warns(UserWarning, match="express no gene") as caught:
        sclcm.tl.annotate(adata)
    assert caught[0].filename == __file__


def test_entries_of_uns_that_other_packages_wrote_do_not_matter(cells):
    adata = cells.copy()
    sclcm.tl.embed(adata)
    adata.uns["theirs"] = {"params": None}
    sclcm.tl.annotate(adata, use_rep="X_sclcm_mini")


def test_labels_given_as_text_are_refused(cells):
    with pytest.raises(TypeError, match="expected a list"):
        sclcm.tl.annotate(cells, labels="B cell")


def test_a_model_without_prototypes_is_refused(cells):
    from importlib.resources import files

    checkpoint = str(files("sclcm.reference") / "geneformer" / "v1" / "checkpoint")
    with pytest.raises(ValueError, match="has no label prototypes"):
        sclcm.tl.annotate(cells, checkpoint)
