"""Frozen configurations of models whose tokens are cells. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sclcm._sizes import Flag, Number, Shapes, Size, Text


@dataclass(frozen=True, kw_only=True)
class GroupNorm:
    """Normalisation of each cell's vector in groups of neighbouring channels, with scale and shift.

    Parameters
    ----------
    n_groups
        Groups of channels, each with a mean and a variance of its own.
    eps
        Added to the variance.
    """

    n_groups: Size
    eps: Number = 1e-5


@dataclass(frozen=True, kw_only=True)
class CellProjection:
    """Linear layer, non-linearity and norm on the summed vector of a cell.

    Parameters
    ----------
    activation
        Name of the non-linearity.
    norm
        The normalisation.
    """

    activation: Text
    norm: GroupNorm


@dataclass(frozen=True, kw_only=True)
class BagOfGenes:
    """Encoder of a cell that is a token: the sum of its genes' vectors, each times its value.

    It takes the place of the encoders of gene and value, and the tokens of a sentence are cells.

    Parameters
    ----------
    n_tokens
        Rows of the table of genes.
    bias
        Whether a learned vector is added to every cell.
    projection
        What the sum goes through, or `None`.
    """

    n_tokens: Size
    bias: Flag = False
    projection: CellProjection | None = None


@dataclass(frozen=True, kw_only=True)
class FlowAttention:
    """Multi-head attention by conserved flows, linear in the number of tokens (doi:10.48550/arXiv.2202.06258).

    Queries and keys, made positive by a sigmoid, meet through sums over all tokens alone. So a set may be gone over in
    pieces.

    Parameters
    ----------
    n_heads
        Heads; they divide the width of the model.
    eps
        Added to queries, keys and sums before they are multiplied.
    bias
        Whether its linear layers add a bias.
    """

    n_heads: Size
    eps: Number = 1e-6
    bias: Flag = True


@dataclass(frozen=True, kw_only=True)
class MixtureLatent:
    """Latent space of cells that is a mixture of Gaussians, each a cluster; a `MixtureReadout` reads it.

    Parameters
    ----------
    n_clusters
        Number of clusters.
    d_hidden
        Width of the hidden layer.
    d_latent
        Width of a latent vector.
    """

    n_clusters: Size
    d_hidden: Size
    d_latent: Size


@dataclass(frozen=True, kw_only=True)
class MixtureReadout:
    """Mean of the latent vector of a mixture.

    Parameters
    ----------
    latent
        Name of an earlier head, a `MixtureLatent`.
    clusters
        `"most_probable"`: given the most probable cluster; `"weighted"`: the average of the means given each, weighted
        by how probable it is; `"drawn"`: given a cluster that is drawn, by the cell and a seed.
    """

    latent: str
    clusters: Literal["most_probable", "weighted", "drawn"]


@dataclass(frozen=True, kw_only=True)
class CountDecoder:
    """Mean and dispersion of the counts of each gene from a latent vector and what is known of the cell.

    Parameters
    ----------
    d_latent
        Width of a latent vector.
    d_hidden
        Width of the hidden layers.
    n_blocks
        Number of them.
    d_out
        Width of the last layer before the genes.
    n_genes
        Number of genes.
    covariates
        What may be known, such as the batch, with the number of labels; 0 is a model without it. An unknown label
        counts as all of them together.
    norm
        Normalisation in the hidden layers.
    """

    d_latent: Size
    d_hidden: Size
    n_blocks: Size
    d_out: Size
    n_genes: Size
    covariates: Mapping[str, Size]
    norm: GroupNorm


@dataclass(frozen=True, kw_only=True)
class TokenItself:
    """The token itself, of models whose tokens are cells."""


@dataclass(frozen=True, kw_only=True)
class GridPositions:
    """Position encoder of cells in space: one vector for each square of a grid over coordinates from 0 to 1.

    A cell lies in the row of its first coordinate and the column of its second, times `squares`, cut to whole numbers;
    what lies beyond the grid counts to its margin. The vectors come with the weights; those of a model that is made
    anew are sines and cosines, the first half of the channels of the column, the second of the row.

    Parameters
    ----------
    n_rows
    n_columns
        Squares of the grid.
    squares
        Squares from 0 to 1.
    """

    n_rows: Size
    n_columns: Size
    squares: Size


@dataclass(frozen=True, kw_only=True)
class ClosedFeedForward:
    """Two linear layers with a non-linearity after each.

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
class ActivatedHead:
    """A linear layer and a non-linearity on the vector of a cell.

    Parameters
    ----------
    d_in
        Width of the input.
    d_latent
        Width of the output.
    activation
        Name of the non-linearity.
    """

    d_in: Size
    d_latent: Size
    activation: Text


@dataclass(frozen=True, kw_only=True)
class ExpressionDecoder:
    """Value of each gene, none below zero, from a latent vector: linear, non-linearity with a slope, linear, ReLU.

    Parameters
    ----------
    d_latent
        Width of a latent vector.
    d_inner
        Width between the layers.
    n_tokens
        Number of genes.
    """

    d_latent: Size
    d_inner: Size
    n_tokens: Size


@dataclass(frozen=True, kw_only=True)
class DroppedLayers:
    """Classes of a cell from its vector: linear layers, each behind a dropout, with ReLU between them.

    Parameters
    ----------
    d_in
        Width of the input.
    widths
        Width of the output of each linear layer; the last is the number of classes.
    dropout
        Share of values dropped in training.
    """

    d_in: Size
    widths: tuple[Size, ...] | Shapes
    dropout: Number = 0.0


@dataclass(frozen=True, kw_only=True)
class BareLayers:
    """Classes of a cell from its vector: linear layers with ReLU between them, and no dropout.

    Parameters
    ----------
    d_in
        Width of the input.
    widths
        Width of the output of each linear layer; the last is the number of classes.
    """

    d_in: Size
    widths: tuple[Size, ...] | Shapes


CellHead: TypeAlias = (
    MixtureLatent | MixtureReadout | CountDecoder | ActivatedHead | ExpressionDecoder | DroppedLayers | BareLayers
)
"""Heads that read the vectors of cells that are tokens."""
