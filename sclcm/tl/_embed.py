"""`tl.embed`: one vector per cell, from a published model and the counts of that cell alone."""

from __future__ import annotations

import logging
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from sclcm._docs import with_shared_docs
from sclcm._keys import embed_keys
from sclcm._warnings import warn_user
from sclcm.models._cell_vectors import cell_vectors
from sclcm.models._load import load
from sclcm.models._pass import Input, open_input
from sclcm.models._species import fit_species
from sclcm.tl._write import check_copy, provenance, write

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from anndata import AnnData

    from sclcm._keys import EmbedKeys
    from sclcm.models._pretrained import Pretrained
    from sclcm.zoo._spec import Recipe

logger = logging.getLogger("sclcm")


@with_shared_docs
def embed(
    adata: AnnData,
    model: str | Path | Pretrained = "sclcm-mini",
    *,
    recipe: str | Recipe = "embed",
    layer: str | None = None,
    use_raw: bool = False,
    gene_key: str | None = None,
    batch_key: str | None = None,
    conditions: Mapping[str, str | int | None] | None = None,
    batch_size: int | None = None,
    random_state: int = 0,
    device: str = "auto",
    dtype: str = "auto",
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Embed cells with a large cellular model.

    The matrix is read once, in chunks. A cell's vector depends on its own counts alone, not on other cells or their
    order. For models whose tokens are cells it also depends on the other cells of its set, which `batch_key` defines.

    Parameters
    ----------
    %(adata)s
    %(model)s
    recipe
        Name of one of the model's recipes (see :func:`sclcm.models.describe`), or a `Recipe` of your own.
    %(source)s
    batch_key
        Column of `.obs` with the batch of each cell. Models that were fine-tuned on batches take the numbers of these
        batches, or names, which are numbered in the order of their categories. For models whose tokens are cells, it
        defines the sets; `None` makes all cells one set.
    %(conditions)s
    %(running)s
    %(random_state)s
    %(writing)s

    Returns
    -------
    `None`, or the changed copy if `copy=True`. Writes:

    `adata.obsm['X_<model>' | key_added]` : array `(n_obs, D)`, float32
        Rows in the order of `adata.obs`. NaN for cells with too few tokens for the pooling of the recipe, zeros for
        cells that express no gene the model knows; both with a warning.
    `adata.uns['<model>' | key_added]` : dict
        `params`: model, digest of its files, recipe, share of genes and counts matched, versions.

    Raises
    ------
    %(reading_errors)s
    """
    check_copy(adata, copy=copy)
    read_from: dict[str, Any] = {"use_raw": use_raw, "gene_key": gene_key}
    pretrained, told = fit_species(adata, load(model, device=device, dtype=dtype), conditions, **read_from)
    pretrained = pretrained.reading(chosen := pretrained.recipe(recipe))
    keys = embed_keys(pretrained.name, key_added)
    check_batch_size(batch_size)
    data = open_input(
        adata,
        pretrained,
        layer=layer,
        batch_key=batch_key,
        conditions=told,
        random_state=random_state,
        **read_from,
    )
    vectors = embed_cells(data, pretrained, chosen, batch_size=batch_size)
    noted = {
        "recipe": recipe if isinstance(recipe, str) else str(recipe),
        "obsm_key": keys.obsm,
        "batch_key": batch_key or "",
        "conditions": {name: str(value) for name, value in (conditions or {}).items()},
        "random_state": random_state,
    }
    params = {**provenance(pretrained), **noted, **data.facts()}
    result = write(adata, partial(_put, keys=keys, vectors=vectors, params=params), copy=copy)
    logger.info("Next: `sc.pp.neighbors(adata, use_rep=%r)`", keys.obsm)
    return result


def _put(target: AnnData, *, keys: EmbedKeys, vectors: np.ndarray, params: dict[str, object]) -> None:
    """Write vectors into their slots."""
    target.obsm[keys.obsm] = vectors
    target.uns[keys.uns] = {"params": params}


def embed_cells(data: Input, pretrained: Pretrained, recipe: Recipe, *, batch_size: int | None) -> np.ndarray:
    """Return the vector of each cell by a recipe, shape `(n_obs, D)`, float32; warn of cells without a known gene."""
    out = cell_vectors(data, pretrained, recipe, batch_size=batch_size)
    if pretrained.token_unit == "cell":
        warn_of_empty_cells(data, pretrained, "they remain tokens of their sets, but carry no information")
        return out
    out[data.empty_cells] = 0
    warn_of_empty_cells(data, pretrained, "their rows are zeros")
    _warn_of_short_cells(data, pretrained, np.flatnonzero(np.isnan(out).any(1)))
    return out


def warn_of_empty_cells(data: Input, pretrained: Pretrained, what: str) -> None:
    """Warn of cells without a known gene, and say what became of them."""
    rows = data.empty_cells
    if not rows:
        return
    msg = (
        f"{counted(data, rows)} express no gene that {pretrained.name!r} knows ({first_names(data, rows)}); {what}. To "
        "remove such cells, use `sc.pp.filter_cells(adata, min_genes=1)` or a stricter threshold."
    )
    warn_user(msg)


def counted(data: Input, rows: Sequence[int] | np.ndarray) -> str:
    """Say how many of the cells these are."""
    return f"{len(rows):,} of {data.source.shape[0]:,} cells"


def first_names(data: Input, rows: Sequence[int] | np.ndarray) -> str:
    """Name the first cells of some rows."""
    return ", ".join(map(repr, map(str, data.source.obs_names[rows[:3]]))) + (", ..." if len(rows) > 3 else "")


def _warn_of_short_cells(data: Input, pretrained: Pretrained, rows: np.ndarray) -> None:
    """Warn of cells with fewer tokens than the pooling of a recipe needs; broken weights are another reason for NaN."""
    if not len(rows):
        return
    if broken := [name for name, weights in pretrained.lcm.named_parameters() if not weights.isfinite().all()]:
        msg = (
            f"The weights of {pretrained.name!r} hold numbers that are not finite, such as in {broken[0]!r}; its files "
            "are damaged. Get them again."
        )
        raise ValueError(msg)
    msg = (
        f"{counted(data, rows)} have too few tokens for the pooling of this recipe ({first_names(data, rows)}); their "
        "rows are NaN. To remove such cells, use `sc.pp.filter_cells(adata, min_genes=3)`."
    )
    warn_user(msg)


def check_batch_size(batch_size: int | None) -> None:
    """Refuse a batch size that is no positive integer."""
    if batch_size is None:
        return
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        msg = f"`batch_size` is {batch_size!r}; expected a number of cells, 1 or more, or None."
        raise ValueError(msg)
