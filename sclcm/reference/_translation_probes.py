"""Probes of models that give the values of proteins from the genes of a cell, in the order of var."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sclcm.reference._probes import Said


@dataclass(frozen=True, kw_only=True)
class Given:
    """What upstream's user gave: so many of the known genes and proteins, in their order.

    Parameters
    ----------
    genes
    proteins
        Arrays of `expected.npz` that say how many were given: masks of the sentences, or their ids. The first that is
        stored does; where none is, it is all.
    """

    genes: tuple[str, ...]
    proteins: tuple[str, ...]


@dataclass(frozen=True)
class KnownVars:
    """Names of the var that have an id, in their order."""


@dataclass(frozen=True, kw_only=True)
class FeatureIds:
    """Ids of genes or proteins, in their order.

    Parameters
    ----------
    of
        Of which.
    """

    of: Literal["genes", "proteins"]


@dataclass(frozen=True, kw_only=True)
class Sentence:
    """What a sentence of genes, or of proteins, holds.

    Parameters
    ----------
    given
        What was given.
    of
        Of which.
    part
        Its values, its ids, or which tokens are real. The mask is a draw of how many were given: the first of each
        cell.
    """

    given: Given
    of: Literal["genes", "proteins"]
    part: Literal["values", "ids", "mask"]


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Vectors on the way from genes to proteins, of as many cells as are stored.

    Parameters
    ----------
    given
        What was given.
    part
        What enters the encoder, what leaves it, what the bridge makes of it (channels first), what leaves the decoder,
        or the values.
    """

    given: Given
    part: Literal["input", "encoder", "bridge", "decoder", "values"]


@dataclass(frozen=True, kw_only=True)
class Predicted:
    """Values of proteins as `tl.translate` gives them, of the cells that fill upstream's batches.

    Where the measured proteins are asked for and those of a cell are all equal, upstream's scale makes them no numbers,
    and it writes zeros.

    Parameters
    ----------
    batch_size
        Cells in a batch.
    ids
        Array of `expected.npz` with the ids that are asked for; `None` asks for the proteins of the input.
    without
        Array of `expected.npz` with the genes that are taken out of the data first; `None` takes out none.
    """

    batch_size: Said
    ids: str | None = None
    without: str | None = None


@dataclass(frozen=True, kw_only=True)
class ScaledTruth:
    """Values of proteins that were measured, scaled from 0 to 1 within each cell, of the cells that fill batches.

    Equal ones cannot be scaled, and are zeros.

    Parameters
    ----------
    batch_size
        Cells in a batch.
    """

    batch_size: Said


@dataclass(frozen=True, kw_only=True)
class MaskedByNothing:
    """Values as upstream writes them where all measured proteins are zero: those are no numbers, and hide the rest.

    Parameters
    ----------
    batch_size
        Cells in a batch.
    """

    batch_size: Said


@dataclass(frozen=True, kw_only=True)
class Agreement:
    """How well values agree with what was measured, a mean over batches; what does not fill the last is left out.

    Parameters
    ----------
    by
        Mean squared error, or the cosine of all values of a batch.
    batch_size
        Cells in a batch.
    """

    by: Literal["mse", "cosine"]
    batch_size: Said


@dataclass(frozen=True)
class IdInput:
    """Ids that upstream's user asked for: an input. The table of the decoder must have them."""


@dataclass(frozen=True)
class VarInput:
    """Var that upstream's user took out: an input. The data must have them."""


@dataclass(frozen=True, kw_only=True)
class TableRows:
    """Rows of the table of genes, or of that of proteins, in the order of the data.

    Parameters
    ----------
    of
        Of which.
    """

    of: Literal["genes", "proteins"]
