"""What a model that was fine-tuned to classify says of cells."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from sclcm.engine.infer import ClassLogits
from sclcm.models._cell_vectors import cell_vectors, read_cells
from sclcm.models._labels import label_names
from sclcm.models._pass import one_pass
from sclcm.models._prototypes import UNKNOWN
from sclcm.zoo._labels import ClassLabels

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sclcm.models._pass import Input
    from sclcm.models._pretrained import Pretrained


def class_names(pretrained: Pretrained) -> tuple[tuple[str, ...], float]:
    """Return the classes of a model, in the order of its head, and its own bound of abstention."""
    labels = class_labels(pretrained)
    return label_names(labels), labels.min_score


def class_labels(pretrained: Pretrained) -> ClassLabels:
    """Return which head of a model scores which classes; `ValueError` if none does."""
    if not isinstance(pretrained.labels, ClassLabels):
        msg = f"{pretrained.name!r} classifies no cells."
        raise ValueError(msg)
    return pretrained.labels


def label_by_head(
    data: Input, pretrained: Pretrained, chosen: Sequence[str], *, batch_size: int | None
) -> tuple[np.ndarray, np.ndarray]:
    """Let a model classify cells.

    Parameters
    ----------
    data
        The cells.
    pretrained
        The model, which has labels that a head scores.
    chosen
        The classes to choose from.
    batch_size
        Cells at a time, or `None`.

    Returns
    -------
    The most probable of the classes, and its probability among them, each of shape `(n_obs,)`. A cell without any
    known gene is `"unknown"`.
    """
    names, _ = class_names(pretrained)
    probabilities = softmax(class_logits(data, pretrained, batch_size=batch_size)[:, [names.index(n) for n in chosen]])
    label = np.array(list(chosen), dtype=object)[probabilities.argmax(1)]
    score = probabilities.max(1)
    if pretrained.token_unit != "cell":  # a cell that is a token is of its set, whatever it expresses
        label[data.empty_cells], score[data.empty_cells] = UNKNOWN, 0.0
    return label, score


def class_logits(data: Input, pretrained: Pretrained, *, batch_size: int | None) -> np.ndarray:
    """Return the logit of each class for each cell, shape `(n_obs, classes)`, float32."""
    labels = class_labels(pretrained)
    if labels.encoding is not None:
        pretrained = replace(pretrained, encoding=labels.encoding)
    if labels.recipe is not None:
        recipe = pretrained.recipe(labels.recipe)
        return read_cells(pretrained, labels.head, cell_vectors(data, pretrained, recipe, batch_size=batch_size))
    out = np.zeros((data.source.shape[0], len(label_names(labels))), dtype=np.float32)
    one_pass(data, pretrained, [ClassLogits(out=out, head=labels.head)], batch_size=batch_size, n_blocks=None)
    return out


def softmax(logits: np.ndarray) -> np.ndarray:
    """Return probabilities of logits, row by row, float64."""
    shares = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)
