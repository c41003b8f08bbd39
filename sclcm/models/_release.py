"""The files of a release: found, read, and turned into what a model is made of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, is_dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from sclcm._sizes import resolve_sizes
from sclcm._warnings import warn_user
from sclcm.checkpoints import readers
from sclcm.checkpoints.files import find_one
from sclcm.checkpoints.modules import read_module
from sclcm.checkpoints.plain import FormatError
from sclcm.checkpoints.readers import read_checkpoint, read_json, read_pickle, read_tensors, sniff
from sclcm.genes.vocabulary import GeneVocabulary
from sclcm.models._gene_bins import read_gene_bins
from sclcm.models._gene_lists import read_gene_list, read_listed_genes, read_token_lists, read_var_list
from sclcm.models._gene_vectors import has_file, read_vector_genes, stack_vectors, vector_tensor
from sclcm.models._linked_ids import read_linked_ids
from sclcm.models._prototypes import Prototypes
from sclcm.models._row_genes import read_row_genes
from sclcm.models._species_tables import read_species
from sclcm.models._words import read_word_vocabulary
from sclcm.zoo._arrays import ArrayFile, RoundedArrayFile
from sclcm.zoo._factors import PartialFactors
from sclcm.zoo._gene_bins import GeneBinVocabulary
from sclcm.zoo._gene_vectors import VectorFile, VectorGenes, VectorTable
from sclcm.zoo._modules import LinkedIds, PickledModule
from sclcm.zoo._row_genes import RowGenes
from sclcm.zoo._spec import (
    ArraySource,
    BesideWeights,
    GeneFactors,
    InWeights,
    ModelSpec,
    PrototypeSource,
    StoredArray,
    UnderKey,
    VocabularySource,
)
from sclcm.zoo._species import SpeciesTables
from sclcm.zoo._submodels import InSubmodels
from sclcm.zoo._vocabularies import GeneList, ListedGenes, TokenLists, VarNames, WordVocabulary

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from sclcm._sizes import ReleaseFacts

_MISSING = object()


@dataclass(frozen=True)
class Release:
    """A folder of authors' files; remembers which of them were read, for the digest."""

    folder: Path
    places: tuple[Path, ...]
    used: list[Path] = field(default_factory=list)
    _read: dict[Path, Mapping[str, Any]] = field(default_factory=dict)

    def config(self, pattern: str) -> Mapping[str, Any]:
        """Return the configuration, from the model's own folder or else from the one named for the dictionaries."""
        also = () if self.folder in self.places else self.places  # the folder above is of other models as well
        return self.mapping(self._one(self.folder, (pattern,), also))

    def dictionary(self, patterns: Sequence[str]) -> Mapping[str, Any]:
        """Return the dictionary in the one file that fits; `FormatError` if it holds something else."""
        return self.mapping(self._one(self.places[0], patterns, self.places[1:]))

    def file(self, patterns: Sequence[str], *, optional: bool = False) -> Path | None:
        """Return the one file that fits; `None` if none does and that is allowed."""
        try:
            self.used.append(find_one(self.places[0], patterns, also=self.places[1:]))
        except FileNotFoundError:
            if not optional:
                raise
            return None
        return self.used[-1]

    def _one(self, folder: Path, patterns: Sequence[str], also: Sequence[Path]) -> Path:
        """Return the one file that fits; of several, the one that is named like the weights up to the first dot."""
        try:
            return find_one(folder, patterns, also=also)
        except ValueError:
            stems = [file.name.split(".")[0] for file in self.used[:1]]
            own = [file for pattern in patterns for file in folder.glob(pattern) if file.name.split(".")[0] in stems]
            if len(own) != 1:
                raise
            return own[0]

    def mapping(self, file: Path) -> Mapping[str, Any]:
        """Return the dictionary in a file, read once."""
        if file not in self.used:
            self.used.append(file)
        if file in self._read:
            return self._read[file]
        found = read_json(file) if file.suffix == ".json" else read_pickle(file)
        if not isinstance(found, Mapping):
            msg = f"{str(file)!r} holds a {type(found).__name__}; expected a dictionary. Get the file from its authors."
            raise FormatError(msg)
        self._read[file] = found
        return found


