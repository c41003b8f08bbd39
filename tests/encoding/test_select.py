"""Which genes become tokens, and in which order."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.sparse import csr_matrix

from sclcm.encoding.draws import CellRandom
from sclcm.encoding.select import ByRank, InOrder, LargestMagnitude, Reversed, WeightedSample, descending_keys, ranked
from sclcm.encoding.taken import StoredValues


def places(step, values, indptr, limit, *, columns=None, random=None, keeps_places=True):
    """What a step takes of each cell, by the place among the stored values."""
    columns = np.arange(len(values), dtype=np.int32) if columns is None else columns
    stored = StoredValues(
        values=values,
        columns=columns,
        indptr=np.asarray(indptr),
        random=random,
        vocabulary=None,
        keeps_places=keeps_places,
    )
    taken = step.take(stored, limit)
    found = taken.places if keeps_places else taken.columns
    if keeps_places:
        assert taken.columns.tolist() == columns[taken.places].tolist()
    return np.split(found, np.cumsum(taken.lengths)[:-1])


values = npst.arrays(
    np.float32, st.integers(0, 30), elements=st.floats(-(2.0**100), 2.0**100, width=32).map(lambda x: x + 0.0)
)  # + 0.0: no negative zero
few_values = npst.arrays(np.float32, st.integers(0, 30), elements=st.sampled_from([0.5, 1.0, 1.5, 2.0]))


@settings(deadline=None, max_examples=50)
@given(few_values, st.data())
def test_rank_order_is_a_stable_descending_order_in_each_cell(values, data):
    cuts = sorted(data.draw(st.lists(st.integers(0, len(values)), max_size=4)))
    indptr = np.array([0, *cuts, len(values)])
    limit = data.draw(st.integers(0, 8))
    rows = places(ByRank(), values, indptr, limit)
    assert len(rows) == len(indptr) - 1
    for row, start, stop in zip(rows, indptr[:-1], indptr[1:], strict=True):
        naive = sorted(range(start, stop), key=lambda position: (-values[position], position))
        assert row.tolist() == naive[:limit]


@settings(deadline=None, max_examples=50)
@given(values)
def test_rank_order_holds_for_values_of_either_sign_and_any_size(values):
    (row,) = places(ByRank(), values, np.array([0, len(values)]), len(values))
    assert row.tolist() == np.argsort(-values.astype(np.float64), kind="stable").tolist()


@settings(deadline=None, max_examples=50)
@given(values)
def test_largest_magnitudes_come_first(values):
    (row,) = places(LargestMagnitude(), values, np.array([0, len(values)]), 5)
    assert row.tolist() == np.argsort(-np.abs(values.astype(np.float64)), kind="stable")[:5].tolist()


@settings(deadline=None, max_examples=50)
@given(values)
def test_keys_ascend_as_values_descend(values):
    keys = descending_keys(values)
    assert keys.dtype == np.uint32
    assert np.argsort(keys, kind="stable").tolist() == np.argsort(-values.astype(np.float64), kind="stable").tolist()


@settings(deadline=None, max_examples=50)
@given(few_values, st.randoms(use_true_random=False))
def test_ranked_columns_do_not_depend_on_the_order_in_which_a_row_stores_them(values, order):
    columns = np.arange(len(values), dtype=np.int32) * 3
    wanted = columns[np.argsort(-values, kind="stable")].tolist()
    shuffled = np.array(order.sample(range(len(values)), len(values)), dtype=np.int64)
    stored = {"columns": columns[shuffled], "keeps_places": False}
    (found,) = places(ByRank(), values[shuffled], [0, len(values)], 7, **stored)
    assert found.tolist() == wanted[:7]
    labels, lengths = ranked(values[shuffled], columns[shuffled], np.array([0, len(values)]), limit=99)
    assert (labels.tolist(), lengths.tolist()) == (wanted, [len(values)])


def test_rows_that_share_nothing_but_memory_are_ordered_apart():
    values = np.array([1, 5, 3, 9, 2], dtype=np.float32)
    rows = places(ByRank(), values, np.array([0, 2, 2, 5]), 2)
    assert [row.tolist() for row in rows] == [[1, 0], [], [3, 2]]


def test_keys_do_not_need_contiguous_float32():
    wanted = [2, 1, 0]
    assert np.argsort(descending_keys(np.array([1.0, 2.0, 3.0]))).tolist() == wanted
    strided = np.array([1, 9, 2, 9, 3, 9], dtype=np.float32)[::2]
    assert np.argsort(descending_keys(strided)).tolist() == wanted


def test_reversed_order_is_that_of_the_vocabulary_backwards():
    values, indptr = np.array([1.0, 9.0, 3.0, 2.0], dtype=np.float32), np.array([0, 3, 3, 4])
    assert [row.tolist() for row in places(Reversed(), values, indptr, 9)] == [[2, 1, 0], [], [3]]
    assert [row.tolist() for row in places(Reversed(), values, indptr, 2)] == [[2, 1], [], [3]]


def sampled(matrix, limit, *, random_state=0, draws=None):
    """Columns that each cell's tokens stand for."""
    counts = csr_matrix(np.asarray(matrix, dtype=np.float32))
    random = CellRandom(counts=counts, random_state=random_state, draws=draws or {})
    return [counts.indices[row].tolist() for row in places(InOrder(), counts.data, counts.indptr, limit, random=random)]


