"""A deterministic sample of rows, spread over a matrix, and where an AnnData holds raw counts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse
from scipy.sparse import csr_matrix

from sclcm.data.matrix import choices, open_matrix
from sclcm.data.rows import GathersRows
from sclcm.data.verdicts import judge

if TYPE_CHECKING:
    from collections.abc import Iterator

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
    n_blocks = min(_BLOCKS, n_rows) if total > n_rows else 1
    height = min(n_rows, total) // n_blocks
    starts = np.linspace(0, total - height, n_blocks).astype(int)
    numbers = (starts[:, None] + np.arange(height)).ravel()
    if isinstance(source.take, GathersRows):
        return numbers, source.take.gather(numbers)
    return numbers, csr_matrix(sparse.vstack([source.read(int(start), int(start) + height) for start in starts]))


def glance(adata: AnnData) -> Iterator[tuple[str, csr_matrix]]:
    """Yield place and some rows of every matrix of an AnnData, save those that hold no numbers."""
    for layer, use_raw in choices(adata):
        try:
            source = open_matrix(adata, layer=layer, use_raw=use_raw)
            _, rows = sample_rows(source, _GLANCE)
        except TypeError:
            continue
        yield source.name, rows


def count_places(adata: AnnData) -> tuple[str, ...]:
    """Name the matrices of an AnnData that hold raw counts, as far as a sample of rows tells."""
    return tuple(place for place, rows in glance(adata) if judge(rows).kind == "counts")


def recoverable_places(adata: AnnData) -> tuple[str, ...]:
    """Name the matrices of an AnnData from which raw counts come out exactly, as far as a sample of rows tells."""
    return tuple(place for place, rows in glance(adata) if judge(rows).invertible)


def argument_for(place: str) -> str:
    """Return the argument of a call that reads a place, as a message shows it."""
    return f"`{_argument(place)}`" if place != ".X" else "neither `layer` nor `use_raw`"


def recovery_call(place: str) -> str:
    """Return the call that recovers raw counts from a place."""
    return f"sclcm.pp.recover_counts(adata, {_argument(place)})" if place != ".X" else "sclcm.pp.recover_counts(adata)"


def _argument(place: str) -> str:
    return "use_raw=True" if place == ".raw.X" else f"layer={place[len('.layers[') : -1]}"
