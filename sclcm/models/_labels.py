"""Labels of a release: read, and held against the model that gives them."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from sclcm.checkpoints.readers import read_pickle
from sclcm.models._gene_lists import names_in
from sclcm.nn.readouts import CellClassHead, PooledClassHead, SentenceClassHead
from sclcm.zoo._labels import ClassLabels, GeneratedLabels, LabelFile, NamesInFile

if TYPE_CHECKING:
    from sclcm.models._release import Release
    from sclcm.nn.configs import LCMConfig


def read_labels(declared: GeneratedLabels | ClassLabels, release: Release) -> GeneratedLabels | ClassLabels | None:
    """Return the labels that a model gives, with the names that the release lists; `None` if it names no classes."""
    if isinstance(declared, ClassLabels):
        return _class_labels(declared, release)
    if not isinstance(declared.names, NamesInFile):
        return declared
    content = release.dictionary(declared.names.files)
    names = {name for entry in declared.names.entries for name in names_in(content, entry)}
    return dataclasses.replace(declared, names=tuple(sorted(names)))


def check_labels(labels: GeneratedLabels | ClassLabels | None, architecture: LCMConfig) -> None:
    """There must be a name for each class that a head scores."""
    if not isinstance(labels, ClassLabels):
        return
    head, n_names = architecture.heads[labels.head], len(label_names(labels))
    if not isinstance(head, PooledClassHead | CellClassHead | SentenceClassHead) or n_names != head.n_classes:
        msg = (
            f"{n_names} names of classes lie beside the model, which do not fit its {head}. Get the file that was "
            "written beside the weights."
        )
        raise ValueError(msg)


def label_names(labels: GeneratedLabels | ClassLabels) -> tuple[str, ...]:
    """Return the labels of a model that is loaded."""
    if not isinstance(labels.names, tuple):
        msg = f"The labels are still to be read from {labels.names!r}."
        raise TypeError(msg)
    return labels.names


def _class_labels(declared: ClassLabels, release: Release) -> ClassLabels | None:
    if not isinstance(declared.names, LabelFile):
        return declared
    file = release.file(declared.names.files, optional=True)
    if file is None:
        return None
    found = read_pickle(file)
    names = found.tolist() if isinstance(found, np.ndarray) else found
    if not isinstance(names, list) or not names or not all(isinstance(name, str) for name in names):
        msg = f"{file.name!r} lists no names of classes. Get the file that was written beside the weights."
        raise ValueError(msg)
    if len(set(names)) < len(names):
        msg = f"{file.name!r} names a class twice. Get the file that was written beside the weights."
        raise ValueError(msg)
    return dataclasses.replace(declared, names=tuple(names))
