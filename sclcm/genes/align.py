"""`align_genes`: which var of a data set is which feature of a vocabulary, as a sparse map and a report."""

from __future__ import annotations

import dataclasses
from collections import Counter, OrderedDict
from dataclasses import dataclass, field
from functools import cached_property
from itertools import repeat
from typing import TYPE_CHECKING, Any, get_args
from weakref import WeakKeyDictionary

import numpy as np
from scipy.sparse import csr_matrix

from sclcm.genes.finder import finder
from sclcm.genes.names import (
    beaten_aliases,
    guess_id_type,
    guess_species,
    is_renamed,
    read_names,
    string_array,
)
from sclcm.genes.table import AMBIGUOUS as _AMBIGUOUS
from sclcm.genes.table import UNKNOWN as _UNKNOWN
from sclcm.genes.table import Species

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sclcm.genes.names import Readings
    from sclcm.genes.vocabulary import GeneVocabulary, Merge


# Ways of reading a name that is not used, yet not dropped for want of a feature.
_OTHERWISE = ("ambiguous", "repeated")

# The last alignments to each vocabulary, by the names themselves: for as long as it lives.
_N_REMEMBERED = 4
_REMEMBERED: WeakKeyDictionary[GeneVocabulary, OrderedDict[tuple[tuple[str, ...], str | None], GeneAlignment]]
_REMEMBERED = WeakKeyDictionary()


