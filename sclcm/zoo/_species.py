"""Declarations of models that know the genes of several species, as rows of one table of vectors."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from sclcm._sizes import Given


@dataclass(frozen=True, kw_only=True)
class SpeciesGenes:
    """The file with the genes of one species, in the order of the rows of the table: a dictionary of their vectors.

    Parameters
    ----------
    species
        Name of the species, as other files write it.
    file
        Pattern of the file.
    """

    species: str
    file: str


@dataclass(frozen=True, kw_only=True)
class SpeciesTables:
    """Genes of several species as rows of one table of vectors, each with its place in the genome.

    The table holds the special tokens, the genes of one species after the other, and a row for each chromosome of each.

    Parameters
    ----------
    files
        Patterns of the table, separated by commas, of symbol, chromosome, first base and species of every gene.
    offsets
        Patterns of the dictionary of species -> row of its first gene.
    rows
        Patterns of a file with the table alone. It is that of the weights, with or without the rows of chromosomes,
        or takes its place; without the file that of the weights is the table.
    folders
        Beginnings of the places of the files of genes, in order of preference.
    genes
        The files of genes; the first that is there is the species that the model reads unless told otherwise.
    more_genes
        Patterns of a table of species and paths by which users have added species.
    table
        The tensor with the table.
    specials
        Special tokens, in the order of the rows from zero.
    pad
    mask
        Which of them pad a batch and hide a token.
    group
    place
        Names of the companion arrays with the token of each gene's chromosome, and with its first base.
    species
        Species whose genes are published.
    gene_columns
        Columns of var that the authors' input contract names.
    ids
        What the genes are named by.
    chosen
        Argument of `load` with the species, where it is not to be told from the data.
    first_chromosome
        Argument of `load` with the row of the first chromosome, where that is not so many rows before the last as
        there are chromosomes.
    """

    files: tuple[str, ...]
    offsets: tuple[str, ...]
    rows: tuple[str, ...]
    folders: tuple[str, ...]
    genes: tuple[SpeciesGenes, ...]
    more_genes: tuple[str, ...]
    table: str
    specials: tuple[str, ...]
    pad: str
    mask: str | None = None
    group: str
    place: str
    species: tuple[str, ...]
    gene_columns: tuple[str, ...] = ()
    ids: Literal["ensembl", "symbol"] = "symbol"
    chosen: Given = field(default_factory=lambda: Given("species"))
    first_chromosome: Given = field(default_factory=lambda: Given("CHROM_TOKEN_OFFSET"))
