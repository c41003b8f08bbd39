"""`iter_chunks`: one pass over the rows of a matrix, validated and aligned to a model's features."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from sclcm.data.matrix import as_frame
from sclcm.data.validation import check_values
from sclcm.encoding.chunks import CellChunk

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from sclcm.data.matrix import MatrixSource
    from sclcm.data.validation import Check
    from sclcm.genes.align import GeneAlignment


def iter_chunks(
    source: MatrixSource,
    alignment: GeneAlignment,
    obs: pd.DataFrame,
    *,
    chunk_size: int,
    obs_columns: Sequence[str] = (),
    check: Check = "counts",
    consumer: str = "This call",
) -> Iterator[CellChunk]:
    """Read a matrix by chunks of rows, each checked and aligned.

    Parameters
    ----------
    source
        The matrix.
    alignment
        Which of its genes are which features; genes that share a feature have their counts summed.
    obs
        The table of its cells.
    chunk_size
        Cells per chunk.
    obs_columns
        Columns of `obs` whose values travel with the chunks.
    check
        `"counts"` refuses what is no integer >= 0; `"any"` only NaN, infinities and negative values.
    consumer
        Who needs the counts, at the start of a sentence, such as `"'scgpt'"`.

    Yields
    ------
    Chunks in the order of the rows. Nothing is checked or read before the first is asked for.
    """
    table = as_frame(obs)
    _check_arguments(source, alignment, table, chunk_size=chunk_size, obs_columns=obs_columns)
    to_features = alignment.matrix()
    for start in range(0, source.shape[0], chunk_size):
        rows = source.read(start, start + chunk_size)
        check_values(rows, source, start=start, check=check, consumer=consumer)
        yield CellChunk(
            start=start,
            counts=_aligned(rows, to_features),
            totals=np.asarray(rows.sum(axis=1, dtype=np.float64)).ravel(),
            n_genes=np.diff(rows.indptr).astype(np.int64),
            obs={column: _values(table[column].iloc[start : start + rows.shape[0]]) for column in obs_columns},
        )


def _aligned(rows: csr_matrix, to_features: csr_matrix) -> csr_matrix:
    counts = csr_matrix(rows @ to_features, dtype=np.float32)
    counts.sort_indices()
    counts.eliminate_zeros()
    return counts


def _values(column: pd.Series) -> np.ndarray:
    """Values, never the codes of a categorical."""
    return np.asarray(column)


def _check_arguments(
    source: MatrixSource, alignment: GeneAlignment, obs: pd.DataFrame, *, chunk_size: int, obs_columns: Sequence[str]
) -> None:
    n_obs, n_var = source.shape
    if chunk_size < 1:
        msg = f"`chunk_size` is {chunk_size!r}; expected 1 or more cells"
        raise ValueError(msg)
    if (len(obs), alignment.n_var) != (n_obs, n_var):
        msg = (
            f"{source.name} is {n_obs} cells x {n_var} genes, but `obs` has {len(obs)} rows and the gene alignment was "
            f"made for {alignment.n_var} genes; pass the `obs` and the alignment of the same data"
        )
        raise ValueError(msg)
    missing = [column for column in obs_columns if column not in obs.columns]
    if missing:
        msg = f"`obs` has no column {missing[0]!r}; its columns are {list(obs.columns)}"
        raise KeyError(msg)
