"""Bins of equal width, as `numpy.digitize(right=True)` counts them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from sclcm.encoding.draws import CellRandom
from sclcm.encoding.values import EqualWidthBins


def bins(values, indptr=None, n_bins=10):
    values = np.array(values)
    indptr = np.array([0, len(values)] if indptr is None else indptr)
    random = CellRandom(counts=csr_matrix((0, 0)))
    return EqualWidthBins(n_bins=n_bins).apply(values, indptr, random).tolist()


def test_value_on_an_edge_belongs_to_the_bin_below():
    assert bins([0.3, 1.0, 2.0, 2.0000002, 4.999, 5.0, 9.9, 10.0]) == [1, 1, 2, 3, 5, 5, 10, 10]


@pytest.mark.parametrize("largest", [3.0, 7.0, 0.1, 9.21034])
def test_largest_value_of_a_cell_is_in_the_last_bin(largest):
    values = np.linspace(largest / 50, largest, 50).astype(np.float32)
    found = bins(values)
    assert (found[0], found[-1]) == (1, 10)
    assert found == sorted(found)
    assert sorted(set(found)) == list(range(1, 11))


def test_cells_have_edges_of_their_own():
    assert bins([1.0, 2.0, 10.0, 20.0, 3.0], [0, 2, 2, 4, 5], n_bins=4) == [2, 4, 2, 4, 4]
