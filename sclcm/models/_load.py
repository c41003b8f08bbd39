"""`load`, `fetch`, `list_models`: from a name or a path to a model."""

from __future__ import annotations

import dataclasses
import os
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sclcm._sizes import Given, ReleaseFacts, names_asked, resolve_sizes
from sclcm.checkpoints.files import find_one, named_in_errors
from sclcm.checkpoints.readers import require_file
from sclcm.models._build import build_lcm, check_places, check_settings, within_places
from sclcm.models._digest import Digest
from sclcm.models._fetch import checkpoint_folder
from sclcm.models._gene_vectors import recipes_with_tables
from sclcm.models._labels import check_labels, read_labels
from sclcm.models._pretrained import Pretrained
from sclcm.models._release import (
    Release,
    check_requirements,
    read_array,
    read_genes,
    read_prototypes,
    read_weights,
)
from sclcm.models._saved import is_saved, load_saved
from sclcm.nn.configs import TableEncoder
from sclcm.nn.table_configs import NoBackbone
from sclcm.zoo._conditions import check_words
from sclcm.zoo._labels import ClassLabels
from sclcm.zoo._modules import LinkedIds
from sclcm.zoo._registry import family_names, get_spec
from sclcm.zoo._spec import ModelSpec, with_variants
from sclcm.zoo._submodels import InSubmodels

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    import torch
    from torch import Tensor

    from sclcm.genes.vocabulary import GeneVocabulary
    from sclcm.nn.configs import LCMConfig
    from sclcm.zoo._labels import GeneratedLabels


def load(
    name_or_path: str | Path | Pretrained,
    *,
    family: str | None = None,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    **given: Any,
) -> Pretrained:
    """Load a model by name, from its authors' files, or from a folder that `Pretrained.save` wrote.

    Nothing in a file is executed: pickles are read by a restricted reader that accepts only tensors, arrays and plain
    data.

    Parameters
    ----------
    name_or_path
        A name from :func:`~sclcm.models.list_models`, such as `"sclcm-mini"`, whose files are downloaded if
        they are not on this machine; or a folder with the authors' files (or the weights file in it).
        Dictionaries are looked for in that folder, then in the one above it.
    family
        Family of the files; `None` infers it from the files, if only one family fits.
    device
        Where to put the model; `"auto"` is CUDA if available, then MPS, then the CPU.
    dtype
        `"float32"`, `"bfloat16"` or `"float16"`; `"auto"` is bfloat16 on CUDA and float32 elsewhere. With `"auto"`, a
        model that is already loaded keeps its device and number type.
    given
        What the files do not contain: sizes that the family asks for by name; `vocabulary`, the folder with the
        dictionaries, and with the configuration if the model's own folder has none; and, for models that were
        fine-tuned to classify, `labels`, the names of the classes in order.

    Returns
    -------
    The model, in evaluation mode.

    Raises
    ------
    ValueError
        The name is unknown, the files fit no family or several, or a tensor is missing, unexpected or of the wrong
        shape.
    FileNotFoundError
        A file that the family needs is not there and cannot be downloaded.
    ConnectionError
        The model hub cannot be reached.
    TypeError
        An argument is not one that the family asks for.
    """
    if isinstance(name_or_path, Pretrained):
        _check_given(given, set(), "a model that is loaded already")
        here = name_or_path.device if str(device) == "auto" else device
        return name_or_path.to(here, name_or_path.dtype if dtype == "auto" else dtype)
    if not isinstance(name_or_path, str | Path) or not str(name_or_path):
        msg = f"The model is {name_or_path!r}; expected a name that `list_models` gives, a path, or a loaded model."
        raise TypeError(msg)
    path = Path(name_or_path)
    if os.path.exists(path):  # noqa: PTH110  `Path.exists` gives up on names that no path can have
        if not path.is_dir():
            require_file(path)
        model = _load_path(path, family, given)
    else:
        model = _load_name(str(name_or_path), given)
    if family is not None and model.family != family:
        msg = f"{str(name_or_path)!r} is a model of the family {model.family!r}, not {family!r}; leave `family` out."
        raise ValueError(msg)
    return model.to(device, dtype)


def fetch(name: str) -> Path:
    """Download the files of a model without loading it, so that it can be loaded later without a network.

    Files that are already there are checked and kept; an interrupted download is resumed.

    Parameters
    ----------
    name
        A family or `family.checkpoint`.

    Returns
    -------
    The folder with the files, which you can pass to `load` or copy to a machine without a network.

    Raises
    ------
    FileNotFoundError
        The files cannot be downloaded automatically, or the settings forbid a connection. The message says which files
        to get, from where, and where to put them.
    ConnectionError
        The model hub cannot be reached.
    ValueError
        The name is unknown, or a file differs from the one that was published.
    """
    spec, key = find_checkpoint(name)
    return checkpoint_folder(spec.name, key, spec.checkpoints[key])


def list_models() -> list[str]:
    """List the models that can be loaded by name.

    Returns
    -------
    Names of the form `family.checkpoint`. The name of a family on its own means its first checkpoint. Families without
    published weights are not listed; see :func:`~sclcm.models.build` for these.
    """
    return [f"{family}.{checkpoint}" for family in family_names() for checkpoint in get_spec(family).checkpoints]


