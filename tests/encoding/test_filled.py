"""Places kept free before a sentence, and sentences filled up with padding that a model sees."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from sclcm.encoding.chunks import CellChunk
from sclcm.encoding.normalize import Log2
from sclcm.encoding.select import ByRank
from sclcm.encoding.sentences import SPECIAL, Encoding, encode, fill_up
from sclcm.encoding.values import Normalized
from sclcm.genes.vocabulary import GeneVocabulary

COUNTS = [[3, 2, 0, 20, 1, 0], [0, 0, 0, 0, 0, 0], [0, 0, 1, 0, 0, 0]]
TOKENS = {"<pad>": 0, "<cls>": 1, **{f"ENSG0000000000{i}": 10 + i for i in range(6)}}
VOCABULARY = GeneVocabulary.from_mapping(TOKENS, specials=("<pad>", "<cls>"), ids="ensembl")


def encoded(max_tokens, **given):
    counts = csr_matrix(np.array(COUNTS, dtype=np.float32))
    totals = np.asarray(counts.sum(1)).ravel()
    chunk = CellChunk(start=0, counts=counts, totals=totals, n_genes=np.diff(counts.indptr))
    encoding = Encoding(select=ByRank(), value=Normalized(), max_tokens=max_tokens, **given)
    return encode(chunk, encoding, vocabulary=VOCABULARY, arrays={}), encoding


def sentence(sentences, cell):
    return sentences.token_ids[sentences.indptr[cell] : sentences.indptr[cell + 1]].tolist()


def test_reserved_place_comes_first_and_leaves_room_for_as_many_genes():
    free, _ = encoded(4, prefix=("<cls>",), reserved=True)
    bare, _ = encoded(4, prefix=("<cls>",))
    assert [sentence(free, cell)[1:] for cell in range(3)] == [sentence(bare, cell) for cell in range(3)]
    assert free.lengths.tolist() == [5, 2, 3]
    assert free.features[free.indptr[:-1]].tolist() == [SPECIAL] * 3
    assert free.values["value"][free.indptr[:-1]].tolist() == [0, 0, 0]


def test_filled_sentences_are_as_long_as_the_longest_may_be():
    sentences, encoding = encoded(5, reserved=True)
    filled = fill_up(sentences, encoding, pad=7)
    assert filled.lengths.tolist() == [6, 6, 6]
    assert filled.rows.tolist() == [0, 1, 2]
    for cell in range(3):
        n = sentences.lengths[cell]
        assert sentence(filled, cell) == sentence(sentences, cell) + [7] * (6 - n)
        rest = slice(cell * 6 + n, cell * 6 + 6)
        assert set(filled.features[rest].tolist()) <= {SPECIAL}
        assert not filled.values["value"][rest].any()


def test_sentences_without_a_longest_length_cannot_be_filled():
    sentences, encoding = encoded(None)
    with pytest.raises(ValueError, match="no longest length"):
        fill_up(sentences, encoding, pad=0)


def test_logarithm_to_base_two_of_one_more():
    counts = csr_matrix(np.array(COUNTS, dtype=np.float32))
    chunk = CellChunk(start=0, counts=counts, totals=np.zeros(3), n_genes=np.diff(counts.indptr))
    values = Log2().apply(np.array([1, 3, 0.5, 1e7], dtype=np.float32), chunk, {})
    assert values.tolist() == np.log2([2.0, 4.0, 1.5, 10_000_001.0]).astype(np.float32).tolist()
    assert values.dtype == np.float32
