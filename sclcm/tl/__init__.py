"""Compute with a model and write the result into the AnnData."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sclcm._lazy import attach

if TYPE_CHECKING:
    from sclcm.tl._annotate import annotate
    from sclcm.tl._embed import embed
    from sclcm.tl._embed_genes import embed_genes
    from sclcm.tl._impute import impute
    from sclcm.tl._translate import translate
    from sclcm.tl._umap import umap

__all__ = ["annotate", "embed", "embed_genes", "impute", "translate", "umap"]

__getattr__, __dir__ = attach(__name__, {name: f"sclcm.tl._{name}" for name in __all__})
