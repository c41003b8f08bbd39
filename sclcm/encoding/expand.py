"""Genes that are stored, whether expressed or not, before a cell becomes a sentence."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sclcm.encoding.chunks import CellChunk


@dataclass(frozen=True, kw_only=True)
class StoreAll:
    """Store a count, zero if need be, of every gene of the vocabulary: each is a token of every cell."""

    def apply(self, chunk: CellChunk, arrays: Mapping[str, np.ndarray]) -> CellChunk:
        """Return the chunk with all genes stored, in vocabulary order."""
        n_cells, n_genes = chunk.counts.shape
        indices = np.tile(np.arange(n_genes, dtype=np.int32), n_cells)
        indptr = np.arange(n_cells + 1, dtype=np.int32) * np.int32(n_genes)
        stored = (chunk.counts.toarray().ravel(), indices, indptr)
        return dataclasses.replace(chunk, counts=csr_matrix(stored, shape=chunk.counts.shape))


@dataclass(frozen=True, kw_only=True)
class StoreMeasured:
    """Store a count, zero if need be, of every gene that the data has: each is a token of every cell."""

    def apply(self, chunk: CellChunk, arrays: Mapping[str, np.ndarray]) -> CellChunk:
        """Return the chunk with all measured genes stored, in vocabulary order; `ValueError` if none are known."""
        if chunk.measured is None:
            msg = "Which genes the data has is not known here; use `StoreAll` for every gene of the vocabulary."
            raise ValueError(msg)
        n_cells, n_genes = chunk.n_cells, len(chunk.measured)
        indices = np.tile(chunk.measured.astype(np.int32), n_cells)
        indptr = np.arange(n_cells + 1, dtype=np.int32) * np.int32(n_genes)
        stored = (chunk.counts.tocsc()[:, chunk.measured].toarray().ravel(), indices, indptr)
        return dataclasses.replace(chunk, counts=csr_matrix(stored, shape=chunk.counts.shape))