def read_weights(  # noqa: PLR0911
    spec: ModelSpec, weights: Path, release: Release, *, given: Mapping[str, Any]
) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Return the tensors and the configuration, wherever the release has it."""
    match spec.config:
        case InSubmodels(key=key, tensors=entry) as several:
            chosen = several.choose(given)
            tensors, config = read_checkpoint(weights, tensors=entry, settings=key, within=chosen)
            return spec.keys.bare(tensors), several.settings(config)
        case InWeights(beside=str(pattern)) if sniff(weights) == "safetensors":
            return spec.keys.bare(read_tensors(weights)), release.config(pattern)
        case InWeights(key=key, tensors=entry):
            tensors, config = read_checkpoint(weights, tensors=entry, settings=key)
            return spec.keys.bare(tensors), config
        case BesideWeights(file=pattern, tensors=entry):
            return spec.keys.bare(read_tensors(weights, key=entry)), release.config(pattern)
        case str(pattern):
            return spec.keys.bare(read_tensors(weights)), release.config(pattern)
        case UnderKey(tensors=entry):
            return spec.keys.bare(read_tensors(weights, key=entry)), {}
        case PickledModule(classes=classes, entry=entry):
            return spec.keys.bare(read_module(weights, classes=classes, entry=entry)), {}
        case VectorFile(tensor=name):
            genes = read_vector_genes(cast("VectorGenes", spec.vocabulary), release).features.tolist()
            return {name: vector_tensor(release.mapping(weights), genes, repr(weights.name))}, {}
        case None:
            # Of a table with the genes of several species, few rows are used.
            mapped = isinstance(spec.vocabulary, SpeciesTables)
            return spec.keys.bare(read_tensors(weights, mapped=mapped)), {}


def read_state(spec: ModelSpec, weights: Path) -> dict[str, Tensor]:
    """Return the tensors alone."""
    match spec.config:
        case InWeights(tensors=entry) | UnderKey(tensors=entry) if sniff(weights) != "safetensors":
            return spec.keys.bare(read_tensors(weights, key=entry))
        case _:
            return spec.keys.bare(read_tensors(weights))


def check_requirements(spec: ModelSpec, facts: ReleaseFacts) -> None:
    """Refuse a configuration of which another kind of model is built, or one that contradicts the weights."""
    for key, value in spec.requires.items():
        found = _nested(facts.config, key)
        is_size = is_dataclass(value) or isinstance(value, tuple)
        if found is _MISSING or (is_size and found is None):  # the authors' code takes a size of its own for `None`
            continue
        wanted = resolve_sizes(value, facts)
        if is_size and wanted is None:  # the checkpoint has no such part
            continue
        allowed = sorted(wanted, key=str) if isinstance(wanted, frozenset | tuple) else [wanted]
        if found not in allowed:
            listed = " or ".join(map(repr, allowed))
            known = (
                f"the weights say {listed}; they are of different models. Get both from the authors."
                if is_size
                else f"only models with {listed} are known of {spec.name!r}; its weights would mean something else."
            )
            msg = f"The configuration says {key!r} is {found!r}, but {known}"
            raise ValueError(msg)


def _nested(config: Mapping[str, Any], key: str) -> object:
    """Return an entry, dots going into nested parts."""
    found: Any = config
    for part in key.split("."):
        if not isinstance(found, Mapping) or part not in found:
            return _MISSING
        found = found[part]
    return found


def read_vocabulary(  # noqa: PLR0911
    source: VocabularySource
    | RowGenes
    | TokenLists
    | GeneList
    | ListedGenes
    | VarNames
    | WordVocabulary
    | GeneBinVocabulary
    | LinkedIds
    | VectorGenes,
    release: Release,
) -> GeneVocabulary:
    """Return the vocabulary, from whatever kind of file the release has it in."""
    match source:
        case RowGenes():
            return read_row_genes(source, release)
        case TokenLists():
            return read_token_lists(source, release)
        case GeneList():
            return read_gene_list(source, release)
        case ListedGenes():
            return read_listed_genes(source, release)
        case WordVocabulary():
            return read_word_vocabulary(source, release)
        case VarNames():
            return read_var_list(source, release)
        case LinkedIds():
            return read_linked_ids(source, release)
        case GeneBinVocabulary():
            return read_gene_bins(source, release)
        case VectorGenes():
            return read_vector_genes(source, release)
        case VocabularySource():
            return _read_dictionary(source, release)


def _read_dictionary(source: VocabularySource, release: Release) -> GeneVocabulary:
    """Return the vocabulary that a dictionary of tokens holds."""
    tokens = release.dictionary(source.files)
    if source.append:
        lacking = [token for token in source.specials if token not in tokens]
        tokens = {**tokens, **{token: len(tokens) + place for place, token in enumerate(lacking)}}
    if source.pad not in tokens:
        msg = f"{release.used[-1].name!r} lacks the padding token {source.pad!r}; it fits no model of this family."
        raise ValueError(msg)
    names = None
    if source.names:
        names = {str(key).upper(): str(value) for key, value in release.dictionary(source.names).items()}
    return GeneVocabulary.from_mapping(
        tokens,
        specials=[token for token in source.specials if token in tokens],
        ids=source.ids,
        species=source.species,
        names=names,
        merge=source.merge,
    )


def read_genes(
    spec: ModelSpec, release: Release, tensors: dict[str, Tensor], *, facts: ReleaseFacts
) -> tuple[GeneVocabulary, dict[str, np.ndarray]]:
    """Return the vocabulary, and companion arrays that come with it; it may bring another table than the weights."""
    if isinstance(spec.vocabulary, SpeciesTables):
        return read_species(spec.vocabulary, release, tensors, given=facts.given)
    return read_vocabulary(resolve_sizes(spec.vocabulary, facts), release), {}


def read_array(  # noqa: PLR0911
    source: ArraySource, vocabulary: GeneVocabulary, tensors: dict[str, Tensor], *, release: Release
) -> np.ndarray | None:
    """Return a companion array, in vocabulary order; `None` if its file may be missing, and is."""
    match source:
        case ArrayFile(files=patterns):
            return _array_of_file(release.file(patterns, optional=True), vocabulary)
        case RoundedArrayFile(files=patterns):
            found = _array_of_file(release.file(patterns, optional=True), vocabulary)
            return None if found is None else _made_whole(found)
        case VectorTable(files=patterns):
            if not has_file(release, patterns):
                return None
            return stack_vectors(release.dictionary(patterns), vocabulary.features.tolist(), patterns[0])
        case StoredArray(tensor=tensor):
            return tensors.pop(tensor).float().numpy()
        case GeneFactors(files=patterns):
            return _factors(release.dictionary(patterns), vocabulary, release.used[-1])
        case PartialFactors():
            return _partial_factors(source, vocabulary, release)


def _partial_factors(source: PartialFactors, vocabulary: GeneVocabulary, release: Release) -> np.ndarray:
    """Return factors from those files that are there; a warning names the others."""
    factors = np.full(vocabulary.n_features, source.default)
    missing = []
    for patterns in source.files:
        if release.file(patterns, optional=True) is None:
            missing.append(patterns[0])
            continue
        table = release.dictionary(patterns)
        named = np.array([gene in table for gene in vocabulary.features.tolist()], dtype=bool)
        factors[named] = _numbers(table, vocabulary.features[named], release.used[-1])
    if missing:
        warn_user(f"{' and '.join(map(repr, missing))} not found. {source.absence}")
    return factors


def read_prototypes(source: PrototypeSource, tensors: dict[str, Tensor], release: Release) -> Prototypes:
    """Return the label prototypes, whose vectors lie among the tensors."""
    return Prototypes.from_json(release.dictionary((source.file,)), tensors.pop(source.tensor).float().numpy())


def _array_of_file(file: Path | None, vocabulary: GeneVocabulary) -> np.ndarray | None:
    if file is None:
        return None
    found = readers.read_array(file)
    wanted = (vocabulary.n_features,)
    if not isinstance(found, np.ndarray) or found.dtype.kind not in "fiu" or found.shape != wanted:
        what = f"of type {found.dtype} and shape {found.shape}" if isinstance(found, np.ndarray) else "of several parts"
        msg = f"{file.name!r} holds an array {what}; expected a number for each of {wanted[0]} genes of the vocabulary."
        raise ValueError(msg)
    if np.isinf(found).any():
        msg = f"{file.name!r} holds infinite numbers; it is damaged. Get the file from its authors."
        raise ValueError(msg)
    return found.astype(np.float64)


def _made_whole(found: np.ndarray) -> np.ndarray:
    """Round halves up, as in the making of a corpus; what is no number, or rounds to zero, becomes one."""
    numbers = np.nan_to_num(found)
    below = np.floor(numbers)
    whole = below + (numbers - below >= 0.5)
    return np.where(whole == 0, 1.0, whole)


def _factors(table: Mapping[str, Any], vocabulary: GeneVocabulary, file: Path) -> np.ndarray:
    missing = [gene for gene in vocabulary.features.tolist() if gene not in table]
    if missing:
        msg = f"{file.name!r} lacks {len(missing)} genes of the vocabulary, such as {missing[0]!r}; they do not match."
        raise ValueError(msg)
    return _numbers(table, vocabulary.features, file)


def _numbers(table: Mapping[str, Any], genes: np.ndarray, file: Path) -> np.ndarray:
    """Return the number of each gene; `ValueError` if one is not above zero."""
    try:
        factors = np.array([float(table[gene]) for gene in genes.tolist()])
    except (TypeError, ValueError) as error:
        msg = f"{file.name!r} does not give a number for every gene of the vocabulary: {error}."
        raise ValueError(msg) from error
    bad = ~(np.isfinite(factors) & (factors > 0))
    if bad.any():
        gene = genes[bad][0]
        msg = f"{file.name!r} gives {factors[bad][0]} for {gene!r}; expected a positive number."
        raise ValueError(msg)
    return factors
