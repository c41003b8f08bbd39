"""Rows of a stored matrix, whatever its kind, as canonical CSR blocks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from copy import copy
from functools import lru_cache
from typing import Any, Protocol, runtime_checkable

import numpy as np
from anndata.abc import CSCDataset, CSRDataset
from scipy import sparse
from scipy.sparse import csr_matrix

RowTaker = Callable[[int, int], csr_matrix]
"""`take(start, stop)` reads those rows as canonical CSR that shares no memory with the source."""


@runtime_checkable
class GathersRows(Protocol):
    """A way to read rows that reads scattered ones at once, better than piece by piece."""

    def gather(self, numbers: np.ndarray) -> csr_matrix:
        """Read the rows of these numbers."""
        ...


@runtime_checkable
class SharesRows(Protocol):
    """A way to read rows that need not copy what is in memory."""

    def view(self, start: int, stop: int) -> csr_matrix:
        """Read rows that may share memory with the source, and then refuse to be written to."""
        ...


_logger = logging.getLogger("sclcm")

# Of a file that is ordered by columns: stored values that are kept (about 130 MB), and read in one go.
_WINDOW_VALUES = 16_000_000
_BLOCK_VALUES = 4_000_000
# Of a file that is ordered by rows: bytes of each data set that HDF5 remembers, a chunk where chunks are larger.
_SMALL_CACHE, _LARGEST_CACHE, _CACHE_SLOTS = 2**19, 2**23, 521
_EXACT_IN_FLOAT32 = frozenset({"?", "b", "B", "h", "H", "e", "f"})


def open_rows(array: Any, *, name: str) -> RowTaker:
    """Choose how the rows of a matrix are read.

    Parameters
    ----------
    array
        A numpy array, scipy sparse matrix or array, anndata's on-disk sparse matrix, an h5py or zarr data set, or a
        dask array of any of these.
    name
        What messages call it, such as `.X`.

    Returns
    -------
    A function of `(start, stop)`.
    """
    if isinstance(array, CSRDataset):
        return _StoredRows(array, name=name)
    check_type(array, name=name)
    if isinstance(array, CSCDataset):
        return _ColumnOrderedRows(array, lambda lo, hi: array[:, lo:hi], name=name)
    if is_dask(array) and array.numblocks[1] > 1 and array.numblocks[0] == 1:
        return _ColumnOrderedRows(array, lambda lo, hi: _compute(array[:, lo:hi]), name=name)
    if sparse.issparse(array):
        return _InMemoryRows(in_native_order(array))
    return lambda start, stop: as_canonical_csr(array[start:stop], name=name)


def is_dask(array: Any) -> bool:
    """Tell a dask array from others without importing dask."""
    return type(array).__module__.partition(".")[0] == "dask" or hasattr(array, "__dask_graph__")


def _compute(array: Any) -> Any:
    """Compute a piece of a dask array, in this thread unless a scheduler was chosen: threads read ahead."""
    import dask

    return array.compute(scheduler=dask.config.get("scheduler", "synchronous"))


def as_canonical_csr(block: Any, *, name: str) -> csr_matrix:
    """Return a block as CSR with sorted indices, no duplicates, no explicit zeros, in memory of its own.

    Small integers, bools and half precision become float32, which holds them exactly; everything else float64.
    """
    block = _compute(block) if is_dask(block) else block
    check_type(block, name=name)
    dtype = np.float32 if block.dtype.char in _EXACT_IN_FLOAT32 else np.float64
    if sparse.issparse(block):
        rows = in_native_order(block).tocsr()
        stored = (rows.data.astype(dtype), rows.indices.copy(), rows.indptr.copy())
        canonical = csr_matrix(stored, shape=rows.shape)
    else:
        canonical = csr_matrix(np.asarray(block).astype(dtype))
    if not canonical.has_sorted_indices:
        canonical = sort_columns(canonical)
    canonical.sum_duplicates()
    if not canonical.data.all():
        canonical.eliminate_zeros()
    return canonical


def in_native_order(matrix: Any) -> Any:
    """Return a sparse matrix whose numbers are stored as this machine stores them: scipy computes with no others."""
    parts = [getattr(matrix, part, None) for part in ("data", "indices", "indptr")]
    if all(not isinstance(part, np.ndarray) or part.dtype.isnative for part in parts):
        return matrix
    native = [part.astype(part.dtype.newbyteorder("=")) for part in parts if isinstance(part, np.ndarray)]
    return type(matrix)(tuple(native), shape=matrix.shape)


def cut_rows(rows: Any, start: int, stop: int) -> csr_matrix:
    """Return some rows of a CSR matrix in the memory of the whole; scipy's constructor may copy small parts."""
    indptr = rows.indptr[start : stop + 1]
    cut = slice(int(indptr[0]), int(indptr[-1]))
    return bare_csr(
        rows.data[cut],
        rows.indices[cut].astype(np.int32, copy=False),
        (indptr - indptr[0]).astype(np.int32, copy=False),
        n_columns=rows.shape[1],
    )


