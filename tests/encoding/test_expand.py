"""Sentences of every gene, expressed or not, and values that are whole parts of logarithms."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from sclcm.encoding.chunks import CellChunk
from sclcm.encoding.expand import StoreAll, StoreMeasured
from sclcm.encoding.normalize import LogNormalizeKnown, ToBase2
from sclcm.encoding.select import InOrder
from sclcm.encoding.sentences import Encoding, encode
from sclcm.encoding.values import Floored
from sclcm.genes.vocabulary import GeneVocabulary

VOCABULARY = GeneVocabulary(features=["a", "b", "c", "d"], token_ids=range(4), specials={"<cls>": 4}, ids="symbol")
ENCODING = Encoding(
    expand=StoreAll(),
    normalize=(LogNormalizeKnown(target_sum=1e4), ToBase2()),
    select=InOrder(),
    value=Floored(n_values=7, n_marks=1),
    suffix=("<cls>",),
    max_tokens=5,
)


def chunk_of(counts):
    counts = csr_matrix(np.array(counts, dtype=np.float32))
    totals = np.asarray(counts.sum(1)).ravel() + 7  # genes that the model does not know
    return CellChunk(start=0, counts=counts, totals=totals, n_genes=np.diff(counts.indptr))


def test_every_gene_is_a_token_and_zeros_have_the_lowest_value():
    sentences = encode(chunk_of([[0, 3, 0, 9_997], [0, 0, 0, 0]]), ENCODING, vocabulary=VOCABULARY, arrays={})
    assert sentences.token_ids.tolist() == [0, 1, 2, 3, 4] * 2
    assert sentences.features.tolist() == [0, 1, 2, 3, -1] * 2
    assert sentences.values["value"].tolist() == [0, 2, 0, 5, 0] + [0] * 5
    assert sentences.indptr.tolist() == [0, 5, 10]


@pytest.mark.parametrize("power", range(1, 6))
def test_counts_on_an_edge_fall_into_the_upper_bin(power):
    edge = 2**power - 1
    for total in (10_000, 20_000, 490_000):
        count = edge * total // 10_000
        sentences = encode(chunk_of([[count, total - count, 0, 0]]), ENCODING, vocabulary=VOCABULARY, arrays={})
        assert sentences.values["value"][0] == power
        below = encode(chunk_of([[count - 1, total - count + 1, 0, 0]]), ENCODING, vocabulary=VOCABULARY, arrays={})
        assert below.values["value"][0] == power - 1


def test_the_chunk_itself_is_left_alone():
    chunk = chunk_of([[0, 3, 0, 1]])
    stored = StoreAll().apply(chunk, {})
    assert chunk.counts.nnz == 2
    assert stored.counts.nnz == 4
    assert stored.counts.toarray().tolist() == chunk.counts.toarray().tolist()


def test_measured_genes_are_tokens_and_those_that_the_data_lacks_are_none():
    chunk = dataclasses.replace(chunk_of([[0, 3, 0, 1], [0, 0, 0, 0]]), measured=np.array([1, 2, 3]))
    found = encode(chunk, dataclasses.replace(ENCODING, expand=StoreMeasured()), vocabulary=VOCABULARY, arrays={})
    assert found.features.tolist() == [1, 2, 3, -1] * 2
    assert (found.values["value"].reshape(2, 4)[:, :3] > 0).tolist() == [[True, False, True], [False] * 3]


def test_measured_genes_must_be_known():
    with pytest.raises(ValueError, match="Which genes the data has is not known here"):
        StoreMeasured().apply(chunk_of([[0, 3, 0, 1]]), {})
