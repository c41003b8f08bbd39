"""Every slot of an AnnData that this package writes by default, in one place.

A function has one base name, `<model>` or `<model>_<what>` with dots and hyphens as underscores. All its slots derive
from the base; `key_added` replaces it verbatim.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class EmbedKeys:
    """Where `tl.embed` writes: `adata.obsm[obsm]` and `adata.uns[uns]`."""

    obsm: str
    uns: str


@dataclass(frozen=True, kw_only=True)
class GeneEmbedKeys:
    """Where `tl.embed_genes` writes: `adata.varm[varm]` and `adata.uns[uns]`."""

    varm: str
    uns: str


@dataclass(frozen=True, kw_only=True)
class AnnotateKeys:
    """Where `tl.annotate` writes: `obs[label]`, `obs[score]`, `obs[coarse]`, `obs[ontology]` and `uns[uns]`."""

    label: str
    score: str
    coarse: str
    ontology: str
    uns: str


@dataclass(frozen=True, kw_only=True)
class TranslateKeys:
    """Where `tl.translate` writes: `adata.obsm[obsm]` and `adata.uns[uns]`."""

    obsm: str
    uns: str


@dataclass(frozen=True, kw_only=True)
class UmapKeys:
    """Where `tl.umap` writes: `adata.obsm[obsm]`, `adata.uns[uns]` and the neighbour graph under `neighbors`."""

    obsm: str
    uns: str
    neighbors: str


@dataclass(frozen=True, kw_only=True)
class ImputeKeys:
    """Where `tl.impute` writes: `adata.layers[layer]` and `adata.uns[uns]`."""

    layer: str
    uns: str


def _storable(key_added: str) -> str:
    """Refuse, before it is written, what h5ad and zarr could not store or would store as something else."""
    if not isinstance(key_added, str):
        msg = f"`key_added` is {key_added!r}; expected a str, or None for the default names."
        raise TypeError(msg)
    if not key_added or "/" in key_added or "\0" in key_added:
        msg = f"`key_added` is {key_added!r}, which cannot be stored in a file; expected a non-empty name without '/'."
        raise ValueError(msg)
    return key_added


def base_name(model_name: str) -> str:
    """Return the name of a model as it stands in slot names: `scgpt.brain` becomes `scgpt_brain`."""
    if not isinstance(model_name, str):
        msg = f"`model` is a {type(model_name).__name__}; expected the name of the model, such as 'scgpt.human'."
        raise TypeError(msg)
    return model_name.replace(".", "_").replace("-", "_")


def embed_keys(model_name: str, key_added: str | None = None) -> EmbedKeys:
    """Return the slots of a cell embedding."""
    if key_added is not None:
        return EmbedKeys(obsm=_storable(key_added), uns=key_added)
    base = base_name(model_name)
    return EmbedKeys(obsm=f"X_{base}", uns=base)


def gene_embed_keys(model_name: str, key_added: str | None = None) -> GeneEmbedKeys:
    """Return the slots of gene vectors."""
    base = f"{base_name(model_name)}_genes" if key_added is None else _storable(key_added)
    return GeneEmbedKeys(varm=base, uns=base)


def annotate_keys(model_name: str, key_added: str | None = None) -> AnnotateKeys:
    """Return the slots of cell labels."""
    base = f"{base_name(model_name)}_label" if key_added is None else _storable(key_added)
    return AnnotateKeys(
        label=base, score=f"{base}_score", coarse=f"{base}_coarse", ontology=f"{base}_ontology_term_id", uns=base
    )


def translate_keys(model_name: str, modality: str, key_added: str | None = None) -> TranslateKeys:
    """Return the slots of values of features of another modality, such as proteins."""
    base = f"{base_name(model_name)}_{modality}" if key_added is None else _storable(key_added)
    return TranslateKeys(obsm=base, uns=base)


def umap_keys(embedding_key: str, key_added: str | None = None) -> UmapKeys:
    """Return the slots of a UMAP of `adata.obsm[embedding_key]`."""
    base = embedding_key.removeprefix("X_")
    obsm = f"X_umap_{base}" if key_added is None else _storable(key_added)
    graph = base if key_added is None else key_added
    return UmapKeys(obsm=obsm, uns=obsm, neighbors=f"{graph}_neighbors")


def impute_keys(model_name: str, key_added: str | None = None) -> ImputeKeys:
    """Return the slots of predicted expression."""
    base = f"{base_name(model_name)}_imputed" if key_added is None else _storable(key_added)
    return ImputeKeys(layer=base, uns=base)
