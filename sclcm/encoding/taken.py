"""What a step that selects genes is given, and what it gives back."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sclcm.encoding.draws import CellRandom
    from sclcm.genes.vocabulary import GeneVocabulary

GENE = -1
"""Stands in `Taken.special_ids` for a token that is a gene."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Taken:
    """The tokens that were taken of some cells, one cell after the other.

    Parameters
    ----------
    columns
        Column of the counts that each token stands for, shape `(tokens,)`; at special tokens it is not read.
    lengths
        Tokens of each cell, shape `(cells,)`.
    places
        Place of each token among the stored values, likewise; `None` where nobody asked for it.
    special_ids
        Where special tokens stand among the genes, their token ids, and `GENE` elsewhere, shape `(tokens,)`.
    """

    columns: np.ndarray
    lengths: np.ndarray
    places: np.ndarray | None = None
    special_ids: np.ndarray | None = None


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredValues:
    """The values of some cells, one cell after the other, from which genes are taken.

    Parameters
    ----------
    values
        Normalised values, shape `(stored,)`.
    columns
        Column of the counts that each belongs to, shape `(stored,)`.
    indptr
        Cell `i` has the values `indptr[i]:indptr[i + 1]`, shape `(cells + 1,)`.
    random
        Random numbers of each cell.
    vocabulary
        Tokens of the genes, for steps that look at them.
    arrays
        Companion arrays that steps name.
    keeps_places
        Whether `Taken.places` will be read.
    start
        Row number of the first cell in the data set, for messages.
    """

    values: np.ndarray
    columns: np.ndarray
    indptr: np.ndarray
    random: CellRandom
    vocabulary: GeneVocabulary
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    keeps_places: bool = True
    start: int = 0

    def spans(self) -> Iterable[tuple[int, int]]:
        """Return where the values of each cell begin and end."""
        return itertools.pairwise(self.indptr.tolist())

    def at(self, places: np.ndarray, lengths: np.ndarray) -> Taken:
        """Take the values at these places, so many of each cell."""
        return Taken(columns=self.columns.take(places), lengths=lengths, places=places)

    def rows(self, places: list[np.ndarray]) -> Taken:
        """Take the values at the places of each cell."""
        lengths = np.array([len(row) for row in places], dtype=np.int64)
        return self.at(np.concatenate(places) if places else np.zeros(0, dtype=np.int64), lengths)
