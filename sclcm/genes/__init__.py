"""What a model calls a gene: vocabularies, name resolution, alignment of var, vectors of descriptions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sclcm._lazy import attach

if TYPE_CHECKING:
    from sclcm.genes.texts import vectors_from_text

__all__ = ["vectors_from_text"]

__getattr__, __dir__ = attach(__name__, {"vectors_from_text": "sclcm.genes.texts"})
