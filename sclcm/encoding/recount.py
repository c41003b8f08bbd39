"""What becomes of counts before anything is made of them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy.sparse import csr_matrix

if TYPE_CHECKING:
    from sclcm._sizes import Number
    from sclcm.encoding.chunks import CellChunk


@dataclass(frozen=True, kw_only=True)
class CapTotal:
    """Scale cells with more counts than a limit down to it, and round to whole counts, halves to even.

    The total is that of the full row, over all genes measured. What rounds to zero is no longer expressed.

    Parameters
    ----------
    largest
        The limit.
    """

    largest: Number

    def apply(self, chunk: CellChunk) -> CellChunk:
        """Return the chunk with other counts where a cell is over the limit; the same one if none is."""
        excess = (chunk.totals / float(self.largest)).astype(np.float32)  # type: ignore[arg-type]
        if not (excess > 1).any():
            return chunk
        counts = chunk.counts
        # As SciPy divides rows: by a product with the reciprocal, in single precision.
        scale = np.repeat(1 / np.maximum(excess, np.float32(1)), np.diff(counts.indptr))
        stored = (np.round(counts.data.astype(np.float32) * scale), counts.indices.copy(), counts.indptr.copy())
        recounted = csr_matrix(stored, shape=counts.shape)
        recounted.eliminate_zeros()
        totals = np.minimum(chunk.totals, float(self.largest))  # type: ignore[arg-type]
        return dataclasses.replace(chunk, counts=recounted, totals=totals)