def bare_csr(data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, *, n_columns: int) -> csr_matrix:
    """Return a CSR matrix of exactly these arrays, unchecked: they are right, and checks take time."""
    matrix = copy(_empty((len(indptr) - 1, n_columns)))
    matrix.data, matrix.indices, matrix.indptr = data, indices, indptr
    return matrix


@lru_cache(maxsize=64)
def _empty(shape: tuple[int, int]) -> csr_matrix:
    return csr_matrix(shape)


def sort_columns(rows: csr_matrix) -> csr_matrix:
    """Sort the columns of each row: there and back by columns takes a fifth of the time of sorting row by row."""
    return csr_matrix(rows.tocsc().tocsr())


def check_type(array: Any, *, name: str) -> None:
    """Refuse what is no matrix of numbers; `TypeError` says what it is."""
    if isinstance(array, np.ma.MaskedArray):
        msg = f"{name} is a masked array, and a masked count is neither a number nor zero; fill it, `.filled(0)`"
        raise TypeError(msg)
    if getattr(array, "dtype", None) is None or len(getattr(array, "shape", ())) != 2:
        msg = f"{name} is a {type(array).__name__}; expected a dense or sparse matrix of numbers, cells x genes"
        raise TypeError(msg)
    if np.dtype(array.dtype).kind not in "biuf":
        msg = f"{name} holds values of type {array.dtype}; expected numbers, such as float32"
        raise TypeError(msg)


class _InMemoryRows:
    """Rows of a scipy sparse matrix; other formats are converted to CSR once, when the first row is asked for."""

    def __init__(self, matrix: Any) -> None:
        self._matrix = matrix
        self._rows: Any = None

    def __call__(self, start: int, stop: int) -> csr_matrix:
        return as_canonical_csr(self._cut(start, stop), name="the matrix")

    def view(self, start: int, stop: int) -> csr_matrix:
        """Read rows without copying them where they are canonical already."""
        rows = self._cut(start, stop)
        if rows.dtype not in (np.float32, np.float64) or not rows.has_canonical_format or not rows.data.all():
            return as_canonical_csr(rows, name="the matrix")
        rows.data.flags.writeable = rows.indices.flags.writeable = False
        return rows

    def _cut(self, start: int, stop: int) -> csr_matrix:
        """Cut by hand: scipy's slicing may hand out the matrix itself, and may sort or flag it in passing."""
        if self._rows is None:
            self._rows = self._matrix.tocsr()
        rows = self._rows
        return cut_rows(rows, start, stop)

    def gather(self, numbers: np.ndarray) -> csr_matrix:
        """Read scattered rows; a matrix ordered by columns need not be converted for a few."""
        matrix = self._matrix if self._matrix.format in ("csr", "csc") else self._matrix.tocsr()
        return as_canonical_csr(matrix[numbers], name="the matrix")


