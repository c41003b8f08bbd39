"""Alignment of var names to a vocabulary."""

from __future__ import annotations

import gc
import weakref

import anndata as ad
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import csr_matrix

from sclcm.genes.align import align_genes
from sclcm.genes.table import load_table
from sclcm.genes.vocabulary import GeneVocabulary


def vocabulary(*features, ids="symbol", **changes):
    mapping = {"<pad>": 0} | {feature: i + 1 for i, feature in enumerate(features)}
    return GeneVocabulary.from_mapping(mapping, specials=["<pad>"], ids=ids, **changes)


def pairs(names, vocab, **options):
    alignment = align_genes(names, vocab, **options)
    features = vocab.features[alignment.feature_index]
    return {names[i]: feature for i, feature in zip(alignment.var_index, features, strict=True)}


def test_counts_of_merged_names_are_summed():
    vocab = vocabulary("SEPTIN2", "CD3E", "ACTB")
    alignment = align_genes(["SEPT2", "junk", "CD3E", "SEPTIN2"], vocab)
    counts = csr_matrix(np.array([[1, 10, 2, 3], [0, 5, 0, 4]], dtype=np.float32))
    assert (counts @ alignment.matrix()).toarray().tolist() == [[4, 2, 0], [4, 0, 0]]
    assert alignment.matrix() is alignment.matrix()
    assert alignment.matrix().dtype == np.float32
    assert not alignment.is_one_to_one
    report = alignment.report
    assert report.merged == {"SEPTIN2": ("SEPT2", "SEPTIN2")}
    assert report.renamed == {"SEPT2": "SEPTIN2"}
    assert report.dropped == ("junk",)
    assert (report.n_matched, report.n_covered) == (3, 2)
    assert report.matched_share == pytest.approx(0.75)
    assert report.coverage == pytest.approx(2 / 3)
    assert report.species == "human"


def test_authors_map_decides_alone():
    names = {"SEPTIN2": "ENSG00000168385", "OLDID": "ENSG00000168385", "CD3E": "ENSG00000999999"}
    vocab = vocabulary("ENSG00000168385", "ENSG00000198851", ids="ensembl", names=names)
    got = pairs(["septin2", "OldId", "SEPT2", "CD3E", "ENSG00000198851"], vocab)
    assert got == {"septin2": "ENSG00000168385", "OldId": "ENSG00000168385"}
    report = align_genes(["septin2", "OldId", "CD3E"], vocab).report
    assert report.renamed == {}
    assert report.merged == {"ENSG00000168385": ("septin2", "OldId")}
    assert report.how == {"mapped": 2, "unknown": 1}


def test_symbols_find_ensembl_features_and_back():
    ids = vocabulary("ENSG00000168385", "ENSG00000198851", ids="ensembl")
    assert pairs(["SEPT2", "CD3E"], ids) == {"SEPT2": "ENSG00000168385", "CD3E": "ENSG00000198851"}
    assert align_genes(["SEPT2", "CD3E"], ids).report.renamed == {"SEPT2": "ENSG00000168385"}
    symbols = vocabulary("SEPT2", "CD3E")  # a vocabulary of old names
    got = pairs(["ENSG00000168385.17", "ENSG00000198851"], symbols)
    assert got == {"ENSG00000168385.17": "SEPT2", "ENSG00000198851": "CD3E"}
    assert pairs(["SEPTIN2"], symbols) == {"SEPTIN2": "SEPT2"}
    assert align_genes(["SEPTIN2", "CD3E"], symbols).report.renamed == {"SEPTIN2": "SEPT2"}


def test_a_name_that_is_a_feature_is_that_feature():
    vocab = vocabulary("SEPT2", "SEPTIN2", "made-up")
    assert pairs(["SEPT2", "SEPTIN2", "made-up"], vocab) == {n: n for n in ("SEPT2", "SEPTIN2", "made-up")}
    assert pairs(["septin2", "CD3E"], vocab) == {"septin2": "SEPTIN2"}


def test_ids_of_one_symbol_stay_two_features():
    first, second = "ENSG00000015479", "ENSG00000280987"  # both MATR3
    vocab = vocabulary(first, second, ids="ensembl")
    assert pairs([f"{second}.1", "MATR3"], vocab) == {f"{second}.1": second, "MATR3": first}
    assert pairs([second], vocabulary(first, ids="ensembl")) == {}
    assert pairs([second], vocabulary("MATR3")) == {second: "MATR3"}


def test_ids_with_versions_on_both_sides_meet():
    assert pairs(["ENSG00000168385.1"], vocabulary("ENSG00000168385.9", ids="ensembl")) == {
        "ENSG00000168385.1": "ENSG00000168385.9"
    }


def test_alias_of_a_gene_that_is_there_is_not_merged():
    vocab = vocabulary("SELL", "CD3E")
    report = align_genes(["SELL", "CD62L", "CD3E"], vocab).report
    assert (report.merged, report.ambiguous) == ({}, ("CD62L",))
    assert pairs(["CD62L", "CD3E"], vocab) == {"CD62L": "SELL", "CD3E": "CD3E"}


def test_features_of_one_gene_read_equally_well_are_ambiguous():
    vocab = vocabulary("FLJ20668", "RNF171", "CD3E")  # both aliases of MARCHF1
    report = align_genes(["MARCHF1", "CD3E"], vocab).report
    assert report.ambiguous == ("MARCHF1",)


