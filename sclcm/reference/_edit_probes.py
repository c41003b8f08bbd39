"""Probes of in-silico deletion: a gene leaves the sentence of a cell, and the vectors of the others move."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Deletion:
    """One gene is deleted from each of some cells, whose sentences are filled up; the model sees the padding.

    Parameters
    ----------
    tokens
        Array with the token that each of these cells loses: an input.
    cells
        What the names of arrays start with that end in the number of such a cell: they say which cells these are, in
        the order in which they lose their tokens.
    species
        Number of the species that all cells are said to be of, whatever they are.
    """

    tokens: str
    cells: tuple[str, ...]
    species: int


@dataclass(frozen=True, kw_only=True)
class DeletedTokens:
    """The token that each cell loses: an input. It must be of a gene that the sentence has.

    Parameters
    ----------
    deletion
        The deletion.
    """

    deletion: Deletion


@dataclass(frozen=True, kw_only=True)
class DeletedPlace:
    """Where that token stood among the genes of the cell whose number the name ends in, shape `(1,)`.

    Parameters
    ----------
    deletion
        The deletion.
    """

    deletion: Deletion


@dataclass(frozen=True, kw_only=True)
class DeletionCosines:
    """Cosine of each remaining token's last vector with its own before, padding included, shape `(1, tokens - 1)`.

    Parameters
    ----------
    deletion
        The deletion.
    """

    deletion: Deletion
