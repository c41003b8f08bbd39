"""Probes on what a causal model adds to sentences, and on data brought to a wider list of genes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sclcm.reference._probes import Said


@dataclass(frozen=True, kw_only=True)
class Prompts:
    """The sentences that a model continues.

    Parameters
    ----------
    as_is_up_to
        A matrix without a larger value is taken by upstream as normalised already.
    """

    as_is_up_to: float


@dataclass(frozen=True, kw_only=True)
class NameInput:
    """Gene names to be unified, as an input."""


@dataclass(frozen=True, kw_only=True)
class CountInput:
    """Counts to be unified, as an input: one column for each name.

    Parameters
    ----------
    names
        Array with the names.
    """

    names: str


@dataclass(frozen=True, kw_only=True)
class UnifiedNames:
    """What becomes of each gene name.

    Parameters
    ----------
    names
        Array with the names.
    part
        In upstream's words whether it is changed, or the gene it stands for, several joined by a bar.
    """

    names: str
    part: Literal["status", "gene"]


@dataclass(frozen=True, kw_only=True)
class UnifiedCounts:
    """Counts brought to the wider list of genes.

    Parameters
    ----------
    names
    counts
        Arrays with names and counts.
    part
        The genes that have a count in some cell, or their counts.
    """

    names: str
    counts: str
    part: Literal["genes", "counts"]


@dataclass(frozen=True)
class WiderList:
    """The wider list of genes, in order."""


@dataclass(frozen=True)
class Features:
    """The genes of the model, in order."""


@dataclass(frozen=True, kw_only=True)
class NormalizedMatrix:
    """Values of all genes of the model, zeros included.

    Parameters
    ----------
    prompts
        As the sentences are made.
    """

    prompts: Prompts


@dataclass(frozen=True)
class NumberInput:
    """Numbers to be binned, as an input."""


@dataclass(frozen=True, kw_only=True)
class BinsOf:
    """The bins that the model's encoding puts numbers of one cell into.

    Parameters
    ----------
    values
        Array with the numbers.
    """

    values: str


@dataclass(frozen=True, kw_only=True)
class PromptTokens:
    """The sentences, -1 at padding.

    Parameters
    ----------
    prompts
        How they are made.
    part
        Tokens or values.
    """

    prompts: Prompts
    part: Literal["tokens", "values"]


@dataclass(frozen=True, kw_only=True)
class PromptVectors:
    """Token vectors of the sentence of one cell, whose number ends the array's name.

    Parameters
    ----------
    prompts
        How it is made.
    head
        A head that is applied to them, or `None`.
    only_last
        The last token alone.
    """

    prompts: Prompts
    head: str | None = None
    only_last: bool = False


@dataclass(frozen=True, kw_only=True)
class Continued:
    """Sentences with what the model adds, -1 at padding.

    Parameters
    ----------
    prompts
        How they are made.
    recipe
        The recipe whose decoding adds to them.
    part
        Tokens, values, or how many tokens were added.
    ban
        Which tokens of the sentence are not chosen again; `None` is as the recipe says.
    """

    prompts: Prompts
    recipe: str
    part: Literal["tokens", "values", "steps"]
    ban: Literal["all", "all_but_last"] | None = None


@dataclass(frozen=True, kw_only=True)
class TokenIds:
    """Token ids of words.

    Parameters
    ----------
    words
        The words.
    """

    words: Said


@dataclass(frozen=True, kw_only=True)
class GenesAfter:
    """Genes that the model adds to words without values.

    Parameters
    ----------
    words
        The words.
    n_tokens
        Longest sentence, words included.
    recipe
        The recipe whose decoding adds to them.
    part
        Tokens or values.
    """

    words: Said
    n_tokens: Said
    recipe: str
    part: Literal["tokens", "values"]


@dataclass(frozen=True, kw_only=True)
class DecodedEmbedding:
    """Cell vectors by a recipe that decodes.

    Parameters
    ----------
    prompts
        How the sentences are made.
    recipe
        Its name.
    """

    prompts: Prompts
    recipe: str


@dataclass(frozen=True, kw_only=True)
class GeneratedType:
    """The fine label of each cell, in upstream's words.

    Parameters
    ----------
    prompts
        How the sentences are made.
    """

    prompts: Prompts


@dataclass(frozen=True)
class LabelNames:
    """The labels that a model can say, sorted."""
