"""`iter_chunks`: one pass over the rows of a matrix, validated and aligned to a model's features."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

from sclcm.data.matrix import as_frame
from sclcm.data.rows import bare_csr, cut_rows, sort_columns
from sclcm.data.validation import check_values
from sclcm.encoding.chunks import CellChunk
from sclcm.encoding.normalize import known_totals

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    import pandas as pd

    from sclcm.data.matrix import MatrixSource
    from sclcm.data.validation import Check
    from sclcm.genes.align import GeneAlignment

PIECE_VALUES = 200_000
"""Stored values that are worked on at a time: their arrays stay in the processor's cache, and memory is used again."""


@dataclass(frozen=True, kw_only=True, eq=False)
class RowBlock:
    """Rows as they were read: of the chunk that begins at row `chunk`, those from `start`."""

    chunk: int
    start: int
    rows: csr_matrix


class ChunkReader:
    """Reads rows in order, and makes chunks of them in any thread.

    Parameters
    ----------
    source
    alignment
    obs
    chunk_size
    obs_columns
    check
    consumer
        As for `iter_chunks`.
    finds_median
        Whether chunks are to know the median total of the data set, for which it is read once more, first.
    by_var
        Whether columns of chunks are var in the order of the data, those with a feature, and not features.
    any_order
        Whether rows of chunks may store their columns in any order, so that nothing need be sorted.
    """

    def __init__(
        self,
        source: MatrixSource,
        alignment: GeneAlignment,
        obs: pd.DataFrame,
        *,
        chunk_size: int,
        obs_columns: Sequence[str] = (),
        check: Check = "counts",
        consumer: str = "This call",
        finds_median: bool = False,
        by_var: bool = False,
        any_order: bool = False,
    ) -> None:
        table = as_frame(obs)
        _check_arguments(source, alignment, table, chunk_size=chunk_size, obs_columns=obs_columns)
        self._source, self._alignment, self._chunk_size = source, alignment, chunk_size
        self._by_var, self._columns_of = by_var, alignment.by_var() if by_var else alignment
        self._columns = {column: _values(table[column]) for column in obs_columns}
        self._check, self._consumer, self._any_order = check, consumer, any_order
        self._measured = np.unique(alignment.feature_index)
        self._median = None
        if finds_median:
            totals = np.concatenate([known_totals(self.make(block)) for block in self.blocks()])
            self._median = float(np.median(totals[totals > 0])) if totals.any() else 0.0

    def blocks(self) -> Iterator[RowBlock]:
        """Read the matrix, a chunk at a time, each as one block."""
        for start in range(0, self._source.shape[0], self._chunk_size):
            yield RowBlock(chunk=start, start=start, rows=self._source.view(start, start + self._chunk_size))

    def pieces(self) -> Iterator[RowBlock]:
        """Read the matrix, a chunk at a time, each cut into blocks of about `PIECE_VALUES` values."""
        for block in self.blocks():
            yield from _cut(block)

    def make(self, block: RowBlock) -> CellChunk:
        """Check and align rows; this touches nothing but them and may run in any thread."""
        rows, start = block.rows, block.start
        check_values(rows, self._source, start=start, check=self._check, consumer=self._consumer)
        counts, named_totals = _align(rows, self._columns_of, any_order=self._any_order)
        return CellChunk(
            start=start,
            counts=counts,
            totals=np.asarray(rows.sum(axis=1, dtype=np.float64)).ravel(),
            named_totals=named_totals,
            n_genes=np.diff(rows.indptr).astype(np.int64),
            typical_total=self._median,
            var_features=self._alignment.feature_index if self._by_var else None,
            measured=self._measured,
            obs={name: column[start : start + rows.shape[0]] for name, column in self._columns.items()},
        )


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
    reader = ChunkReader(
        source, alignment, obs, chunk_size=chunk_size, obs_columns=obs_columns, check=check, consumer=consumer
    )
    yield from map(reader.make, reader.blocks())


def align_rows(rows: csr_matrix, alignment: GeneAlignment) -> csr_matrix:
    """Return counts over the features, canonical CSR, float32; `rows` are canonical too."""
    return _align(rows, alignment)[0]


def _align(
    rows: csr_matrix, alignment: GeneAlignment, *, any_order: bool = False
) -> tuple[csr_matrix, np.ndarray | None]:
    """Return counts over the features, and the totals over the wider list of genes where there is one."""
    if alignment.detour is None:
        return _merged(rows, alignment, any_order=any_order), None
    to_wider, to_features = alignment.detour
    wider = _merged(rows, to_wider)
    return _merged(wider, to_features), np.asarray(wider.sum(axis=1, dtype=np.float64)).ravel()


def _merged(rows: csr_matrix, alignment: GeneAlignment, *, any_order: bool = False) -> csr_matrix:
    if alignment.is_one_to_one:
        counts = _taken(rows, alignment)
        counts = counts if any_order or alignment.is_ascending else sort_columns(counts)
    elif alignment.merge == "keep":
        counts = _kept(rows, alignment)
    elif alignment.merge == "sum":
        counts = _summed(rows, alignment)
    else:
        counts = _averaged(rows, alignment)
    if not counts.data.all():  # a value that float32 has no number for
        counts.eliminate_zeros()
    return counts


def _kept(rows: csr_matrix, alignment: GeneAlignment) -> csr_matrix:
    """Take columns that may share a feature, which a row then stores more than once, in ascending order of counts."""
    counts = _taken(rows, alignment)
    row_of = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    order = np.lexsort((counts.data, counts.indices, row_of))
    return csr_matrix((counts.data[order], counts.indices[order], counts.indptr), shape=counts.shape)


def _summed(rows: csr_matrix, alignment: GeneAlignment) -> csr_matrix:
    return sort_columns(csr_matrix(rows @ alignment.matrix(), dtype=np.float32))


def _averaged(rows: csr_matrix, alignment: GeneAlignment) -> csr_matrix:
    """Means over the var of each feature, rounded half to even."""
    counts = _summed(rows, alignment)
    shared = alignment.n_var_of_feature[counts.indices]
    counts.data = np.where(shared > 1, np.rint(counts.data / shared), counts.data).astype(np.float32)
    return counts


def _taken(rows: csr_matrix, alignment: GeneAlignment) -> csr_matrix:
    """Take columns, each in its place, instead of summing: several times faster than a sparse product."""
    features = alignment.feature_of_var.take(rows.indices)
    data, indptr = rows.data.astype(np.float32, copy=False), rows.indptr
    if len(alignment.var_index) < alignment.n_var:
        is_known = features >= 0
        features, data = features[is_known], data[is_known]
        indptr = np.concatenate([[0], np.cumsum(is_known)])[indptr]
    return bare_csr(data, features, indptr.astype(np.int32, copy=False), n_columns=alignment.n_features)


def _cut(block: RowBlock) -> Iterator[RowBlock]:
    """Cut a block into rows that share its memory."""
    rows = block.rows
    n_pieces = max(1, round(rows.nnz / PIECE_VALUES))
    height = max(1, -(-rows.shape[0] // n_pieces))
    for first in range(0, rows.shape[0], height):
        piece = cut_rows(rows, first, min(first + height, rows.shape[0]))
        piece.has_canonical_format = True
        yield RowBlock(chunk=block.chunk, start=block.start + first, rows=piece)


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
