"""The published normalisations, value by value."""

from __future__ import annotations

import dataclasses

import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from sclcm.encoding.chunks import CellChunk
from sclcm.encoding.normalize import (
    DivideByFactor,
    LogNormalize,
    LogNormalizeKnown,
    LogNormalizeToMedian,
    Standardize,
    library_sizes,
    normalize,
)

COUNTS = np.array([[4, 0, 1], [0, 0, 0], [0, 2, 6]], dtype=np.float32)


def make_chunk(counts=COUNTS, *, totals=None, obs=None, start=0):
    matrix = csr_matrix(np.asarray(counts, dtype=np.float32))
    if totals is None:
        totals = np.asarray(matrix.sum(1)).ravel()
    return CellChunk(
        start=start,
        counts=matrix,
        totals=np.asarray(totals, dtype=np.float64),
        n_genes=np.diff(matrix.indptr),
        obs=obs or {},
    )


def test_counts_are_divided_by_the_factor_of_their_gene():
    values = DivideByFactor(factors="median").apply(
        make_chunk().counts.data, make_chunk(), {"median": np.array([2.0, 4, 8])}
    )
    assert values.tolist() == [2.0, 0.125, 0.5, 0.75]
    assert values.dtype == np.float32


def test_log_normalization_uses_the_total_of_the_full_row():
    chunk = make_chunk(totals=[10, 0, 16])
    values = LogNormalize(target_sum=100.0).apply(chunk.counts.data, chunk, {})
    assert values == pytest.approx(np.log1p([40, 10, 2 * 100 / 16, 6 * 100 / 16]), rel=1e-7)
    assert values.dtype == np.float32


def test_log_normalization_reads_the_library_size_from_obs_where_the_column_exists():
    step = LogNormalize(target_sum=100.0, total_key="n_counts")
    chunk = make_chunk(obs={"n_counts": np.array([20, 1, 80])})
    assert step.apply(chunk.counts.data, chunk, {}) == pytest.approx(np.log1p([20, 5, 2.5, 7.5]), rel=1e-7)
    chunk = make_chunk()
    assert step.apply(chunk.counts.data, chunk, {}) == pytest.approx(np.log1p([80, 20, 25, 75]), rel=1e-7)


def test_empty_cell_has_no_values_and_no_division_by_zero():
    chunk = make_chunk([[0, 0, 0]])
    assert LogNormalize().apply(chunk.counts.data, chunk, {}).size == 0


@pytest.mark.parametrize("total", [2.0, 0.0, -5.0, np.nan, np.inf])
def test_library_size_below_the_row_sum_is_refused(total):
    chunk = make_chunk(obs={"n_counts": np.array([5.0, 0.0, total])}, start=40)
    with pytest.raises(ValueError, match=r"`.obs\['n_counts'\]` is .* for cell 42, but its row sums to .*8\. "):
        LogNormalize(total_key="n_counts").apply(chunk.counts.data, chunk, {})


def test_library_size_may_be_rounded():
    chunk = make_chunk(obs={"n_counts": np.array([4.97, 0.0, 8.0])})
    assert len(LogNormalize(total_key="n_counts").apply(chunk.counts.data, chunk, {})) == 4


@pytest.mark.parametrize(
    "column", [np.array(["many", "few", "none"], dtype=object), np.array([pd.NA, 1, 2], dtype=object)]
)
def test_library_size_that_is_no_number_is_refused_by_name(column):
    chunk = make_chunk(obs={"n_counts": column})
    with pytest.raises(ValueError, match=r"`.obs\['n_counts'\]`.*number"):
        library_sizes(chunk, "n_counts")


def test_standardization_subtracts_divides_and_clips():
    chunk = make_chunk()
    arrays = {"mu": np.array([1.0, 2.0, 3.0]), "sd": np.array([1.0, 0.5, 0.25])}
    values = Standardize(mean="mu", deviation="sd", clip=6.0).apply(chunk.counts.data, chunk, arrays)
    assert values.tolist() == [3.0, -6.0, 0.0, 6.0]
    assert values.dtype == np.float32


def test_steps_apply_in_order_and_leave_the_counts_alone():
    chunk = make_chunk()
    arrays = {"half": np.full(3, 2.0), "zero": np.zeros(3), "one": np.ones(3)}
    steps = (DivideByFactor(factors="half"), Standardize(mean="zero", deviation="one", clip=1.5))
    assert normalize(steps, chunk, arrays).tolist() == [1.5, 0.5, 1.0, 1.5]
    assert chunk.counts.data.tolist() == [4, 1, 2, 6]
    assert normalize((), chunk, arrays).tolist() == [4, 1, 2, 6]


def test_log_normalization_by_known_genes_does_not_read_the_full_row():
    chunk = make_chunk(totals=[10, 0, 16])
    values = LogNormalizeKnown(target_sum=100.0).apply(chunk.counts.data, chunk, {})
    assert values == pytest.approx(np.log1p([80, 20, 25, 75]), rel=1e-7)


def test_log_normalization_to_the_median_needs_it():
    chunk = make_chunk(totals=[10, 0, 16])
    with pytest.raises(ValueError, match="median total of the data set is not known"):
        LogNormalizeToMedian().apply(chunk.counts.data, chunk, {})
    known = dataclasses.replace(chunk, typical_total=6.5)
    values = LogNormalizeToMedian().apply(chunk.counts.data, known, {})
    assert values == pytest.approx(np.log1p([5.2, 1.3, 1.625, 4.875]), rel=1e-6)
