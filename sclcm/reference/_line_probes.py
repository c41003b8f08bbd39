"""Probes on sentences that a tokenizer makes of gene names in order of rank, as text."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sclcm.reference._probes import Said


@dataclass(frozen=True, kw_only=True)
class Lines:
    """How upstream writes and reads a cell: names of its expressed genes by rank, ties in the order of var.

    Parameters
    ----------
    limit
        Array with the length of the longest sentence; without it, that is the model's.
    unknown
        Token of a name that the vocabulary lacks.
    training
        Arrays with a row for each line of training. Upstream reads no empty lines there, so that cells without genes
        have none; unless one of these arrays has a row for every cell.
    """

    limit: str
    unknown: str
    training: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class LengthLimit:
    """Length of the longest sentence, as an input: one that the model has positions for, and a gene fits into."""


@dataclass(frozen=True, kw_only=True)
class LineTokens:
    """The sentences in a rectangle.

    Parameters
    ----------
    lines
        How they are made.
    part
        Tokens, ones at tokens, zeros everywhere, or what each token is in training: itself, -100 at padding.
    width
        As wide as the longest sentence, or, in training, as the longest that may be.
    is_cut
        Whether sentences are cut at the limit; those that are not have -1 at padding.
    """

    lines: Lines
    part: Literal["tokens", "mask", "zeros", "labels"] = "tokens"
    width: Literal["longest", "limit"] = "longest"
    is_cut: bool = True


@dataclass(frozen=True, kw_only=True)
class LineHidden:
    """Token vectors of the first cells, as many as are stored, zero at padding.

    Parameters
    ----------
    lines
        How sentences are made.
    layer
        Which block's output: -1 the last, -2 the one before; 0 is what enters the first block.
    """

    lines: Lines
    layer: int


@dataclass(frozen=True, kw_only=True)
class LineEmbedding:
    """Cell vectors by a recipe; NaN for a cell without genes.

    Parameters
    ----------
    lines
        How sentences are made.
    recipe
        Its name.
    has_segment
        Whether the constant vector is added to all tokens.
    """

    lines: Lines
    recipe: str
    has_segment: bool = True


@dataclass(frozen=True, kw_only=True)
class LineLogits:
    """Scores of the vocabulary at the first tokens of the first cells, as many as are stored.

    Parameters
    ----------
    lines
        How sentences are made.
    head
        The token head.
    """

    lines: Lines
    head: str


@dataclass(frozen=True, kw_only=True)
class NextTokenLoss:
    """Mean cross-entropy of each next token of the lines of training, over all tokens or over those of each line.

    Parameters
    ----------
    lines
        How sentences are made.
    head
        The token head.
    per_cell
        Whether each cell has a loss of its own.
    """

    lines: Lines
    head: str
    per_cell: bool = False


@dataclass(frozen=True, kw_only=True)
class LineContinued:
    """The first tokens of the first cells, as many cells as are stored, and the most probable tokens after them.

    Parameters
    ----------
    lines
        How sentences are made.
    head
        The token head.
    n_given
        How many tokens are given.
    repeats
        Whether tokens of the sentence may be chosen again.
    """

    lines: Lines
    head: str
    n_given: Said
    repeats: bool


@dataclass(frozen=True)
class TokenTable:
    """Vectors of all tokens, special ones included."""


@dataclass(frozen=True)
class TextInput:
    """Texts to be cut into words, as an input."""


@dataclass(frozen=True, kw_only=True)
class TextTokens:
    """Tokens of texts, -1 at padding.

    Parameters
    ----------
    texts
        Array with the texts.
    unknown
        Token of a word that the vocabulary lacks.
    is_respelt
        Whether characters of names are replaced first, as the vocabulary says.
    """

    texts: str
    unknown: str
    is_respelt: bool
