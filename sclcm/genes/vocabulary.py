"""`GeneVocabulary`: the ordered features of a model with their token ids, and its special tokens."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from sclcm.genes.names import IdType, Readings, read_names
from sclcm.genes.species import species_of_id
from sclcm.genes.table import Species, as_ensembl

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


Merge = Literal["sum", "mean_round", "keep", "first"]

_MAX_TOKEN_ID = np.iinfo(np.int32).max


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneVocabulary:
    """Ordered features of a model: feature `i` has the name `features[i]` and the token id `token_ids[i]`.

    Parameters
    ----------
    features
        Names in the model's own spelling (Ensembl ids or symbols), in ascending order of token id.
    token_ids
        Token id of each feature, ascending.
    specials
        Special tokens of the release, such as `"<pad>"`, with their token ids.
    ids
        What the features are: `"ensembl"` or `"symbol"`.
    species
        The species whose genes the features are.
    names
        The authors' own map of upper-case name to feature, where they published one; it then decides alone.
    modality
        What a feature is: `"gene"`, `"protein"`, `"peak"`.
    synonyms
        The authors' other names of features, exactly as written, each with the features it may stand for: with one it
        is that, with several ambiguous. Where there are some they decide alone, for data that name genes as they do.
    merge
        What becomes of several var of one feature: `"sum"` adds their counts; `"mean_round"` takes the mean of the
        names, rounded half to even, and of var with equal names only the last; `"keep"` merges nothing: each is a token
        of its own; `"first"` takes the first var that has the feature's own name, or else the first.
    universe
        A wider list of genes to which data are brought first: it reads the names and merges, totals may be taken over
        it, and the features are among its own.
    respell
        Characters of gene names, each with what stands in its place in the features: `(("-", "_"),)` where `HLA-A` is
        the feature `HLA_A`.
    ignore_case
        Whether a name that is a feature in another letter case is that feature.
    siblings
        Vocabularies of the other species that the model knows, by species; they share the special tokens.
    """

    features: np.ndarray
    token_ids: np.ndarray
    specials: Mapping[str, int]
    ids: IdType
    species: tuple[str, ...] = ("human",)
    names: Mapping[str, str] | None = None
    modality: str = "gene"
    synonyms: Mapping[str, tuple[str, ...]] | None = None
    merge: Merge = "sum"
    universe: GeneVocabulary | None = None
    respell: tuple[tuple[str, str], ...] = ()
    ignore_case: bool = False
    siblings: Mapping[str, GeneVocabulary] = field(default_factory=dict)

    def __post_init__(self) -> None:
        object.__setattr__(self, "features", _as_features(self.features))
        object.__setattr__(self, "token_ids", _as_token_ids(self.token_ids))
        object.__setattr__(self, "specials", {k: int(v) for k, v in self.specials.items()})
        object.__setattr__(self, "species", tuple(self.species))
        object.__setattr__(self, "respell", tuple((old, new) for old, new in self.respell))
        if self.names is not None:
            object.__setattr__(self, "names", dict(self.names))
        if self.synonyms is not None:
            object.__setattr__(self, "synonyms", {name: tuple(found) for name, found in self.synonyms.items()})
        _check_vocabulary(self)

    @classmethod
    def from_mapping(
        cls,
        token_to_id: Mapping[str, int],
        *,
        specials: Iterable[str],
        ids: IdType,
        species: Iterable[str] = ("human",),
        names: Mapping[str, str] | None = None,
        merge: Merge = "sum",
        respell: Iterable[tuple[str, str]] = (),
    ) -> GeneVocabulary:
        """Build a vocabulary from a release's `token -> id` mapping.

        Parameters
        ----------
        token_to_id
            Features and special tokens together, as releases store them.
        specials
            Which of the tokens are special; those that the mapping lacks are an error.
        ids
            What the features are: `"ensembl"` or `"symbol"`.
        species
            The species whose genes the features are.
        names
            The authors' own map of upper-case name to feature, if there is one.
        merge
            What becomes of several var of one feature.
        respell
            Characters of gene names, each with what stands in its place in the features.

        Returns
        -------
        The vocabulary, features in ascending order of token id.
        """
        special_names = tuple(specials)
        missing = [name for name in special_names if name not in token_to_id]
        if missing:
            msg = f"special tokens {missing!r} are not in the mapping; pass only those the release has"
            raise ValueError(msg)
        special_ids = {name: _token_id(name, token_to_id[name]) for name in special_names}
        features = [name for name in token_to_id if name not in special_ids]
        token_ids = np.array([_token_id(name, token_to_id[name]) for name in features], dtype=np.int64)
        order = np.argsort(token_ids, kind="stable")
        return cls(
            features=_as_features(features)[order],
            token_ids=token_ids[order],
            specials=special_ids,
            ids=ids,
            species=tuple(species),
            names=names,
            merge=merge,
            respell=tuple(respell),
        )

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> GeneVocabulary:
        """Rebuild a vocabulary from what `to_json` returned."""
        given = {**stored, "species": tuple(stored["species"])}
        if "universe" in given:
            given["universe"] = cls.from_json(given["universe"])
        if "siblings" in given:
            given["siblings"] = {species: cls.from_json(sibling) for species, sibling in given["siblings"].items()}
        return cls(**given)

    def to_json(self) -> dict[str, Any]:
        """Return the vocabulary as JSON types; `from_json` gives it back exactly."""
        stored: dict[str, Any] = {
            "features": self.features.tolist(),
            "token_ids": self.token_ids.tolist(),
            "specials": dict(self.specials),
            "ids": self.ids,
            "species": list(self.species),
            "names": None if self.names is None else dict(self.names),
            "modality": self.modality,
        }
        if self.synonyms is not None:
            stored["synonyms"] = {name: list(found) for name, found in self.synonyms.items()}
        if self.merge != "sum":
            stored["merge"] = self.merge
        if self.universe is not None:
            stored["universe"] = self.universe.to_json()
        if self.respell:
            stored["respell"] = [list(pair) for pair in self.respell]
        if self.ignore_case:
            stored["ignore_case"] = True
        if self.siblings:
            stored["siblings"] = {species: sibling.to_json() for species, sibling in self.siblings.items()}
        return stored

    def digest(self) -> str:
        """Return the sha256 of the content, as hex; equal for equal vocabularies whatever they were built from."""
        text = json.dumps(self.to_json(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()

    @property
    def n_features(self) -> int:
        """Number of features, special tokens not counted."""
        return len(self.features)

    @property
    def n_tokens(self) -> int:
        """One more than the highest token id: the rows an embedding table needs."""
        return 1 + max(int(self.token_ids[-1]), *self.specials.values(), 0)

    def respelt(self, name: str) -> str:
        """Return a gene name as the features would spell it."""
        for old, new in self.respell:
            name = name.replace(old, new)
        return name

    def token(self, name: str) -> int:
        """Return the token id of a special token or a feature, by its exact name."""
        if name in self.specials:
            return self.specials[name]
        if name in self.feature_positions:
            return int(self.token_ids[self.feature_positions[name]])
        msg = (
            f"{name!r} is neither a feature nor a special token of this vocabulary; features are "
            f"{self.ids} ids such as {str(self.features[0])!r}, special tokens are {list(self.specials)}"
        )
        raise KeyError(msg)

    def labels(self, token_ids: np.ndarray) -> np.ndarray:
        """Return the name of each token id, as an object array of the same shape."""
        wanted = np.asarray(token_ids)
        inside = (wanted >= 0) & (wanted < self.n_tokens)
        names = self._labels[np.where(inside, wanted, 0)]
        unknown = wanted[~inside | (names == None)]  # noqa: E711 (elementwise)
        if unknown.size:
            msg = f"token id {int(unknown.flat[0])} is not in this vocabulary of {self.n_tokens} tokens"
            raise ValueError(msg)
        return names

    @cached_property
    def feature_positions(self) -> Mapping[str, int]:
        """Position of each feature by its exact name."""
        return dict(zip(self.features.tolist(), range(self.n_features), strict=True))

    @cached_property
    def species_of_features(self) -> np.ndarray:
        """Number of each feature's species among `species`, -1 where it is none of them, shape `(features,)`, int8."""
        if len(self.species) == 1:
            return np.zeros(self.n_features, dtype=np.int8)
        numbers = {known: number for number, known in enumerate(self.species)}
        ids = self.features if self.ids == "ensembl" else self.readings.ensembl
        found = [None if ensembl is None else species_of_id(ensembl) for ensembl in ids.tolist()]
        return np.array([-1 if species is None else numbers.get(species, -1) for species in found], dtype=np.int8)

    @cached_property
    def folded_positions(self) -> Mapping[str, int]:
        """Position of each feature by its name in upper case; empty where letter case matters."""
        return {name.upper(): i for i, name in enumerate(self.features.tolist())} if self.ignore_case else {}

    @cached_property
    def kinds_of_names(self) -> frozenset[IdType]:
        """Kinds of what the features are called: their own, and Ensembl ids where some of the synonyms are such."""
        has_ids = any(as_ensembl(name) is not None for name in self.synonyms or ())
        return frozenset({self.ids, "ensembl"} if has_ids else {self.ids})

    def of_species(self, species: str) -> GeneVocabulary:
        """Return the vocabulary of one species, without siblings; `ValueError` lists those that there are."""
        if species in self.siblings:
            return self.siblings[species]
        if species in self.species:
            return dataclasses.replace(self, siblings={}) if self.siblings else self
        known = ", ".join(map(repr, (*self.species, *self.siblings)))
        msg = f"`species` is {species!r}; the model knows {known}"
        raise ValueError(msg)

    @cached_property
    def readings(self) -> Readings:
        """What the features stand for, as `sclcm.genes.names` reads them."""
        known = get_args(Species)
        if len(self.species) > 1 and self.ids == "ensembl":
            return _read_ids(self.features)
        return read_names(
            self.features.tolist(), species=self.species[0] if self.species in [(s,) for s in known] else None
        )

    @cached_property
    def _labels(self) -> np.ndarray:
        labels = np.full(self.n_tokens, None, dtype=object)
        labels[self.token_ids] = self.features
        for name, token_id in self.specials.items():
            labels[token_id] = name
        return labels


