"""Declarations of recipes: which blocks are read together, and what a decoder says of every gene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sclcm._sizes import Config
    from sclcm.encoding.depth import DepthValue
    from sclcm.encoding.sentences import Encoding
    from sclcm.zoo._spec import Needs


@dataclass(frozen=True, kw_only=True)
class BlockMean:
    """Which blocks' outputs are pooled, one by one, and averaged.

    Parameters
    ----------
    blocks
        Their numbers, from zero.
    """

    blocks: tuple[int, ...] | Config


@dataclass(frozen=True, kw_only=True)
class BlockSum:
    """Which blocks' outputs are pooled, one by one, and added up.

    Parameters
    ----------
    blocks
        Their numbers, from zero.
    """

    blocks: tuple[int, ...] | Config


@dataclass(frozen=True, kw_only=True)
class GeneRecipe:
    """What a decoder says of every gene of a cell, expressed or not, as its authors published it.

    Parameters
    ----------
    head
        Head of the decoder that turns each gene's vector into a number, or `None` for the vectors themselves.
    cells
        The recipe whose cell vectors the head reads, of a model without a decoder; `None` otherwise.
    encoding
    needs
    depth
    submodels
        As of a `Recipe`.
    """

    head: str | None = None
    cells: str | None = None
    encoding: Encoding | None = None
    needs: Needs | None = None
    depth: DepthValue | None = None
    submodels: tuple[str, ...] = ()
