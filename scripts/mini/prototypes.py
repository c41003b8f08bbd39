"""The label prototypes of sclcm-mini: average vectors of simulated cells and of training labels; no cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from corpus import ancestors, ontology_terms
from simulate import BatchMaker, simulate

from sclcm.encoding.batches import pad_sentences
from sclcm.encoding.chunks import CellChunk
from sclcm.encoding.sentences import encode
from sclcm.engine.infer import to_tensors
from sclcm.models._prototypes import LabelGroup, Prototypes
from sclcm.nn.pooling import pool
from sclcm.zoo.sclcm_mini import SPEC

if TYPE_CHECKING:
    from pathlib import Path

    from sclcm.nn.lcm import LCM

TOO_GENERAL = 0.25
"""A coarser label that covers more than this share of all labels says nothing."""

N_DRAWN = 12
"""Cells simulated of each profile, and most cells averaged of each training label, times ten."""

SCALE, MIN_SCORE = 20.0, 0.6
"""Chosen on the validation sets by `scripts/mini/calibrate.py`."""


def make_prototypes(lcm: LCM, make: BatchMaker, data: Path) -> Prototypes:
    """One prototype for each profile and each training label with a Cell Ontology term, and coarser labels above."""
    terms = ontology_terms(data)
    corpus = make.corpus
    vectors = np.zeros((len(corpus.class_id), _recipe_width(lcm)), np.float32)
    rng = np.random.default_rng(make.seed)
    for start in range(0, corpus.n_profiles, 42):
        rows = np.arange(start, min(start + 42, corpus.n_profiles))
        vectors[rows] = np.mean([_unit(embed(lcm, make, simulate(corpus, rows, rng))) for _ in range(N_DRAWN)], axis=0)
    for name, classes in corpus.set_class.items():
        for class_ in set(classes[classes >= 0].tolist()):
            of = rng.permutation(np.flatnonzero(classes == class_))[: 10 * N_DRAWN]
            counts = corpus.sets[name].chunk
            chunk = CellChunk(
                start=0,
                counts=counts.counts[of],
                totals=counts.totals[of],
                n_genes=counts.n_genes[of],
                obs={"n_counts": counts.obs["n_counts"][of]},
            )
            vectors[class_] = _unit(embed(lcm, make, chunk)).mean(0)
    known = np.array([bool(term) and term in terms.index for term in corpus.class_id])
    ids = corpus.class_id[known]
    return Prototypes(
        labels=tuple(terms.name[ids]),
        ontology_ids=tuple(ids.tolist()),
        vectors=_unit(vectors[known]),
        scale=SCALE,
        min_score=MIN_SCORE,
        recipe="embed",
        groups=_groups(sorted(set(ids.tolist())), data),
    )


def embed(lcm: LCM, make: BatchMaker, chunk: CellChunk) -> np.ndarray:
    """Embed cells by the published recipe, shape `(cells, width)`."""
    recipe = SPEC.recipes["embed"]
    sentences = encode(chunk, make.encoding, vocabulary=make.corpus.vocabulary, arrays=make.arrays)
    batch = pad_sentences(sentences, np.arange(chunk.n_cells), pad=make.corpus.vocabulary.specials["<pad>"])
    tokens = to_tensors(batch, torch.device("cpu"))
    with torch.no_grad():
        cells_bd = pool(recipe.pooling, lcm(tokens), tokens)
        return (cells_bd if recipe.head is None else lcm.heads[recipe.head](cells_bd)).numpy()


def _recipe_width(lcm: LCM) -> int:
    head = SPEC.recipes["embed"].head
    return lcm.embed.gene.embedding_dim if head is None else lcm.heads[head].out.out_features


def _unit(rows: np.ndarray) -> np.ndarray:
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)


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