def _read_ids(features: np.ndarray) -> Readings:
    """Read Ensembl ids of several species, each as one of its own: few of one among many of another are no mistake."""
    species_of = np.array([species_of_id(name) for name in features.tolist()], dtype=object)
    columns = {name: np.full(len(features), None, dtype=object) for name in ("gene", "ensembl", "symbol")}
    columns["how"] = np.full(len(features), "unknown", dtype=object)
    for species in get_args(Species):
        of_species = species_of == species
        found = read_names(features[of_species].tolist(), species=species)
        for name, column in columns.items():
            column[of_species] = getattr(found, name)
    return Readings(**columns, species=None)


def _as_features(names: Iterable[str]) -> np.ndarray:
    listed = [str(name) for name in names]
    features = np.empty(len(listed), dtype=object)
    features[:] = listed
    features.flags.writeable = False
    return features


def _token_id(name: object, value: Any) -> int:
    is_whole = isinstance(value, (int, np.integer)) or (isinstance(value, float) and value.is_integer())
    if not is_whole or abs(int(value)) >= 2**63:
        msg = f"{str(name)!r} has the token id {value!r}; expected an integer, 0 to {2**31 - 1}"
        raise ValueError(msg)
    return int(value)


def _as_token_ids(token_ids: Iterable[int]) -> np.ndarray:
    ids = np.array(token_ids, dtype=np.int64)
    if ids.size and (ids.min() < 0 or ids.max() > _MAX_TOKEN_ID):
        msg = f"token ids run from {ids.min()} to {ids.max()}; expected 0 to {_MAX_TOKEN_ID}"
        raise ValueError(msg)
    ids = ids.astype(np.int32)
    ids.flags.writeable = False
    return ids


