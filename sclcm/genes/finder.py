"""Which feature of a vocabulary a name that has been read stands for."""

from __future__ import annotations

from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from sclcm.genes.names import HOWS
from sclcm.genes.table import AMBIGUOUS, UNKNOWN, as_ensembl

if TYPE_CHECKING:
    import numpy as np

    from sclcm.genes.vocabulary import GeneVocabulary

_FINDERS: WeakKeyDictionary[GeneVocabulary, FeatureFinder] = WeakKeyDictionary()


class FeatureFinder:
    """Finds the feature of a name that has been read."""

    def __init__(self, vocabulary: GeneVocabulary) -> None:
        self._only_ids = vocabulary.ids == "ensembl"
        self._features = vocabulary.readings
        ranks = [HOWS.index(how) for how in self._features.how]
        self._by_id = _best(self._features.ensembl, ranks)
        self._by_gene = _best(self._features.gene, ranks)

    def find(self, name: str, *, gene: str | None, ensembl: str | None, how: str) -> tuple[int, str]:
        """Return the position of the feature, or a negative number, and how the name was read."""
        if gene is None:
            return UNKNOWN, how
        position = UNKNOWN
        if self._only_ids and ensembl is not None:
            position = self._by_id.get(ensembl, UNKNOWN)
        # Two Ensembl ids are two genes, even if they go by one symbol.
        if position < 0 and not (self._only_ids and as_ensembl(name) is not None):
            position = self._by_gene.get(gene, UNKNOWN)
        if position < 0:
            return position, "ambiguous" if position == AMBIGUOUS else "unknown"
        return position, self._features.how[position] if how == "exact" else how


def finder(vocabulary: GeneVocabulary) -> FeatureFinder:
    """Return the finder of a vocabulary, made once for as long as that lives."""
    if vocabulary not in _FINDERS:
        _FINDERS[vocabulary] = FeatureFinder(vocabulary)
    return _FINDERS[vocabulary]


def _best(keys: np.ndarray, ranks: list[int]) -> dict[str, int]:
    """Map each key to the position that has it at the lowest rank; ties are ambiguous."""
    best: dict[str, int] = {}
    rank_of: dict[str, int] = {}
    for position, (key, rank) in enumerate(zip(keys, ranks, strict=True)):
        if key is None:
            continue
        if rank < rank_of.get(key, len(HOWS)):
            best[key], rank_of[key] = position, rank
        elif rank == rank_of[key]:
            best[key] = AMBIGUOUS
    return best
