"""Declarations of models that are tables of gene vectors, stored as dictionaries of a vector for each gene."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class VectorGenes:
    """The genes of the model's own table of vectors, then those that only companion tables have.

    Parameters
    ----------
    files
        Patterns of the file with the own table, in order of preference: gene -> vector, a pickled dictionary.
    others
        Patterns of companion tables, which need not be there.
    ids
        What the genes are named by.
    gene_columns
        Columns of var that the authors' input contract names.
    species
        Species of the genes.
    pad
        Name of a token with a vector of zeros, after all genes.
    mask
        There is none.
    """

    files: tuple[str, ...]
    others: tuple[tuple[str, ...], ...] = ()
    ids: Literal["ensembl", "symbol"]
    gene_columns: tuple[str, ...] = ()
    species: tuple[str, ...] = ("human",)
    pad: str = "<pad>"
    mask: None = None

    @property
    def specials(self) -> tuple[str, ...]:
        """All special tokens."""
        return (self.pad,)


@dataclass(frozen=True, kw_only=True)
class VectorTable:
    """A companion table of vectors, gene -> vector, as an array in vocabulary order; genes that it lacks have zeros.

    Recipes that name it are left out where the release does not have it.

    Parameters
    ----------
    files
        Patterns of the file, in order of preference.
    """

    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class VectorFile:
    """The weights file is a dictionary with a vector for each gene; there is no configuration.

    Parameters
    ----------
    tensor
        Name of the table that is made of them: one row for each gene of the vocabulary, and zeros for padding.
    """

    tensor: str
