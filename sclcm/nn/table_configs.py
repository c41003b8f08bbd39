"""Frozen configurations of encoders that read the gene table in ways of their own. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

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
