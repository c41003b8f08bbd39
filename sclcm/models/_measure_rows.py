"""Find out which cells of the input the rows of an array are of, where nothing says it but the numbers."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment


def rows_that_fit(ours: np.ndarray, stored: np.ndarray, name: str) -> list[int]:
    """Return the cells that rows are of, in the order of the input.

    Which cells they are decides nothing about their numbers, which have to agree within the tolerance all the same; and
    as the order is that of the input, rows that have been exchanged do not agree.

    Parameters
    ----------
    ours
        What each cell of the input gives, shape `(cells, ...)`.
    stored
        The rows, shape `(rows, ...)`, no more than there are cells.
    name
        Name of the array.
    """
    if not 0 < len(stored) <= len(ours) or stored.shape[1:] != ours.shape[1:]:
        msg = f"{name!r} has the shape {stored.shape}; expected 1 to {len(ours)} cells of the shape {ours.shape[1:]}."
        raise ValueError(msg)
    _, rows = linear_sum_assignment(np.stack([misfit(ours, row) for row in stored]))
    return sorted(rows.tolist())


def misfit(ours: np.ndarray, stored: np.ndarray) -> np.ndarray:
    """Return how far each cell is from a stored one, or from its own, as a share of its numbers, shape `(cells,)`.

    A number that is far off counts no more than one that is off by the spread of all, so that one decides little.
    """
    spread = float(np.nanstd(ours)) or 1.0
    off = np.minimum(np.abs(ours.astype(np.float64) - stored) / spread, 1.0)
    return np.nan_to_num(off, nan=1.0).reshape(len(ours), -1).mean(1)
