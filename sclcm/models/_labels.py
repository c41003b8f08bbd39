"""Labels of a release: read, and held against the model that gives them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from sclcm._sizes import as_int
from sclcm.checkpoints.readers import read_pickle
from sclcm.models._gene_lists import names_in
from sclcm.nn.cell_configs import TanhClassHead
from sclcm.nn.readouts import CellClassHead, LinearHead, PooledClassHead, SentenceClassHead
from sclcm.nn.set_configs import BareLayers, DroppedLayers
from sclcm.zoo._labels import ClassLabels, GeneratedLabels, LabelFile, NamesInFile

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sclcm.models._release import Release
    from sclcm.nn.configs import LCMConfig


def read_labels(
    declared: GeneratedLabels | ClassLabels, release: Release, architecture: LCMConfig, *, given: Sequence[str] | None
) -> GeneratedLabels | ClassLabels:
    """Return the labels that a model gives, with the names that the caller gives or the release lists, or numbers."""
    if isinstance(declared, ClassLabels):
        return _class_labels(declared, release, n_classes(architecture, declared.head), given=given)
    if not isinstance(declared.names, NamesInFile):
        return declared
    content = release.dictionary(declared.names.files)
    names = {name for entry in declared.names.entries for name in names_in(content, entry)}
    return dataclasses.replace(declared, names=tuple(sorted(names)))


def n_classes(architecture: LCMConfig, head: str) -> int:
    """Return how many classes a head scores."""
    match architecture.heads[head]:
        case PooledClassHead(n_classes=n) | CellClassHead(n_classes=n) | SentenceClassHead(n_classes=n):
            return as_int(n)
        case TanhClassHead(n_classes=n) | LinearHead(d_out=n):
            return as_int(n)
        case DroppedLayers(widths=(*_, n)) | BareLayers(widths=(*_, n)):
            return as_int(n)
        case other:
            msg = f"The head {head!r} is a {type(other).__name__}, which scores no classes of cells."
            raise TypeError(msg)


def check_labels(labels: GeneratedLabels | ClassLabels | None, architecture: LCMConfig) -> None:
    """There must be a name for each class that a head scores."""
    if not isinstance(labels, ClassLabels):
        return
    n_names, wanted = len(label_names(labels)), n_classes(architecture, labels.head)
    if n_names != wanted:
        msg = (
            f"{n_names} names of classes do not fit the model, whose head scores {wanted}. Get the file that was "
            "written beside the weights, or name them in order, as in `load(..., labels=[...])`."
        )
        raise ValueError(msg)


def label_names(labels: GeneratedLabels | ClassLabels) -> tuple[str, ...]:
    """Return the labels of a model that is loaded."""
    if not isinstance(labels.names, tuple):
        msg = f"The labels are still to be read from {labels.names!r}."
        raise TypeError(msg)
    return labels.names


def are_numbers(names: Sequence[str]) -> bool:
    """Whether classes have no names but their numbers."""
    return list(names) == [str(number) for number in range(len(names))]


def _class_labels(declared: ClassLabels, release: Release, n: int, *, given: Sequence[str] | None) -> ClassLabels:
    if given is not None:
        return dataclasses.replace(declared, names=_given_names(given))
    if not isinstance(declared.names, LabelFile):
        return declared if declared.names else dataclasses.replace(declared, names=_numbers(n))
    file = release.file(declared.names.files, optional=True)
    if file is None:
        return dataclasses.replace(declared, names=_numbers(n))
    found = read_pickle(file)
    if isinstance(found, dict) and sorted(found, key=str) == sorted(range(len(found)), key=str):
        found = [found[number] for number in range(len(found))]
    names = found.tolist() if isinstance(found, np.ndarray) else found
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        msg = f"{file.name!r} lists no names of classes. Get the file that was written beside the weights."
        raise ValueError(msg)
    if len(set(names)) < len(names):
        msg = f"{file.name!r} names a class twice. Get the file that was written beside the weights."
        raise ValueError(msg)
    return dataclasses.replace(declared, names=tuple(names))


def _numbers(n: int) -> tuple[str, ...]:
    return tuple(str(number) for number in range(n))


def _given_names(given: Sequence[str]) -> tuple[str, ...]:
    """Return the names that the caller gives, checked."""
    if isinstance(given, str) or not all(isinstance(name, str) and name for name in given):
        msg = f"`labels` is {given!r}; expected the names of the model's classes, in their order."
        raise TypeError(msg)
    names = tuple(given)
    if len(set(names)) < len(names):
        twice = next(name for i, name in enumerate(names) if name in names[:i])
        msg = f"`labels` names {twice!r} twice; expected a name for each class of the model, in their order."
        raise ValueError(msg)
    return names
