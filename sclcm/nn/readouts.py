"""Frozen configurations of what reads token vectors: heads and poolings. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from sclcm.nn.cell_configs import PlaceMean, TanhClassHead
from sclcm.nn.configs import LayerNorm
from sclcm.nn.gated_configs import GeneProductHead
from sclcm.nn.set_configs import CellHead, TokenItself
from sclcm.nn.table_configs import ExpressionSum

if TYPE_CHECKING:
    from sclcm._sizes import Flag, Size, Text


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
class TableHead:
    """Token head: the gene table itself as output layer, without anything before it and without a bias."""


@dataclass(frozen=True, kw_only=True)
class TokenHead:
    """Token head: non-linearity, norm, then a linear layer of its own.

    Parameters
    ----------
    activation
        Name of the non-linearity.
    layer_norm
        Its normalisation.
    n_tokens
        Tokens of the vocabulary.
    """

    activation: Text
    layer_norm: LayerNorm
    n_tokens: Size


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


@dataclass(frozen=True, kw_only=True)
class ValueHead:
    """Value head: linear layers with a non-linearity between them, one number for each token.

    Parameters
    ----------
    d_in
        Width of its input: that of a token vector, or with that of the condition's vector beside it.
    d_hidden
        Width between the layers.
    n_layers
    bias
        Number of linear layers, and whether they add a bias.
    activation
        Name of the non-linearity.
    """

    d_in: Size
    d_hidden: Size
    n_layers: Size = 3
    activation: Text = "leaky_relu"
    bias: Flag = True


@dataclass(frozen=True, kw_only=True)
class NormedValueHead:
    """Value head: linear layer, non-linearity, norm, linear layer, one number for each token.

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
class CellGeneHead:
    """Value head of a cell and a gene: the cell's vector times a matrix times a query made of the gene's vector.

    Parameters
    ----------
    d_cell
        Width of the cell's side: that of a cell vector, or with that of the condition's vector beside it.
    bias
        Whether the matrix comes with a bias.
    query_of
        Name of an earlier head of this type whose query it shares; `None` for a query of its own.
    """

    d_cell: Size
    bias: bool = False
    query_of: str | None = None


@dataclass(frozen=True, kw_only=True)
class CellClassHead:
    """Class head on the cell's vector: blocks of linear layer, non-linearity and norm, then a linear layer.

    Parameters
    ----------
    n_hidden
        Number of blocks; zero leaves the last layer alone.
    n_classes
        Number of classes.
    activation
        Name of the non-linearity.
    layer_norm
        The normalisation in the blocks.
    """

    n_hidden: Size
    n_classes: Size
    activation: Text = "relu"
    layer_norm: LayerNorm = field(default_factory=LayerNorm)


@dataclass(frozen=True, kw_only=True)
class LayeredHead:
    """A projection of cells or tokens: blocks of linear layer, norm and non-linearity, then a linear layer.

    Parameters
    ----------
    d_in
        Width of the input.
    d_hidden
        Width of each block.
    d_out
        Width of the output.
    activation
        Name of the non-linearity.
    layer_norm
        The normalisation in the blocks.
    """

    d_in: Size
    d_hidden: tuple[Size, ...]
    d_out: Size
    activation: Text = "gelu"
    layer_norm: LayerNorm = field(default_factory=LayerNorm)


@dataclass(frozen=True, kw_only=True)
class CellVectorHead:
    """Value head of a cell and a gene: the cell's vector beside the gene's fixed vector, projected, through layers.

    Parameters
    ----------
    d_vector
        Width of the fixed vectors, which are scaled to length one.
    d_gene
        Width they are projected to.
    layers
        What reads the two side by side; its output is one number.
    activation
        Name of the non-linearity of the projection.
    layer_norm
        The normalisation after it.
    """

    d_vector: Size
    d_gene: Size
    layers: LayeredHead
    activation: Text = "gelu"
    layer_norm: LayerNorm = field(default_factory=LayerNorm)


