"""Counts before all else."""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_matrix

from sclcm.encoding.chunks import CellChunk
from sclcm.encoding.recount import CapTotal

CAP = CapTotal(largest=100.0)


def chunk(counts, totals):
    matrix = csr_matrix(np.asarray(counts, dtype=np.float32))
    return CellChunk(start=0, counts=matrix, totals=np.asarray(totals, dtype=float), n_genes=np.diff(matrix.indptr))


def test_cells_within_the_limit_are_left_alone():
    given = chunk([[90, 10, 0], [0, 1, 2]], [100, 3])
    assert CAP.apply(given) is given


def test_cells_over_the_limit_are_scaled_by_their_full_total_and_rounded_half_to_even():
    found = CAP.apply(chunk([[10, 12, 14, 5, 4], [3, 0, 0, 0, 1]], [400, 4]))
    assert found.counts.toarray().tolist() == [[2, 3, 4, 1, 1], [3, 0, 0, 0, 1]]  # 2.5, 3, 3.5, 1.25, 1


def test_what_rounds_to_zero_is_no_longer_expressed():
    found = CAP.apply(chunk([[1, 2, 300]], [400]))
    assert found.counts.indices.tolist() == [2]
    assert found.counts.has_sorted_indices
    assert found.counts.data.all()


def test_what_is_given_stays_as_it_is():
    given = chunk([[1, 2, 300]], [400])
    CAP.apply(given)
    assert given.counts.toarray().tolist() == [[1, 2, 300]]


def test_a_cell_does_not_depend_on_those_beside_it():
    rng = np.random.default_rng(0)
    counts = rng.poisson(rng.gamma(0.3, 30, size=(20, 30)))
    whole = CAP.apply(chunk(counts, counts.sum(1))).counts.toarray()
    alone = [CAP.apply(chunk(row[None], [row.sum()])).counts.toarray()[0] for row in counts]
    assert np.array_equal(whole, alone)
    assert (np.abs(whole.sum(1) - np.minimum(counts.sum(1), 100)) < 10).all()


def test_counts_that_were_made_anew_stay():
    once = CAP.apply(chunk([[10, 12, 14, 5, 4], [3, 0, 0, 0, 1]], [400, 4]))
    assert CAP.apply(once) is once
    assert once.totals.tolist() == [100, 4]
