"""`load`, `list_models`, `describe`: from a name or a path to a model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from sclcm._sizes import ReleaseFacts, resolve_sizes
from sclcm.checkpoints.files import checkpoint_digest, find_one
from sclcm.checkpoints.readers import read_json, read_pickle, read_tensors
from sclcm.genes.vocabulary import GeneVocabulary
from sclcm.models._pretrained import FORMAT, Pretrained, build_lcm, load_saved
from sclcm.models._prototypes import Prototypes
from sclcm.zoo._registry import family_names, get_spec
from sclcm.zoo._spec import (
    ArraySource,
    Checkpoint,
    GeneFactors,
    ModelSpec,
    PrototypeSource,
    StoredArray,
    VocabularySource,
    with_variants,
)

if TYPE_CHECKING:
    import torch
    from torch import Tensor


def load(
    name_or_path: str | Path | Pretrained,
    *,
    family: str | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    **given: Any,
) -> Pretrained:
    """Load a model by name, from its authors' files, or from a folder that `Pretrained.save` wrote.

    Nothing in a file is executed: safetensors and JSON are read as such, pickles by a reader that knows tensors,
    arrays and plain data only.

    Parameters
    ----------
    name_or_path
        A name that `list_models` gives, such as `"sclcm-mini"`, or a folder with the authors' files (or the weights
        file in it). Dictionaries are looked for in the folder, then in the one above it.
    family
        Family of the files; found out from them where only one fits.
    device
        `"auto"` is CUDA, else MPS, else the CPU.
    dtype
        `"float32"`, `"bfloat16"`, `"float16"`; `"auto"` is bfloat16 on CUDA and float32 elsewhere.
    given
        What the files do not state: sizes that the family asks for by name, and `vocabulary`, a folder with the
        dictionaries.

    Returns
    -------
    The model, in evaluation mode.

    Raises
    ------
    ValueError
        The name is unknown, the files fit no family or several, or a tensor is missing, left over or misshapen.
    FileNotFoundError
        A file that the family needs is not there.
    """
    if isinstance(name_or_path, Pretrained):
        return name_or_path.to(device, dtype)
    path = Path(name_or_path)
    if path.exists():
        return _load_path(path, family, given).to(device, dtype)
    return _load_name(str(name_or_path), given).to(device, dtype)


def list_models() -> list[str]:
    """Return the names that `load` knows, `family.checkpoint`; a family alone means its first checkpoint."""
    return [f"{family}.{checkpoint}" for family in family_names() for checkpoint in get_spec(family).checkpoints]


def describe(name: str) -> dict[str, Any]:
    """Describe a model of the zoo, without reading any weights.

    Parameters
    ----------
    name
        A family or `family.checkpoint`.

    Returns
    -------
    Title, reference, licence, where to get it, the input it needs, its recipes and its heads.
    """
    spec, key = _find_checkpoint(name)
    checkpoint = spec.checkpoints[key]
    return {
        "name": f"{spec.name}.{key}",
        "title": spec.title,
        "description": checkpoint.description,
        "reference": spec.reference,
        "license": checkpoint.license,
        "bundled": checkpoint.bundled is not None,
        "source": checkpoint.source,
        "files": list(checkpoint.files),
        "needs": spec.needs,
        "gene_ids": spec.vocabulary.ids,
        "species": list(spec.vocabulary.species),
        "recipes": {recipe: str(value) for recipe, value in _all_recipes(spec).items()},
    }


def _all_recipes(spec: ModelSpec) -> dict[str, object]:
    return {**spec.recipes, **{name: recipe for variant in spec.variants for name, recipe in variant.recipes.items()}}


def _find_checkpoint(name: str) -> tuple[ModelSpec, str]:
    family, _, key = name.partition(".")
    if family not in family_names():
        msg = f"{name!r} is neither a path that exists nor a known model; known are {', '.join(list_models())}."
        raise ValueError(msg)
    spec = get_spec(family)
    key = key or next(iter(spec.checkpoints))
    if key not in spec.checkpoints:
        msg = f"{family!r} has no checkpoint {key!r}; it has {', '.join(map(repr, spec.checkpoints))}."
        raise ValueError(msg)
    return spec, key


def _load_name(name: str, given: Mapping[str, Any]) -> Pretrained:
    spec, key = _find_checkpoint(name)
    checkpoint = spec.checkpoints[key]
    if checkpoint.bundled is None:
        raise FileNotFoundError(_how_to_get(f"{spec.name}.{key}", checkpoint))
    folder = Path(str(files("sclcm.weights"))) / checkpoint.bundled
    return load_release(spec, folder, name=name, given=given)


def _how_to_get(name: str, checkpoint: Checkpoint) -> str:
    wanted = "\n".join(f"  {file}" for file in checkpoint.files)
    return (
        f"The weights of {name!r} do not come with the package. Get these files from {checkpoint.source}:\n{wanted}\n"
        f"put them into one folder, and pass its path: `sclcm.models.load('path/to/folder')`."
    )


def _load_path(path: Path, family: str | None, given: Mapping[str, Any]) -> Pretrained:
    folder = path if path.is_dir() else path.parent
    config = folder / "config.json"
    if config.exists() and read_json(config).get("format") == FORMAT:
        return load_saved(folder)
    spec = get_spec(family) if family is not None else _detect(folder, given)
    return load_release(spec, folder, name=spec.name, given=given, weights=path if path.is_file() else None)


def _detect(folder: Path, given: Mapping[str, Any]) -> ModelSpec:
    """Return the one family whose files lie in a folder."""
    fitting = [spec for spec in map(get_spec, family_names()) if _fits(spec, folder, given)]
    if len(fitting) == 1:
        return fitting[0]
    found = sorted(file.name for file in folder.iterdir())[:10]
    which = "no family" if not fitting else "several families: " + ", ".join(repr(spec.name) for spec in fitting)
    here = ", ".join(found) or "none"
    msg = f"The files in {str(folder)!r} ({here}) fit {which}; pass `family=`, one of {family_names()}."
    raise ValueError(msg)


def _fits(spec: ModelSpec, folder: Path, given: Mapping[str, Any]) -> bool:
    try:
        find_one(folder, spec.weights)
        find_one(folder, spec.vocabulary.files, also=_also(folder, given))
    except (FileNotFoundError, ValueError):
        return False
    return True


def _also(folder: Path, given: Mapping[str, Any]) -> list[Path]:
    """Return the folders besides the model's own in which dictionaries may lie."""
    return [Path(given["vocabulary"])] if "vocabulary" in given else [folder.parent]


