"""Frozen configurations, one per component; the type of a configuration selects its module. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sclcm._sizes import Number, Size, Text


@dataclass(frozen=True, kw_only=True)
class TableEncoder:
    """Gene encoder: one learned vector for each token.

    Parameters
    ----------
    n_tokens
        Rows of the table, special tokens included.
    """

    n_tokens: Size


@dataclass(frozen=True, kw_only=True)
class ScalarMLP:
    """Value encoder: a small network of the value at a token.

    Parameters
    ----------
    d_hidden
        Width of the hidden layer.
    activation
        Name of the non-linearity.
    """

    d_hidden: Size
    activation: Text = "relu"


@dataclass(frozen=True, kw_only=True)
class ScaledGene:
    """Value encoder: the gene's vector times its value.

    The sum over a cell's tokens is then a linear embedding of its values before any block has run. Special tokens
    have no value and keep their own vector.
    """


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
class LayerNorm:
    """Normalisation of each token vector, with scale and shift.

    Parameters
    ----------
    eps
        Added to the variance.
    """

    eps: Number = 1e-5


@dataclass(frozen=True, kw_only=True)
class SoftmaxAttention:
    """Multi-head attention, scaled by one over the square root of the head width.

    Parameters
    ----------
    n_heads
        Heads; they divide the width of the model.
    causal
        Whether a token sees only itself and those before it.
    """

    n_heads: Size
    causal: bool = False


@dataclass(frozen=True, kw_only=True)
class FeedForward:
    """Two linear layers with a non-linearity between them.

    Parameters
    ----------
    d_hidden
        Width between the layers.
    activation
        Name of the non-linearity.
    """

    d_hidden: Size
    activation: Text = "gelu"


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
    """

    n_blocks: Size
    attention: SoftmaxAttention
    feed_forward: FeedForward
    norm: Literal["pre", "post"]
    layer_norm: LayerNorm = field(default_factory=LayerNorm)
    final_norm: LayerNorm | None = None
    dropout: Number = 0.0


@dataclass(frozen=True, kw_only=True)
class TiedTokenHead:
    """Token head: linear layer, non-linearity, norm, then the gene table as output layer, with a bias.

    Parameters
    ----------
    activation
        Name of the non-linearity.
    layer_norm
        Its normalisation.
    """

    activation: Text
    layer_norm: LayerNorm


@dataclass(frozen=True, kw_only=True)
class PooledClassHead:
    """Class head on the first token: linear layer, tanh, linear layer.

    Parameters
    ----------
    n_classes
        Number of classes.
    """

    n_classes: Size


@dataclass(frozen=True, kw_only=True)
class TokenClassHead:
    """Class head on every token: one linear layer.

    Parameters
    ----------
    n_classes
        Number of classes.
    """

    n_classes: Size


@dataclass(frozen=True, kw_only=True)
class LinearHead:
    """One linear layer on whatever it is given: a projection of cells, or one number for each token.

    Parameters
    ----------
    d_in
        Width of the input.
    d_out
        Width of the output.
    bias
        Whether it adds a bias.
    """

    d_in: Size
    d_out: Size
    bias: bool = True


HeadConfig: TypeAlias = TiedTokenHead | PooledClassHead | TokenClassHead | LinearHead


@dataclass(frozen=True, kw_only=True)
class LCMConfig:
    """A large cellular model: encoders whose vectors are summed, a backbone, and heads.

    Parameters
    ----------
    d_model
        Width of a token vector.
    gene
        Token id -> vector.
    value
        Value -> vector, or `None` for families whose tokens carry no value.
    position
        Place in the sentence -> vector, or `None` where order does not matter.
    segment
        A constant vector added to every token, or `None`.
    embedding_norm
        Normalisation of the sum, or `None`.
    backbone
        The stack of blocks.
    heads
        Heads by name; a name is what `Recipe.head` refers to.
    """

    d_model: Size
    gene: TableEncoder
    value: ScalarMLP | ScaledGene | None = None
    position: LearnedPositions | None = None
    segment: ConstantSegment | None = None
    embedding_norm: LayerNorm | None = None
    backbone: BackboneConfig
    heads: Mapping[str, HeadConfig] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class MeanPooling:
    """Average of the gene tokens; special tokens do not count."""


@dataclass(frozen=True, kw_only=True)
class FirstToken:
    """The first token of the sentence, such as `<cls>`."""


@dataclass(frozen=True, kw_only=True)
class ValueWeightedMean:
    """Average of the gene tokens, each weighted by its value, over the sum of the absolute values."""


@dataclass(frozen=True, kw_only=True)
class Concatenated:
    """Several poolings side by side.

    Parameters
    ----------
    parts
        The poolings, in order.
    """

    parts: tuple[MeanPooling | FirstToken | ValueWeightedMean, ...]


Pooling: TypeAlias = MeanPooling | FirstToken | ValueWeightedMean | Concatenated
