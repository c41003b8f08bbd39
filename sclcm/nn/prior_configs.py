"""Frozen configurations of what a model knows besides counts: prior vectors of genes, and the species; no torch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from sclcm.nn.configs import LayerNorm

if TYPE_CHECKING:
    from sclcm._sizes import Flag, Size, Text, WherePresent


@dataclass(frozen=True, kw_only=True)
class PriorVectors:
    """A fixed vector for each token, made outside of the model, and a linear layer that brings it to the model's width.

    Parameters
    ----------
    name
        What the vectors are made of.
    n_tokens
        Rows of the table, special tokens included.
    d_prior
        Width of a vector.
    """

    name: str
    n_tokens: Size
    d_prior: Size


@dataclass(frozen=True, kw_only=True)
class Partners:
    """Another token for each token, such as its homologue: cells of one species take the prior vectors of those.

    Parameters
    ----------
    n_tokens
        Tokens of the vocabulary; one without a partner is its own.
    species
        Number of that species. Cells of others take the prior vectors of their own tokens.
    """

    n_tokens: Size
    species: int


@dataclass(frozen=True, kw_only=True)
class JoinedInputs:
    """Gene vector, value and prior vectors side by side, mixed by a network: linear, norm, non-linearity, linear.

    Parameters
    ----------
    priors
        Prior vectors, in order.
    partners
        Whose prior vectors are taken.
    has_value
        Whether the value as it is stands after the gene vector.
    activation
        Name of the non-linearity.
    layer_norm
        The normalisation before it.
    """

    priors: tuple[PriorVectors | WherePresent, ...]
    partners: Partners
    has_value: Flag
    activation: Text
    layer_norm: LayerNorm = field(default_factory=LayerNorm)


@dataclass(frozen=True, kw_only=True)
class SpeciesPrefix:
    """A learned vector for the species of a cell, before all others: it gets neither a position nor the embedding norm.

    The first place of a sentence is kept free for it, see `Encoding.reserved`.

    Parameters
    ----------
    n_species
        Rows of the table.
    """

    n_species: Size
