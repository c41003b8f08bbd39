"""A weighted sample of genes in groups."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from sclcm.encoding.chunks import CellChunk
from sclcm.encoding.groups import SampledGroups, draw_weighted
from sclcm.encoding.normalize import LogCounts
from sclcm.encoding.sentences import SPECIAL, Encoding, encode
from sclcm.encoding.values import Normalized
from sclcm.genes.vocabulary import GeneVocabulary

GENES = ["a", "b", "c", "d", "e", "f"]
SPECIALS = {"<pad>": 0, "<cls>": 1, "<end>": 2, "<one>": 10, "<two>": 11, "<three>": 12}
VOCABULARY = GeneVocabulary(
    features=GENES, token_ids=np.arange(3, 9), specials=SPECIALS, ids="symbol", species=("human",)
)
GROUP, PLACE = np.full(13, -1), np.zeros(13, dtype=np.int64)
GROUP[3:9] = [12, 10, 11, 10, 12, 11]
PLACE[3:9] = [5, 900, 7, 100, 5, 3_000_000_000]
ARRAYS = {"group": GROUP, "place": PLACE}
ENCODING = Encoding(
    normalize=(LogCounts(),),
    select=SampledGroups(n_draws=8, group="group", place="place", close="<end>"),
    prefix=("<cls>",),
    max_tokens=20,
)


def chunk(counts, *, start=0):
    matrix = csr_matrix(np.asarray(counts, dtype=np.float32).reshape(-1, len(GENES)))
    totals = np.asarray(matrix.sum(1)).ravel().astype(np.float64)
    return CellChunk(start=start, counts=matrix, totals=totals, n_genes=np.diff(matrix.indptr))


def make(counts, *, encoding=ENCODING, **given):
    found = encode(chunk(counts), encoding, vocabulary=VOCABULARY, arrays=ARRAYS, **given)
    return [found.token_ids[a:b].tolist() for a, b in zip(found.indptr[:-1], found.indptr[1:], strict=True)]


def test_groups_are_opened_closed_and_ordered_by_place():
    """Four equal genes; the numbers fall into their quarters, the groups are shuffled as drawn."""
    uniforms = np.array([[0.1, 0.9, 0.3, 0.3, 0.6, 0.99, 0.7, 0.26]])
    found = make([[2, 2, 0, 2, 0, 2]], draws={"sample": uniforms, "groups": np.array([[0.5, 0.9, 0.1]])})
    # drawn: a, f, b, b, d, f, d, b; groups 10: b d, 11: f, 12: a; order 12, 10, 11; d before b by place
    assert found == [[1, 12, 3, 2, 10, 6, 6, 4, 4, 4, 2, 11, 8, 8, 2]]


def test_special_tokens_are_no_features():
    found = encode(chunk([[1, 1, 1, 1, 1, 1]]), ENCODING, vocabulary=VOCABULARY, arrays=ARRAYS)
    is_gene = (found.token_ids >= 3) & (found.token_ids < 9)
    assert ((found.features == SPECIAL) == ~is_gene).all()
    assert (found.features[is_gene] == found.token_ids[is_gene] - 3).all()
    assert found.token_ids.dtype == found.features.dtype == np.int32


def test_values_stand_at_genes_and_the_special_value_elsewhere():
    valued = dataclasses.replace(ENCODING, value=Normalized(), special_value=-7.0)
    found = encode(chunk([[1, 2, 3, 4, 5, 6]]), valued, vocabulary=VOCABULARY, arrays=ARRAYS)
    wanted = np.where(found.features < 0, -7, np.log1p(found.features + 1))
    assert found.values["value"] == pytest.approx(wanted, rel=1e-6)


def test_cell_without_counts_has_the_prefix_alone():
    assert make([[0] * 6, [0, 3, 0, 0, 0, 0]]) == [[1], [1, 10, *[4] * 8, 2]]


def test_shares_follow_the_logarithm_of_the_counts():
    many = dataclasses.replace(ENCODING, select=dataclasses.replace(ENCODING.select, n_draws=200_000), max_tokens=None)
    tokens = np.array(make([[1, 0, 9, 0, 0, 99]], encoding=many)[0])
    weights = np.log1p([1, 9, 99])
    shares = np.array([(tokens == token).mean() for token in (3, 5, 8)])
    assert shares == pytest.approx(weights / weights.sum(), abs=0.005)


def test_orders_of_groups_are_equally_likely():
    cells = np.random.default_rng(0).integers(1, 1000, (600, 6))
    long = dataclasses.replace(ENCODING, select=dataclasses.replace(ENCODING.select, n_draws=50), max_tokens=None)
    orders = [tuple(token for token in row if token >= 10) for row in make(cells, encoding=long)]
    counts = np.unique(orders, axis=0, return_counts=True)[1]
    assert len(counts) == 6
    assert (counts > 70).all()


def test_sample_depends_on_the_cell_and_the_seed_alone():
    cells = np.random.default_rng(1).integers(0, 9, (20, 6))
    found = make(cells)
    assert [make(cell)[0] for cell in cells] == found
    assert make(cells[::-1])[::-1] == found
    assert make(cells, random_state=1) != found
    assert make(cells, random_state=1) == make(cells, random_state=1)


def test_numbers_are_pinned():
    """Embeddings that people have stored stay the same: neither a release nor a platform may change these."""
    assert make([[5, 1, 3, 0, 2, 7]], random_state=3) == [[1, 11, 5, 5, 8, 8, 2, 12, 3, 3, 7, 7, 2]]


def test_sentence_that_is_too_long_is_an_error_that_names_the_cell():
    short = dataclasses.replace(ENCODING, max_tokens=14)
    assert len(make([[1, 0, 0, 0, 1, 0]], encoding=short)[0]) == 11
    with pytest.raises(ValueError, match=r"sentence of cell 4 would have 14 tokens .* the model takes 13"):
        encode(chunk([[1] * 6], start=4), short, vocabulary=VOCABULARY, arrays=ARRAYS)


def test_uniform_number_falls_to_the_weight_whose_share_it_lies_in():
    weights = np.array([1, 0, 2, 1], dtype=np.float32)
    assert draw_weighted(weights, np.array([0, 0.2499, 0.25, 0.74, 0.75, 1 - 1e-17])).tolist() == [0, 0, 2, 2, 3, 3]
