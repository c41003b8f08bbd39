"""Vocabularies whose token ids are reached by way of numbers of a registry."""

from __future__ import annotations

import dataclasses

import pytest

from sclcm.genes.align import align_genes
from sclcm.genes.vocabulary import GeneVocabulary
from sclcm.models._linked_ids import read_linked_ids
from sclcm.zoo._modules import LinkedIds

SOURCE = LinkedIds(files=("ids",), names=("names",), ids="symbol", n_tokens=20, pad="<pad>")
NAMES = {"A1BG": "1", "ABG": "1", "A2M": "2", "NAT1": "9", "FAR": "7", "GONE": "404", "PADDED": "5"}
IDS = {"1": "12", "2": "3", "9": 4, "7": "20", "5": "0"}


class Files:
    def __init__(self, names=NAMES, ids=IDS, **more):
        self._by_pattern = {"names": names, "ids": ids, **more}

    def dictionary(self, patterns):
        return self._by_pattern[patterns[0]]

    def file(self, patterns, *, optional):
        return patterns[0] if patterns[0] in self._by_pattern else None

    def mapping(self, file):
        return self._by_pattern[file]


def test_names_lead_to_token_ids_and_the_first_is_the_features():
    found = read_linked_ids(SOURCE, Files())
    assert found.features.tolist() == ["A2M", "NAT1", "A1BG"]
    assert found.token_ids.tolist() == [3, 4, 12]
    assert found.specials == {"<pad>": 0}
    assert found.synonyms == {"ABG": ("A1BG",)}


def test_other_names_are_taken_as_they_are_written_and_var_are_kept_apart():
    alignment = align_genes(["ABG", "A1BG", "abg", "FAR", "A2M"], read_linked_ids(SOURCE, Files()))
    assert alignment.feature_of_var.tolist() == [2, 2, -1, -1, 0]
    assert alignment.merge == "keep"
    assert alignment.by_var().is_one_to_one
    assert alignment.by_var().n_features == 3


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ids": {"1": "twelve"}}, "gives 'twelve'; expected a number"),
        ({"ids": {"1": "-2"}}, "gives '-2'"),
        ({"ids": {"1": "9" * 30}}, "expected a number, 0 or more"),
        ({"ids": {"1": [1]}}, "something else than text and numbers"),
        ({"names": {"A1BG": None}}, "something else than text and numbers"),
    ],
)
def test_damaged_dictionaries_are_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        read_linked_ids(SOURCE, Files(**changes))


MICE = dataclasses.replace(SOURCE, species=("human", "mouse"), homologues={"mouse": (("mice",), ("mouse ids",))})


def test_genes_of_another_species_have_the_ids_of_their_homologues():
    mice = {"A1bg": "A1BG", "Abg": "ABG", "Nat2": "NAT1", "Nat1": "GONE", "Xist": "XIST", "A2M": "NAT1"}
    found = read_linked_ids(MICE, Files(mice=mice))
    assert (found.species, list(found.siblings)) == (("human",), ["mouse"])
    mouse = found.of_species("mouse")
    assert dict(zip(mouse.features, mouse.token_ids, strict=True)) == {"Nat2": 4, "A1bg": 12}
    assert mouse.synonyms == {"Abg": ("A1bg",), "A2M": ("Nat2",)}  # a name means what it does in its own species
    assert GeneVocabulary.from_json(found.to_json()).siblings["mouse"].features.tolist() == mouse.features.tolist()


def test_ids_of_another_species_are_read_by_the_authors_own_dictionary():
    """An id that our table would read is not known, as to the authors: columns move by one for each."""
    ids = {"ENSMUSG00000000001": "A1BG", "ENSMUSG00000000028": "NAT1", "ENSMUSG00000000031": "GONE"}
    found = read_linked_ids(MICE, Files(**{"mice": {"A1bg": "A1BG", "Gnai3": "A2M"}, "mouse ids": ids}))
    mouse = found.of_species("mouse")
    assert dict(zip(mouse.features, mouse.token_ids, strict=True)) == {
        "Gnai3": 3,
        "ENSMUSG00000000028": 4,
        "A1bg": 12,
    }
    assert mouse.kinds_of_names == {"symbol", "ensembl"}
    assert found.kinds_of_names == {"symbol"}
    names = [*ids, "ENSMUSG00000017167"]
    assert align_genes(names, mouse).feature_of_var.tolist() == [2, 1, -1, -1]
    assert align_genes(["A1bg", "Gnai3", "Cntnap1"], mouse).feature_of_var.tolist() == [2, 0, -1]


def test_ids_alone_make_no_species_known():
    assert not read_linked_ids(MICE, Files(**{"mouse ids": {"ENSMUSG00000000001": "A1BG"}})).siblings


@pytest.mark.parametrize("more", [{}, {"mice": {"Xist": "XIST"}}])
def test_a_species_without_known_genes_is_not_known(more):
    assert not read_linked_ids(MICE, Files(**more)).siblings
