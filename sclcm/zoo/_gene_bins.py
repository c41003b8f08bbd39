"""Declaration of vocabularies with a token for each pair of a gene and a bin."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sclcm._sizes import Size


@dataclass(frozen=True, kw_only=True)
class GeneBinVocabulary:
    """A token for each pair of a gene and a bin: the bins of the first gene, of the second, and so on, then a mask.

    A gene is known by the token of its bin zero, to which the bin is added.

    Parameters
    ----------
    files
        Patterns of the file, in order of preference: an array of the names of the genes.
    ids
        What the genes are named by.
    n_bins
        Bins of each gene.
    mask
        Name of the token that hides another. It pads a batch as well, where all sentences are equally long.
    gene_columns
        Columns of var that the authors' input contract names.
    species
        Species of the genes.
    """

    files: tuple[str, ...]
    ids: Literal["ensembl", "symbol"]
    n_bins: Size
    mask: str
    gene_columns: tuple[str, ...] = ()
    species: tuple[str, ...] = ("human",)

    @property
    def specials(self) -> tuple[str, ...]:
        """All special tokens."""
        return (self.mask,)

    @property
    def pad(self) -> str:
        """What pads a batch."""
        return self.mask
