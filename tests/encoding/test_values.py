"""Values that stand for expression: bins by quantiles, with ties drawn for each cell alone."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst
from scipy.sparse import csr_matrix

from sclcm.encoding.draws import CellRandom
from sclcm.encoding.values import Bins, EqualWidthBins, Normalized, WholePart, quantile_bins, quantile_edges, spread

counts = npst.arrays(np.float32, st.integers(1, 130), elements=st.integers(1, 12).map(float))
reals = npst.arrays(np.float32, st.integers(1, 130), elements=st.floats(-1e6, 1e6, width=32, allow_subnormal=False))
few = npst.arrays(np.float32, st.integers(1, 60), elements=st.sampled_from([1.0, 2.5]))
lengths = st.integers(1, 300).map(lambda n: np.arange(1, n + 1, dtype=np.float32))  # quantiles fall on values
any_values = st.one_of(counts, reals, few, lengths)
numbers_of_bins = st.sampled_from([2, 3, 7, 51])


def drawn(uniforms):
    """Random numbers that are given."""
    return CellRandom(counts=csr_matrix((1, 0), dtype=np.float32), draws={"bins": np.asarray(uniforms)})


def own(matrix, random_state=0):
    return CellRandom(counts=csr_matrix(matrix), random_state=random_state)


def bins_of(matrix, n_bins=51, random_state=0):
    """Bins of the stored counts of some cells, one list for each."""
    source = own(np.asarray(matrix, dtype=np.float32), random_state)
    found = Bins(n_bins=n_bins).apply(source.counts.data, source.counts.indptr, source)
    return [found[start:stop].tolist() for start, stop in itertools.pairwise(source.counts.indptr)]


@settings(deadline=None, max_examples=150)
@given(any_values, numbers_of_bins, st.sampled_from([np.float32, np.float64, np.int64]))
def test_edges_are_those_of_numpy_to_the_last_bit(values, n_bins, dtype):
    values = values.astype(dtype)
    wanted = np.quantile(values, np.linspace(0, 1, n_bins - 1))
    assert quantile_edges(values, n_bins).dtype == np.float64
    assert np.array_equal(quantile_edges(values, n_bins), wanted)


@settings(deadline=None, max_examples=150)
@given(any_values, numbers_of_bins, st.integers(0, 2**32 - 1))
def test_bins_are_those_of_the_digitized_values_between_which_the_number_falls(values, n_bins, seed):
    """`ceil(u (right - left) + left)`, as the card has it, with both sides by `numpy.digitize`."""
    edges = np.quantile(values, np.linspace(0, 1, n_bins - 1))
    left, right = np.digitize(values, edges), np.digitize(values, edges, right=True)
    uniforms = np.random.default_rng(seed).random(len(values))
    lowest, highest = quantile_bins(values, n_bins)
    assert np.array_equal(highest, left)
    assert np.array_equal(lowest, np.minimum(right + 1, left))
    assert np.array_equal(spread(lowest, highest, uniforms), np.ceil(uniforms * (right - left) + left))
    wanted = np.zeros(len(values))
    wanted[values != 0] = bins_by_digitize(values[values != 0], uniforms[values != 0], n_bins)
    found = Bins(n_bins=n_bins).apply(values, np.array([0, len(values)]), drawn(uniforms))
    assert np.array_equal(found, wanted)


def bins_by_digitize(values, uniforms, n_bins):
    if not len(values):
        return values
    edges = np.quantile(values, np.linspace(0, 1, n_bins - 1))
    left, right = np.digitize(values, edges), np.digitize(values, edges, right=True)
    return np.ceil(uniforms * (right - left) + left)


@settings(deadline=None, max_examples=50)
@given(any_values, numbers_of_bins, st.floats(0, 1, exclude_max=True))
def test_bins_run_from_one_and_never_reach_the_number_of_bins(values, n_bins, uniform):
    lowest, highest = quantile_bins(values, n_bins)
    assert lowest.min() == 1
    assert highest.max() == n_bins - 1
    assert (lowest <= highest).all()
    found = spread(lowest, highest, np.full(len(values), uniform))
    assert ((found >= lowest) & (found <= highest)).all()


@settings(deadline=None, max_examples=50)
@given(counts, numbers_of_bins)
def test_larger_values_have_no_lower_bins(values, n_bins):
    ordered = np.sort(values)
    for bound in quantile_bins(ordered, n_bins):
        assert (np.diff(bound) >= 0).all()


def test_value_on_one_edge_or_between_edges_has_one_bin():
    lowest, highest = quantile_bins(np.array([1, 2, 3, 4, 5], dtype=np.float32), 6)  # edges 1, 2, 3, 4, 5
    assert lowest.tolist() == highest.tolist() == [1, 2, 3, 4, 5]
    lowest, highest = quantile_bins(np.array([1, 2, 10], dtype=np.float32), 3)  # edges 1, 10
    assert lowest.tolist() == highest.tolist() == [1, 1, 2]


def test_ties_may_fall_into_any_bin_of_their_edges():
    values = np.array([1, 1, 1, 4], dtype=np.float32)  # edges 1, 1, 1, 4 for five bins
    lowest, highest = quantile_bins(values, 5)
    assert (lowest.tolist(), highest.tolist()) == ([1, 1, 1, 4], [3, 3, 3, 4])
    assert spread(lowest, highest, np.array([0.0, 0.34, 0.99, 0.5])).tolist() == [3, 2, 1, 4]


def test_one_distinct_value_may_fall_into_any_bin():
    values = np.full(2000, 3, dtype=np.float32)
    lowest, highest = quantile_bins(values, 51)
    assert set(lowest.tolist()) == {1}
    assert set(highest.tolist()) == {50}
    ((*found,),) = bins_of(values[None])
    assert np.bincount(np.array(found, dtype=int), minlength=51)[1:].min() > 15  # 40 expected in each of 50


def test_zeros_stay_zero_and_take_part_in_nothing():
    values = np.array([0, 3, 0, 1, 2], dtype=np.float32)
    found = Bins(n_bins=4).apply(values, np.array([0, 5]), drawn(np.full(5, 0.5)))
    assert found.tolist() == [0, 3, 0, 1, 2]
    assert found.dtype == np.float32


def test_negative_values_are_binned_below_positive_ones():
    values = np.array([-1.5, 2, 0, 0.5], dtype=np.float32)
    found = Bins(n_bins=4).apply(values, np.array([0, 4]), drawn(np.full(4, 0.5)))
    assert found.tolist() == [1, 3, 0, 2]


def test_cell_of_no_value_and_chunk_of_no_cell_have_no_bins():
    assert [bound.tolist() for bound in quantile_bins(np.zeros(0), 51)] == [[], []]
    assert bins_of([[0, 0, 0], [0, 7, 0], [0, 0, 0]], n_bins=2) == [[], [1.0], []]
    assert bins_of(np.zeros((0, 3))) == []


@settings(deadline=None, max_examples=30)
@given(npst.arrays(np.float32, (5, 8), elements=st.sampled_from([0, 0, 1, 1, 2])), st.permutations(range(5)))
def test_own_draws_depend_on_the_counts_of_the_cell_alone(matrix, order):
    together = bins_of(matrix)
    assert bins_of(matrix[list(order)]) == [together[cell] for cell in order]
    assert [bins_of(matrix[cell : cell + 1])[0] for cell in range(5)] == together


def test_own_draws_depend_on_the_seed():
    cell = np.ones((1, 40))
    assert bins_of(cell, random_state=3) == bins_of(cell, random_state=3)
    assert bins_of(cell, random_state=3) != bins_of(cell, random_state=4)


def test_number_of_bins_that_is_none_is_refused():
    with pytest.raises(ValueError, match="positive integer"):
        bins_of([[1, 2]], n_bins=0)


def test_bins_of_equal_width_count_from_one_to_the_largest_value():
    values = np.array([1, 5, 10, 2, 4], dtype=np.float32)
    found = EqualWidthBins(n_bins=5).apply(values, np.array([0, 3, 3, 5]), drawn(np.zeros(5)))
    assert found.tolist() == [1, 3, 5, 3, 5]


def test_normalized_values_are_passed_on():
    values = np.array([0.5, 2], dtype=np.float32)
    assert Normalized().apply(values, np.array([0, 2]), drawn([])) is values


def test_whole_part_is_what_stands_before_the_point():
    values = np.array([0.9, 2, 3.5], dtype=np.float32)
    assert WholePart().apply(values, np.array([0, 3]), drawn([])).tolist() == [0, 2, 3]