def models_with_labels() -> list[str]:
    """Return the names of families that label cells without training."""
    specs = map(get_spec, family_names())
    return [spec.name for spec in specs if spec.prototypes is not None or spec.labels is not None]


def find_checkpoint(name: str) -> tuple[ModelSpec, str]:
    """Return the family that a name says, and which of its checkpoints; `ValueError` if there is none."""
    family, _, key = str(name).partition(".")
    if family not in family_names():
        close = get_close_matches(str(name).replace("_", "-").lower(), [*family_names(), *list_models()], n=3)
        hint = f"Did you mean {' or '.join(map(repr, close))}? " if close else ""
        msg = (
            f"{name!r} is neither a path that exists nor a known model. {hint}"
            f"The known models are {', '.join(list_models())}."
        )
        raise ValueError(msg)
    spec = get_spec(family)
    if not spec.checkpoints:
        msg = (
            f"No weights of {family!r} are published. `sclcm.models.build({family!r}, gene_ids)` makes a model with "
            "random weights to be trained; files of one's own training are loaded by the path of their folder."
        )
        raise ValueError(msg)
    key = key or next(iter(spec.checkpoints))
    if key not in spec.checkpoints:
        msg = f"{family!r} has no checkpoint {key!r}; it has {', '.join(map(repr, spec.checkpoints))}."
        raise ValueError(msg)
    return spec, key


def _load_name(name: str, given: Mapping[str, Any]) -> Pretrained:
    spec, key = find_checkpoint(name)
    checkpoint = spec.checkpoints[key]
    _check_given(given, _names_given(spec) - checkpoint.given.keys(), repr(f"{spec.name}.{key}"))
    folder = checkpoint_folder(spec.name, key, checkpoint)
    return load_release(spec, folder, name=name, given={**checkpoint.given, **given})


def _load_path(path: Path, family: str | None, given: Mapping[str, Any]) -> Pretrained:
    folder = path if path.is_dir() else path.parent
    if is_saved(folder):
        _check_given(given, set(), "a saved model")
        return load_saved(folder)
    weights = path if path.is_file() else None
    spec = get_spec(family) if family is not None else _detect(folder, given, has_weights=weights is not None)
    return load_release(spec, folder, name=_name(spec, given), given=given, weights=weights)


def _name(spec: ModelSpec, given: Mapping[str, Any]) -> str:
    """Return the name of a model of one's own files: that of a checkpoint, if the arguments are those that pick it."""
    named = [key for key, each in spec.checkpoints.items() if each.given and each.given.items() <= given.items()]
    return f"{spec.name}.{named[0]}" if named else spec.name


def _detect(folder: Path, given: Mapping[str, Any], *, has_weights: bool) -> ModelSpec:
    """Return the one family whose files lie in a folder."""
    places = _dictionary_folders(folder, given)
    specs = map(get_spec, family_names())
    fitting = [spec for spec in specs if _fits(spec, folder, places, has_weights=has_weights)]
    if len(fitting) == 1:
        return fitting[0]
    found = sorted(file.name for file in folder.iterdir())[:10]
    which = "no family" if not fitting else "several families: " + ", ".join(repr(spec.name) for spec in fitting)
    here = ", ".join(found) or "none"
    then = "" if fitting else ". A file that is missing is named then"
    msg = f"The files in {str(folder)!r} ({here}) fit {which}; pass `family=`, one of {family_names()}{then}."
    raise ValueError(msg)


def _fits(spec: ModelSpec, folder: Path, places: Sequence[Path], *, has_weights: bool) -> bool:
    try:
        if not has_weights:
            find_one(folder, spec.weights)
        find_one(places[0], spec.vocabulary.files, also=places[1:])
    except (FileNotFoundError, ValueError):
        return False
    return True


def _dictionary_folders(folder: Path, given: Mapping[str, Any]) -> tuple[Path, ...]:
    """Return where dictionaries are looked for: where the caller says, or in the model's folder and the one above."""
    if "vocabulary" not in given:
        return folder, folder.parent
    named = Path(given["vocabulary"])
    if not named.is_dir():
        msg = f"`vocabulary` is {str(named)!r}, which is no folder; pass the one that holds the dictionaries."
        raise FileNotFoundError(msg)
    return (named,)


def _check_given(given: Mapping[str, Any], known: set[str], what: str) -> None:
    if unknown := sorted(given.keys() - known):
        takes = ", ".join(f"`{name}`" for name in sorted(known)) or "no further arguments"
        msg = f"`load` got `{unknown[0]}`, which says nothing here: {what} takes {takes}."
        raise TypeError(msg)


def load_release(
    spec: ModelSpec, folder: Path, *, name: str, given: Mapping[str, Any], weights: Path | None = None
) -> Pretrained:
    """Read a folder of authors' files as one family."""
    _check_given(given, _names_given(spec), repr(spec.name))
    check_words((condition for variant in spec.variants for condition in variant.when), given)
    weights = weights or find_one(folder, spec.weights)
    release = Release(weights.parent, _dictionary_folders(folder, given))
    release.used.append(weights)
    with named_in_errors(release.folder, release.used):
        return _read_release(spec, release, name=name, given=given)


