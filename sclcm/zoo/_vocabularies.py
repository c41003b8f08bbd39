"""Declarations of vocabularies that a release keeps as lists, with a wider list of genes and a table of synonyms."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sclcm.genes.vocabulary import Merge


@dataclass(frozen=True, kw_only=True)
class SynonymTable:
    """A table, separated by commas, of other names of genes, one a row.

    Parameters
    ----------
    files
        Patterns of the file, in order of preference. Without the file, names are read by the resolver of this package.
    symbol
        Column with the name that counts.
    others
        Columns with other names of it, which may be empty.
    status
        Column and value of the rows that are in force.
    """

    files: tuple[str, ...]
    symbol: str
    others: tuple[str, ...]
    status: tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class WiderGenes:
    """A wider list of genes, to which data are brought before the model's own are looked up.

    Parameters
    ----------
    files
        Patterns of the file, in order of preference: a table, separated by tabs, with names in its first column.
    synonyms
        Other names of genes.
    respell
        Characters of names in both files, each with what stands in its place.
    merge
        What becomes of several columns of one gene.
    """

    files: tuple[str, ...]
    synonyms: SynonymTable
    respell: tuple[tuple[str, str], ...] = ()
    merge: Merge = "sum"


@dataclass(frozen=True, kw_only=True)
class ListedGenes:
    """A file that lists the genes under one entry, in the order of their token ids; there are no special tokens.

    Parameters
    ----------
    files
        Patterns of the file, in order of preference; JSON or a pickled dictionary.
    genes
        The entry with the list.
    ids
        What the genes are named by.
    gene_columns
        Columns of var that the authors' input contract names.
    species
        Species of the genes.
    """

    files: tuple[str, ...]
    genes: str
    ids: Literal["ensembl", "symbol"]
    gene_columns: tuple[str, ...] = ()
    species: tuple[str, ...] = ("human",)

    @property
    def specials(self) -> tuple[str, ...]:
        """Special tokens: none."""
        return ()

    @property
    def pad(self) -> str:
        """The token for padding: none."""
        return ""

    @property
    def mask(self) -> None:
        """The token that hides another: none."""
        return


@dataclass(frozen=True, kw_only=True)
class TokenLists:
    """A file with the tokens as a list, in order of their ids, and the genes among them as another.

    Parameters
    ----------
    files
        Patterns of the file, in order of preference; JSON or a pickled dictionary.
    tokens
    genes
        Entries with the lists. Tokens that are no genes are special.
    ids
        What the genes are named by.
    specials
        Special tokens that the family refers to; the file must have them.
    pad
    mask
        Which of them pad a batch and hide a token.
    wider
        The list of genes that data are brought to first.
    gene_columns
        Columns of var that the authors' input contract names.
    species
        Species of the genes.
    """

    files: tuple[str, ...]
    tokens: str
    genes: str
    ids: Literal["ensembl", "symbol"]
    specials: tuple[str, ...]
    pad: str
    mask: str | None = None
    wider: WiderGenes
    gene_columns: tuple[str, ...] = ()
    species: tuple[str, ...] = ("human",)


@dataclass(frozen=True, kw_only=True)
class GeneList:
    """A table of genes in the order of their token ids, in which special tokens have no row.

    Parameters
    ----------
    files
        Patterns of the file, in order of preference: a table with a header.
    delimiter
        What separates its columns.
    column
        Column with the names of the genes.
    ids
        What the genes are named by.
    pad
    mask
        Which of the special tokens pad a batch and hide a token.
    before
    after
        Special tokens whose ids come before and after those of the genes.
    number
        Column that numbers the genes from zero, or `None`; it must do so.
    gene_columns
        Columns of var that the authors' input contract names.
    species
        Species of the genes.
    merge
        What becomes of several columns of one gene.
    """

    files: tuple[str, ...]
    delimiter: Literal["\t", ","]
    column: str
    ids: Literal["ensembl", "symbol"]
    pad: str
    mask: str | None = None
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    number: str | None = None
    gene_columns: tuple[str, ...] = ()
    species: tuple[str, ...] = ("human",)
    merge: Merge = "sum"

    @property
    def specials(self) -> tuple[str, ...]:
        """All special tokens."""
        return self.before + self.after


@dataclass(frozen=True, kw_only=True)
class WordVocabulary:
    """The vocabulary of a tokenizer, a JSON file of the library `tokenizers`, whose words are gene names.

    Parameters
    ----------
    files
        Patterns of the file, in order of preference. It must cut text into words and know each by its exact spelling.
    ids
        What the genes are named by.
    specials
        Special tokens that the family refers to; the file must have them.
    pad
    mask
        Which of them pad a batch and hide a token.
    reserved
        Patterns of further words that are no genes.
    respell
        Characters of gene names, each with what stands in its place in the file.
    gene_columns
        Columns of var that the authors' input contract names.
    species
        Species of the genes.
    """

    files: tuple[str, ...]
    ids: Literal["ensembl", "symbol"]
    specials: tuple[str, ...]
    pad: str
    mask: str | None = None
    reserved: tuple[str, ...] = ()
    respell: tuple[tuple[str, str], ...] = ()
    gene_columns: tuple[str, ...] = ()
    species: tuple[str, ...] = ("human",)


@dataclass(frozen=True, kw_only=True)
class VarNames:
    """The names of var of an AnnData file, in the order of their token ids.

    Parameters
    ----------
    files
        Patterns of the file, in order of preference. A JSON file with token -> id does as well: its genes are those
        whose ids come after the special tokens.
    ids
        What the genes are named by.
    pad
    mask
        Which of the special tokens pad a batch and hide a token.
    before
    after
        Special tokens whose ids come before and after those of the genes.
    gene_columns
        Columns of var that the authors' input contract names.
    species
        Species of the genes.
    merge
        What becomes of several columns of one gene.
    """

    files: tuple[str, ...]
    ids: Literal["ensembl", "symbol"]
    pad: str
    mask: str | None = None
    before: tuple[str, ...] = ()
    after: tuple[str, ...] = ()
    gene_columns: tuple[str, ...] = ()
    species: tuple[str, ...] = ("human",)
    merge: Merge = "sum"

    @property
    def specials(self) -> tuple[str, ...]:
        """All special tokens."""
        return self.before + self.after
