"""Label prototypes: shares, coarser labels, abstention."""

from __future__ import annotations

import numpy as np
import pytest

from sclcm.models._prototypes import UNKNOWN, LabelGroup, Prototypes

T_CELLS = LabelGroup(name="T cell", ontology_id="CL:0000084", labels=("CD4 T cell", "CD8 T cell"))


def make_prototypes(**changes):
    given = {
        "labels": ("CD4 T cell", "CD8 T cell", "B cell", "B cell"),
        "ontology_ids": ("CL:0000624", "CL:0000625", "CL:0000236", "CL:0000236"),
        "vectors": np.array([[1, 0.1, 0], [1, -0.1, 0], [0, 0, 1], [0, 0, -1]], dtype=np.float32),
        "scale": 10.0,
        "min_score": 0.6,
        "recipe": "embed",
        "groups": (T_CELLS,),
    }
    return Prototypes(**{**given, **changes})


def test_shares_are_a_softmax_averaged_by_label():
    prototypes = make_prototypes()
    cells = np.array([[0.2, 0.5, 0.7]])
    names, shares = prototypes.shares(cells)
    unit = prototypes.vectors / np.linalg.norm(prototypes.vectors, axis=1, keepdims=True)
    weights = np.exp(10 * (cells / np.linalg.norm(cells)) @ unit.T)[0]
    wanted = {"B cell": (weights[2] + weights[3]) / 2, "CD4 T cell": weights[0], "CD8 T cell": weights[1]}
    assert names.tolist() == sorted(wanted)
    total = sum(wanted.values())
    np.testing.assert_allclose(shares[0], [wanted[name] / total for name in names], rtol=1e-5)


def test_the_length_of_a_cell_vector_does_not_matter():
    prototypes = make_prototypes()
    cells = np.random.default_rng(0).normal(size=(5, 3))
    np.testing.assert_allclose(prototypes.shares(cells)[1], prototypes.shares(cells * 7)[1])


def test_a_clear_cell_gets_its_label():
    label, ontology, score = make_prototypes().assign(np.array([[0.0, 0.0, 1.0]]), 0.6)
    assert (label[0], ontology[0]) == ("B cell", "CL:0000236")
    assert score[0] > 0.99


def test_a_cell_between_two_kinds_gets_the_coarser_label():
    label, ontology, score = make_prototypes().assign(np.array([[1.0, 0.0, 0.0]]), 0.6)
    assert (label[0], ontology[0]) == ("T cell", "CL:0000084")
    assert score[0] > 0.99


def test_a_cell_between_unrelated_labels_is_unknown_with_its_best_score():
    label, ontology, score = make_prototypes(groups=()).assign(np.array([[1.0, 0.0, 0.0]]), 0.6)
    assert (label[0], ontology[0]) == (UNKNOWN, "")
    assert score[0] == pytest.approx(0.5, abs=0.01)


def test_a_cell_of_zeros_is_unknown_and_scores_nothing():
    label, _, score = make_prototypes().assign(np.zeros((1, 3)), 0.0)
    assert label[0] == UNKNOWN
    assert score[0] == 0


def test_a_cell_depends_on_itself_alone():
    cells = np.random.default_rng(0).normal(size=(6, 3))
    whole = make_prototypes().assign(cells, 0.6)
    alone = [make_prototypes().assign(cells[i : i + 1], 0.6) for i in range(6)]
    assert whole[0].tolist() == [part[0][0] for part in alone]
    np.testing.assert_allclose(whole[2], [part[2][0] for part in alone])


def test_restricting_keeps_the_prototypes_of_the_labels_given():
    some = make_prototypes().restricted(["B cell"])
    assert some.labels == ("B cell", "B cell")
    assert len(some.vectors) == 2


def test_restricting_to_an_unknown_label_names_the_closest():
    with pytest.raises(ValueError, match=r"'Bee cell'.*Of its 3 labels, the closest are 'B cell'"):
        make_prototypes().restricted(["Bee cell"])


def test_cells_are_labelled_in_blocks_with_the_same_result(monkeypatch):
    cells = np.random.default_rng(0).normal(size=(11, 3))
    whole = make_prototypes().assign(cells, 0.6)
    monkeypatch.setattr("sclcm.models._prototypes.CELLS_AT_ONCE", 4)
    for one, other in zip(whole, make_prototypes().assign(cells, 0.6), strict=True):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)
    assert [len(column) for column in make_prototypes().assign(cells[:0], 0.6)] == [0, 0, 0]


def test_prototypes_survive_json():
    prototypes = make_prototypes()
    again = Prototypes.from_json(prototypes.to_json(), prototypes.vectors)
    assert again.to_json() == prototypes.to_json()
    np.testing.assert_array_equal(again.vectors, prototypes.vectors)


def test_labels_and_vectors_must_belong_together():
    with pytest.raises(ValueError, match="do not belong together"):
        make_prototypes(vectors=np.zeros((3, 3), dtype=np.float32))
