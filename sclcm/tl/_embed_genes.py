"""`tl.embed_genes`: one vector per gene, from the model's table, or averaged over cells."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from sclcm._docs import with_shared_docs
from sclcm._keys import gene_embed_keys
from sclcm._sizes import as_int
from sclcm.data.genes import choose_gene_names, require_overlap
from sclcm.data.species import species_of_data
from sclcm.encoding.expand import StoreMeasured
from sclcm.engine.decode import DecoderMeans
from sclcm.engine.infer import FeatureMeans
from sclcm.engine.places import PlaceMeans
from sclcm.models._decode import decoder_batch, n_places
from sclcm.models._load import load
from sclcm.models._pass import Input, one_pass, open_input
from sclcm.models._species import fit_species
from sclcm.tl._embed import check_batch_size
from sclcm.tl._write import check_copy, provenance, write

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from anndata import AnnData

    from sclcm.genes.align import GeneAlignment
    from sclcm.models._pretrained import Pretrained
    from sclcm.zoo._recipes import GeneRecipe


@with_shared_docs
def embed_genes(
    adata: AnnData,
    model: str | Path | Pretrained = "sclcm-mini",
    *,
    how: Literal["vocabulary", "fixed", "contextual", "measured", "by_place", "decoder"] = "vocabulary",
    model_layer: int = -1,
    recipe: str | GeneRecipe = "genes",
    layer: str | None = None,
    gene_key: str | None = None,
    batch_key: str | None = None,
    conditions: Mapping[str, str | int | None] | None = None,
    mask_padding: bool = True,
    batch_size: int | None = None,
    random_state: int = 0,
    device: str = "auto",
    dtype: str = "auto",
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Embed genes with a large cellular model: one vector for each gene of the data.

    Parameters
    ----------
    %(adata)s
    %(model)s
    %(how)s
    model_layer
        Which block's output is averaged: -1 is the last, -2 the one before it.
    recipe
        For `"decoder"`: the name of one of the model's `gene_recipes`, or a `GeneRecipe` of your own.
    layer
        Layer to read instead of `.X`; `"vocabulary"` and `"fixed"` read no matrix.
    gene_key
        Column of `.var` with the gene names, or `"var_names"` for the index; `None` finds it.
    batch_key
        Column of `.obs` with the batch of each cell, for averages by models that need it.
    %(conditions)s
    mask_padding
        Whether padding is hidden from the model. If not, all sentences are padded to the greatest length, the model
        sees the padding, and it counts in averages by position.
    %(running)s
    %(random_state)s
    %(writing)s

    Returns
    -------
    `None`, or the changed copy if `copy=True`. Writes:

    `adata.varm['<model>_genes' | key_added]` : array `(n_vars, D)`, float32
        NaN for genes that the model does not know, and for genes that are a token in no cell.
    `adata.uns['<model>_genes' | key_added]` : dict
        `params`: model, digest of its files, `how`, share of genes matched, versions.

    Raises
    ------
    %(reading_errors)s
    """
    check_copy(adata, copy=copy)
    _check_how(how)
    check_batch_size(batch_size)
    pretrained, told = fit_species(adata, load(model, device=device, dtype=dtype), conditions, gene_key=gene_key)
    keys = gene_embed_keys(pretrained.name, key_added)
    if how in ("vocabulary", "fixed"):
        features = pretrained.fixed_gene_vectors if how == "fixed" else pretrained.gene_vectors
        vectors, facts = _table(adata, pretrained, gene_key, features=features, conditions=conditions)
    else:
        chosen = pretrained.gene_recipe(recipe) if how == "decoder" else None
        read = _with_measured_genes(pretrained) if how == "measured" else _reading(pretrained, chosen)
        cells: dict[str, Any] = {"batch_key": batch_key, "conditions": told, "random_state": random_state}
        data = open_input(adata, read, layer=layer, gene_key=gene_key, **cells)
        average = _means_by_place if how == "by_place" else _means if chosen is None else partial(_decoded, chosen)
        vectors, facts = average(data, read, model_layer=model_layer, batch_size=batch_size, mask_padding=mask_padding)
    params = {**provenance(pretrained), "how": how, **facts}

    def change(target: AnnData) -> None:
        target.varm[keys.varm] = vectors
        target.uns[keys.uns] = {"params": params}

    return write(adata, change, copy=copy)


def _check_how(how: str) -> None:
    if how not in (known := ("vocabulary", "fixed", "contextual", "measured", "by_place", "decoder")):
        msg = f"`how` is {how!r}; expected {', '.join(map(repr, known[:-1]))} or {known[-1]!r}."
        raise ValueError(msg)


def _reading(pretrained: Pretrained, recipe: GeneRecipe | None) -> Pretrained:
    return pretrained if recipe is None else pretrained.reading(recipe)


