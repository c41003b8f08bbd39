"""Frozen configurations of what reads the vector of a cell, or makes it of padded sentences. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sclcm._sizes import Size


@dataclass(frozen=True, kw_only=True)
class TanhClassHead:
    """Class head on the cell's vector: linear layer, tanh, then a linear layer without a bias.

    Parameters
    ----------
    n_classes
        Number of classes, or of what else is predicted of a cell.
    """

    n_classes: Size


@dataclass(frozen=True, kw_only=True)
class PlaceMean:
    """Average of all places of the longest sentence from one on, padding included: it is run through the model, too.

    Parameters
    ----------
    n_places
        Tokens of the longest sentence, to which each is padded.
    skip
        Places at the front that do not count.
    """

    n_places: Size
    skip: int = 0
