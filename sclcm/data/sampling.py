"""A deterministic sample of rows, spread over a matrix, and where an AnnData holds raw counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.sparse import csr_matrix

from sclcm.data.matrix import places

if TYPE_CHECKING:
    from anndata import AnnData

    from sclcm.data.matrix import MatrixSource

_BLOCKS = 16  # pieces of consecutive rows, so that a file is read in few places
_GLANCE = 256  # rows that tell whether another matrix may hold counts


def sample_rows(source: MatrixSource, n_rows: int) -> tuple[np.ndarray, csr_matrix]:
    """Read about `n_rows` rows: all where there are no more, else blocks of consecutive rows at equal distances.

    Returns
    -------
    Their row numbers, ascending, and the rows.
    """
    total = source.shape[0]
    if total <= n_rows:
        return np.arange(total), source.read(0, total)
    n_blocks = min(_BLOCKS, n_rows)
    height = n_rows // n_blocks
    starts = np.linspace(0, total - height, n_blocks).astype(int)
    rows = [source.read(int(start), int(start) + height) for start in starts]
    return np.concatenate([np.arange(height) + start for start in starts]), csr_matrix(sparse.vstack(rows))


def are_counts(values: np.ndarray) -> bool:
    """Tell whether there are values, all of them integers >= 0."""
    if not values.size or not np.isfinite(values).all():
        return False
    return bool(values.min() >= 0 and np.array_equal(values, np.rint(values)))


def count_places(adata: AnnData) -> tuple[str, ...]:
    """Name the matrices of an AnnData that hold raw counts, as far as a sample of rows tells."""
    return tuple(source.name for source in places(adata) if _may_hold_counts(source))


def _may_hold_counts(source: MatrixSource) -> bool:
    return are_counts(sample_rows(source, _GLANCE)[1].data)


def argument_for(place: str) -> str:
    """Return the argument of a call that reads a place, as a message shows it."""
    return f"`{_argument(place)}`" if place != ".X" else "neither `layer` nor `use_raw`"


def recovery_call(place: str) -> str:
    """Return the call that recovers raw counts from a place."""
    return f"sclcm.pp.recover_counts(adata, {_argument(place)})" if place != ".X" else "sclcm.pp.recover_counts(adata)"


def _argument(place: str) -> str:
    return "use_raw=True" if place == ".raw.X" else f"layer={place[len('.layers[') : -1]}"
