"""A wider list of genes that reads names and merges before the features are looked up."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sclcm.data.matrix import choose_matrix
from sclcm.data.stream import iter_chunks
from sclcm.encoding.chunks import CellChunk
from sclcm.encoding.normalize import LogNormalizeNamed, normalize
from sclcm.genes.align import align_genes
from sclcm.genes.vocabulary import GeneVocabulary

WIDER = ("A1", "B2", "C3", "D4", "E5")
SYNONYMS = {"old-a": ("A1",), "older-a": ("A1",), "both": ("B2", "C3"), "gone": ("Z9",), "old-d": ("D4",)}


def make(*, features=("D4", "A1"), wider=WIDER, **changes):
    given = {"synonyms": SYNONYMS, "merge": "mean_round", **changes}
    universe = GeneVocabulary(features=wider, token_ids=range(len(wider)), specials={}, ids="symbol", **given)
    return GeneVocabulary(features=features, token_ids=[3, 5], specials={"<E>": 0}, ids="symbol", universe=universe)


def aligned(names, counts, vocabulary=None):
    counts = sparse.csr_matrix(np.atleast_2d(np.array(counts, dtype=np.float32)))
    var = pd.DataFrame(index=pd.Index(names, dtype=object))
    adata = anndata.AnnData(counts, var=var)
    alignment = align_genes(names, vocabulary or make())
    return next(iter_chunks(choose_matrix(adata), alignment, adata.obs, chunk_size=9)), alignment


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_names_are_read_exactly_by_the_authors_table():
    names = ["D4", "old-a", "a1", "both", "gone", "nothing", "C3", "OLD-A"]
    chunk, alignment = aligned(names, [[1, 2, 4, 8, 16, 32, 64, 128]])
    assert chunk.counts.toarray().tolist() == [[1, 2]]
    assert chunk.named_totals.tolist() == [67]  # D4, A1 and C3: of the wider list, though no feature
    assert chunk.totals.tolist() == [255]
    report = alignment.report
    assert report.renamed == {"old-a": "A1"}
    assert report.ambiguous == ("both",)
    assert report.dropped == ("a1", "gone", "nothing", "C3", "OLD-A")
    assert (report.n_matched, report.n_covered, report.n_features) == (2, 2, 2)
    assert alignment.detour[0].report.n_matched == 3


@pytest.mark.parametrize(
    ("counts", "a1"),
    [((1, 2, 0), 1), ((1, 2, 4), 2), ((5, 4, 0), 3), ((2, 2, 3), 2), ((0, 1, 0), 0), ((0, 0, 1.0), 0)],
)
def test_several_names_of_a_gene_count_as_their_mean_rounded_half_to_even(counts, a1):
    names = ["A1", "old-a", "older-a", "D4"]
    chunk, alignment = aligned(names, [[*counts, 7]])
    assert chunk.counts.toarray().tolist() == [[7, a1]]
    assert chunk.named_totals.tolist() == [7 + a1]
    assert chunk.counts.data.all()  # what becomes zero is not stored
    assert alignment.report.merged == {"A1": ("A1", "old-a", "older-a")}


@pytest.mark.parametrize(("counts", "mean"), [((1, 2), 2), ((2, 1), 2), ((3, 2), 2), ((0, 1), 0), ((4, 3), 4)])
def test_half_is_rounded_to_even(counts, mean):
    chunk, _ = aligned(["old-a", "older-a", "D4"], [[*counts, 1]])
    assert chunk.counts.toarray().tolist() == [[1, mean]]


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
def test_of_a_name_that_is_repeated_the_last_counts():
    chunk, alignment = aligned(["A1", "old-a", "D4", "A1", "D4"], [[100, 4, 50, 2, 1]])
    assert chunk.counts.toarray().tolist() == [[1, 3]]
    assert chunk.named_totals.tolist() == [4]
    assert alignment.report.dropped == ()


def test_sum_is_the_other_way_to_merge():
    chunk, _ = aligned(["A1", "old-a", "D4"], [[1, 2, 4]], make(merge="sum"))
    assert chunk.counts.toarray().tolist() == [[4, 3]]
    assert chunk.named_totals.tolist() == [7]


def test_without_the_authors_table_the_resolver_reads_names():
    wider = ("TP53", "CD4", "MARCHF1")
    vocabulary = make(features=("TP53", "CD4"), wider=wider, synonyms=None)
    chunk, alignment = aligned(["P53", "CD4", "MARCH1", "nothing"], [[1, 2, 4, 8]], vocabulary)
    assert chunk.counts.toarray().tolist() == [[1, 2]]
    assert chunk.named_totals.tolist() == [7]
    assert alignment.report.renamed == {"P53": "TP53"}


def test_data_with_other_ids_are_read_by_the_resolver_even_so():
    vocabulary = make(features=("TP53", "CD4"), wider=("TP53", "CD4"), synonyms={})
    chunk, _ = aligned(["ENSG00000141510", "ENSG00000010610.12"], [[1, 2]], vocabulary)
    assert chunk.counts.toarray().tolist() == [[1, 2]]


def test_a_gene_of_the_wider_list_is_no_alias_of_a_feature():
    """What the list calls a gene of its own stays one, though the resolver knows it as another name of a feature."""
    vocabulary = make(features=("TP53", "CD4"), wider=("TP53", "P53", "CD4"), synonyms=None)
    chunk, _ = aligned(["P53", "CD4"], [[1, 2]], vocabulary)
    assert chunk.counts.toarray().tolist() == [[0, 2]]
    assert chunk.named_totals.tolist() == [3]


def test_features_must_be_of_the_wider_list():
    with pytest.raises(ValueError, match="1 features, such as 'X', are not in the wider list of 5 genes"):
        make(features=("D4", "X"))


def test_way_to_merge_must_exist():
    with pytest.raises(ValueError, match="`merge` is 'max'"):
        make(merge="max")


def test_vocabulary_survives_json():
    vocabulary = make()
    again = GeneVocabulary.from_json(vocabulary.to_json())
    assert again.digest() == vocabulary.digest()
    assert again.universe.merge == "mean_round"
    assert again.universe.synonyms["both"] == ("B2", "C3")
    assert vocabulary.digest() != make(merge="sum").digest()


def test_counts_are_normalised_over_the_wider_list():
    chunk, _ = aligned(["D4", "A1", "C3", "nothing"], [[1, 2, 7, 90], [0, 0, 5, 1], [0, 0, 0, 3]])
    found = normalize((LogNormalizeNamed(target_sum=100),), chunk, {})
    assert found == pytest.approx(np.log1p([10, 20]))


def test_totals_over_a_list_that_is_not_there_are_an_error():
    counts = sparse.csr_matrix(np.ones((1, 1), dtype=np.float32))
    chunk = CellChunk(start=0, counts=counts, totals=np.ones(1), n_genes=np.ones(1))
    with pytest.raises(ValueError, match="no wider list of genes"):
        normalize((LogNormalizeNamed(),), chunk, {})
