"""Probes of binning, of the preparation of counts before it, and of graphs of genes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sclcm.reference._collated_probes import Drawn
    from sclcm.reference._probes import Said


@dataclass(frozen=True, kw_only=True)
class RowInput:
    """A row of values to be binned, as an input: finite numbers."""


@dataclass(frozen=True, kw_only=True)
class UniformInput:
    """Uniform numbers that upstream drew, as an input: one of [0, 1) for each value of `<case>_in` that is binned."""


@dataclass(frozen=True, kw_only=True)
class Binned:
    """Bins of a row: from the arrays `<case>_in` and `<case>_rand`, where the array is `<case>_<n_bins>[_<part>]`.

    Parameters
    ----------
    part
        The bins; the edges between them; how many edges lie at or below a value; how many lie below it.
    """

    part: Literal["bins", "edges", "left", "right"]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What is made of counts before binning: genes by counts, then log1p of counts per 10,000, then bins.

    Parameters
    ----------
    min_counts
        Fewest counts of a gene over all cells.
    part
        Names of the genes kept; sum of the values of each cell; bins (a draw where a value may fall into several);
        edges between them, after a zero.
    """

    min_counts: Said
    part: Literal["genes", "sums", "bins", "edges"]


@dataclass(frozen=True, kw_only=True)
class GeneTable:
    """Vector of every token, without a value; the row is the token id."""


@dataclass(frozen=True, kw_only=True)
class GeneInput:
    """Genes chosen by upstream, as an input: of the vocabulary, each once."""


@dataclass(frozen=True, kw_only=True)
class GeneEdges:
    """Pairs of genes with similar vectors, as sorted text `A|B`, a gene with itself included.

    Parameters
    ----------
    genes
        Name of the array with the genes.
    threshold
        Smallest cosine.
    """

    genes: str
    threshold: Said


@dataclass(frozen=True, kw_only=True)
class GeneSetTokens:
    """The same genes for each cell, expressed or not, after `<cls>`: which genes is a draw."""


@dataclass(frozen=True, kw_only=True)
class GeneSetValues:
    """Bins among these genes alone, zero at `<cls>`: a draw only where a value may fall into several bins.

    Parameters
    ----------
    tokens
        Name of the array with the tokens.
    """

    tokens: str


@dataclass(frozen=True, kw_only=True)
class AttentionGraph:
    """Products of queries and keys of the last block, unscaled, for as many cells as are stored; or ranks of them.

    Parameters
    ----------
    drawn
        The tokens; all count, as there is no padding.
    part
        The products of each head; their ranks by row over the number of tokens, mean over heads; those ranked by column
        in turn, mean over heads and sum over cells, a draw as far as there are ties.
    """

    drawn: Drawn
    part: Literal["scores", "rows", "sum"]