@dataclass(frozen=True, kw_only=True)
class SentenceClassHead:
    """Class head on the whole sentence, whose length is fixed: one number for each token, then layers over those.

    Parameters
    ----------
    n_places
        Tokens of every sentence.
    d_hidden
        Widths between its linear layers.
    n_classes
        Number of classes.
    activation
        Name of the non-linearity after each layer but the last.
    """

    n_places: Size
    d_hidden: tuple[Size, ...]
    n_classes: Size
    activation: Text = "relu"


HeadConfig: TypeAlias = (
    TiedTokenHead
    | TableHead
    | TokenHead
    | PooledClassHead
    | TokenClassHead
    | LinearHead
    | ValueHead
    | CellGeneHead
    | GeneProductHead
    | TanhClassHead
    | CellClassHead
    | LayeredHead
    | CellVectorHead
    | SentenceClassHead
    | NormedValueHead
    | CellHead
)


@dataclass(frozen=True, kw_only=True)
class MeanPooling:
    """Average of the gene tokens; special tokens do not count."""


@dataclass(frozen=True, kw_only=True)
class FirstToken:
    """The first token of the sentence, such as `<cls>`."""


@dataclass(frozen=True, kw_only=True)
class TokenMean:
    """Average of all tokens of a sentence, special tokens included.

    Parameters
    ----------
    before_last
        How many tokens at the end do not count.
    """

    before_last: int = 0


@dataclass(frozen=True, kw_only=True)
class TokenMax:
    """Largest entry of each channel over all tokens of a sentence, special tokens included; NaN where none counts.

    Parameters
    ----------
    before_last
        How many tokens at the end do not count.
    """

    before_last: int = 0


@dataclass(frozen=True, kw_only=True)
class GeneSum:
    """Sum of the gene tokens; special tokens do not count."""


@dataclass(frozen=True, kw_only=True)
class RestMean:
    """Average of all tokens of a sentence but the first, special tokens included."""


@dataclass(frozen=True, kw_only=True)
class ValueWeightedSum:
    """Sum of all tokens of a sentence, each times its value, special tokens included."""


@dataclass(frozen=True, kw_only=True)
class ValueWeightedMean:
    """Average of the gene tokens, each weighted by its value, over the sum of the absolute values."""


@dataclass(frozen=True, kw_only=True)
class FromEnd:
    """One token, counted from the end of the sentence.

    Parameters
    ----------
    places
        How many tokens come after it; 0 is the last.
    """

    places: int = 0


@dataclass(frozen=True, kw_only=True)
class Concatenated:
    """Several poolings side by side.

    Parameters
    ----------
    parts
        The poolings, in order.
    """

    parts: tuple[MeanPooling | FirstToken | FromEnd | TokenMean | TokenMax | ValueWeightedMean, ...]


Pooling: TypeAlias = (
    ExpressionSum
    | MeanPooling
    | GeneSum
    | FirstToken
    | FromEnd
    | TokenMean
    | TokenMax
    | RestMean
    | PlaceMean
    | TokenItself
    | ValueWeightedSum
    | ValueWeightedMean
    | Concatenated
)


@dataclass(frozen=True, kw_only=True)
class GreedyDecoding:
    """Tokens that a causal model adds to a sentence one by one, each the most probable, with a whole value.

    Parameters
    ----------
    token_head
        Head that scores the tokens.
    value_head
        Head with one value for each token of the vocabulary; the chosen token gets its own, rounded half to even.
    n_tokens
        Most tokens that are added.
    stop
        Special token after which none is added.
    max_value
        Largest value of an added token; the smallest is zero.
    ban
        Which tokens of the sentence so far are not chosen again: `"all"` or `"all_but_last"`.
    """

    token_head: str
    value_head: str
    n_tokens: Size
    stop: str
    max_value: Size
    ban: Literal["all", "all_but_last"]