def _with_measured_genes(pretrained: Pretrained) -> Pretrained:
    """Return a model that reads sentences of every gene of the data, as its recipe says."""
    for recipe in pretrained.recipes.values():
        if recipe.encoding is not None and isinstance(recipe.encoding.expand, StoreMeasured):
            return pretrained.reading(recipe)
    msg = f"`how` is 'measured', but the authors of {pretrained.name!r} make no sentences of all genes of the data."
    raise ValueError(msg)


def _table(
    adata: AnnData,
    pretrained: Pretrained,
    gene_key: str | None,
    *,
    features: Callable[[], np.ndarray],
    conditions: Mapping[str, str | int | None] | None,
) -> tuple[np.ndarray, dict[str, object]]:
    """Return the table's vectors in the order of var; no matrix is read."""
    vocabulary = pretrained.vocabulary
    said = (conditions or {}).get("species") if pretrained.reads_species else None
    how: dict[str, Any] = {"gene_key": gene_key, "species": species_of_data(adata.obs, said)}
    alignment, key = choose_gene_names(adata.var, vocabulary, preferred=pretrained.gene_columns, **how)
    names = adata.var.index if key == "var_names" else adata.var[key]
    require_overlap(alignment, model=pretrained.name, vocabulary=vocabulary, names=names)
    facts = {"gene_key": key, "matched_gene_share": float(alignment.report.matched_share)}
    return _to_var(features(), alignment), facts


def _means(
    data: Input, pretrained: Pretrained, *, model_layer: int, batch_size: int | None, mask_padding: bool
) -> tuple[np.ndarray, dict[str, object]]:
    """Return contextual means in the order of var."""
    n_blocks = _depth(pretrained, model_layer)
    reducer = FeatureMeans(n_tokens=pretrained.vocabulary.n_tokens, width=pretrained.d_model, device=pretrained.device)
    one_pass(data, pretrained, [reducer], batch_size=batch_size, n_blocks=n_blocks, mask_padding=mask_padding)
    means, _ = reducer.means()
    facts = {"model_layer": model_layer, "mask_padding": mask_padding, **data.facts()}
    return _to_var(means[pretrained.vocabulary.token_ids], data.alignment), facts


def _means_by_place(
    data: Input, pretrained: Pretrained, *, model_layer: int, batch_size: int | None, mask_padding: bool
) -> tuple[np.ndarray, dict[str, object]]:
    """Return means by place, each for the gene at that place of the first cell, in the order of var."""
    n_blocks = _depth(pretrained, model_layer)
    reducer = PlaceMeans(device=pretrained.device)
    one_pass(data, pretrained, [reducer], batch_size=batch_size, n_blocks=n_blocks, mask_padding=mask_padding)
    vocabulary = pretrained.vocabulary
    of_token = np.full((vocabulary.n_tokens, pretrained.d_model), np.nan, dtype=np.float32)
    places, token_ids = reducer.first_genes()
    of_token[token_ids] = reducer.means()[places]
    facts = {"model_layer": model_layer, "mask_padding": mask_padding, **data.facts()}
    return _to_var(of_token[vocabulary.token_ids], data.alignment), facts


def _depth(pretrained: Pretrained, model_layer: int) -> int:
    """Return after how many blocks vectors are averaged."""
    n_blocks = pretrained.lcm.n_blocks
    if not n_blocks:
        msg = f"{pretrained.name!r} is a table of gene vectors, the same in all cells; ask for `how='vocabulary'`."
        raise ValueError(msg)
    if pretrained.token_unit == "cell":
        msg = f"The tokens of {pretrained.name!r} are cells, so that genes have no context; use `how='vocabulary'`."
        raise ValueError(msg)
    if not -n_blocks <= model_layer <= -1:
        msg = f"`model_layer` is {model_layer!r}; expected -1 (the last block) to {-n_blocks}."
        raise ValueError(msg)
    return n_blocks + 1 + model_layer


def _decoded(
    recipe: GeneRecipe, data: Input, pretrained: Pretrained, *, batch_size: int | None, **_: object
) -> tuple[np.ndarray, dict[str, object]]:
    """Return means of the decoder's vectors in the order of var; it has one last layer, and sees no padding."""
    if recipe.head is not None:
        msg = f"`recipe` has the head {recipe.head!r}, which gives numbers and no vectors; `tl.impute` reads it."
        raise ValueError(msg)
    width = as_int(pretrained.architecture.decoder.d_model)  # type: ignore[union-attr]
    reducer = DecoderMeans(n_places=n_places(pretrained), width=width, device=pretrained.device)
    size = batch_size or decoder_batch(pretrained)
    one_pass(data, pretrained, [reducer], batch_size=size, n_blocks=None)
    facts = {"recipe": str(recipe), **data.facts()}
    return _to_var(reducer.means()[pretrained.vocabulary.token_ids], data.alignment), facts


def _to_var(features: np.ndarray, alignment: GeneAlignment) -> np.ndarray:
    """Spread vectors of features over the var that stand for them; NaN elsewhere."""
    out = np.full((alignment.n_var, features.shape[1]), np.nan, dtype=np.float32)
    out[alignment.var_index] = features[alignment.feature_index]
    return out
