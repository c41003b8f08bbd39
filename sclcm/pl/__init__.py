"""Draw what `sclcm.tl` wrote; nothing is computed here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sclcm._lazy import attach

if TYPE_CHECKING:
    from sclcm.pl._umap import umap

__all__ = ["umap"]

__getattr__, __dir__ = attach(__name__, {name: f"sclcm.pl._{name}" for name in __all__})