def _read_release(spec: ModelSpec, release: Release, *, name: str, given: Mapping[str, Any]) -> Pretrained:
    """Read a release whose weights are found."""
    weights = release.used[0]
    tensors, config = read_weights(spec, weights, release, given=given)
    prototypes = None if spec.prototypes is None else read_prototypes(spec.prototypes, tensors, release)
    check_requirements(spec, _facts(config, tensors, given))
    vocabulary, arrays = read_genes(spec, release, tensors, facts=_facts(config, tensors, given))
    facts = dataclasses.replace(_facts(config, tensors, given), n_tokens=vocabulary.n_tokens)
    spec = with_variants(spec, facts, vocabulary)
    read = {key: read_array(source, vocabulary, tensors, release=release) for key, source in spec.arrays.items()}
    arrays |= {key: array for key, array in read.items() if array is not None}
    architecture = resolve_sizes(spec.architecture, facts)
    labels = _labels(spec, release, architecture, facts=facts)
    encoding, recipes, gene_recipes = resolve_sizes((spec.encoding, spec.recipes, spec.gene_recipes), facts)
    check_settings((encoding, recipes, gene_recipes, labels))
    digest = Digest.of(release.used)
    exact = isinstance(architecture.backbone, NoBackbone)
    state = {key: t if exact else _as_float(t, key) for key, t in spec.keys.forward(tensors).items()}
    lcm = build_lcm(architecture, state)
    check_labels(labels, architecture)
    if not isinstance(spec.vocabulary, LinkedIds):
        n_spare = architecture.gene.n_spare if isinstance(architecture.gene, TableEncoder) else 0
        _check_table(vocabulary, lcm.embed.gene.num_embeddings - n_spare, weights.parent)
    if isinstance(spec.encoding.max_tokens, Given) and spec.encoding.max_tokens.name not in given:
        encoding = within_places(encoding, architecture)
        if isinstance(labels, ClassLabels) and labels.encoding is not None:
            labels = dataclasses.replace(labels, encoding=within_places(labels.encoding, architecture))
    check_places(encoding, architecture)
    species = given.get("species")
    return Pretrained(
        name=name,
        family=spec.name,
        vocabulary=vocabulary if species is None else vocabulary.of_species(species),
        gene_columns=spec.vocabulary.gene_columns,
        pad=spec.vocabulary.pad,
        mask=spec.vocabulary.mask if spec.vocabulary.mask in vocabulary.specials else None,
        encoding=encoding,
        architecture=architecture,
        recipes=recipes_with_tables(recipes, arrays),
        gene_recipes=gene_recipes,
        submodel=spec.config.choose(given) if isinstance(spec.config, InSubmodels) else None,
        arrays=arrays,
        prototypes=prototypes,
        labels=labels,
        translation=spec.translation,
        needs=spec.needs,
        accepts_bulk=spec.accepts_bulk,
        lcm=lcm,
        digest=digest,
    )


def _names_given(spec: ModelSpec) -> set[str]:
    """Return the names of what `load` may be told of a family."""
    classifies = any(isinstance(labels, ClassLabels) for labels in (spec.labels, *(v.labels for v in spec.variants)))
    return {"vocabulary", *names_asked(spec), *(["labels"] if classifies else [])}


def _labels(
    spec: ModelSpec, release: Release, architecture: LCMConfig, *, facts: ReleaseFacts
) -> GeneratedLabels | ClassLabels | None:
    """Return the labels of a model, where it gives any."""
    given = facts.given.get("labels")
    if spec.labels is None:
        if given is not None:
            msg = f"`labels` names {len(given)} classes, but these weights of {spec.name!r} score none."
            raise ValueError(msg)
        return None
    return resolve_sizes(read_labels(spec.labels, release, architecture, given=given), facts)


def _facts(config: Mapping[str, Any], tensors: Mapping[str, Tensor], given: Mapping[str, Any]) -> ReleaseFacts:
    """Return what a release says of itself."""
    return ReleaseFacts(config=config, shapes={key: tuple(t.shape) for key, t in tensors.items()}, given=given)


def _as_float(tensor: Tensor, name: str) -> Tensor:
    """Return weights stored in half precision as float32; others as they are, but complex numbers are no weights."""
    if tensor.is_complex():
        msg = f"The weights {name!r} are complex numbers; the checkpoint is damaged. Get it from its authors."
        raise ValueError(msg)
    return tensor.float() if tensor.is_floating_point() else tensor


def _check_table(vocabulary: GeneVocabulary, n_rows: int, folder: Path) -> None:
    """The vocabulary must be the one the model was trained with; its size tells most mix-ups."""
    if vocabulary.n_tokens != n_rows:
        msg = (
            f"The vocabulary beside {str(folder)!r} has {vocabulary.n_tokens} tokens, the model's table {n_rows} rows; "
            "they belong to different models. Pass the right dictionaries, as in `load(..., vocabulary='folder')`."
        )
        raise ValueError(msg)
