"""Random numbers that depend on a cell's counts and a seed alone."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from sclcm.encoding.draws import CellRandom

COUNTS = np.array([[0, 2, 1, 0], [3, 0, 0, 1], [0, 2, 1, 0], [0, 0, 2, 1]], dtype=np.float32)


def numbers(counts, cell, *, step="bins", random_state=0):
    matrix = csr_matrix(counts)
    start, stop = matrix.indptr[cell : cell + 2]
    return CellRandom(counts=matrix, random_state=random_state).uniforms(step, cell, start=start, stop=stop).tolist()


def test_numbers_are_pinned():
    """Embeddings that people have stored stay the same: neither a release nor a platform may change these."""
    assert numbers(COUNTS, 0) == pytest.approx([0.1041670, 0.0758379], abs=1e-6)
    assert numbers(COUNTS, 0, step="sample", random_state=7) == pytest.approx([0.0250620, 0.1840584], abs=1e-6)


def test_equal_cells_have_equal_numbers_and_others_have_others():
    first = numbers(COUNTS, 0)
    assert len(first) == 2
    assert numbers(COUNTS, 2) == first
    assert numbers(COUNTS[2:], 0) == first
    assert numbers(COUNTS, 1) != first
    assert numbers(COUNTS, 3) != first  # the same counts of other genes
    assert numbers(COUNTS * 2, 0) != first


def test_steps_and_seeds_have_numbers_of_their_own():
    found = [numbers(COUNTS, 0, step=step, random_state=seed) for step in ("bins", "sample") for seed in (0, 1, -1)]
    assert len({tuple(row) for row in found}) == 6
    assert numbers(COUNTS, 0, random_state=np.int64(1)) == numbers(COUNTS, 0, random_state=1)


def test_numbers_do_not_depend_on_how_counts_are_stored():
    wide = csr_matrix(COUNTS.astype(np.float64))
    wide.indices = wide.indices.astype(np.int64)
    found = CellRandom(counts=wide).uniforms("bins", 0, start=0, stop=2)
    assert found.tolist() == numbers(COUNTS, 0)


def test_numbers_are_uniform():
    counts = csr_matrix(np.ones((1, 20_000), dtype=np.float32))
    found = CellRandom(counts=counts).uniforms("bins", 0, start=0, stop=20_000)
    assert ((found >= 0) & (found < 1)).all()
    assert np.histogram(found, bins=10, range=(0, 1))[0] == pytest.approx(2000, abs=200)


def test_nothing_is_drawn_from_the_global_generator():
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    numbers(COUNTS, 0)
    assert np.array_equal(np.random.get_state()[1], before)  # noqa: NPY002


def test_given_numbers_take_the_place_of_own_ones_step_by_step():
    given = np.arange(8) / 8
    source = CellRandom(counts=csr_matrix(COUNTS), draws={"bins": given})
    assert source.uniforms("bins", 1, start=2, stop=4).tolist() == [0.25, 0.375]
    assert source.uniforms("sample", 0, start=0, stop=2).tolist() == numbers(COUNTS, 0, step="sample")
