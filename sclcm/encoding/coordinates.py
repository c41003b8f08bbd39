"""Where cells lie in space, within the field of view that is their set."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, kw_only=True)
class FieldCoordinates:
    """Coordinates of cells from 0 to 1 within their set: less the smallest, over the larger of the two ranges.

    Parameters
    ----------
    key
        Entry of `obsm` with the coordinates.
    """

    key: str

    def scale(self, xy: np.ndarray, sets: np.ndarray) -> np.ndarray:
        """Return scaled coordinates, shape `(cells, 2)`, float32; zeros where all cells of a set lie at one place.

        Parameters
        ----------
        xy
            Coordinates, shape `(cells, 2)`.
        sets
            Number of each cell's set, shape `(cells,)`, from 0 without a gap.
        """
        n_sets = int(sets.max(initial=-1)) + 1
        lowest, highest = np.full((n_sets, 2), np.inf), np.full((n_sets, 2), -np.inf)
        np.minimum.at(lowest, sets, xy)
        np.maximum.at(highest, sets, xy)
        extent = (highest - lowest).max(axis=1, initial=0.0)
        above = xy - lowest[sets]
        return np.divide(above, extent[sets, None], out=np.zeros_like(above), where=extent[sets, None] > 0).astype(
            np.float32
        )