def test_genes_in_order_that_fit_are_all_taken():
    cells = [[1, 9, 0, 2], [0, 0, 0, 0], [5, 1, 1, 1]]
    assert sampled(cells, 4) == [[0, 1, 3], [], [0, 1, 2, 3]]
    assert sampled(cells, 3)[:2] == [[0, 1, 3], []]


@settings(deadline=None, max_examples=50)
@given(npst.arrays(np.float32, (4, 9), elements=st.sampled_from([0, 1, 1, 2])), st.integers(0, 9), st.data())
def test_sample_is_in_order_of_the_right_size_and_follows_the_cell_alone(matrix, limit, data):
    found = sampled(matrix, limit)
    for row, genes in zip(matrix, found, strict=True):
        expressed = np.flatnonzero(row).tolist()
        assert len(genes) == min(limit, len(expressed))
        assert genes == sorted(set(genes))
        assert set(genes) <= set(expressed)
    order = data.draw(st.permutations(range(4)))
    assert sampled(matrix[list(order)], limit) == [found[cell] for cell in order]
    assert [sampled(row[None], limit)[0] for row in matrix] == found


def test_sample_follows_the_seed_and_takes_every_gene_equally_often():
    cell = np.ones((1, 12))
    found = [tuple(sampled(cell, 5, random_state=seed)[0]) for seed in range(1200)]
    assert len(set(found)) > 500  # of 792
    assert np.bincount(np.concatenate(found)) / 1200 == pytest.approx(np.full(12, 5 / 12), abs=0.06)


def test_sample_takes_the_genes_of_the_smallest_given_numbers():
    cells = [[1, 1, 1, 1], [0, 1, 1, 1]]
    draws = {"sample": np.array([0.4, 0.1, 0.9, 0.2, 0.7, 0.5, 0.6])}
    assert sampled(cells, 2, draws=draws) == [[1, 3], [2, 3]]


def weighted(values, limit, *, random_state=0, draws=None):
    counts = csr_matrix(np.atleast_2d(np.asarray(values, dtype=np.float32)))
    random = CellRandom(counts=counts, random_state=random_state, draws=draws or {})
    return [row.tolist() for row in places(WeightedSample(), counts.data, counts.indptr, limit, random=random)]


def test_weighted_sample_takes_all_where_all_fit():
    assert weighted([[1, 2, 3], [4, 0, 5]], 3) == [[0, 1, 2], [3, 4]]


def test_weighted_sample_is_in_order_keyed_by_the_cell_and_of_the_asked_length():
    cells = np.random.default_rng(1).gamma(1, 2, size=(4, 50)) + 0.1
    found = weighted(cells, 20)
    assert all(len(row) == 20 and row == sorted(set(row)) for row in found)
    assert [place - 50 for place in found[1]] == weighted(cells[1], 20)[0]
    assert weighted(cells, 20, random_state=1) != found


def test_chances_of_a_weighted_sample_are_those_of_draws_without_replacement():
    """Of three values, two are drawn one after the other; the numbers are worked out by hand."""
    values = np.array([1.0, 2.0, 6.0])
    weight = np.log1p(values)
    left_out = {}
    for kept in ([0, 1], [0, 2], [1, 2]):
        chance = 0.0
        for first, second in (kept, kept[::-1]):
            chance += weight[first] / weight.sum() * weight[second] / (weight.sum() - weight[first])
        left_out[tuple(kept)] = chance
    seen = [tuple(weighted(values, 2, random_state=seed)[0]) for seed in range(4000)]
    for kept, chance in left_out.items():
        assert seen.count(kept) / 4000 == pytest.approx(chance, abs=0.03)


def test_given_numbers_decide_a_weighted_sample():
    numbers = np.array([0.5, 0.0, 0.5, 0.0])
    assert weighted([1, 1, 9, 1], 2, draws={"sample": numbers}) == [[1, 3]]
