"""`tl.annotate`: cell types without training, by prototypes that come with a model or by what the model says."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sclcm._docs import with_shared_docs
from sclcm._keys import AnnotateKeys, annotate_keys
from sclcm._warnings import warn_user
from sclcm.models._classification import class_names, label_by_head
from sclcm.models._generation import label_by_decoding, named_labels
from sclcm.models._labels import are_numbers
from sclcm.models._load import load, models_with_labels
from sclcm.models._pass import Input, open_input
from sclcm.models._prototypes import UNKNOWN, Prototypes
from sclcm.models._species import fit_species
from sclcm.tl._embed import check_batch_size, embed_cells, warn_of_empty_cells
from sclcm.tl._write import check_copy, provenance, write
from sclcm.zoo._labels import ClassLabels, GeneratedLabels

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from anndata import AnnData

    from sclcm.data.context import Conditions
    from sclcm.models._pretrained import Pretrained

logger = logging.getLogger("sclcm")


@with_shared_docs
def annotate(
    adata: AnnData,
    model: str | Path | Pretrained = "sclcm-mini",
    *,
    labels: Sequence[str] | None = None,
    min_score: float | None = None,
    use_rep: str | None = None,
    layer: str | None = None,
    use_raw: bool = False,
    gene_key: str | None = None,
    batch_key: str | None = None,
    conditions: Conditions | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Label cells with cell types, without any training on your data.

    There are three kinds of models that can do so:

    Models with prototypes, such as sclcm-mini, compare a cell with points in their embedding space that represent cell
    types. The score of a label is its share of a softmax over all prototypes compared, so it depends on the candidates:
    the fewer there are (`labels`), the higher the scores. If no single label scores high enough but several subtypes of
    a coarser label do together (CD4 and CD8 T cells, for example), the cell gets the coarser label.

    Models that generate text, such as scMulan, produce a coarse type and then a fine one, as words after the genes of
    the cell. The score is the probability of the fine word among all words that are cell types.

    Models that were fine-tuned as classifiers give the most probable of their classes; the score is its probability. If
    the files do not name the classes, labels are their numbers: name them by `load(..., labels=[...])`.

    Parameters
    ----------
    %(adata)s
    %(model)s
    labels
        The labels to choose from; `None` allows all that the model has. Not available for models that generate text.
    min_score
        Cells whose best label has a lower score are labelled `"unknown"`. `None` takes the model's own threshold, which
        is zero for models that generate or classify.
    use_rep
        Slot of `.obsm` with the embedding by this model, for models with prototypes; `None` embeds the cells.
    %(source)s
    batch_key
        As for :func:`sclcm.tl.embed`.
    %(conditions)s
    %(running)s
    %(writing)s

    Returns
    -------
    `None`, or the changed copy if `copy=True`. Writes:

    `adata.obs['<model>_label' | key_added]` : category
        The label, or `"unknown"`; also if the model says that there is none.
    `adata.obs['<model>_label_score' | key_added + '_score']` : float
        Score of the best label, 0 to 1, even if it was too low. Zero if a model names no cell type.
    `adata.obs['<model>_label_coarse' | key_added + '_coarse']` : category
        From models that generate text: the coarse label, or `"unknown"`, whatever the score of the fine label.
    `adata.obs['<model>_label_ontology_term_id' | key_added + '_ontology_term_id']` : category
        From models with prototypes: the Cell Ontology id, empty if there is none.
    `adata.uns['<model>_label' | key_added]` : dict
        `params`: model, digest of its files, candidate labels, threshold, shares of genes and counts matched, versions.

    Raises
    ------
    %(reading_errors)s
    """
    check_copy(adata, copy=copy)
    check_batch_size(batch_size)
    read_from: dict[str, Any] = {"use_raw": use_raw, "gene_key": gene_key}
    pretrained, told = fit_species(adata, load(model, device=device, dtype=dtype), conditions, **read_from)
    keys = annotate_keys(pretrained.name, key_added)
    asked = _Asked(labels=labels, min_score=min_score, use_rep=use_rep, batch_size=batch_size)
    read = partial(open_input, adata, pretrained, layer=layer, batch_key=batch_key, conditions=told, **read_from)
    found = _way(pretrained)(adata, pretrained, asked, read=read)
    logger.info("Labelled %d of %d cells in `.obs[%r]`", (found.label != UNKNOWN).sum(), len(found.label), keys.label)
    return write(adata, partial(_put, found=found, keys=keys, model=provenance(pretrained)), copy=copy)


