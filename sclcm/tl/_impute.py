"""`tl.impute`: expression of every gene as a model's decoder predicts it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sclcm._docs import with_shared_docs
from sclcm._keys import impute_keys
from sclcm.engine.decode import decode
from sclcm.models._decode import decoder_batch
from sclcm.models._imputation import impute_counts
from sclcm.models._load import load
from sclcm.models._pass import each_batch, open_input
from sclcm.tl._embed import check_batch_size, warn_of_empty_cells
from sclcm.tl._write import check_copy, provenance, write

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from anndata import AnnData

    from sclcm.encoding.batches import TokenBatch
    from sclcm.models._pass import Input
    from sclcm.models._pretrained import Pretrained
    from sclcm.zoo._recipes import GeneRecipe


@with_shared_docs
def impute(
    adata: AnnData,
    model: str | Path | Pretrained,
    *,
    recipe: str | GeneRecipe = "expression",
    layer: str | None = None,
    gene_key: str | None = None,
    batch_key: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Predict the expression of every gene that the model knows, whether it was seen in a cell or not.

    The result is a dense cells x genes matrix. If it does not fit into memory, process the cells in parts; leaving out
    genes would change the input of the model.

    Parameters
    ----------
    %(adata)s
    %(model)s
        It needs a decoder that predicts expression, as scFoundation has, or a head that decodes cell vectors into
        counts, as CellPLM has.
    recipe
        Name of one of the model's `gene_recipes` (see :func:`sclcm.models.describe`), or a `GeneRecipe` of your own,
        for example with another target depth.
    layer
        Layer to read instead of `.X`.
    gene_key
        Column of `.var` with the gene names, or `"var_names"` for the index; `None` finds it.
    batch_key
        As for :func:`sclcm.tl.embed`.
    %(running)s
    %(writing)s

    Returns
    -------
    `None`, or the changed copy if `copy=True`. Writes:

    `adata.layers['<model>_imputed' | key_added]` : array `(n_obs, n_vars)`, float32
        In the unit that the model was trained on (scFoundation: log1p of counts per 10,000; CellPLM: counts, scaled to
        the cell's total over known genes). NaN for genes that it does not know, and for cells that express no gene it
        knows.
    `adata.uns['<model>_imputed' | key_added]` : dict
        `params`: model, digest of its files, recipe, share of genes and counts matched, versions.

    Raises
    ------
    %(reading_errors)s
    """
    check_copy(adata, copy=copy)
    check_batch_size(batch_size)
    pretrained = load(model, device=device, dtype=dtype)
    chosen = pretrained.gene_recipe(recipe)
    if chosen.head is None:
        msg = f"`recipe` is {recipe!r}, which gives vectors and no expression; `sclcm.models.decode_genes` reads it."
        raise ValueError(msg)
    keys = impute_keys(pretrained.name, key_added)
    pretrained = pretrained.reading(chosen)
    data = open_input(adata, pretrained, layer=layer, gene_key=gene_key, batch_key=batch_key)
    predict = _from_genes if chosen.cells is None else _from_cells
    out = predict(data, pretrained, chosen, batch_size=batch_size)
    warn_of_empty_cells(data, pretrained, "their rows are NaN")
    params = {**provenance(pretrained), "recipe": recipe if isinstance(recipe, str) else str(recipe), **data.facts()}

    def change(target: AnnData) -> None:
        target.layers[keys.layer] = out
        target.uns[keys.uns] = {"params": params}

    return write(adata, change, copy=copy)


def _from_genes(data: Input, pretrained: Pretrained, recipe: GeneRecipe, *, batch_size: int | None) -> np.ndarray:
    """Return what a decoder says of each gene."""
    out = np.full(data.source.shape, np.nan, dtype=np.float32)
    place = pretrained.vocabulary.token_ids[data.alignment.feature_index]

    def work(batches: Iterable[TokenBatch]) -> Iterator[int]:
        for rows, predicted in decode(pretrained.lcm, batches, head=recipe.head, device=pretrained.device):
            out[np.ix_(rows, data.alignment.var_index)] = predicted[:, place]
            yield len(rows)

    each_batch(data, pretrained, work, batch_size=batch_size or decoder_batch(pretrained))
    return out


def _from_cells(data: Input, pretrained: Pretrained, recipe: GeneRecipe, *, batch_size: int | None) -> np.ndarray:
    """Return what a head says of cells; of one without known genes it is nothing."""
    out = np.full(data.source.shape, np.nan, dtype=np.float32)
    for part, counts in impute_counts(data, pretrained, recipe, batch_size=batch_size):
        out[part, data.alignment.var_index] = counts
    out[data.empty_cells] = np.nan
    return out
