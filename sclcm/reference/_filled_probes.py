"""Probes on sentences filled up to the longest, whose padding upstream computes too: of any species, masked or not."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class Filled:
    """What stands at each place of filled sentences, those kept free left out.

    Parameters
    ----------
    part
        Token ids, values, values without their fractions, or which tokens are real; or facts of a cell: the number of
        its genes, the number of its species as a column.
    """

    part: Literal["tokens", "values", "whole_values", "real", "length", "species"]


@dataclass(frozen=True, kw_only=True)
class FilledHidden:
    """Token vectors at all places, padding and those kept free included.

    Parameters
    ----------
    layer
        Which block's output: -1 the last; `0` is what enters the first block.
    rows
        Array of `expected.npz` that names the cells.
    mask_padding
        Whether the model is kept from seeing padding.
    """

    layer: int
    rows: str
    mask_padding: bool = True


@dataclass(frozen=True, kw_only=True)
class FilledHead:
    """What a head gives at all places of filled sentences; as many cells and places as are stored.

    Parameters
    ----------
    head
        The head.
    """

    head: str


@dataclass(frozen=True, kw_only=True)
class FirstVector:
    """The vector at the first place when cells are said to be of one species, whatever they are.

    Parameters
    ----------
    species
        Its number.
    """

    species: int


@dataclass(frozen=True, kw_only=True)
class PlaceMean:
    """Average over cells of the last block's output at each place, where the model sees padding."""


@dataclass(frozen=True, kw_only=True)
class Masking:
    """Arrays of a pass in which upstream has hidden some tokens: which it hid, and by what, is a draw.

    Parameters
    ----------
    tokens
    values
    labels
        Names of arrays with what the model sees, and with the tokens that it has to find.
    ignored
        Stands in `labels` at tokens that are not hidden.
    hidden
        Value of hidden tokens; a token that stands for itself keeps its own.
    """

    tokens: str
    values: str
    labels: str
    ignored: int = -100
    hidden: float = -1.0


@dataclass(frozen=True, kw_only=True)
class Masked:
    """One of the arrays of a masking: upstream's draw where it is one that could be, else what stands there.

    Parameters
    ----------
    masking
        The masking.
    part
        Which array.
    """

    masking: Masking
    part: Literal["tokens", "values", "labels"]


@dataclass(frozen=True, kw_only=True)
class MaskingLoss:
    """Cross-entropy of hidden tokens and mean squared error of their values, each times its weight.

    A model that reads no values learns none: then the sum of both is the cross-entropy, and the error of values zero.

    Parameters
    ----------
    masking
        The masking.
    token
        Weight of the tokens.
    value
        Weight of the values.
    """

    masking: Masking
    token: float
    value: float


@dataclass(frozen=True, kw_only=True)
class TunedHead:
    """A head whose tensors are arrays of `expected.npz`; they are put into the checkpoint, which is then loaded.

    Parameters
    ----------
    name
        The head.
    tensors
        Array and name of the tensor in the authors' files.
    """

    name: str
    tensors: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class TunedTensor:
    """A tensor of such a head, as it was loaded.

    Parameters
    ----------
    head
        The head.
    parameter
        Its name in the head.
    """

    head: TunedHead
    parameter: str


@dataclass(frozen=True, kw_only=True)
class TunedLogits:
    """What such a head scores, as `tl.annotate` has it.

    Parameters
    ----------
    head
        The head.
    """

    head: TunedHead


@dataclass(frozen=True, kw_only=True)
class TunedLoss:
    """Mean cross-entropy of these logits.

    Parameters
    ----------
    logits
        The logits.
    labels
        Name of the array with the class of each cell.
    """

    logits: TunedLogits
    labels: str


@dataclass(frozen=True, kw_only=True)
class LabelInput:
    """The class of each cell, as an input: a whole number that the head knows.

    Parameters
    ----------
    head
        The head.
    """

    head: TunedHead


@dataclass(frozen=True, kw_only=True)
class PriorRows:
    """First rows of a table of prior vectors, as many as are stored.

    Parameters
    ----------
    prior
        What the vectors are made of.
    files
        Patterns of the authors' files that hold a vector for the name of each gene, one for each species. A checkpoint
        has copies, which must be the same, unless its model was made without these vectors.
    names
        Pattern of the file with the name of each gene id.
    """

    prior: str
    files: tuple[str, ...]
    names: str


@dataclass(frozen=True, kw_only=True)
class PartnerTokens:
    """Tokens that have a partner, or those partners; in the order in which upstream lists the former.

    Parameters
    ----------
    keys
        Array of `expected.npz` that lists the tokens with a partner.
    part
        Which of the two.
    """

    keys: str
    part: Literal["tokens", "partners"]
