"""Probes: arrays of families whose sentences say what a cell is and are padded to one length."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sclcm.reference._probes import Said


@dataclass(frozen=True, kw_only=True)
class Told:
    """How the input is read: by the encoding of a recipe, told conditions besides those in obs.

    Parameters
    ----------
    recipe
        Its name.
    conditions
        Name of a condition -> its value.
    by_name
        A condition whose value is the last part of the array's name, or `None`.
    """

    recipe: str = "embed"
    conditions: Mapping[str, str | Said | None] = field(default_factory=dict)
    by_name: str | None = None


@dataclass(frozen=True)
class Features:
    """Names of the vocabulary's genes."""


@dataclass(frozen=True, kw_only=True)
class AlignedCounts:
    """Counts over the vocabulary, zeros included, shape `(cells, features)`.

    Parameters
    ----------
    told
        How the input is read.
    """

    told: Told = field(default_factory=Told)


@dataclass(frozen=True, kw_only=True)
class CompanionArray:
    """A companion array, named by a prefix and the last part of the array's name.

    Parameters
    ----------
    prefix
        The beginning of its name.
    """

    prefix: str


@dataclass(frozen=True, kw_only=True)
class NormalizedCounts:
    """Values after the last step of normalisation, zero where no count is stored, shape `(cells, features)`.

    Parameters
    ----------
    told
        How the input is read.
    """

    told: Told = field(default_factory=Told)


@dataclass(frozen=True, kw_only=True)
class GeneTokens:
    """Gene tokens alone, as many as the longest sentence has, with a number where there are fewer.

    Parameters
    ----------
    told
        How the input is read.
    fill
        The number.
    """

    told: Told = field(default_factory=Told)
    fill: int = 0


@dataclass(frozen=True, kw_only=True)
class PaddedTokens:
    """Token ids of sentences that are padded to the longest.

    Parameters
    ----------
    told
        How the input is read.
    part
        The ids, or which are padding.
    """

    told: Told = field(default_factory=Told)
    part: Literal["ids", "padding"] = "ids"


@dataclass(frozen=True, kw_only=True)
class PlaceVectors:
    """Vectors of every place of sentences that are padded to the longest, padding included; of the first cells.

    Parameters
    ----------
    layer
        Which block's output: -1 the last, -2 the one before; `0` is what enters the first block.
    told
        How the input is read.
    head
        A head that is applied to them, or `None`.
    """

    layer: int = -1
    told: Told = field(default_factory=Told)
    head: str | None = None


@dataclass(frozen=True, kw_only=True)
class ToldEmbedding:
    """Cell vectors by a recipe, rows in input order.

    Parameters
    ----------
    told
        How the input is read.
    layer_after
        What stands before the number of the layer in the array's name; the recipe's own layer with `None`.
    """

    told: Told = field(default_factory=Told)
    layer_after: str | None = None


@dataclass(frozen=True, kw_only=True)
class FineTuned:
    """Cell vectors by a recipe of a fine-tuned model, whose further weights are stored as arrays.

    Parameters
    ----------
    recipe
        Its name.
    weights
        What the names of those arrays start with, before the name of the tensor.
    blocks
        The blocks that it reads, by their numbers from zero.
    together
        What is made of them: `"mean"` or `"sum"`.
    told
        How the input is read.
    """

    recipe: str
    weights: str
    blocks: Said
    together: Said
    told: Told = field(default_factory=Told)


@dataclass(frozen=True)
class HeadWeight:
    """A weight of a head that was trained elsewhere: an input. It must be finite."""


@dataclass(frozen=True)
class GeneVectors:
    """Rows of the gene table, those of the vocabulary's genes."""


@dataclass(frozen=True, kw_only=True)
class Corrupted:
    """Tokens of which some are hidden, replaced or kept, all to be predicted.

    Parameters
    ----------
    tokens
        How the input is read.
    ids
        Array with the corrupted ids: a draw.
    mask
        Array that is 0 where a token is to be predicted: a draw.
    first_random
        Lowest id that takes the place of a token.
    kept
        Special token that is never chosen.
    """

    tokens: PaddedTokens
    ids: str
    mask: str
    first_random: int
    kept: str


@dataclass(frozen=True, kw_only=True)
class CorruptedIds:
    """The corrupted ids: a draw. Where nothing is predicted they are the tokens.

    Parameters
    ----------
    given
        The draw.
    """

    given: Corrupted


@dataclass(frozen=True, kw_only=True)
class PredictedMask:
    """Which tokens are to be predicted: a draw, of 0 and 1, that leaves out padding and the kept token.

    Parameters
    ----------
    given
        The draw.
    """

    given: Corrupted


@dataclass(frozen=True, kw_only=True)
class PredictedTargets:
    """The tokens that are to be predicted, -100 elsewhere.

    Parameters
    ----------
    given
        The draw.
    """

    given: Corrupted


@dataclass(frozen=True, kw_only=True)
class CorruptedLoss:
    """Mean cross-entropy of a token head at the tokens that are to be predicted.

    Parameters
    ----------
    given
        The draw.
    head
        The head.
    """

    given: Corrupted
    head: str
