"""`decode_genes`: what a decoder says of every gene of a cell, cell by cell."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING

from sclcm._sizes import as_int
from sclcm.engine.decode import cells_at_once, decode
from sclcm.models._load import load
from sclcm.models._pass import open_input

if TYPE_CHECKING:
    from collections.abc import Generator
    from pathlib import Path

    import numpy as np
    from anndata import AnnData

    from sclcm.models._pass import Input
    from sclcm.models._pretrained import Pretrained
    from sclcm.zoo._recipes import GeneRecipe


def decode_genes(
    adata: AnnData,
    model: str | Path | Pretrained,
    *,
    recipe: str | GeneRecipe = "genes",
    layer: str | None = None,
    use_raw: bool = False,
    gene_key: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
) -> Generator[tuple[np.ndarray, np.ndarray]]:
    """Yield the output of a model's decoder for every gene that it knows, a few cells at a time.

    Nothing is stored, because the vectors of all genes of all cells rarely fit into memory. For averages over cells see
    :func:`sclcm.tl.embed_genes` with `how="decoder"`, for expression :func:`sclcm.tl.impute`.

    Parameters
    ----------
    adata
        Annotated data, cells in rows; nothing is written to it.
    model
        Name or path of a model with a decoder, or a loaded one.
    recipe
        One of the `gene_recipes` that :func:`sclcm.models.describe` lists, or a `GeneRecipe` of your own.
    layer, use_raw
        Layer to read instead of `.X`, or whether to read `.raw.X`.
    gene_key
        Column of `.var` with the gene names, or `"var_names"` for the index; `None` finds it.
    batch_size
        Largest number of cells in a batch; `None` chooses it by the size of the decoder and the free memory.
    device, dtype
        As for :func:`sclcm.models.load`.

    Yields
    ------
    Row numbers of some cells, shape `(cells,)`, and for each cell the vectors of `model.vocabulary.features`, in
    that order, shape `(cells, genes, width)`, float32; if the recipe has a head, numbers of shape `(cells, genes)`.
    Cells that express no known gene are left out.

    Raises
    ------
    ValueError
        The model has no decoder, there is no such recipe, or the matrix does not hold what the model reads.
    """
    pretrained = load(model, device=device, dtype=dtype)
    chosen = pretrained.gene_recipe(recipe)
    if chosen.cells is not None:
        msg = f"`recipe` is {recipe!r}, which is of cells and not of genes one by one; `sclcm.tl.impute` reads it."
        raise ValueError(msg)
    pretrained = pretrained.reading(chosen)
    data = open_input(adata, pretrained, layer=layer, use_raw=use_raw, gene_key=gene_key)
    return decode_cells(data, pretrained, chosen.head, batch_size=batch_size)


def decode_cells(
    data: Input, pretrained: Pretrained, head: str | None, *, batch_size: int | None
) -> Generator[tuple[np.ndarray, np.ndarray]]:
    """Do what `decode_genes` does, for an input that is open."""
    rows_of_genes = pretrained.vocabulary.token_ids
    size = batch_size or decoder_batch(pretrained)
    with closing(data.batches(pretrained, batch_size=size)) as batches:
        for rows, out in decode(pretrained.lcm, batches, head=head, device=pretrained.device):
            yield rows, out[:, rows_of_genes]


def decoder_batch(pretrained: Pretrained) -> int:
    """Return how many cells a pass through the decoder takes at a time."""
    return cells_at_once(n_places(pretrained), pretrained.lcm, pretrained.device)


def n_places(pretrained: Pretrained) -> int:
    """Return how many places the decoder has."""
    if pretrained.architecture.decoder is None:
        msg = f"{pretrained.name!r} has no decoder."
        raise ValueError(msg)
    return as_int(pretrained.architecture.decoder.bridge.n_places)
