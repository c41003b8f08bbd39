"""Cells as text: the names of their expressed genes in order of rank."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from sclcm.data.validation import check_values
from sclcm.encoding.select import ranked

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from sclcm.data.matrix import MatrixSource

PREFIX = "A cell with genes ranked by expression: "
"""What texts begin with."""

CHUNK_CELLS = 512
"""Cells read at a time."""


def ranked_names(source: MatrixSource, names: Sequence[str], *, n_genes: int, consumer: str) -> Iterator[list[str]]:
    """Yield, for each cell, the names of its expressed genes in descending order of their values, at most `n_genes`.

    Equal values are in the order of var; genes without a name are left out.
    """
    named = np.array([bool(name) for name in names])
    for start in range(0, source.shape[0], CHUNK_CELLS):
        rows = source.view(start, start + CHUNK_CELLS)
        check_values(rows, source, start=start, check="any", consumer=consumer)
        ordered, _ = ranked(rows.data, rows.indices, rows.indptr, limit=rows.nnz)
        for first, last in itertools.pairwise(rows.indptr.tolist()):
            genes = ordered[first:last]
            yield [names[gene] for gene in genes[named[genes]][:n_genes].tolist()]
