"""Frozen configurations of gated blocks, of values that only some tokens have, and of a head. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sclcm._sizes import Flag, Number, Size, Text
    from sclcm.nn.configs import SoftBins


@dataclass(frozen=True, kw_only=True)
class GatedLinearAttention:
    """Multi-head attention without a softmax, linear in length: retention without decay, read in both directions.

    Keys times values are summed over the tokens of a cell once, and every query reads that sum. Queries and keys pass a
    ReLU. What a head reads is scaled to a root mean square of one, then multiplied by a gate of the same token (SiLU).
    No layer has a bias.

    Parameters
    ----------
    n_heads
        Heads; they divide the width of the model.
    """

    n_heads: Size


@dataclass(frozen=True, kw_only=True)
class GatedFeedForward:
    """The product of two linear layers, of which the first passes a non-linearity, then a third; no bias.

    Parameters
    ----------
    d_hidden
        Width of the product.
    activation
        Name of the non-linearity; with `"silu"` it is SwiGLU (doi:10.48550/arXiv.2002.05202).
    """

    d_hidden: Size
    activation: Text = "identity"


@dataclass(frozen=True, kw_only=True)
class ScaledResidual:
    """What a block's parts are added to is first multiplied by `(factor * blocks) ** power`, more in deeper models.

    Parameters
    ----------
    factor
    power
        Two and a quarter in DeepNet (doi:10.48550/arXiv.2203.00555).
    """

    factor: Number
    power: Number


@dataclass(frozen=True, kw_only=True)
class MaskSchedule:
    """Tokens with a hidden value inform others in later blocks only.

    Parameters
    ----------
    blind_share
        Share of the blocks, from the first on and rounded down, in which they are no keys.
    """

    blind_share: Number


@dataclass(frozen=True, kw_only=True)
class GeneBins:
    """Value encoder: the values of genes as mixtures of learned bins; other tokens have no value.

    Parameters
    ----------
    genes
        The bins. A marked value is a hidden one.
    """

    genes: SoftBins


@dataclass(frozen=True, kw_only=True)
class GeneAndDepthBins:
    """Value encoder: the values of genes by some bins, those of depth tokens by others.

    Of tokens that are no genes, those with a value above zero are depth tokens; the others have no value.

    Parameters
    ----------
    genes
        The bins of genes. A marked value is a hidden one.
    depths
        Those of depth tokens.
    """

    genes: SoftBins
    depths: SoftBins


@dataclass(frozen=True, kw_only=True)
class GeneProductHead:
    """Value head of a cell and a gene: the cell's vector times a query made of the gene's vector.

    Parameters
    ----------
    activation
        Name of the non-linearity of the query.
    bias
        Whether the linear layer that makes it adds a bias.
    """

    activation: Text
    bias: Flag
