"""Vocabularies that spell gene names in their own way."""

from __future__ import annotations

import json

import pytest

from sclcm.genes.align import align_genes
from sclcm.genes.vocabulary import GeneVocabulary

WORDS = {"<pad>": 0, "HLA_A": 1, "CD3E": 2, "AC138647_1": 3, "NKX2_1": 4}


@pytest.fixture
def vocabulary():
    return GeneVocabulary.from_mapping(WORDS, specials=["<pad>"], ids="symbol", respell=(("-", "_"), (".", "_")))


def found(names, vocabulary):
    alignment = align_genes(names, vocabulary)
    return {
        names[var]: str(vocabulary.features[i])
        for var, i in zip(alignment.var_index, alignment.feature_index, strict=True)
    }


def test_name_is_found_by_the_vocabularys_spelling_of_it(vocabulary):
    names = ["HLA-A", "CD3E", "AC138647.1", "NKX2-1", "AC999999.9"]
    assert found(names, vocabulary) == {
        "HLA-A": "HLA_A",
        "CD3E": "CD3E",
        "AC138647.1": "AC138647_1",
        "NKX2-1": "NKX2_1",
    }


def test_names_of_the_vocabulary_itself_are_found(vocabulary):
    assert found(list(WORDS)[1:], vocabulary) == {name: name for name in list(WORDS)[1:]}


def test_ensembl_ids_and_former_names_are_still_read(vocabulary):
    assert found(["ENSG00000206503", "ENSG00000198851", "TITF1"], vocabulary) == {
        "ENSG00000206503": "HLA_A",
        "ENSG00000198851": "CD3E",
        "TITF1": "NKX2_1",
    }


def test_two_spellings_of_one_gene_are_merged(vocabulary):
    alignment = align_genes(["HLA-A", "HLA.A", "CD3E"], vocabulary)
    assert alignment.report.merged == {"HLA_A": ("HLA-A", "HLA.A")}


def test_spelling_survives_json_and_counts_towards_the_digest(vocabulary):
    again = GeneVocabulary.from_json(json.loads(json.dumps(vocabulary.to_json())))
    assert again.respell == vocabulary.respell
    assert again.digest() == vocabulary.digest()
    plain = GeneVocabulary.from_mapping(WORDS, specials=["<pad>"], ids="symbol")
    assert plain.digest() != vocabulary.digest()
    assert "respell" not in plain.to_json()
    assert plain.respelt("HLA-A") == "HLA-A"
