"""Small real data sets with raw counts, to try things on."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sclcm._lazy import attach

if TYPE_CHECKING:
    from sclcm.datasets._pbmc68k_reduced import pbmc68k_reduced

__all__ = ["pbmc68k_reduced"]

__getattr__, __dir__ = attach(__name__, {name: f"sclcm.datasets._{name}" for name in __all__})
