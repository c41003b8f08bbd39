"""Label prototypes: points in embedding space that stand for cell types, and how cells are compared with them."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

UNKNOWN = "unknown"
"""The label of a cell that resembles no prototype enough."""

CELLS_AT_ONCE = 4_096
"""Cells that are compared with the prototypes at a time."""


@dataclass(frozen=True, kw_only=True)
class LabelGroup:
    """A coarser label that several labels are kinds of.

    Parameters
    ----------
    name
        The coarser label.
    ontology_id
        Its Cell Ontology id.
    labels
        The labels it stands for.
    """

    name: str
    ontology_id: str
    labels: tuple[str, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class Prototypes:
    """Points in embedding space, one or more for each label; they hold no cells.

    Parameters
    ----------
    labels
        Label of each prototype.
    ontology_ids
        Cell Ontology id of each, or an empty text.
    vectors
        Shape `(prototypes, width)`, float32.
    scale
        Factor from cosine to the logit of the softmax over prototypes.
    min_score
        A cell whose best label has a smaller share of the softmax is `"unknown"`.
    recipe
        The recipe whose cell vectors they belong to.
    groups
        Coarser labels, for cells that are clearly one of several kinds but not which.
    """

    labels: tuple[str, ...]
    ontology_ids: tuple[str, ...]
    vectors: np.ndarray
    scale: float
    min_score: float
    recipe: str
    groups: tuple[LabelGroup, ...] = ()

    def __post_init__(self) -> None:
        n = len(self.labels)
        if len(self.ontology_ids) != n or self.vectors.shape[:1] != (n,):
            msg = (
                f"{n} labels, {len(self.ontology_ids)} ontology ids and prototypes of shape {self.vectors.shape} do "
                "not belong together; the model's files may be mixed up."
            )
            raise ValueError(msg)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any], vectors: np.ndarray) -> Prototypes:
        """Rebuild prototypes from what `to_json` returned, and their vectors."""
        return cls(
            labels=tuple(stored["labels"]),
            ontology_ids=tuple(stored["ontology_ids"]),
            vectors=np.ascontiguousarray(vectors, dtype=np.float32),
            scale=float(stored["scale"]),
            min_score=float(stored["min_score"]),
            recipe=stored["recipe"],
            groups=tuple(
                LabelGroup(name=each["name"], ontology_id=each["ontology_id"], labels=tuple(each["labels"]))
                for each in stored.get("groups", ())
            ),
        )

    def to_json(self) -> dict[str, Any]:
        """Return everything but the vectors, as JSON types."""
        return {
            "labels": list(self.labels),
            "ontology_ids": list(self.ontology_ids),
            "scale": self.scale,
            "min_score": self.min_score,
            "recipe": self.recipe,
            "groups": [
                {"name": each.name, "ontology_id": each.ontology_id, "labels": list(each.labels)}
                for each in self.groups
            ],
        }

    def restricted(self, labels: Iterable[str]) -> Prototypes:
        """Return the prototypes of some labels; `ValueError` names a label that has none."""
        wanted = set(labels)
        if unknown := sorted(wanted - set(self.labels)):
            known = sorted(set(self.labels))
            close = get_close_matches(unknown[0], known, n=3) or known[:3]
            msg = (
                f"`labels` has {unknown[0]!r}, for which the model has no prototype. Of its {len(known)} labels, the "
                f"closest are {', '.join(map(repr, close))}; `model.prototypes.labels` lists them all."
            )
            raise ValueError(msg)
        keep = [i for i, label in enumerate(self.labels) if label in wanted]
        return dataclasses.replace(
            self,
            labels=tuple(self.labels[i] for i in keep),
            ontology_ids=tuple(self.ontology_ids[i] for i in keep),
            vectors=self.vectors[keep],
            groups=(),
        )

    def shares(self, cells: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Compare cells with the prototypes.

        Parameters
        ----------
        cells
            Cell vectors, shape `(cells, width)`.

        Returns
        -------
        The labels, sorted, shape `(labels,)`, and the share of the softmax that each has, shape `(cells, labels)`.
        A label with several prototypes has the mean of their weights, so that being seen often is no advantage.
        """
        names, of, counts = np.unique(np.array(self.labels), return_inverse=True, return_counts=True)
        logits = self.scale * (_unit(cells) @ _unit(self.vectors).T)
        weights = np.exp(logits - logits.max(1, keepdims=True))
        per_label = np.zeros((len(cells), len(names)))
        np.add.at(per_label.T, of, weights.T)
        per_label /= counts
        return names, per_label / per_label.sum(1, keepdims=True)

    def assign(self, cells: np.ndarray, min_score: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Label cells: by the most specific label, or else group of labels, that scores enough.

        Parameters
        ----------
        cells
            Cell vectors, shape `(cells, width)`.
        min_score
            Least share of the softmax.

        Returns
        -------
        Label, Cell Ontology id and score of each cell, shape `(cells,)`. Where nothing scores enough the label is
        `"unknown"` and the score is that of the best single label; a cell of zeros scores nothing.
        """
        parts = [self._assign(part, min_score) for part in _blocks(cells)]
        label, ontology, score = (np.concatenate(column) for column in zip(*parts, strict=True))
        return label, ontology, score

    def _assign(self, cells: np.ndarray, min_score: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        names, shares = self.shares(cells)
        ids = dict(zip(self.labels, self.ontology_ids, strict=True))
        best = shares.argmax(1)
        score = shares[np.arange(len(shares)), best]
        label, ontology = names[best].astype(object), np.array([ids[name] for name in names], dtype=object)[best]
        settled = score >= min_score
        for group in sorted(self.groups, key=lambda each: len(each.labels)):
            together = shares[:, np.isin(names, group.labels)].sum(1)
            fits = ~settled & (together >= min_score)
            label[fits], ontology[fits], score[fits] = group.name, group.ontology_id, together[fits]
            settled |= fits
        nothing = ~np.asarray(cells).any(1)
        score[nothing] = 0.0
        undecided = ~settled | nothing
        label[undecided], ontology[undecided] = UNKNOWN, ""
        return label, ontology, score


def _blocks(cells: np.ndarray) -> Iterator[np.ndarray]:
    """Cut cells into blocks, as the shares of all labels in all cells would take far more memory than the labels."""
    for start in range(0, max(len(cells), 1), CELLS_AT_ONCE):
        yield cells[start : start + CELLS_AT_ONCE]


def _unit(rows: np.ndarray) -> np.ndarray:
    """Scale rows to length one; zeros stay zeros."""
    rows = np.asarray(rows, dtype=np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
