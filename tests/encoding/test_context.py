"""Sentences that say what a cell is, and counts over arrays that each cell chooses."""

from __future__ import annotations

import numba
import numpy as np
import pytest
from scipy import sparse

from sclcm.encoding.batches import pad_sentences
from sclcm.encoding.chunks import CellChunk
from sclcm.encoding.context import ArrayChoice, ContextToken
from sclcm.encoding.factors import DivideByChosen, ScaleKnown, StoreUndefined
from sclcm.encoding.normalize import normalize
from sclcm.encoding.select import ByQuicksort, ByRank
from sclcm.encoding.sentences import Encoding, encode
from sclcm.encoding.taken import StoredValues
from sclcm.genes.vocabulary import GeneVocabulary

SPECIALS = {"<mask>": 0, "<pad>": 1, "<cls>": 2, "cat": 3, "dog": 4, "wild": 5, "tame": 6}
GENES = [f"ENSG{i:011d}" for i in range(1, 6)]
VOCABULARY = GeneVocabulary.from_mapping(
    {**SPECIALS, **{gene: 10 + i for i, gene in enumerate(GENES)}}, specials=SPECIALS, ids="ensembl"
)
KIND = ContextToken(name="kind", tokens=("cat", "dog"), columns=("kind",))
LIFE = ContextToken(name="life", tokens=("wild", "tame"), columns=("life",))
CHOICE = ArrayChoice(name="by", arrays={"a": "array_a", "b": "array_b"}, follows="kind", by_token={}, otherwise="a")
ARRAYS = {"array_a": np.array([1.0, 2, 0, 4, np.nan]), "array_b": np.array([10.0, -1, np.nan, 1, 1])}
COUNTS = np.array([[4, 0, 3, 1, 2], [0, 0, 0, 0, 0], [5, 1, 0, 0, 1]], dtype=np.float32)


def chunk(**obs):
    counts = sparse.csr_matrix(COUNTS)
    totals = COUNTS.sum(1).astype(np.float64) + 100  # of genes outside the vocabulary, too
    facts = {name: np.asarray(values) for name, values in obs.items()}
    return CellChunk(start=0, counts=counts, totals=totals, n_genes=np.diff(counts.indptr), obs=facts)


def sentences(encoding, **obs):
    return encode(chunk(**obs), encoding, vocabulary=VOCABULARY, arrays=ARRAYS)


def rows(found):
    return [found.token_ids[a:b].tolist() for a, b in zip(found.indptr[:-1], found.indptr[1:], strict=True)]


def test_context_stands_between_prefix_and_genes():
    encoding = Encoding(select=ByRank(), prefix=("<cls>",), context=(KIND, LIFE), max_tokens=5)
    found = sentences(encoding, kind=[3, 4, 3], life=[5, 5, 6])
    assert rows(found) == [[2, 3, 5, 10, 12], [2, 4, 5], [2, 3, 6, 10, 11]]
    assert found.features[:5].tolist() == [-1, -1, -1, 0, 2]


def test_context_that_a_release_does_not_use_is_left_out():
    unused = ContextToken(name="life", tokens=("wild",), columns=("life",), used=False)
    encoding = Encoding(select=ByRank(), context=(KIND, unused), max_tokens=None)
    assert encoding.obs_columns == ("kind",)
    assert rows(sentences(encoding, kind=[3, 4, 3]))[1] == [4]


def test_context_is_asked_for_by_name():
    encoding = Encoding(select=ByRank(), context=(KIND,), max_tokens=None)
    with pytest.raises(ValueError, match="come without 'kind'"):
        sentences(encoding)


def test_place_of_a_token_that_a_sentence_lacks_is_no_token():
    encoding = Encoding(select=ByRank(), context=(KIND, LIFE), max_tokens=None)
    found = sentences(encoding, kind=[1, 1, 1], life=[5, 5, 6])
    batch = pad_sentences(found, np.arange(3), pad=1)
    assert batch.mask[:, :3].tolist() == [[False, True, True], [False, True, False], [False, True, True]]


@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_counts_are_scaled_by_the_total_of_known_genes(precision):
    data = normalize((ScaleKnown(target_sum=1e4, precision=precision),), chunk(), {})
    wanted = np.concatenate([row[row > 0] / row.sum() * 1e4 for row in COUNTS.astype(precision) if row.any()])
    assert data.dtype == precision
    np.testing.assert_allclose(data, wanted, rtol=1e-6)


def test_each_cell_is_divided_by_its_own_array_and_a_zero_factor_counts_as_one():
    step = DivideByChosen(choice=CHOICE)
    data = normalize((step,), chunk(by=[0, 0, 1]), ARRAYS)
    np.testing.assert_array_equal(data, [4, 3, 0.25, np.nan, 0.5, -1, 1])
    assert data.dtype == np.float64
    np.testing.assert_array_equal(normalize((step,), chunk(by=[-1, -1, -1]), ARRAYS), COUNTS[COUNTS > 0])
    with pytest.raises(ValueError, match="come without 'by'"):
        normalize((step,), chunk(), ARRAYS)


def test_genes_without_a_factor_are_tokens_of_every_cell_and_come_last():
    encoding = Encoding(
        normalize=(DivideByChosen(choice=CHOICE),),
        select=ByQuicksort(),
        expand=StoreUndefined(choice=CHOICE),
        max_tokens=None,
    )
    assert encoding.obs_columns == ("by",)
    assert rows(sentences(encoding, by=[0, 0, 1])) == [[10, 12, 13, 14], [14], [14, 10, 11, 12]]
    assert rows(sentences(encoding, by=[-1, -1, -1])) == [[10, 12, 14, 13], [], [10, 11, 14]]


def test_expanding_an_array_that_is_not_there_is_left_to_who_chooses():
    step = StoreUndefined(choice=CHOICE)
    same = step.apply(chunk(by=[0, 0, 0]), {"array_a": np.ones(5)})
    np.testing.assert_array_equal(same.counts.toarray(), COUNTS)


def test_order_of_ties_is_that_of_numbas_argsort():
    @numba.njit
    def order(x):
        return np.argsort(-x)

    rng = np.random.default_rng(0)
    lengths = [0, 1, 14, 15, 16, 40, 300, 2000]
    values = [rng.integers(1, 5, n) / rng.integers(1, 4, n) for n in lengths]
    values[-1][::7] = np.nan
    indptr = np.concatenate([[0], np.cumsum(lengths)])
    stored = StoredValues(
        values=np.concatenate(values), columns=np.arange(indptr[-1]), indptr=indptr, random=None, vocabulary=None
    )
    ranked = ByQuicksort().take(stored, 1500)
    found = np.split(ranked.places, np.cumsum(ranked.lengths)[:-1])
    for start, taken, value in zip(indptr, found, values, strict=False):
        np.testing.assert_array_equal(taken - start, order(value)[:1500])
    assert (np.diff(found[-1][np.isfinite(values[-1][found[-1] - indptr[-2]])]) < 0).any()
