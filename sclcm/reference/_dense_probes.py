"""Probes of models whose sentences hold every gene of a fixed list, and of the classes that they score."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class CellFilter:
    """Names of the cells that upstream keeps: a draw, since the bound is the user's.

    They must be cells of the input in its order, each with more expressed genes than any that is left out.
    """


@dataclass(frozen=True, kw_only=True)
class NormalizedGenes:
    """Normalised values of all genes of the vocabulary.

    Parameters
    ----------
    kept
        Array of `expected.npz` that names the cells.
    """

    kept: str


@dataclass(frozen=True, kw_only=True)
class FirstRows:
    """The first cells, as many as an array has rows.

    Parameters
    ----------
    of
        The array.
    then_last
        Whether the last of those rows is the last of all cells: where upstream has added empty ones, one of them.
    """

    of: str
    then_last: bool = False


@dataclass(frozen=True)
class NumberedRow:
    """The cell whose number the array's name ends in."""


@dataclass(frozen=True, kw_only=True)
class Cells:
    """Cells that a pass reads.

    Parameters
    ----------
    kept
        Array of `expected.npz` that names those of the input.
    every
        Array with a row for each of these, and for cells without any expression after them; `None`: there are none.
    rows
        Which of all these; `None` takes all.
    together
        Whether a stabiliser is taken over the batch, as upstream's code has it, and not over each cell.
    """

    kept: str
    every: str | None = None
    rows: FirstRows | NumberedRow | None = None
    together: bool = False


@dataclass(frozen=True, kw_only=True)
class HiddenGenes:
    """Which values are hidden.

    Parameters
    ----------
    tokens
        Array of `expected.npz` with the tokens as the model is given them: where they are the mask, they are hidden.
    mask
        Value that hides another: counted from the end of the table of values, -1 for its last row.
    """

    tokens: str
    mask: int


@dataclass(frozen=True, kw_only=True)
class ValueTokens:
    """Values of all tokens as whole numbers.

    Parameters
    ----------
    cells
        Which cells.
    """

    cells: Cells


@dataclass(frozen=True, kw_only=True)
class DenseVectors:
    """Token vectors, of as many cells as are stored.

    Parameters
    ----------
    cells
        Which cells.
    part
        What enters the first block, or what leaves the last.
    """

    cells: Cells
    part: Literal["input", "output"] = "output"


@dataclass(frozen=True, kw_only=True)
class DenseEmbedding:
    """Cell vectors by a recipe.

    Parameters
    ----------
    cells
        Which cells; those of the input are embedded as `tl.embed` does, unless they are taken together.
    recipe
        Its name.
    """

    cells: Cells
    recipe: str


@dataclass(frozen=True, kw_only=True)
class DenseHead:
    """What a head gives, for as many cells as are stored.

    Parameters
    ----------
    cells
        Which cells.
    head
        The head.
    hidden
        Which values are hidden; `None` hides none.
    among
        Classes among which the most probable is returned, first and last (counted from the end); `None` for logits.
    """

    cells: Cells
    head: str
    hidden: HiddenGenes | None = None
    among: tuple[int, int] | None = None


@dataclass(frozen=True, kw_only=True)
class HiddenDraw:
    """Tokens of which some are hidden: a draw. They must be those of the cells, or the mask where a target is.

    Parameters
    ----------
    cells
        Which cells.
    targets
        Array of `expected.npz` with the targets.
    mask
        Value that hides another, counted from the end of the table of values.
    """

    cells: Cells
    targets: str
    mask: int


@dataclass(frozen=True, kw_only=True)
class TargetDraw:
    """Which tokens are to be predicted: a draw. They must be expressed, and of each cell the share of them, rounded up.

    Parameters
    ----------
    cells
        Which cells.
    share
        Share of the expressed tokens.
    mask
        What stands elsewhere, counted from the end of the table of values.
    """

    cells: Cells
    share: float
    mask: int


@dataclass(frozen=True, kw_only=True)
class HiddenLoss:
    """Mean cross-entropy over targets.

    Parameters
    ----------
    given
        The head's logits.
    targets
        Array of `expected.npz` with the targets, the mask elsewhere.
    """

    given: DenseHead
    targets: str


@dataclass(frozen=True)
class GenePlaces:
    """The vector of each place: of the genes, then of the special tokens."""


@dataclass(frozen=True, kw_only=True)
class ResidualStream:
    """What each part of each block adds up to, attention and feed-forward by turns, for one cell.

    Parameters
    ----------
    cells
        Which cell.
    """

    cells: Cells


@dataclass(frozen=True, kw_only=True)
class AttentionMap:
    """Attention weights of one cell, averaged over heads and blocks, of as many queries as are stored.

    Parameters
    ----------
    cells
        Which cell.
    halfway
        Whether each block's attention is asked about what it has made already.
    """

    cells: Cells
    halfway: bool


@dataclass(frozen=True, kw_only=True)
class AttentionShare:
    """How much each token is attended to, as a share of all, of as many cells as are stored.

    Parameters
    ----------
    cells
        Which cells.
    halfway
        Whether each block's attention is asked about what it has made already.
    """

    cells: Cells
    halfway: bool


@dataclass(frozen=True, kw_only=True)
class ClassScores:
    """What the head of a fine-tuned checkpoint scores, of the kept cells.

    Parameters
    ----------
    kept
        Array of `expected.npz` that names the cells.
    file
        Pattern of the file with the weights, beside the pre-trained ones.
    probability
        Whether scores are probabilities, or logits.
    """

    kept: str
    file: str
    probability: bool = False


@dataclass(frozen=True, kw_only=True)
class ClassNames:
    """The most probable class of each of the kept cells, as `tl.annotate` says it.

    Parameters
    ----------
    kept
        Array of `expected.npz` that names the cells.
    file
        Pattern of the file with the weights, beside the pre-trained ones.
    bound
        Array of `expected.npz` with the probability below which a cell has no label; `None` for no bound.
    unnamed
        What upstream calls such cells.
    """

    kept: str
    file: str
    bound: str | None = None
    unnamed: str = ""


@dataclass(frozen=True)
class BoundInput:
    """A bound that upstream's user chose: an input, from zero to one."""