def _way(pretrained: Pretrained) -> Callable[..., _Found]:
    """Return how a model labels cells."""
    match pretrained.labels:
        case ClassLabels():
            return _classify
        case GeneratedLabels():
            return _say
        case None:
            return _compare


@dataclass(frozen=True, kw_only=True)
class _Asked:
    """What the caller wants of the labels."""

    labels: Sequence[str] | None
    min_score: float | None
    use_rep: str | None
    batch_size: int | None


@dataclass(frozen=True, kw_only=True, eq=False)
class _Found:
    """Labels and scores of all cells, what they could have been, and facts of the input."""

    label: np.ndarray
    score: np.ndarray
    labels: list[str]
    min_score: float
    facts: dict[str, object]
    coarse: np.ndarray | None = None
    ontology: np.ndarray | None = None


def _put(target: AnnData, *, found: _Found, keys: AnnotateKeys, model: dict[str, object]) -> None:
    """Write labels into their slots."""
    target.obs[keys.label] = pd.Categorical(found.label)
    target.obs[keys.score] = found.score
    if found.coarse is not None:
        target.obs[keys.coarse] = pd.Categorical(found.coarse)
    if found.ontology is not None:
        target.obs[keys.ontology] = pd.Categorical(found.ontology)
    target.uns[keys.uns] = {"params": {**model, "labels": found.labels, "min_score": found.min_score, **found.facts}}


def _compare(adata: AnnData, pretrained: Pretrained, asked: _Asked, *, read: Callable[[], Input]) -> _Found:
    """Label cells by the nearest prototypes."""
    prototypes, bound = _choose(pretrained, asked.labels, asked.min_score)
    if asked.use_rep is None:
        data = read()
        cells = embed_cells(data, pretrained, pretrained.recipe(prototypes.recipe), batch_size=asked.batch_size)
        facts = data.facts()
    else:
        cells = _embedded(adata, asked.use_rep, pretrained=pretrained, recipe=prototypes.recipe)
        facts = {"use_rep": asked.use_rep}
    label, ontology, score = prototypes.assign(cells, bound)
    compared = sorted(set(prototypes.labels))
    return _Found(label=label, score=score, labels=compared, min_score=bound, facts=facts, ontology=ontology)


def _classify(adata: AnnData, pretrained: Pretrained, asked: _Asked, *, read: Callable[[], Input]) -> _Found:
    """Label cells by the classes that a head scores."""
    if asked.use_rep is not None:
        msg = f"`use_rep` is {asked.use_rep!r}, but {pretrained.name!r} classifies by more than an embedding holds."
        raise ValueError(msg)
    names, own = class_names(pretrained)
    chosen = _check_labels(asked.labels, names, pretrained)
    bound = _check_bound(own if asked.min_score is None else asked.min_score)
    data = read()
    label, score = label_by_head(data, pretrained, chosen, batch_size=asked.batch_size)
    label[score < bound] = UNKNOWN
    warn_of_empty_cells(data, pretrained, _what_of_empty(pretrained))
    if are_numbers(names):
        msg = (
            f"No file names the classes of {pretrained.name!r}, of which there are {len(names)}, so that labels are "
            "their numbers. Name them in order when the model is loaded, `load(..., labels=[...])`."
        )
        warn_user(msg)
    return _Found(label=label, score=score, labels=list(chosen), min_score=bound, facts=data.facts())


def _what_of_empty(pretrained: Pretrained) -> str:
    if pretrained.token_unit == "cell":
        return "they are tokens of their sets like others, but say nothing"
    return f"their label is {UNKNOWN!r}"