@dataclass(frozen=True)
class _Release:
    """A folder of authors' files; remembers which of them were read, for the digest."""

    folder: Path
    also: tuple[Path, ...]
    used: list[Path] = field(default_factory=list)

    def find(self, patterns: Sequence[str]) -> Path:
        """Return the one file that fits, here or in the other folders."""
        self.used.append(find_one(self.folder, patterns, also=self.also))
        return self.used[-1]

    def mapping(self, patterns: Sequence[str]) -> Mapping[str, Any]:
        """Return the dictionary in the one file that fits; `TypeError` if it holds something else."""
        file = self.find(patterns)
        found = read_json(file) if file.suffix == ".json" else read_pickle(file)
        if not isinstance(found, Mapping):
            msg = f"{str(file)!r} holds a {type(found).__name__}; expected a dictionary."
            raise TypeError(msg)
        return found


def load_release(
    spec: ModelSpec, folder: Path, *, name: str, given: Mapping[str, Any], weights: Path | None = None
) -> Pretrained:
    """Read a folder of authors' files as one family."""
    release = _Release(folder, tuple(_also(folder, given)))
    weights = weights or find_one(folder, spec.weights)
    release.used.append(weights)
    tensors = read_tensors(weights)
    prototypes = None if spec.prototypes is None else _read_prototypes(spec.prototypes, tensors, release)
    config = {} if spec.config is None else release.mapping((spec.config,))
    facts = ReleaseFacts(config=config, shapes={key: tuple(t.shape) for key, t in tensors.items()}, given=given)
    vocabulary = _read_vocabulary(spec.vocabulary, release)
    spec = with_variants(spec, facts, vocabulary)
    arrays = {key: _read_array(source, vocabulary, tensors, release=release) for key, source in spec.arrays.items()}
    architecture = resolve_sizes(spec.architecture, facts)
    lcm = build_lcm(architecture, {key: _as_float(t) for key, t in spec.keys.forward(tensors).items()})
    _check_table(vocabulary, lcm.embed.gene.num_embeddings, folder)
    return Pretrained(
        name=name,
        family=spec.name,
        vocabulary=vocabulary,
        gene_columns=spec.vocabulary.gene_columns,
        pad=spec.vocabulary.pad,
        mask=spec.vocabulary.mask if spec.vocabulary.mask in vocabulary.specials else None,
        encoding=resolve_sizes(spec.encoding, facts),
        architecture=architecture,
        recipes=resolve_sizes(spec.recipes, facts),
        arrays=arrays,
        prototypes=prototypes,
        lcm=lcm,
        sha256=checkpoint_digest(release.used),
    )


