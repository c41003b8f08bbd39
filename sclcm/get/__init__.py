"""Read results out of an AnnData as data frames; nothing is written here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sclcm._lazy import attach

if TYPE_CHECKING:
    from sclcm.get._annotation import annotation
    from sclcm.get._cell_text import cell_text
    from sclcm.get._embedding import embedding
    from sclcm.get._gene_embedding import gene_embedding

__all__ = ["annotation", "cell_text", "embedding", "gene_embedding"]

__getattr__, __dir__ = attach(__name__, {name: f"sclcm.get._{name}" for name in __all__})
