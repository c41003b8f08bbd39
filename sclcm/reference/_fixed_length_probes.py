"""Probes on sentences of a fixed length: genes in the order of their names, padding at the right.

Which genes of a longer cell are taken is a draw, as is which values are hidden; both are checked. Values always come
from the counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Filled:
    """Sentences filled up to a fixed length.

    Parameters
    ----------
    genes
        Name of the array with token ids, shape `(cells, length)`; those of longer cells are a draw.
    weights
        File of the checkpoint; `None` is the one that the family takes first.
    length
        Entry of `run.json` with the length, where that is stated.
    """

    genes: str
    weights: str | None = None
    length: str | None = None


@dataclass(frozen=True, kw_only=True)
class FilledPass:
    """One forward pass over such sentences.

    Parameters
    ----------
    filled
        The sentences, without special tokens.
    hiding
        Name of the array `(visible, value)`, shape `(cells, length, 2)`, that says which values are hidden; `None`
        hides none.
    totals
        Name of the array with the values of two tokens for totals, shape `(cells, 2)`, and the recipe whose sentences
        have such tokens; `None` is without them.
    compat
        Whose constants are taken.
    leaky
        Whether padding informs other tokens in the first half of the blocks, as in upstream's way with plain values.
    least_genes
        Genes of a cell from which on upstream's scale of values is a number. It cancels out otherwise.
    mended
        Array in which upstream leaves such cells as they are, where here it gives them the mean of the others, place by
        place; `None` where it leaves them here as well.
    """

    filled: Filled
    hiding: str | None = None
    totals: tuple[str, str] | None = None
    compat: str | None = None
    leaky: bool = False
    least_genes: int = 1
    mended: str | None = None


@dataclass(frozen=True)
class Recounted:
    """Counts of all var after what the encoding makes of counts before all else."""


@dataclass(frozen=True, kw_only=True)
class KnownGenes:
    """Genes of the input that the model knows, in the order of their names.

    Parameters
    ----------
    weights
        File of the checkpoint, or `None`.
    part
        Their names, their token ids, or the normalised values of all cells, shape `(cells, genes)`.
    """

    weights: str | None = None
    part: Literal["names", "tokens", "values"]


@dataclass(frozen=True, kw_only=True)
class FilledTokens:
    """What stands at each place.

    Parameters
    ----------
    filled
        The sentences.
    part
        Token ids, values, or one where there is a token, with a place in front for `<cls>`.
    """

    filled: Filled
    part: Literal["tokens", "values", "real"]


@dataclass(frozen=True, kw_only=True)
class TargetDraw:
    """Values that are to be predicted, one at each: an input. A share of the genes of each cell, rounded down.

    Parameters
    ----------
    filled
        The sentences.
    share
        The share.
    """

    filled: Filled
    share: float


@dataclass(frozen=True, kw_only=True)
class HiddenChannels:
    """Two channels: one where the value is visible, and the value there. Which of the targets are hidden is a draw.

    Parameters
    ----------
    filled
        The sentences.
    targets
        Name of the array with the targets.
    share
        Share of them that is hidden, rounded down.
    """

    filled: Filled
    targets: str
    share: float


@dataclass(frozen=True, kw_only=True)
class TotalChannels:
    """Values of the tokens for totals: that of thinned-out counts, which is a draw, and that of all counts.

    Parameters
    ----------
    filled
        The sentences.
    recipe
        The recipe whose sentences have such tokens.
    """

    filled: Filled
    recipe: str


@dataclass(frozen=True, kw_only=True)
class FilledEmbedding:
    """Cell vectors by a recipe, from sentences of the drawn genes.

    Parameters
    ----------
    filled
        The sentences.
    recipe
        Its name.
    """

    filled: Filled
    recipe: str


@dataclass(frozen=True, kw_only=True)
class PassVectors:
    """Token vectors of a pass, at padding as well.

    Parameters
    ----------
    given
        The pass.
    part
        The cell's vector; those of all tokens, without those for totals; those of genes; what the value encoder gives.
    rows
        Array of `expected.npz` that names the cells, or `None` for all.
    n_blocks
        After so many blocks; `None` is all of them.
    attention
        What the attention of the next block makes of them, instead.
    """

    given: FilledPass
    part: Literal["cell", "tokens", "genes", "values"]
    rows: str | None = None
    n_blocks: int | None = None
    attention: bool = False


@dataclass(frozen=True, kw_only=True)
class PassValues:
    """Values that a head predicts in a pass, at padding as well.

    Parameters
    ----------
    given
        The pass.
    head
        The head.
    """

    given: FilledPass
    head: str


@dataclass(frozen=True, kw_only=True)
class PassLoss:
    """Mean squared error of the predicted values over the targets.

    Parameters
    ----------
    given
        The pass.
    head
        The head.
    targets
        Name of the array with the targets.
    """

    given: FilledPass
    head: str
    targets: str


@dataclass(frozen=True, kw_only=True)
class TableRows:
    """First rows of the table of genes, as many as are stored.

    Parameters
    ----------
    weights
        File of the checkpoint, or `None`.
    """

    weights: str | None = None