def _check_vocabulary(vocabulary: GeneVocabulary) -> None:
    features, token_ids, specials = vocabulary.features, vocabulary.token_ids, vocabulary.specials
    if vocabulary.ids not in get_args(IdType):
        msg = f"`ids` is {vocabulary.ids!r}; expected one of {list(get_args(IdType))}"
        raise ValueError(msg)
    if vocabulary.merge not in get_args(Merge):
        msg = f"`merge` is {vocabulary.merge!r}; expected one of {list(get_args(Merge))}"
        raise ValueError(msg)
    if vocabulary.universe is not None:
        _check_universe(features.tolist(), vocabulary.universe)
    if not len(features):
        msg = "the vocabulary has no features; expected a mapping of gene names to token ids beside the special tokens"
        raise ValueError(msg)
    if features.shape != token_ids.shape:
        msg = f"{len(features)} features but {token_ids.size} token ids; expected one token id per feature"
        raise ValueError(msg)
    _check_unique(features.tolist() + list(specials), what="name")
    _check_unique(token_ids.tolist() + list(specials.values()), what="token id")
    if min(specials.values(), default=0) < 0:
        msg = f"special tokens have negative ids: {specials}; expected 0 or more"
        raise ValueError(msg)
    if vocabulary.ignore_case:
        _check_unique([name.upper() for name in features.tolist()], what="name in upper case")
    if wrong := [species for species, other in vocabulary.siblings.items() if other.species != (species,)]:
        msg = f"the vocabulary of {wrong[0]!r} is one of {vocabulary.siblings[wrong[0]].species}; name it so"
        raise ValueError(msg)
    if np.any(np.diff(token_ids) < 0):
        msg = "`token_ids` are not ascending; build the vocabulary with `GeneVocabulary.from_mapping`, which sorts"
        raise ValueError(msg)


def _check_universe(features: list[str], universe: GeneVocabulary) -> None:
    missing = [name for name in features if name not in universe.feature_positions]
    if missing:
        msg = (
            f"{len(missing)} features, such as {missing[0]!r}, are not in the wider list of {universe.n_features} "
            "genes; the two belong to different models"
        )
        raise ValueError(msg)


def _check_unique(values: list[Any], *, what: str) -> None:
    if len(set(values)) == len(values):
        return
    seen: set[Any] = set()
    repeated = next(value for value in values if value in seen or seen.add(value))  # type: ignore[func-returns-value]
    msg = f"{what} {repeated!r} occurs more than once in the vocabulary; expected each {what} once"
    raise ValueError(msg)
