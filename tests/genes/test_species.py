"""Species by Ensembl ids, and vocabularies of several species."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from sclcm.genes.align import align_genes
from sclcm.genes.species import species_of_ids
from sclcm.genes.vocabulary import GeneVocabulary


def vocabulary(*names, species="human", first=1, **given):
    return GeneVocabulary(
        features=list(names),
        token_ids=np.arange(first, first + len(names)),
        specials={"<pad>": 0},
        ids="symbol",
        species=(species,),
        **{"ignore_case": True, **given},
    )


@pytest.mark.parametrize(
    ("names", "species"),
    [
        (["ENSG00000000003", "ACTB"], "human"),
        (["ENSMUSG00000000001.4", "ENSG00000000003", "ENSMUSG00000000003"], "mouse"),
        (["ENSMMUG00000000001"], "macaca_mulatta"),
        (["ENSDARG00000000001", "actb1"], "zebrafish"),
        (["ENSRNOG00000000001"], None),  # a rat, which no table here names
        (["ENSMUSG1", "ENSP00000000001", "ACTB", ""], None),
    ],
)
def test_ids_name_their_species(names, species):
    assert species_of_ids(names) == species


@pytest.mark.parametrize("species", ["human", "pig"])
def test_letter_case_of_names_does_not_matter_where_the_vocabulary_says_so(species):
    folded = vocabulary("ACTB", "C1orf162", "XYZ9", species=species)
    found = align_genes(["actb", "C1ORF162", "xyz9", "other1"], folded)
    assert found.feature_of_var.tolist() == [0, 1, 2, -1]
    assert found.report.renamed == {"actb": "ACTB", "C1ORF162": "C1orf162", "xyz9": "XYZ9"}
    strict = align_genes(["xyz9", "XYZ9"], vocabulary("ACTB", "XYZ9", species=species, ignore_case=False))
    assert strict.feature_of_var.tolist() == [-1, 1]


def test_ids_and_former_names_are_read_by_the_resolver_where_it_knows_the_species():
    names = ["ENSG00000075624", "H2AFZ", "ACTB"]
    assert align_genes(names, vocabulary("ACTB", "H2AZ1", merge="keep")).feature_of_var.tolist() == [0, 1, 0]
    other = align_genes(names, vocabulary("ACTB", "H2AZ1", species="pig"))
    assert other.feature_of_var.tolist() == [-1, -1, 0]
    assert other.report.species is None


def test_names_that_differ_in_letter_case_alone_cannot_be_told_apart():
    with pytest.raises(ValueError, match="name in upper case 'ACTB' occurs more than once"):
        vocabulary("ACTB", "Actb")
    assert vocabulary("ACTB", "Actb", ignore_case=False).n_features == 2


def test_species_of_a_vocabulary_are_listed_and_chosen():
    pig = vocabulary("ACTB", species="pig", first=3)
    both = vocabulary("ACTB", "GAPDH", siblings={"pig": pig})
    assert both.of_species("pig") is pig
    assert both.of_species("human").siblings == {}
    assert pig.of_species("pig") is pig
    with pytest.raises(ValueError, match="`species` is 'rat'; the model knows 'human', 'pig'"):
        both.of_species("rat")
    again = GeneVocabulary.from_json(both.to_json())
    assert again.to_json() == both.to_json()
    assert again.siblings["pig"].features.tolist() == ["ACTB"]
    assert again.ignore_case
    assert again.digest() != both.of_species("human").digest()


def test_sibling_must_be_of_the_species_it_stands_for():
    pig = vocabulary("ACTB", species="pig", first=3)
    with pytest.raises(ValueError, match=r"vocabulary of 'frog' is one of \('pig',\)"):
        dataclasses.replace(vocabulary("ACTB"), siblings={"frog": pig})
