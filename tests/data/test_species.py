"""The species of cells: told from genes where they are of one species, else asked for."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from sclcm.data.species import number_species, own_genes, species_of_data
from sclcm.encoding.chunks import CellChunk
from sclcm.genes.align import align_genes
from sclcm.genes.vocabulary import GeneVocabulary

HUMAN = ["ENSG00000141510", "ENSG00000075624"]  # TP53, ACTB
MOUSE = ["ENSMUSG00000059552", "ENSMUSG00000029580"]  # Trp53, Actb


def make_vocabulary(features=(*HUMAN, *MOUSE), species=("human", "mouse")):
    tokens = {"<pad>": 0, **{name: i for i, name in enumerate(features, 1)}}
    return GeneVocabulary.from_mapping(tokens, specials=["<pad>"], ids="ensembl", species=species)


def numbers(names, species=None, *, obs=None, vocabulary=None):
    vocabulary = vocabulary or make_vocabulary()
    table = pd.DataFrame(obs if obs is not None else {"n": [0, 0, 0]})
    alignment = align_genes(names, vocabulary, species=species_of_data(table, species))
    return number_species(table, alignment, vocabulary, species=species, model="toy").tolist()


def test_features_know_their_species():
    assert make_vocabulary().species_of_features.tolist() == [0, 0, 1, 1]
    assert make_vocabulary(species=("mouse", "human")).species_of_features.tolist() == [1, 1, 0, 0]
    assert make_vocabulary([*HUMAN, "ENSDARG00000035559"]).species_of_features.tolist() == [0, 0, -1]
    assert make_vocabulary(HUMAN, ("human",)).species_of_features.tolist() == [0, 0]


def test_features_named_by_symbols_know_their_species():
    tokens = {"<pad>": 0, "TP53": 1, "Trp53": 2, "NOGENE": 3}
    vocabulary = GeneVocabulary.from_mapping(tokens, specials=["<pad>"], ids="symbol", species=("human", "mouse"))
    assert vocabulary.species_of_features.tolist() == [0, 1, -1]


@pytest.mark.parametrize(
    ("names", "wanted"),
    [(HUMAN, 0), (MOUSE, 1), ([HUMAN[0], "unknown"], 0), (["Trp53", "Actb", "Xkr4"], 1), (["TP53", "ACTB"], 0)],
)
def test_species_is_told_from_genes_of_one(names, wanted):
    assert numbers(names) == [wanted] * 3


def test_genes_of_both_need_to_be_told_apart():
    with pytest.raises(ValueError, match=r"'toy' needs the species .* has 2 human and 1 mouse genes. Say it by"):
        numbers([*HUMAN, MOUSE[0]])
    assert numbers([*HUMAN, MOUSE[0]], "mouse") == [1, 1, 1]


def test_genes_that_tell_nothing_are_no_species():
    with pytest.raises(ValueError, match="has no genes that tell it"):
        numbers(["unknown"])


@pytest.mark.parametrize("spelling", ["mouse", "Mouse", "Mus musculus", "NCBITaxon:10090"])
def test_column_names_the_species_of_each_cell(spelling):
    obs = {"organism": [spelling, "Homo sapiens", spelling]}
    assert numbers([*HUMAN, *MOUSE], "organism", obs=obs) == [1, 0, 1]
    assert numbers([*HUMAN, *MOUSE], "organism", obs={"organism": pd.Categorical(obs["organism"])}) == [1, 0, 1]
    assert numbers(MOUSE, spelling) == [1, 1, 1]


def test_column_with_one_species_decides_how_names_are_read():
    obs = pd.DataFrame({"organism": ["mouse", "mouse"]})
    assert species_of_data(obs, "organism") == "mouse"
    assert species_of_data(pd.DataFrame({"organism": ["mouse", "human"]}), "organism") is None
    assert species_of_data(obs, None) is None
    assert species_of_data(obs, "Homo sapiens") == "human"


@pytest.mark.parametrize(
    ("values", "shown"), [(["human", "rat"], "'rat'"), (["human", None], "missing"), (["human", 1], "1")]
)
def test_column_with_anything_else_is_refused(values, shown):
    with pytest.raises(ValueError, match=rf"`.obs\['organism'\]` is {shown} for 1 cells; expected 'human' or 'mouse'"):
        numbers(HUMAN, "organism", obs={"organism": pd.Series(values, dtype=object)})


def test_column_that_is_not_there_is_refused():
    with pytest.raises(KeyError, match=r"'species' is 'organism', neither a species .* its columns are \['n'\]"):
        numbers(HUMAN, "organism")


def test_species_that_a_model_does_not_know_is_refused():
    human = make_vocabulary(HUMAN, ("human",))
    assert numbers(HUMAN, "human", vocabulary=human) == [0, 0, 0]
    with pytest.raises(ValueError, match="said to be mouse cells, but 'toy' was trained on human"):
        numbers(HUMAN, "mouse", vocabulary=human)
    with pytest.raises(ValueError, match="said to be mouse cells"):
        numbers(HUMAN, "organism", obs={"organism": ["human", "mouse"]}, vocabulary=human)


def test_genes_of_another_species_are_left_out_of_a_cell():
    counts = csr_matrix(np.array([[1, 2, 3, 0], [0, 4, 0, 5], [0, 0, 0, 6]], dtype=np.float32))
    chunk = CellChunk(start=0, counts=counts, totals=np.array([6.0, 9.0, 6.0]), n_genes=np.array([3, 2, 1]))
    found = own_genes(chunk, make_vocabulary(), np.array([0, 1, 0]))
    assert found.counts.toarray().tolist() == [[1, 2, 0, 0], [0, 0, 0, 5], [0, 0, 0, 0]]
    assert found.totals.tolist() == [6.0, 9.0, 6.0]
    assert own_genes(found, make_vocabulary(), np.array([0, 1, 0])) is found