def test_mouse_data_do_not_align_to_a_human_vocabulary():
    alignment = align_genes(["Actb", "Cd3e", "Sell"], vocabulary("ACTB", "CD3E", "SELL"))
    assert alignment.report.species == "mouse"
    assert alignment.report.n_matched == 0
    assert alignment.matrix().shape == (3, 3)


def test_vocabulary_of_two_species_takes_both():
    vocab = vocabulary("ACTB", "Actb", "Cd3e", species=("human", "mouse"))
    assert pairs(["ENSG00000075624"], vocab) == {"ENSG00000075624": "ACTB"}
    assert pairs(["ENSMUSG00000029580", "cd3e"], vocab) == {"ENSMUSG00000029580": "Actb", "cd3e": "Cd3e"}


def test_given_species_is_used():
    assert pairs(["actb"], vocabulary("ACTB")) == {}
    assert pairs(["actb"], vocabulary("ACTB"), species="human") == {"actb": "ACTB"}


def test_no_names_align_to_nothing():
    alignment = align_genes([], vocabulary("ACTB"))
    assert alignment.matrix().shape == (0, 1)
    assert alignment.report.matched_share == 0


def test_report_can_be_stored(tmp_path):
    adata = ad.AnnData(np.ones((1, 3), dtype=np.float32))
    vocab = vocabulary("SEPTIN2", "CD3E")
    for names in (["SEPT2", "SEPTIN2", "a/b"], ["CD3E"], []):
        adata.uns["report"] = align_genes(names, vocab).report.to_uns()
        adata.write_h5ad(tmp_path / "stored.h5ad")
        stored = ad.read_h5ad(tmp_path / "stored.h5ad").uns["report"]
        assert stored["dropped"].tolist() == adata.uns["report"]["dropped"].tolist()
        assert stored["merged"]["from"].tolist() == adata.uns["report"]["merged"]["from"].tolist()
        assert stored["n_var"] == len(names)


@st.composite
def data_and_vocabulary(draw):
    table = load_table("human")
    rows = draw(st.lists(st.integers(0, table.n_primary - 1), min_size=1, max_size=12, unique=True))
    spellings = [
        n for r in rows for c in (table.symbols, table.ids, table.former, table.previous) for n in c[r].split("|") if n
    ]
    features = draw(st.lists(st.sampled_from(spellings), min_size=1, unique=True))
    ids = draw(st.sampled_from(["symbol", "ensembl"]))
    return draw(st.lists(st.sampled_from([*spellings, "junk", "1-Mar"]), max_size=20)), vocabulary(*features, ids=ids)


@given(case=data_and_vocabulary(), order=st.randoms(use_true_random=False))
def test_order_of_var_does_not_matter(case, order):
    names, vocab = case
    shuffled = order.sample(range(len(names)), len(names))
    straight = align_genes(names, vocab, species="human").matrix().toarray()
    mixed = align_genes([names[i] for i in shuffled], vocab, species="human").matrix().toarray()
    np.testing.assert_array_equal(straight[shuffled], mixed)


@given(case=data_and_vocabulary())
def test_every_var_has_one_feature_at_most_and_equal_names_the_same(case):
    names, vocab = case
    alignment = align_genes(names, vocab, species="human")
    assert (np.diff(alignment.var_index) > 0).all()
    by_name = {}
    for i, feature in zip(alignment.var_index, alignment.feature_index, strict=True):
        assert by_name.setdefault(names[i], feature) == feature
    exact = {name: vocab.feature_positions[name] for name in names if name in vocab.feature_positions}
    assert exact.items() <= by_name.items()
    report = alignment.report
    assert report.n_matched == len(alignment.var_index)
    assert set(report.ambiguous) | set(report.dropped) | set(by_name) == set(names)
    assert sum(report.how.values()) == len(names)


# ---- what is remembered ----


def test_an_alignment_is_made_once_and_again_when_names_species_or_vocabulary_differ():
    vocab, names = vocabulary("CD3E", "SELL", "ACTB"), ["CD3E", "SELL", "junk"]
    first = align_genes(names, vocab)
    assert align_genes(np.array(names, dtype=object), vocab) is first
    names[2] = "ACTB"
    assert align_genes(names, vocab).report.n_matched == 3
    assert align_genes(names[::-1], vocab).feature_index.tolist() != first.feature_index.tolist()
    assert align_genes(["Cd3e"], vocab).report.n_matched == 0
    assert align_genes(["Cd3e"], vocab, species="human").report.n_matched == 1
    assert align_genes(["CD3E", "SELL", "junk"], vocabulary("SELL")).n_features == 1
    assert first.report.n_matched == 2


def test_few_alignments_are_remembered_and_none_of_a_vocabulary_that_is_gone():
    vocab = vocabulary("CD3E", "SELL", "ACTB")
    made = [weakref.ref(align_genes(["CD3E", f"x{i}"], vocab)) for i in range(20)]
    assert sum(alignment() is not None for alignment in made) < 10
    del vocab
    gc.collect()
    assert not any(alignment() is not None for alignment in made)


def test_a_remembered_alignment_cannot_be_written_to():
    alignment = align_genes(["CD3E"], vocabulary("CD3E", "SELL"))
    for array in (alignment.var_index, alignment.feature_index, alignment.feature_of_var):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1
