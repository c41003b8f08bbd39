"""Probes of in-silico deletion: a gene leaves the sentence of a cell, and the vectors of the others move."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


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
class Deleted:
    """An array of a deletion; but for the tokens, of the cell whose number its name ends in.

    Parameters
    ----------
    deletion
        The deletion.
    part
        `"tokens"`: what each cell loses, an input, which must be of genes that the sentences have. `"place"`: where
        that token stood among the genes, shape `(1,)`. `"cosines"`: of each remaining token's last vector with its own
        before, padding included, shape `(1, tokens - 1)`.
    """

    deletion: Deletion
    part: Literal["tokens", "place", "cosines"]
