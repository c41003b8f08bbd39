"""Declarations of releases that are a model pickled whole, and of what such a model says of other features."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from sclcm._sizes import Given

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sclcm._sizes import Size, Text
    from sclcm.genes.vocabulary import Merge


@dataclass(frozen=True, kw_only=True)
class PickledModule:
    """The weights file is a module that was pickled whole; there is no configuration.

    Parameters
    ----------
    classes
        Full names of the classes and functions that it mentions; they are kept as data.
    entry
        Where the module lies if the file holds a dictionary.
    """

    classes: tuple[str, ...]
    entry: str = ""


@dataclass(frozen=True, kw_only=True)
class Translation:
    """Features of another modality whose values a decoder gives, by the name that they have in the vocabulary.

    Parameters
    ----------
    head
        Head of the decoder with one number for each place.
    modality
        What the features are.
    """

    head: str
    modality: Literal["protein"]


@dataclass(frozen=True, kw_only=True)
class LinkedIds:
    """Dictionaries that lead from any name of a gene to a number of a public registry, and from that to a token id.

    Parameters
    ----------
    files
        Patterns of the dictionary number -> token id, in order of preference; the ids may be text.
    names
        Patterns of the dictionary name -> number. The first name of a token id is the feature's, the others stand for
        it.
    ids
        What the names are.
    n_tokens
        Rows of the model's table; it may have more than there are ids, and ids beyond it are left out.
    pad
        Name of the padding token.
    pad_id
        Its id.
    gene_columns
        Columns of var that the authors' input contract names.
    species
        Species of the genes; first that of the dictionaries above.
    homologues
        For each of the others, dictionaries name -> name of the homologue among those, each by its patterns: first the
        one of symbols, then those of other names. They may be missing; without the first, the model does not know the
        species.
    chosen
        The argument of `load` that names the species of the data, which is told from its genes otherwise.
    """

    files: tuple[str, ...]
    names: tuple[str, ...]
    ids: Literal["symbol"]
    n_tokens: Size
    pad: str
    pad_id: int = 0
    mask: str | None = None
    gene_columns: tuple[str, ...] = ()
    species: tuple[str, ...] = ("human",)
    homologues: Mapping[str, tuple[tuple[str, ...], ...]] = field(default_factory=dict)
    chosen: Text = field(default_factory=lambda: Given("species", default=""))
    merge: Merge = "keep"

    @property
    def specials(self) -> tuple[str, ...]:
        """All special tokens."""
        return (self.pad,)