@dataclass(frozen=True, kw_only=True)
class AlignmentReport:
    """What became of the var names of a data set; shares of counts are the caller's, who has the counts.

    Parameters
    ----------
    n_var, n_matched
        Number of var, and of those that have a feature.
    n_features, n_covered
        Number of features of the vocabulary, and of those that some var maps to.
    renamed
        Var name to feature, for names read as something other than a current name or id: a previous symbol, an
        alias, a version suffix, another letter case. Plain translation between symbol and Ensembl id is not listed.
    merged
        Feature to the var names that share it; their counts are merged.
    ambiguous
        Var names that could be several genes, and aliases of a gene that is there by another name; they are not used.
    dropped
        Var names without a feature (the ambiguous are listed apart).
    how
        Number of var per way of reading, such as `{"exact": 18211, "previous": 32, "unknown": 405}`.
    species
        The species that was given, or told from the names; `None` where it could not be told.
    """

    n_var: int
    n_matched: int
    n_features: int
    n_covered: int
    renamed: Mapping[str, str] = field(default_factory=dict)
    merged: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    ambiguous: tuple[str, ...] = ()
    dropped: tuple[str, ...] = ()
    how: Mapping[str, int] = field(default_factory=dict)
    species: str | None = None

    @property
    def matched_share(self) -> float:
        """Share of var that have a feature."""
        return self.n_matched / self.n_var if self.n_var else 0.0

    @property
    def coverage(self) -> float:
        """Share of features that some var maps to."""
        return self.n_covered / self.n_features if self.n_features else 0.0

    def to_uns(self) -> dict[str, Any]:
        """Return the report as types that h5ad and zarr can store (names never become keys: they may hold `/`)."""
        return {
            "n_var": self.n_var,
            "n_matched": self.n_matched,
            "n_features": self.n_features,
            "n_covered": self.n_covered,
            "matched_share": self.matched_share,
            "coverage": self.coverage,
            "species": self.species or "",
            "how": dict(self.how),
            "renamed": {"from": string_array(self.renamed), "to": string_array(self.renamed.values())},
            "merged": {
                "from": string_array(name for names in self.merged.values() for name in names),
                "to": string_array(feature for feature, names in self.merged.items() for _ in names),
            },
            "ambiguous": string_array(self.ambiguous),
            "dropped": string_array(self.dropped),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneAlignment:
    """A sparse map from var to features: column `var_index[k]` counts towards feature `feature_index[k]`.

    Parameters
    ----------
    n_var, n_features
        Sizes of the two sides.
    var_index
        The var columns used, ascending.
    feature_index
        The feature of each; var that share a feature are merged.
    report
        What was renamed, merged, ambiguous and dropped.
    merge
        What becomes of var that share a feature: `"sum"`, or `"mean_round"`, their mean rounded half to even.
    detour
        The way over a wider list of genes, where the vocabulary has one: var to that list, then the list to features.
    """

    n_var: int
    n_features: int
    var_index: np.ndarray
    feature_index: np.ndarray
    report: AlignmentReport
    merge: Merge = "sum"
    detour: tuple[GeneAlignment, GeneAlignment] | None = None

    @cached_property
    def is_one_to_one(self) -> bool:
        """Whether no two var share a feature, so that columns can be taken instead of summed."""
        return len(np.unique(self.feature_index)) == len(self.feature_index)

    @cached_property
    def is_ascending(self) -> bool:
        """Whether var come in the order of their features, so that columns taken need no sorting."""
        return bool(np.all(np.diff(self.feature_index) > 0))

    @cached_property
    def feature_of_var(self) -> np.ndarray:
        """Feature of each var, -1 where there is none, shape `(n_var,)`, int32."""
        features = np.full(self.n_var, -1, dtype=np.int32)
        features[self.var_index] = self.feature_index
        features.flags.writeable = False
        return features

    @cached_property
    def n_var_of_feature(self) -> np.ndarray:
        """Number of var of each feature, shape `(n_features,)`."""
        return np.bincount(self.feature_index, minlength=self.n_features)

    def matrix(self) -> csr_matrix:
        """Return the map as ones, `(n_var, n_features)`, float32: `counts @ matrix` are the aligned counts."""
        return self._matrix

    def by_var(self) -> GeneAlignment:
        """Return the map that merges nothing: each var with a feature stands for itself, in the order of var."""
        n_used = len(self.var_index)
        return dataclasses.replace(
            self, n_features=n_used, feature_index=np.arange(n_used, dtype=np.int64), merge="keep", detour=None
        )

    @cached_property
    def _matrix(self) -> csr_matrix:
        indptr = np.zeros(self.n_var + 1, dtype=np.int32)
        indptr[1:] = np.bincount(self.var_index, minlength=self.n_var).cumsum()
        ones = np.ones(len(self.var_index), dtype=np.float32)
        return csr_matrix((ones, self.feature_index.astype(np.int32), indptr), shape=(self.n_var, self.n_features))


def align_genes(names: Sequence[str], vocabulary: GeneVocabulary, *, species: str | None = None) -> GeneAlignment:
    """Map the var names of a data set to the features of a vocabulary.

    Where the vocabulary brings its authors' own map, that map alone decides (upper-case name -> feature), as upstream
    does. Otherwise a name that is a feature is that feature, and any other is read by the resolver of
    `sclcm.genes.names`: version suffix, letter case, previous symbol, alias, symbol to Ensembl id and back. Names that
    could be several genes are reported, never guessed.

    A vocabulary with a wider list of genes has that list read the names; its features are among the genes found.

    Parameters
    ----------
    names
        Var names, in the order of the data; repeats are allowed.
    vocabulary
        The vocabulary to map to.
    species
        `"human"` or `"mouse"`; `None` tells it from the names.

    Returns
    -------
    The map and its report.
    """
    listed = tuple(names)
    remembered = _REMEMBERED.setdefault(vocabulary, OrderedDict())
    alignment = remembered.get((listed, species))
    if alignment is None:
        alignment = remembered[listed, species] = _align(listed, vocabulary, species)
        if len(remembered) > _N_REMEMBERED:
            remembered.popitem(last=False)
    return alignment


def _align(names: tuple[str, ...], vocabulary: GeneVocabulary, species: str | None) -> GeneAlignment:
    wider = vocabulary.universe
    if wider is None:
        match, told = _match(names, vocabulary, species)
        return _assemble(match, vocabulary, told)
    match, told = _match(names, wider, species)
    within = _assemble(_by_synonyms(tuple(wider.features), vocabulary, {}), vocabulary, told)
    through = _through(match, within)
    return dataclasses.replace(_assemble(through, vocabulary, told), detour=(_assemble(match, wider, told), within))


def _through(match: _Match, within: GeneAlignment) -> _Match:
    """Lead names that were found in a wider list on to the features among it."""
    is_found = match.positions >= 0
    positions, how = match.positions.copy(), match.how.copy()
    positions[is_found] = within.feature_of_var[positions[is_found]]
    how[is_found & (positions < 0)] = "unknown"
    return _Match(names=match.names, positions=positions, how=how)


def _match(names: tuple[str, ...], vocabulary: GeneVocabulary, species: str | None) -> tuple[_Match, str | None]:
    """Find the feature of each name; return also the species, as given or told from all names."""
    if vocabulary.names is not None:
        match, told = _by_authors_map(names, vocabulary, vocabulary.names), species or guess_species(names)
    elif vocabulary.synonyms is not None and guess_id_type(names) in vocabulary.kinds_of_names:
        match, told = _by_synonyms(names, vocabulary, vocabulary.synonyms), species or guess_species(names)
    else:
        match, told = _by_resolver(names, vocabulary, species)
    if vocabulary.merge == "mean_round":
        last = {name: i for i, name in enumerate(names)}
        repeated = np.array([last[name] != i for i, name in enumerate(names)], dtype=bool) & (match.positions >= 0)
        match.positions[repeated], match.how[repeated] = _UNKNOWN, "repeated"
    if vocabulary.merge == "first":
        later = _later(match)
        match.positions[later], match.how[later] = _UNKNOWN, "repeated"
    return match, told


def _later(match: _Match) -> np.ndarray:
    """Return the names whose feature another name has before: one that is the feature's own, or comes first."""
    order = np.lexsort((match.how != "exact", match.positions))  # a stable order, so the first of equals comes first
    found = match.positions[order]
    return order[1:][(found[1:] == found[:-1]) & (found[1:] >= 0)]


@dataclass(frozen=True, kw_only=True, eq=False)
class _Match:
    """The feature position of each name (negative: none), and how the name was read."""

    names: tuple[str, ...]
    positions: np.ndarray
    how: np.ndarray


def _by_authors_map(names: tuple[str, ...], vocabulary: GeneVocabulary, authors: Mapping[str, str]) -> _Match:
    position = vocabulary.feature_positions
    features: map[Any] = map(authors.get, map(str.upper, names))
    found = map(position.get, features, repeat(_UNKNOWN))  # no feature is called None
    positions = np.fromiter(found, dtype=np.int64, count=len(names))
    how = string_array(("mapped", "unknown"))[(positions < 0).astype(np.intp)]
    return _Match(names=names, positions=positions, how=how)


def _by_synonyms(names: tuple[str, ...], vocabulary: GeneVocabulary, synonyms: Mapping[str, tuple[str, ...]]) -> _Match:
    """Take a feature as itself, and another name for the one feature it stands for."""
    exact = vocabulary.feature_positions
    positions = np.array([exact.get(name, _UNKNOWN) for name in names], dtype=np.int64)
    how = np.full(len(names), "exact", dtype=object)
    for i in np.flatnonzero(positions < 0).tolist():
        candidates = synonyms.get(names[i], ())
        positions[i] = exact.get(candidates[0], _UNKNOWN) if len(candidates) == 1 else _UNKNOWN
        how[i] = "mapped" if positions[i] >= 0 else "ambiguous" if len(candidates) > 1 else "unknown"
    return _Match(names=names, positions=positions, how=how)


def _by_resolver(names: tuple[str, ...], vocabulary: GeneVocabulary, species: str | None) -> tuple[_Match, str | None]:
    """Read the names that are not features themselves; return also the species, as given or told from all names.

    The resolver knows two species; to a vocabulary of another, a name is a feature or nothing.
    """
    exact = vocabulary.feature_positions
    spelt = list(map(vocabulary.respelt, names)) if vocabulary.respell else names
    positions = np.fromiter(map(exact.get, spelt, repeat(_UNKNOWN)), dtype=np.int64, count=len(spelt))
    how = np.full(len(names), "exact", dtype=object)
    if vocabulary.ignore_case:
        _fold(names, vocabulary, positions=positions, how=how)
    others = np.flatnonzero(positions < 0)
    if not {*vocabulary.species} & {*get_args(Species)}:
        how[others] = "unknown"
        return _Match(names=names, positions=positions, how=how), None
    unread = [names[i] for i in others.tolist()]
    readings = read_names(unread, species=species, among=names)
    if unread:
        positions[others], how[others] = _find_features(unread, readings, vocabulary)
    beaten = beaten_aliases(positions, how) & (positions >= 0)
    positions[beaten], how[beaten] = _AMBIGUOUS, "ambiguous"
    return _Match(names=names, positions=positions, how=how), readings.species


def _fold(names: tuple[str, ...], vocabulary: GeneVocabulary, *, positions: np.ndarray, how: np.ndarray) -> None:
    """Find features in another letter case, in place."""
    for i in np.flatnonzero(positions < 0).tolist():
        positions[i] = vocabulary.folded_positions.get(names[i].upper(), _UNKNOWN)
        how[i] = "case" if positions[i] >= 0 else how[i]


def _find_features(names: list[str], readings: Readings, vocabulary: GeneVocabulary) -> tuple[list[int], list[str]]:
    """Return the position of the feature of each name that has been read, or a negative number, and how it was read."""
    find = finder(vocabulary).find
    columns = zip(names, readings.gene, readings.ensembl, readings.how, strict=True)
    found = [find(name, gene=gene, ensembl=ensembl, how=how) for name, gene, ensembl, how in columns]
    return [position for position, _ in found], [how for _, how in found]


def _assemble(match: _Match, vocabulary: GeneVocabulary, species: str | None) -> GeneAlignment:
    names, positions, how = match.names, match.positions, match.how
    var_index = np.flatnonzero(positions >= 0)
    feature_index = positions[var_index]
    var_index.flags.writeable = feature_index.flags.writeable = False  # alignments are remembered
    covered, uses = np.unique(feature_index, return_counts=True)
    report = AlignmentReport(
        n_var=len(names),
        n_matched=len(var_index),
        n_features=vocabulary.n_features,
        n_covered=len(covered),
        renamed=_renamed(match, vocabulary),
        merged=_merged(match, vocabulary, covered[uses > 1]),
        ambiguous=tuple(dict.fromkeys(names[i] for i in np.flatnonzero(how == "ambiguous"))),
        dropped=tuple(dict.fromkeys(names[i] for i in np.flatnonzero((positions < 0) & ~np.isin(how, _OTHERWISE)))),
        how=dict(sorted(Counter(how.tolist()).items())),
        species=species,
    )
    return GeneAlignment(
        n_var=len(names),
        n_features=vocabulary.n_features,
        var_index=var_index,
        feature_index=feature_index,
        report=report,
        merge=vocabulary.merge,
    )


def _renamed(match: _Match, vocabulary: GeneVocabulary) -> dict[str, str]:
    used = np.flatnonzero(match.positions >= 0)
    features = vocabulary.features[match.positions[used]]
    differ = np.flatnonzero(string_array(match.names)[used] != features)  # few: the rest need no closer look
    pairs = ((match.names[used[i]], features[i], match.how[used[i]]) for i in differ.tolist())
    return {name: feature for name, feature, how in pairs if is_renamed(name, feature, how)}


def _merged(match: _Match, vocabulary: GeneVocabulary, shared: np.ndarray) -> dict[str, tuple[str, ...]]:
    groups: dict[str, list[str]] = {feature: [] for feature in vocabulary.features[shared].tolist()}
    for i in np.flatnonzero(np.isin(match.positions, shared)).tolist():
        groups[vocabulary.features[match.positions[i]]].append(match.names[i])
    return {feature: tuple(group) for feature, group in groups.items()}
