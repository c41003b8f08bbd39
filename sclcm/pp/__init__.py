"""Prepare: what the data holds, and gene names a model understands."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sclcm._lazy import attach

if TYPE_CHECKING:
    from sclcm.pp._check_counts import check_counts
    from sclcm.pp._map_orthologs import map_orthologs
    from sclcm.pp._recover_counts import recover_counts
    from sclcm.pp._unify_genes import unify_genes

__all__ = ["check_counts", "map_orthologs", "recover_counts", "unify_genes"]

__getattr__, __dir__ = attach(__name__, {name: f"sclcm.pp._{name}" for name in __all__})
