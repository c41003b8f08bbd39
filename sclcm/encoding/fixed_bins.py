"""Bins with fixed edges, the same for all cells and genes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sclcm._sizes import Number, Size, as_int

if TYPE_CHECKING:
    from sclcm.encoding.draws import CellRandom


@dataclass(frozen=True, kw_only=True)
class LogBins:
    """The value itself up to a cutoff, and bins of equal width on a logarithmic scale (base 2) above it.

    Parameters
    ----------
    cutoff
        Values up to it are their own bins, without their fractions.
    width
        Width of the bins above it, in powers of two.
    n_bins
        Number of bins, that of zero included; higher ones count as the last.
    """

    cutoff: Number
    width: Number
    n_bins: Size

    def apply(self, data: np.ndarray, indptr: np.ndarray, random: CellRandom) -> np.ndarray:
        """Return bins for values of all cells, one after the other, shape `(values,)`, float32."""
        cutoff, width = float(self.cutoff), float(self.width)  # type: ignore[arg-type]
        above = np.log2(np.maximum(data, np.float32(cutoff))).astype(np.float64) - np.log2(cutoff)
        bins = np.where(data > cutoff, np.ceil(above / width) + cutoff, data)
        return _whole(bins, as_int(self.n_bins))


@dataclass(frozen=True, kw_only=True)
class LinearBins:
    """Bins of equal width, from zero on.

    Parameters
    ----------
    width
        Width of a bin.
    n_bins
        Number of bins; higher ones count as the last.
    """

    width: Number
    n_bins: Size

    def apply(self, data: np.ndarray, indptr: np.ndarray, random: CellRandom) -> np.ndarray:
        """Return bins for values of all cells, one after the other, shape `(values,)`, float32."""
        return _whole(data / np.float64(self.width), as_int(self.n_bins))  # type: ignore[arg-type]


def _whole(bins: np.ndarray, n_bins: int) -> np.ndarray:
    return np.minimum(np.trunc(bins), n_bins - 1).astype(np.float32)
