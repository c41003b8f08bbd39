"""The label prototypes that ship with sclcm-mini: the class vectors that training has learned; no cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from corpus import ancestors, ontology_terms

from sclcm.models._prototypes import LabelGroup, Prototypes

if TYPE_CHECKING:
    from pathlib import Path

    from simulate import Corpus

    from sclcm.nn.objectives import LabelPrototypes

TOO_GENERAL = 0.4
"""A coarser label that covers more than this share of all labels says nothing."""

MIN_SCORE = 0.5
"""A label, or a coarser one, must have at least half of the evidence."""


def make_prototypes(objective: LabelPrototypes, vectors: np.ndarray, *, corpus: Corpus, data: Path) -> Prototypes:
    """Prototypes of the classes that have a Cell Ontology term, named by it, and coarser labels from the ontology."""
    terms = ontology_terms(data)
    known = np.array([bool(term) and term in terms.index for term in corpus.class_id])
    ids = corpus.class_id[known]
    vectors = vectors[known]
    return Prototypes(
        labels=tuple(terms.name[ids]),
        ontology_ids=tuple(ids.tolist()),
        vectors=(vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32),
        scale=float(objective.log_scale.detach().exp()),
        min_score=MIN_SCORE,
        recipe="embed",
        groups=_groups(sorted(set(ids.tolist())), data),
    )


def _groups(ids: list[str], data: Path) -> tuple[LabelGroup, ...]:
    terms = ontology_terms(data)
    kinds: dict[str, list[str]] = {}
    for term in ids:
        for above in ancestors(term, data):
            kinds.setdefault(above, []).append(term)
    return tuple(
        LabelGroup(name=terms.name[above], ontology_id=above, labels=tuple(terms.name[each] for each in below))
        for above, below in sorted(kinds.items())
        if above in terms.index and 2 <= len(below) <= TOO_GENERAL * len(ids)
    )
