"""Frozen configurations of encoders whose vectors come with a model and are never trained. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sclcm._sizes import Number, Size, Text
    from sclcm.nn.configs import LayerNorm


@dataclass(frozen=True, kw_only=True)
class ProjectedVectors:
    """Gene encoder: a fixed vector for each token, such as one of its protein, led to the width of the model.

    The vector is scaled to length one, then goes through a linear layer, a non-linearity and a norm, and is multiplied
    by the square root of the width.

    Parameters
    ----------
    n_tokens
        Rows of the table, special tokens included.
    d_vector
        Width of the fixed vectors.
    norm
        Normalisation after the non-linearity.
    activation
        Name of the non-linearity.
    """

    n_tokens: Size
    d_vector: Size
    norm: LayerNorm
    activation: Text = "gelu"


@dataclass(frozen=True, kw_only=True)
class VectorMLP:
    """Gene encoder: a small network of a fixed vector of each gene, such as one of its text.

    Special tokens, which have no such vector, come first and have a learned one each.

    Parameters
    ----------
    n_tokens
        Rows of the table, special tokens included.
    n_specials
        How many tokens from the first on are special.
    d_vector
        Width of the fixed vectors.
    d_between
        Width between the two linear layers.
    activation
        Name of the non-linearity between them.
    """

    n_tokens: Size
    n_specials: Size
    d_vector: Size
    d_between: Size
    activation: Text = "gelu"


@dataclass(frozen=True, kw_only=True)
class FixedVectors:
    """Gene encoder: a fixed vector for each token, as wide as the model and taken as it is.

    Parameters
    ----------
    n_tokens
        Rows of the table, special tokens included.
    """

    n_tokens: Size


@dataclass(frozen=True, kw_only=True)
class NoVectors:
    """Gene encoder: none. What a token is of does not matter, only its value and its place.

    Parameters
    ----------
    n_tokens
        Tokens of the vocabulary.
    """

    n_tokens: Size


@dataclass(frozen=True, kw_only=True)
class FixedPositions:
    """Position encoder: one vector for each place in the sentence, which comes with the weights and is not trained.

    Parameters
    ----------
    n_positions
        Longest sentence.
    """

    n_positions: Size


@dataclass(frozen=True, kw_only=True)
class SinusoidalPositions:
    """Position encoder: sines at even channels and cosines at odd ones, of waves that grow with the channel.

    Parameters
    ----------
    n_positions
        Longest sentence.
    base
        The longest wave, over that of the first channel.
    """

    n_positions: Size
    base: Number = 1e4
