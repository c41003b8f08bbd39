"""Probes on sentences with depth tokens, on learned bins, and on decoders of every gene.

Names of arrays say what upstream was asked for, in words between underscores: `t4`, `f2` and `a5` are depths (4; log10
of twice the total; log10 of the total, plus 5), `F`, `T` and `A` what the input held (counts; logarithms; logarithms
and, apart from them, totals).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What upstream was asked for, where the name of the array does not say it.

    Parameters
    ----------
    submodel
        Submodel that computes it.
    depth
        The depth, as a name would have it; `None`: the name has it.
    named
        Array of the same cells whose name has the depth, where it is stored; a pattern with `*`.
    cells
        Arrays whose rows tell which cells, as of `ValuesBesideTotal` or `PlaceValues`: the first that is stored does.
        They may be patterns with `*`. Without any: all.
    """

    submodel: str
    depth: str | None = None
    named: str | None = None
    cells: tuple[str, ...] = ()


@dataclass(frozen=True)
class AlignedCounts:
    """Counts over the vocabulary, shape `(cells, features)`."""


@dataclass(frozen=True)
class AbsentGenes:
    """One for a gene of the vocabulary that the data lack, zero for others."""


@dataclass(frozen=True, kw_only=True)
class NamedEmbedding:
    """Cell vectors by a recipe that the name of the array spells out: `cell_all_t4_F_ce`, or without a depth.

    Parameters
    ----------
    forms
        Word for what the input held -> recipe that reads it.
    poolings
        Word for a pooling -> recipe that has it.
    submodels
        Word for a submodel -> its name.
    has_depth
        Whether a depth is among the words.
    totals
        Word for an input with totals, of which that of a cell may be given as one: the cell's vector tells.
    """

    forms: Mapping[str, str]
    poolings: Mapping[str, str]
    submodels: Mapping[str, str]
    has_depth: bool = True
    totals: str | None = None


@dataclass(frozen=True, kw_only=True)
class NamedGenes:
    """What the decoder says of every gene of some cells, by a recipe that the name spells out: `gene_f1_F`.

    Which cells is seen from what it says: those that fit best, in the order of the input.

    Parameters
    ----------
    forms
        Word for what the input held -> recipe that reads it.
    head
        Head that reads the vectors; `None`: the vectors themselves.
    submodel
        Submodel that computes it.
    together
        Whether upstream has computed the cells at once, so that they share a stabiliser.
    """

    forms: Mapping[str, str]
    submodel: str
    head: str | None = None
    together: bool = False


@dataclass(frozen=True, kw_only=True)
class PlaceValues:
    """Value of every token of the vocabulary but padding, shape `(cells, places)`."""

    asked: Asked


@dataclass(frozen=True, kw_only=True)
class SentencePart:
    """A part of sentences in one rectangle.

    Parameters
    ----------
    part
        `"values"`, `"ids"` or `"padding"`.
    asked
        What it is of.
    fill
        What stands at padding; `None`: the marked value of padding, or its token.
    """

    part: Literal["values", "ids", "padding"]
    asked: Asked
    fill: float | None = None


@dataclass(frozen=True, kw_only=True)
class CellVectorsAt:
    """Vectors of the tokens of the cell that the name says: `encoder_input_cell0_t4`.

    Parameters
    ----------
    entering
        What enters the first block; otherwise what leaves the last.
    asked
        What else it was asked for.
    """

    entering: bool
    asked: Asked


@dataclass(frozen=True)
class GridInput:
    """Numbers that upstream's value encoder was tried on: an input. They must be numbers, in one row."""


@dataclass(frozen=True, kw_only=True)
class GridValues:
    """What the value encoder makes of numbers.

    Parameters
    ----------
    part
        `"weights"` of the bins, or the `"vectors"`.
    grid
        Array with the numbers.
    submodel
        Whose value encoder.
    """

    part: Literal["weights", "vectors"]
    grid: str
    submodel: str


@dataclass(frozen=True, kw_only=True)
class PlaceMaskInput:
    """Places whose value upstream has hidden: an input. It must be a mask of genes, and hide some of each cell's."""

    asked: Asked


@dataclass(frozen=True, kw_only=True)
class MaskedPlaces:
    """What comes of hidden places, in cells that are computed at once.

    Parameters
    ----------
    part
        The `"values"` that the decoder reads, the `"prediction"` of all, or its mean squared error over the hidden
        places, `"loss"`.
    asked
        Which cells.
    head
        Head of the decoder.
    mask
        Array that says which are hidden; `None`: none are.
    """

    part: Literal["values", "prediction", "loss"]
    asked: Asked
    head: str
    mask: str | None = None


@dataclass(frozen=True, kw_only=True)
class ValuesBesideTotal:
    """Values of genes, shape `(cells, features)`, and the total of each cell as a further column where asked.

    Parameters
    ----------
    asked
        Which cells.
    total
        Whether the total stands beside them.
    """

    asked: Asked
    total: bool


@dataclass(frozen=True, kw_only=True)
class UnscaledGenes:
    """Vectors of genes in cells that are computed at once, when hidden units enter the scores of bins with weight one.

    Parameters
    ----------
    asked
        Which cells, at which depth.
    direct
        The weight, which upstream's other loader forgets to set.
    """

    asked: Asked
    direct: float = 1.0
