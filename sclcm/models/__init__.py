"""Load, convert, list and describe models, and check them against their authors' numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from sclcm._lazy import attach

if TYPE_CHECKING:
    from sclcm.models._convert import convert
    from sclcm.models._decode import decode_genes
    from sclcm.models._describe import describe
    from sclcm.models._gene_vectors import from_gene_vectors
    from sclcm.models._load import fetch, list_models, load
    from sclcm.models._new_species import with_species
    from sclcm.models._pretrained import Pretrained
    from sclcm.models._untrained import build
    from sclcm.models._verify import verify

__all__ = [
    "Pretrained",
    "build",
    "convert",
    "decode_genes",
    "describe",
    "fetch",
    "from_gene_vectors",
    "list_models",
    "load",
    "verify",
    "with_species",
]

__getattr__, __dir__ = attach(
    __name__,
    {
        "Pretrained": "sclcm.models._pretrained",
        "build": "sclcm.models._untrained",
        "convert": "sclcm.models._convert",
        "decode_genes": "sclcm.models._decode",
        "describe": "sclcm.models._describe",
        "fetch": "sclcm.models._load",
        "from_gene_vectors": "sclcm.models._gene_vectors",
        "list_models": "sclcm.models._load",
        "load": "sclcm.models._load",
        "verify": "sclcm.models._verify",
        "with_species": "sclcm.models._new_species",
    },
)
