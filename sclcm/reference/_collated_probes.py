"""Probes on tokens that upstream has drawn: sampled genes, random bins, hidden values, two groups of tokens.

A stored draw is an input, and is checked to be one that our own encoding could have drawn: tokens must be those of the
cell, bins must lie between the lowest and the highest that a value may fall into.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sclcm._sizes import Config
    from sclcm.reference._probes import Said


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Which arrays hold upstream's tokens and their values.

    Parameters
    ----------
    tokens
    values
        Names of arrays, each of shape `(cells, tokens)`.
    """

    tokens: str
    values: str


@dataclass(frozen=True, kw_only=True)
class Hiding:
    """Which values are hidden from the model.

    Parameters
    ----------
    mask
        Name of the array that says so.
    value
        What stands in their place: a number, or the entry of the configuration that says it.
    """

    mask: str
    value: float | Config


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One forward pass over all cells.

    Parameters
    ----------
    drawn
        The tokens.
    hiding
        Which values are hidden; `None` hides none.
    folder
        Folder of the checkpoint, relative to the pre-trained one.
    condition
        Name of the array with the batch of each cell, or `None`.
    """

    drawn: Drawn
    hiding: Hiding | None = None
    folder: str = "."
    condition: str | None = None


@dataclass(frozen=True, kw_only=True)
class CollatedTokens:
    """Tokens as upstream collates them: in the order of var; a draw only where the sentence is longer than allowed.

    Parameters
    ----------
    drawn
        The tokens.
    """

    drawn: Drawn


@dataclass(frozen=True, kw_only=True)
class CollatedValues:
    """Values of collated tokens: a draw only where a value may fall into several bins.

    Parameters
    ----------
    drawn
        The tokens.
    """

    drawn: Drawn


@dataclass(frozen=True, kw_only=True)
class TokenVectors:
    """Vectors of collated tokens, zero at padding, for as many cells as are stored.

    Parameters
    ----------
    drawn
        The tokens.
    part
        What the gene encoder gives, the value encoder, or the backbone.
    """

    drawn: Drawn
    part: Literal["gene", "value", "backbone"]


@dataclass(frozen=True, kw_only=True)
class CollatedEmbedding:
    """Cell vectors of a pass by a recipe.

    Parameters
    ----------
    given
        The pass.
    recipe
        Its name.
    l2_normalize
        Whether the recipe's normalisation is applied.
    tensors
        Names of arrays that are put into the checkpoint as further tensors.
    """

    given: Pass
    recipe: str = "embed"
    l2_normalize: bool = True
    tensors: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class PaddedPool:
    """Cell vectors of upstream's poolings over the whole rectangle, padding included.

    They depend on the longest cell of a batch; the recipes leave padding out. Vectors at padding are zero for an even
    number of heads, else what the blocks make of them.

    Parameters
    ----------
    drawn
        The tokens.
    weighted
        Whether tokens are weighted by their value and the sum is scaled to length one; else the mean.
    """

    drawn: Drawn
    weighted: bool


@dataclass(frozen=True, kw_only=True)
class HeadValues:
    """What a head gives in a pass, zero at padding.

    Parameters
    ----------
    given
        The pass.
    head
        The head.
    probability
        Whether its numbers are turned into probabilities.
    """

    given: Pass
    head: str
    probability: bool = False


@dataclass(frozen=True, kw_only=True)
class FromCell:
    """What a token head gives when only genes and the cell's vector are known, zero at padding.

    Parameters
    ----------
    drawn
        The tokens, from which the cell's vector is made too.
    head
        The head.
    """

    drawn: Drawn
    head: str


@dataclass(frozen=True, kw_only=True)
class Losses:
    """Several losses of a pass.

    Parameters
    ----------
    given
        The pass; values are hidden in it, and those are the targets.
    terms
        Kind of loss, and the head or number that it takes: `("mse", head)`, `("relative", head)`,
        `("expressed", head)`, `("similarity", threshold)`, `("contrast", temperature)`, `("class", head)` with the
        number of the cell as label, `("condition", head)`. A number may be where it is said.
    """

    given: Pass
    terms: tuple[tuple[str, str | float | Said], ...]


@dataclass(frozen=True, kw_only=True)
class Generation:
    """What the model gives for tokens whose value is to be generated, and for the visible ones.

    Parameters
    ----------
    visible
        The visible tokens.
    targets
        Name of the array with the tokens to be generated.
    output
        Values of visible tokens, of targets, of targets by the cell's vector, of targets in a second pass in which the
        cell's vector replaces the first token; or the cell's vector.
    """

    visible: Drawn
    targets: str
    output: Literal["visible", "target", "cell_gene", "second", "cell"]


@dataclass(frozen=True, kw_only=True)
class GenerationLosses:
    """Mean squared errors of generated values: direct, by the cell's vector, and in the second pass.

    Parameters
    ----------
    visible
    targets
        As for `Generation`.
    wanted
        Name of the array with the values to be generated.
    """

    visible: Drawn
    targets: str
    wanted: str


@dataclass(frozen=True, kw_only=True)
class TokenInput:
    """Token ids as an input: of the vocabulary, each once a row, padding at the right.

    Parameters
    ----------
    first
        Special token that rows begin with, or `None`; a row may then be empty.
    """

    first: str | None = None


@dataclass(frozen=True, kw_only=True)
class BinInput:
    """Bins as an input: whole numbers of the encoding's bins at genes, the value of special tokens elsewhere.

    Parameters
    ----------
    tokens
        Name of the array with the tokens.
    """

    tokens: str


@dataclass(frozen=True, kw_only=True)
class HiddenInput:
    """Which values are hidden, as an input: a mask over tokens that hides no padding.

    Parameters
    ----------
    drawn
        The tokens.
    """

    drawn: Drawn


@dataclass(frozen=True, kw_only=True)
class ConditionInput:
    """The batch of each cell as an input: whole numbers that the fine-tuned checkpoint knows.

    Parameters
    ----------
    folder
        Folder of that checkpoint, relative to the pre-trained one.
    """

    folder: str


@dataclass(frozen=True, kw_only=True)
class TensorInput:
    """A tensor that is put into the checkpoint, as an input: finite, one number for each channel, or a count."""


@dataclass(frozen=True, kw_only=True)
class SampledTokens:
    """All genes with counts, in the order of var: a sample, and an input, only where a sentence is longer than allowed.

    Genes outside the vocabulary have the padding token.
    """


@dataclass(frozen=True, kw_only=True)
class SampledValues:
    """Counts of sampled tokens; those of genes outside the vocabulary are a draw where the tokens are.

    Parameters
    ----------
    tokens
        Name of the array with the sample.
    """

    tokens: str


@dataclass(frozen=True, kw_only=True)
class HiddenValues:
    """Values some of which are hidden: which is a draw, how many is not.

    Parameters
    ----------
    values
        Name of the array with the values.
    share
        Share of the tokens of each cell that are hidden.
    hidden
        What stands in their place: a number, or the entry of the configuration that says it.
    """

    values: str
    share: Said
    hidden: float | Config
