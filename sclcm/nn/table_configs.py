"""Frozen configurations around the gene table: encoders that read it in ways of their own, and nothing behind it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sclcm._sizes import Size


@dataclass(frozen=True, kw_only=True)
class GeneBinTable:
    """Gene encoder: one learned vector for each pair of a gene and a bin; the bin is the value of the token.

    A gene's token is the row of its bin zero. The gene itself has the mean of its rows.

    Parameters
    ----------
    n_tokens
        Rows of the table, special tokens included.
    n_bins
        Rows of each gene.
    """

    n_tokens: Size
    n_bins: Size


@dataclass(frozen=True, kw_only=True)
class SharedSegment:
    """Segment vectors that lie in the gene table: one row of it is added to every token.

    Parameters
    ----------
    row
        The row.
    """

    row: int = 0


@dataclass(frozen=True, kw_only=True)
class NoBackbone:
    """No blocks: token vectors are what the encoders give."""


@dataclass(frozen=True, kw_only=True)
class ExpressionSum:
    """Vectors of genes, each times its value in the matrix, summed over the genes of a cell. No sentence is made.

    Parameters
    ----------
    over
        What the sum is divided by: `"genes"`, the number of genes of the data, or `"total"`, the sum of the cell's
        values; both count genes that the model does not know as well.
    tables
        Which tables of vectors: `"vectors"` is the model's own, others are companion arrays by their names.
    combine
        Whether the vectors of several tables are added, or stand side by side.
    """

    over: Literal["genes", "total"]
    tables: tuple[str, ...] = ("vectors",)
    combine: Literal["sum", "concat"] = "sum"
