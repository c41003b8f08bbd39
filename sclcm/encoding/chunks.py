"""Cell chunks: the aligned counts of some rows, with facts of the full rows taken in the same pass."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from scipy.sparse import csr_matrix


@dataclass(frozen=True, kw_only=True, eq=False)
class CellChunk:
    """Counts of consecutive cells over a model's features.

    Parameters
    ----------
    start
        Row number of the first cell in the data set.
    counts
        Counts over the model's features, shape `(cells, features)`, canonical CSR: sorted indices, neither
        duplicates nor explicit zeros. Only where the vocabulary keeps several var of one feature apart, a row stores
        that feature more than once; and only where the reader was told so, indices are not sorted.
    totals
        Sum of each full row, over all genes measured, shape `(cells,)`.
    n_genes
        Number of expressed genes of each full row, shape `(cells,)`.
    named_totals
        Sum of each row over the wider list of genes that the vocabulary brings, shape `(cells,)`, or `None`.
    var_features
        Where columns of `counts` are var in the order of the data, the feature of each, shape `(columns,)`; `None`
        where they are the features themselves.
    obs
        Values of the columns of `obs` that the model reads, each of shape `(cells,)`.
    typical_total
        Median over all cells of the data set, those without any left out, of their sums over the model's features;
        `None` unless a step asks for it.
    measured
        Features that the data set has, ascending, shape `(features measured,)`, or `None` where nobody says.
    """

    start: int
    counts: csr_matrix
    totals: np.ndarray
    n_genes: np.ndarray
    named_totals: np.ndarray | None = None
    var_features: np.ndarray | None = None
    obs: Mapping[str, np.ndarray] = field(default_factory=dict)
    typical_total: float | None = None
    measured: np.ndarray | None = None

    def features_of(self, columns: np.ndarray) -> np.ndarray:
        """Return the features that columns of the counts stand for."""
        return columns if self.var_features is None else self.var_features[columns]

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return self.counts.shape[0]
