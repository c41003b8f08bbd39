"""`tl.annotate`: cell types without training, by the prototypes that come with a model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sclcm._docs import with_shared_docs
from sclcm._keys import annotate_keys
from sclcm.models._load import load
from sclcm.models._pass import open_input
from sclcm.models._prototypes import UNKNOWN, Prototypes
from sclcm.tl._embed import check_batch_size, embed_cells
from sclcm.tl._write import check_copy, provenance, write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData

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
    batch_size: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Label cells by the nearest prototypes of a model, without any training; abstain where none is near.

    A prototype is a point in the model's embedding space that stands for a cell type. The score of a label is its
    share of a softmax over all prototypes that are compared, so it depends on which labels are: fewer candidates
    (`labels`), higher scores. Where no single label scores enough but several kinds of one coarser label do together
    (CD4 and CD8 T cells, say), the coarser label is given.

    Parameters
    ----------
    %(adata)s
    %(model)s
    labels
        The labels to choose from; `None` takes all that the model has.
    min_score
        Cells whose best label scores less are `"unknown"`; `None` takes the model's own bound.
    use_rep
        Slot of `.obsm` where `tl.embed` has put the embedding by this model already; `None` embeds the cells.
    %(source)s
    %(running)s
    %(writing)s

    Returns
    -------
    `None`, or with `copy=True` a changed copy. Writes:

    `adata.obs['<model>_label' | key_added]` : category
        The label, or `"unknown"`.
    `adata.obs['<model>_label_score' | key_added + '_score']` : float
        Score of the best label, 0 to 1; also where it was too low.
    `adata.obs['<model>_label_ontology_term_id' | key_added + '_ontology_term_id']` : category
        Its Cell Ontology id; empty where there is none.
    `adata.uns['<model>_label' | key_added]` : dict
        `params`: model, digest of its files, labels compared, bound, shares matched, versions.

    Raises
    ------
    ValueError
        The model has no prototypes, a label is unknown, or the matrix holds no raw counts.
    """
    check_copy(adata, copy=copy)
    check_batch_size(batch_size)
    pretrained = load(model, device=device, dtype=dtype)
    prototypes, bound = _choose(pretrained, labels, min_score)
    keys = annotate_keys(pretrained.name, key_added)
    if use_rep is None:
        data = open_input(adata, pretrained, layer=layer, use_raw=use_raw, gene_key=gene_key)
        cells = embed_cells(data, pretrained, pretrained.recipe(prototypes.recipe), batch_size=batch_size)
        facts = data.facts()
    else:
        cells, facts = _embedded(adata, use_rep, pretrained=pretrained, recipe=prototypes.recipe), {"use_rep": use_rep}
    label, ontology, score = prototypes.assign(cells, bound)
    compared = sorted(set(prototypes.labels))
    params = {**provenance(pretrained), "labels": compared, "min_score": bound, **facts}

    def change(target: AnnData) -> None:
        target.obs[keys.label] = pd.Categorical(label)
        target.obs[keys.score] = score
        target.obs[keys.ontology] = pd.Categorical(ontology)
        target.uns[keys.uns] = {"params": params}

    logger.info("%d of %d cells labelled in %r", (label != UNKNOWN).sum(), len(label), keys.label)
    return write(adata, change, copy=copy)


def _embedded(adata: AnnData, key: str, *, pretrained: Pretrained, recipe: str) -> np.ndarray:
    """Return an embedding that `tl.embed` wrote, after checking that it is by this model and recipe."""
    if key not in adata.obsm:
        msg = f"`adata.obsm` has no {key!r}; it has {sorted(adata.obsm)}. Call `sclcm.tl.embed` first."
        raise KeyError(msg)
    noted = [value.get("params", {}) for value in adata.uns.values() if isinstance(value, Mapping)]
    wanted = {"checkpoint_sha256": pretrained.sha256, "recipe": recipe, "obsm_key": key}
    if not any(all(params.get(name) == value for name, value in wanted.items()) for params in noted):
        msg = (
            f"`adata.obsm[{key!r}]` is not known to be by {pretrained.name!r} with the recipe {recipe!r}; embed with "
            "`sclcm.tl.embed`, or leave out `use_rep`."
        )
        raise ValueError(msg)
    return np.asarray(adata.obsm[key])


def _choose(pretrained: Pretrained, labels: Sequence[str] | None, min_score: float | None) -> tuple[Prototypes, float]:
    """Return the prototypes to compare with and the bound of abstention, checked."""
    if pretrained.prototypes is None:
        msg = f"{pretrained.name!r} comes without label prototypes; annotate with 'sclcm-mini'."
        raise ValueError(msg)
    if isinstance(labels, str):
        msg = f"`labels` is the text {labels!r}; expected a list of labels."
        raise TypeError(msg)
    if labels is not None and not len(labels):
        msg = "`labels` is empty; name the labels to choose from, or pass None for all of them."
        raise ValueError(msg)
    chosen = pretrained.prototypes if labels is None else pretrained.prototypes.restricted(labels)
    bound = chosen.min_score if min_score is None else min_score
    if not isinstance(bound, int | float | np.number) or not 0 <= bound <= 1:
        msg = f"`min_score` is {bound!r}; expected a share between 0 and 1."
        raise ValueError(msg)
    return chosen, float(bound)