def _as_float(tensor: Tensor) -> Tensor:
    """Return weights stored in half precision as float32; others as they are."""
    return tensor.float() if tensor.is_floating_point() else tensor


def _read_vocabulary(source: VocabularySource, release: _Release) -> GeneVocabulary:
    tokens = release.mapping(source.files)
    names = None
    if source.names:
        names = {str(key).upper(): str(value) for key, value in release.mapping(source.names).items()}
    return GeneVocabulary.from_mapping(
        tokens,
        specials=[token for token in source.specials if token in tokens],
        ids=source.ids,
        species=source.species,
        names=names,
    )


def _read_array(
    source: ArraySource, vocabulary: GeneVocabulary, tensors: dict[str, Tensor], *, release: _Release
) -> np.ndarray:
    match source:
        case StoredArray(tensor=tensor):
            return tensors.pop(tensor).float().numpy()
        case GeneFactors(files=patterns):
            return _factors(release.mapping(patterns), vocabulary, release.used[-1])


def _read_prototypes(source: PrototypeSource, tensors: dict[str, Tensor], release: _Release) -> Prototypes:
    return Prototypes.from_json(release.mapping((source.file,)), tensors.pop(source.tensor).float().numpy())


def _factors(table: Mapping[str, Any], vocabulary: GeneVocabulary, file: Path) -> np.ndarray:
    missing = [gene for gene in vocabulary.features.tolist() if gene not in table]
    if missing:
        msg = f"{file.name!r} lacks {len(missing)} genes of the vocabulary, such as {missing[0]!r}; they do not match."
        raise ValueError(msg)
    factors = np.array([float(table[gene]) for gene in vocabulary.features.tolist()])
    bad = ~(np.isfinite(factors) & (factors > 0))
    if bad.any():
        gene = vocabulary.features[bad][0]
        msg = f"{file.name!r} gives {factors[bad][0]!r} for {gene!r}; expected a positive number."
        raise ValueError(msg)
    return factors


def _check_table(vocabulary: GeneVocabulary, n_rows: int, folder: Path) -> None:
    """The vocabulary must be the one the model was trained with; its size tells most mix-ups."""
    if vocabulary.n_tokens != n_rows:
        msg = (
            f"The vocabulary beside {str(folder)!r} has {vocabulary.n_tokens} tokens, the model's table {n_rows} rows; "
            "they belong to different models. Pass the right dictionaries, as in `load(..., vocabulary='folder')`."
        )
        raise ValueError(msg)
