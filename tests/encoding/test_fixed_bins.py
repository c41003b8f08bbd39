"""Bins with fixed edges, against the formula written out value by value."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from sclcm.encoding.draws import CellRandom
from sclcm.encoding.fixed_bins import LinearBins, LogBins


def apply(step, values):
    data = np.asarray(values, dtype=np.float32)
    return step.apply(data, np.array([0, len(data)]), CellRandom(counts=csr_matrix((1, 1)))).tolist()


@pytest.mark.parametrize(("cutoff", "width"), [(8.0, 0.3333333), (8.0, 0.5), (4.0, 1.0), (10.0, 0.25)])
def test_bins_are_values_up_to_the_cutoff_and_logarithmic_above(cutoff, width):
    values = [0, 1, 2, 7, 8, 9, 10, 11, 15, 16, 17, 100, 1024, 5000]
    wanted = [v if v <= cutoff else math.ceil((math.log2(v) - math.log2(cutoff)) / width) + cutoff for v in values]
    assert apply(LogBins(cutoff=cutoff, width=width, n_bins=1000), values) == wanted


def test_bins_of_hand_computed_values():
    step = LogBins(cutoff=8.0, width=0.3333333, n_bins=100)
    # 16 is a doubling above the cutoff: 1 / 0.3333333 is a little over 3, so that it falls into the fourth bin above.
    assert apply(step, [0.5, 1.9, 8, 8.5, 9, 10, 11, 16, 32]) == [0, 1, 8, 9, 9, 9, 10, 12, 15]


def test_highest_bins_count_as_the_last():
    assert apply(LogBins(cutoff=8.0, width=0.5, n_bins=10), [3, 8, 9, 500]) == [3, 8, 9, 9]
    assert apply(LinearBins(width=0.5, n_bins=4), [0.1, 1.4, 1.6, 9]) == [0, 2, 3, 3]


def test_linear_bins_are_whole_parts():
    values = [0, 0.1, 0.3333, 0.34, 0.7, 1.0, 2.5]
    wanted = [int(v / 0.3333333) for v in np.asarray(values, dtype=np.float32).tolist()]
    assert apply(LinearBins(width=0.3333333, n_bins=100), values) == wanted