def _check_labels(labels: Sequence[str] | None, names: Sequence[str], pretrained: Pretrained) -> Sequence[str]:
    """Return the labels to choose from, each of which must be a class of the model."""
    if labels is None:
        return names
    _check_is_list(labels)
    if unknown := [label for label in labels if label not in names]:
        msg = f"`labels` names {unknown[0]!r}; {pretrained.name!r} knows {', '.join(map(repr, names))}."
        raise ValueError(msg)
    return [name for name in names if name in labels]


def _check_is_list(labels: Sequence[str]) -> None:
    if isinstance(labels, str):
        msg = f"`labels` is the text {labels!r}; expected a list of labels."
        raise TypeError(msg)
    if not len(labels):
        msg = "`labels` is empty; name the labels to choose from, or pass None for all of them."
        raise ValueError(msg)


def _say(adata: AnnData, pretrained: Pretrained, asked: _Asked, *, read: Callable[[], Input]) -> _Found:
    """Label cells by what the model says of them."""
    for name, value, why in (
        ("labels", asked.labels, "says its labels freely; choose among those that it gave"),
        ("use_rep", asked.use_rep, "says its labels, which no embedding holds; leave it out"),
    ):
        if value is not None:
            msg = f"`{name}` is {value!r}, but {pretrained.name!r} {why}."
            raise ValueError(msg)
    bound = _check_bound(0.0 if asked.min_score is None else asked.min_score)
    data = read()
    label, coarse, score = label_by_decoding(data, pretrained, batch_size=asked.batch_size)
    label[score < bound] = UNKNOWN
    warn_of_empty_cells(data, pretrained, f"their label is {UNKNOWN!r}")
    said = list(named_labels(pretrained))
    return _Found(label=label, score=score, labels=said, min_score=bound, facts=data.facts(), coarse=coarse)


def _embedded(adata: AnnData, key: str, *, pretrained: Pretrained, recipe: str) -> np.ndarray:
    """Return an embedding that `tl.embed` wrote, after checking that it is by this model and recipe."""
    if key not in adata.obsm:
        msg = f"`adata.obsm` has no {key!r}; it has {sorted(adata.obsm)}. Call `sclcm.tl.embed` first."
        raise KeyError(msg)
    noted = [value["params"] for value in adata.uns.values() if isinstance(value, Mapping) and "params" in value]
    noted = [params for params in noted if isinstance(params, Mapping)]
    wanted = {"checkpoint_sha256": pretrained.sha256, "recipe": recipe, "obsm_key": key}
    if not any(all(params.get(name) == value for name, value in wanted.items()) for params in noted):
        msg = (
            f"`adata.obsm[{key!r}]` is not recorded as an embedding by {pretrained.name!r} with the recipe {recipe!r}. "
            "Embed the cells with `sclcm.tl.embed`, or leave out `use_rep`."
        )
        raise ValueError(msg)
    return np.asarray(adata.obsm[key])


def _choose(pretrained: Pretrained, labels: Sequence[str] | None, min_score: float | None) -> tuple[Prototypes, float]:
    """Return the prototypes to compare with and the bound of abstention, checked."""
    if (prototypes := pretrained.prototypes) is None:
        raise _no_labels(pretrained)
    if labels is not None:
        _check_is_list(labels)
    chosen = prototypes if labels is None else prototypes.restricted(labels)
    return chosen, _check_bound(chosen.min_score if min_score is None else min_score)


def require_labels(pretrained: Pretrained) -> None:
    """Refuse a model that has neither prototypes nor labels of its own."""
    if pretrained.prototypes is None and pretrained.labels is None:
        raise _no_labels(pretrained)


def _no_labels(pretrained: Pretrained) -> ValueError:
    able = ", ".join(map(repr, models_with_labels()))
    return ValueError(
        f"{pretrained.name!r} has no label prototypes and gives no labels itself; models that label are {able}, and "
        "any that was fine-tuned to classify cells: pass its folder."
    )


def _check_bound(bound: float) -> float:
    """Refuse a bound that no score could be held against."""
    if not isinstance(bound, int | float | np.number) or not 0 <= bound <= 1:
        msg = f"`min_score` is {bound!r}; expected a share between 0 and 1."
        raise ValueError(msg)
    return float(bound)
