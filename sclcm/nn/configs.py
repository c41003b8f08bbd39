"""Frozen configurations, one per component; the type of a configuration selects its module. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from sclcm.nn.attention_configs import KernelAttention, RotaryPositions
from sclcm.nn.gated_configs import GatedFeedForward, GatedLinearAttention, GeneAndDepthBins, GeneBins
from sclcm.nn.set_configs import BagOfGenes, ClosedFeedForward, FlowAttention, GridPositions

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sclcm._sizes import Flag, Number, Size, Text
    from sclcm.nn.decoder_configs import DecoderConfig
    from sclcm.nn.fixed_configs import (
        FixedPositions,
        FixedVectors,
        NoVectors,
        ProjectedVectors,
        SinusoidalPositions,
        VectorMLP,
    )
    from sclcm.nn.gated_configs import MaskSchedule, ScaledResidual
    from sclcm.nn.prior_configs import JoinedInputs, SpeciesPrefix
    from sclcm.nn.readouts import HeadConfig
    from sclcm.nn.table_configs import GeneBinTable, NoBackbone, SharedSegment


@dataclass(frozen=True, kw_only=True)
class LayerNorm:
    """Normalisation of each token vector, with scale and shift.

    Parameters
    ----------
    eps
        Added to the variance.
    bias
        Whether it shifts.
    """

    eps: Number = 1e-5
    bias: Flag = True


@dataclass(frozen=True, kw_only=True)
class RMSNorm:
    """Division of each token vector by its root mean square, with a scale; nothing is subtracted or added.

    Parameters
    ----------
    eps
        Added to the mean square.
    """

    eps: Number = 1e-6


NormConfig: TypeAlias = LayerNorm | RMSNorm


@dataclass(frozen=True, kw_only=True)
class BatchNorm:
    """Normalisation of each channel by running statistics of the training corpus, with scale and shift.

    Parameters
    ----------
    eps
        Added to the variance.
    """

    eps: Number = 1e-5


@dataclass(frozen=True, kw_only=True)
class DomainNorm:
    """Normalisation of each channel by running statistics of the batch that a cell is of, without scale and shift.

    Parameters
    ----------
    n_domains
        Number of batches.
    eps
        Added to the variance.
    """

    n_domains: Size
    eps: Number = 1e-5


@dataclass(frozen=True, kw_only=True)
class TableEncoder:
    """Gene encoder: one learned vector for each token.

    Parameters
    ----------
    n_tokens
        Rows of the table, special tokens included.
    n_spare
        How many rows at its end stand for no token.
    norm
        Normalisation of its vectors, or `None`.
    """

    n_tokens: Size
    n_spare: int = 0
    norm: LayerNorm | None = None


@dataclass(frozen=True, kw_only=True)
class ScalarMLP:
    """Value encoder: a small network of the value at a token.

    Parameters
    ----------
    d_hidden
        Width of the hidden layer.
    activation
        Name of the non-linearity.
    largest
        Values above it count as it; `None` leaves them.
    norm
        Normalisation of its vectors, or `None`.
    """

    d_hidden: Size
    activation: Text = "relu"
    largest: Number | None = None
    norm: LayerNorm | None = None


@dataclass(frozen=True, kw_only=True)
class ValueTable:
    """Value encoder: one learned vector for each whole value, such as a bin.

    Parameters
    ----------
    n_values
        Rows of the table; values run from zero.
    norm
        Normalisation of its vectors, or `None`.
    """

    n_values: Size
    norm: LayerNorm | None = None


@dataclass(frozen=True, kw_only=True)
class SoftBins:
    """Value encoder: bins that are learned; a value is a mixture of their vectors.

    Hidden units are a leaky ReLU of a line in the value, one a bin; a linear layer of them, plus the units themselves
    by a weight, are scores, whose softmax mixes the rows of a table.

    Parameters
    ----------
    n_bins
        Rows of the table.
    slope
        That of the leaky ReLU below zero.
    direct
        Weight by which the hidden units enter the scores directly; `None` is a learned one.
    bias
        Whether the two linear layers add a bias.
    marked
        Values that are no numbers but marks, as of a masked token; each has a vector of its own.
    """

    n_bins: Size
    slope: Number
    direct: Number | None
    bias: Flag = True
    marked: tuple[Number, ...] = ()


@dataclass(frozen=True, kw_only=True)
class RoleTable:
    """A vector for tokens whose value is to be generated, added to those of the gene in place of a value.

    Parameters
    ----------
    n_roles
        Rows of the stored table; the second is that of the tokens to be generated.
    """

    n_roles: Size


@dataclass(frozen=True, kw_only=True)
class ConditionTable:
    """One learned vector for each condition of a cell, such as its batch; heads that ask for it read it.

    Parameters
    ----------
    n_conditions
        Rows of the table.
    norm
        Normalisation of its vectors, or `None`.
    """

    n_conditions: Size
    norm: LayerNorm | None = None


@dataclass(frozen=True, kw_only=True)
class ScaledGene:
    """Value encoder: the gene's vector times its value.

    The sum over a cell's tokens is then a linear embedding of its values before any block has run. Special tokens
    have no value and keep their own vector.
    """


@dataclass(frozen=True, kw_only=True)
class ScalarLinear:
    """Value encoder: a linear layer of the value at a token."""


ValueConfig: TypeAlias = ScalarMLP | ScalarLinear | ScaledGene | SoftBins | ValueTable | GeneBins | GeneAndDepthBins


@dataclass(frozen=True, kw_only=True)
class LearnedPositions:
    """Position encoder: one learned vector for each place in the sentence.

    Parameters
    ----------
    n_positions
        Longest sentence.
    """

    n_positions: Size


@dataclass(frozen=True, kw_only=True)
class ConstantSegment:
    """A table of segment vectors, of which the first is added to every token.

    Parameters
    ----------
    n_segments
        Rows of the stored table.
    """

    n_segments: Size


@dataclass(frozen=True, kw_only=True)
class SoftmaxAttention:
    """Multi-head attention, scaled by one over the square root of the head width.

    Parameters
    ----------
    n_heads
        Heads; they divide the width of the model.
    causal
        Whether a token sees only itself and those before it.
    bias
        Whether its linear layers add a bias.
    projects_targets
        Whether the output projection applies to tokens that are to be generated, too.
    padding_bias
        Added to the scores of padding, which is then attended to: a cell's vectors depend on how far its batch is
        padded. `None` hides padding.
    rotary
        Places that turn queries and keys, or `None`.
    heads_per_key
        How many heads in a row share their keys and values.
    """

    n_heads: Size
    causal: bool = False
    bias: Flag = True
    projects_targets: bool = True
    padding_bias: Number | None = None
    rotary: RotaryPositions | None = None
    heads_per_key: Size = 1


AttentionConfig: TypeAlias = SoftmaxAttention | KernelAttention | GatedLinearAttention | FlowAttention


@dataclass(frozen=True, kw_only=True)
class FeedForward:
    """Two linear layers with a non-linearity between them.

    Parameters
    ----------
    d_hidden
        Width between the layers.
    activation
        Name of the non-linearity.
    bias
        Whether the linear layers add a bias.
    """

    d_hidden: Size
    activation: Text = "gelu"
    bias: Flag = True


FeedForwardConfig: TypeAlias = FeedForward | GatedFeedForward | ClosedFeedForward


@dataclass(frozen=True, kw_only=True)
class BackboneConfig:
    """A stack of Transformer blocks.

    Parameters
    ----------
    n_blocks
        Depth.
    attention
    feed_forward
        The two parts of a block.
    norm
        `"post"`: after each residual sum, as in the first Transformer; `"pre"`: before each part.
    layer_norm
        The normalisation in the blocks.
    final_norm
        Normalisation after the last block, or `None`.
    dropout
        Share of values dropped in training.
    residual
        Scale of what a part is added to, or `None` for one.
    mask_schedule
        In which blocks tokens with a hidden value inform others; `None`: in all.
    """

    n_blocks: Size
    attention: AttentionConfig
    feed_forward: FeedForwardConfig
    norm: Literal["pre", "post"]
    layer_norm: NormConfig = field(default_factory=LayerNorm)
    final_norm: NormConfig | None = None
    dropout: Number = 0.0
    residual: ScaledResidual | None = None
    mask_schedule: MaskSchedule | None = None


@dataclass(frozen=True, kw_only=True)
class LCMConfig:
    """A large cellular model: encoders whose vectors are summed, a backbone, and heads.

    Parameters
    ----------
    d_model
        Width of a token vector.
    gene
        Token id -> vector; a `BagOfGenes` makes one token of a cell.
    value
        Value -> vector, or `None` for families whose tokens carry no value.
    fusion
        What becomes of gene vector, value and prior vectors, or `None` where the first two are all.
    position
        Place in the sentence -> vector, or `None` where order does not matter.
    segment
        A constant vector added to every token, or `None`.
    role
        A vector for tokens whose value is to be generated, or `None`.
    condition
        Condition of a cell -> vector, or `None`.
    embedding_norm
        Normalisation of the sum, or `None`.
    prefix
        A vector before all others, or `None`.
    species
        Number of the species that all cells are taken for, or `None` where each is of its own.
    backbone
        The stack of blocks.
    heads
        Heads by name; a name is what `Recipe.head` refers to.
    decoder
        A second stack of blocks that reads what the first made of a cell, or `None`.
    """

    d_model: Size
    gene: TableEncoder | GeneBinTable | ProjectedVectors | VectorMLP | FixedVectors | NoVectors | BagOfGenes
    value: ValueConfig | None = None
    fusion: JoinedInputs | None = None
    position: LearnedPositions | FixedPositions | SinusoidalPositions | GridPositions | None = None
    segment: ConstantSegment | SharedSegment | None = None
    role: RoleTable | None = None
    condition: ConditionTable | None = None
    embedding_norm: LayerNorm | BatchNorm | DomainNorm | None = None
    prefix: SpeciesPrefix | None = None
    species: int | None = None
    backbone: BackboneConfig | NoBackbone
    heads: Mapping[str, HeadConfig] = field(default_factory=dict)
    decoder: DecoderConfig | None = None
