"""What a cell is, said to the model: tokens and companion arrays that columns of obs choose."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sclcm._sizes import Flag

NO_ARRAY = -1
"""Stands for "none of the arrays" among the numbers of a choice."""


@dataclass(frozen=True, kw_only=True)
class ContextToken:
    """A special token that says what a cell is, such as its species; each cell has one of several.

    Parameters
    ----------
    name
        What it is called: in the argument `conditions`, and in messages.
    tokens
        Special tokens of the vocabulary that a cell may have here. A column of obs names them, or gives their ids.
    aliases
        Other spellings of theirs.
    columns
        Columns of obs that are looked for where the caller names none, the first that is there.
    used
        Whether the sentences of this release have it.
    """

    name: str
    tokens: tuple[str, ...]
    aliases: Mapping[str, str] = field(default_factory=dict)
    columns: tuple[str, ...]
    used: Flag = True


@dataclass(frozen=True, kw_only=True)
class ArrayChoice:
    """Which of several companion arrays a cell's counts are divided by.

    Parameters
    ----------
    name
        What it is called, in the argument `conditions`, by which a caller names one.
    arrays
        Name of each choice -> companion array, one factor a feature.
    follows
        Name of the context token from which it follows where the caller names none.
    by_token
        Special token -> choice.
    otherwise
        The choice for cells with any other token.
    """

    name: str
    arrays: Mapping[str, str]
    follows: str
    by_token: Mapping[str, str]
    otherwise: str
