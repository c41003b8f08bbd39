"""Probes on cells that are sums of gene vectors weighted by expression, and on cells written as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Unit = Literal["raw", "log"]


@dataclass(frozen=True, kw_only=True)
class SummedVectors:
    """Cell vectors, NaN where a sum is divided by a total of zero.

    Parameters
    ----------
    over
        What sums are divided by.
    tables
        Tables of vectors, each by the family whose own it is.
    combine
        How several are combined.
    unit
        The matrix as it is, or the logarithm of one more than counts per 10,000.
    l2_normalize
        Whether vectors are scaled to length one.
    """

    over: Literal["genes", "total"]
    tables: tuple[str, ...]
    combine: Literal["sum", "concat"] = "sum"
    unit: Unit
    l2_normalize: bool = False


@dataclass(frozen=True, kw_only=True)
class LookedUp:
    """The vector of each var in a table, zeros where it has none.

    Parameters
    ----------
    table
        The family whose own table it is.
    """

    table: str


@dataclass(frozen=True, kw_only=True)
class MissingGenes:
    """How many var each table lacks.

    Parameters
    ----------
    tables
        The families whose own tables they are.
    """

    tables: tuple[str, ...]


@dataclass(frozen=True)
class LogMatrix:
    """The logarithm of one more than counts per 10,000, of all var."""


@dataclass(frozen=True)
class CellTexts:
    """Genes of each cell by rank as text, as many as the number that ends the array's name.

    Where several orders of equal values are possible, the stored one counts if it is one of them.
    """