class _StoredRows:
    """Rows of a sparse matrix on disk, read from the first to the last: HDF5 need not remember what it has read."""

    def __init__(self, array: CSRDataset, *, name: str) -> None:
        # The first to open a data set decides how large its cache is: open them before anybody looks at their type.
        self._opened = [open_with_small_cache(array.group, part) for part in ("data", "indices")]
        check_type(array, name=name)
        self._array, self._name = array, name

    def __call__(self, start: int, stop: int) -> csr_matrix:
        return as_canonical_csr(self._array[start:stop], name=self._name)


def open_with_small_cache(group: Any, name: str) -> Any:
    """Open a data set of an HDF5 group to be read in order, so that one of its chunks is remembered at most.

    HDF5 2 keeps 8 MB of every data set otherwise, which looks like memory that grows with the cells. What is not HDF5
    has no such cache and is left alone.
    """
    import h5py

    if not isinstance(group, h5py.Group):
        return None
    layout = group[name]
    chunk = 0 if layout.chunks is None else int(np.prod(layout.chunks)) * layout.dtype.itemsize
    del layout  # closed, as its cache would be the one that counts
    access = h5py.h5p.create(h5py.h5p.DATASET_ACCESS)
    access.set_chunk_cache(_CACHE_SLOTS, min(max(chunk, _SMALL_CACHE), _LARGEST_CACHE), 1.0)
    return h5py.h5d.open(group.id, name.encode(), access)


class _ColumnOrderedRows:
    """Rows of a file that is ordered by columns: one scan of the file per window of rows, with bounded memory."""

    def __init__(self, array: Any, columns: Callable[[int, int], Any], *, name: str) -> None:
        self._shape: tuple[int, int] = array.shape
        self._columns = columns
        self._name = name
        self._start, self._window = 0, csr_matrix((0, array.shape[1]))
        self._height, self._step = 0, 0

    def __call__(self, start: int, stop: int) -> csr_matrix:
        if start < self._start or stop > self._start + self._window.shape[0]:
            self._scan(start, stop)
        return self._window[start - self._start : stop - self._start].copy()

    def gather(self, numbers: np.ndarray) -> csr_matrix:
        """Read scattered rows in one scan."""
        self._plan()
        return self._pick(numbers)

    def _scan(self, start: int, stop: int) -> None:
        self._plan()
        self._warn_once()
        self._window = csr_matrix((0, self._shape[1]))  # let go of the old window before the new one fills
        stop = min(max(stop, start + self._height), self._shape[0])
        self._start, self._window = start, self._pick(slice(start, stop))

    def _pick(self, rows: slice | np.ndarray) -> csr_matrix:
        blocks = []
        for lo in range(0, self._shape[1], self._step):
            block = self._columns(lo, min(lo + self._step, self._shape[1]))
            blocks.append(as_canonical_csr(block[rows], name=self._name))
        return csr_matrix(sparse.hstack(blocks, format="csr"))

    def _plan(self) -> None:
        """Choose rows per window and columns per block, from how full a few columns are."""
        if self._height:
            return
        n_rows, n_columns = self._shape
        probes = np.unique(np.linspace(0, n_columns - 1, 32).astype(int))
        columns = [as_canonical_csr(self._columns(i, i + 1), name=self._name) for i in probes]
        stored = max(float(np.mean([column.nnz for column in columns])), 1.0)
        self._step = max(1, int(_BLOCK_VALUES / stored))
        self._height = max(1, int(_WINDOW_VALUES / (stored * n_columns / n_rows)))

    def _warn_once(self) -> None:
        n_rows = self._shape[0]
        if self._height < n_rows and not self._window.shape[0]:
            _logger.warning(
                "`%s` is stored by columns: reading its %d cells takes %d passes over the file. Stored as CSR it "
                "takes one: `adata = adata.to_memory(); adata.X = adata.X.tocsr(); adata.write_h5ad(...)`",
                *(self._name, n_rows, -(-n_rows // self._height)),
            )
