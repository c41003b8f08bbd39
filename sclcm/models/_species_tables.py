"""Tables of models that know several species: which token a gene is, and where in the genome it lies."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import PurePath
from typing import TYPE_CHECKING, Any

import numpy as np

from sclcm.checkpoints.readers import read_torch
from sclcm.genes.vocabulary import GeneVocabulary
from sclcm.models._gene_lists import read_table

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    import torch

    from sclcm.models._release import Release
    from sclcm.zoo._species import SpeciesTables

COLUMNS = ("gene_symbol", "chromosome", "start", "species")
MISSING = frozenset(
    {"", "#N/A", "#N/A N/A", "#NA", "-1.#IND", "-1.#QNAN", "-NaN", "-nan", "1.#IND", "1.#QNAN", "<NA>"}
    | {"N/A", "NA", "NULL", "NaN", "None", "n/a", "nan", "null"}
)
"""What pandas, with which the authors read the table, takes for a missing value."""


@dataclass(frozen=True, kw_only=True, eq=False)
class GenePlaces:
    """Where genes of several species lie.

    Parameters
    ----------
    labels
        `species_chromosome` of every chromosome, in the order of its characters; a place in it is its code.
    places
        Species -> upper-case symbol -> code of the chromosome (-1: unknown) and first base.
    """

    labels: tuple[str, ...]
    places: Mapping[str, Mapping[str, tuple[int, int]]]


def read_species(
    source: SpeciesTables, release: Release, tensors: dict[str, torch.Tensor], *, given: Mapping[str, Any]
) -> tuple[GeneVocabulary, dict[str, np.ndarray]]:
    """Return the vocabulary of the first species, the others as its siblings, and companion arrays by token id.

    Where the file of tokens is another table than the one among the weights, it takes its place in `tensors`.
    """
    genome = read_places(release.file(source.files))
    first = given.get(source.first_chromosome.name)
    _choose_table(source, release, tensors, n_chromosomes=len(genome.labels), first=first)
    n_rows = tensors[source.table].shape[0]
    first = n_rows - len(genome.labels) if first is None else first
    if not len(source.specials) < first <= n_rows - len(genome.labels):
        msg = (
            f"The table has {n_rows:,} rows and {release.used[0].name!r} names {len(genome.labels):,} chromosomes, "
            f"which cannot begin at row {first!r}; the files belong to different models."
        )
        raise ValueError(msg)
    specials = _specials(source, genome.labels, first=first, n_rows=n_rows)
    group, start = np.full(n_rows, -1, dtype=np.int64), np.zeros(n_rows, dtype=np.int64)
    found = {}
    offsets = release.dictionary(source.offsets)
    files = _gene_files(source, release, offsets)
    if (asked := given.get(source.chosen.name)) in files:
        files = {asked: files[asked]}  # reading names takes a while
    for species, file in files.items():
        spelt = token_rows(_names(file), offsets[species], stop=first, species=species)
        known = genome.places.get(species, {})
        genes = {name: spelt[name] for name in spelt if name in known}
        rows = [row for row, _ in genes.values()]
        group[rows] = [first + known[name][0] for name in genes]
        start[rows] = [known[name][1] for name in genes]
        found[species] = _vocabulary(genes, species=species, specials=specials)
    return _with_siblings(found), {source.group: group, source.place: start}


def read_places(file: Path | None) -> GenePlaces:
    """Read the table of symbols, chromosomes and first bases; of rows for one gene the first counts."""
    header, *rows = read_table(file, delimiter=",")
    if missing := [column for column in COLUMNS if column not in header]:
        msg = f"{file and file.name!r} has no column {missing[0]!r}; its columns are {header!r}."
        raise ValueError(msg)
    columns = [header.index(column) for column in COLUMNS]
    cells = [tuple(row[column] for column in columns) for row in rows if len(row) == len(header)]
    of_row = [None if chromosome in MISSING else f"{species}_{chromosome}" for _, chromosome, _, species in cells]
    labels = tuple(sorted({label for label in of_row if label is not None}))
    code_of = {label: code for code, label in enumerate(labels)}
    places: dict[str, dict[str, tuple[int, int]]] = {}
    for (symbol, _, start, species), label in zip(cells, of_row, strict=True):
        code = -1 if label is None else code_of[label]
        places.setdefault(species, {}).setdefault(symbol.upper(), (code, _base(start, symbol)))
    return GenePlaces(labels=labels, places=places)


def _base(text: str, symbol: str) -> int:
    try:
        base = int(float(text))
    except (ValueError, OverflowError):
        base = -1
    if not 0 <= base < 2**62:
        msg = f"The table of chromosomes gives {text!r} as the start of {symbol!r}; expected a number of bases."
        raise ValueError(msg)
    return base


def token_rows(names: Sequence[str], offset: object, *, stop: int, species: str) -> dict[str, tuple[int, str]]:
    """Return upper-case symbol -> row of the table and the symbol as it is spelt; names of one upper case are one."""
    spelt: dict[str, str] = {}
    for name in names:
        spelt.setdefault(name.upper(), name)
    if type(offset) is not int or not 0 < offset <= stop - len(spelt):
        msg = (
            f"The genes of {species!r} begin at row {offset!r} and are {len(spelt):,}, but rows of genes end at "
            f"{stop:,}; the files belong to different models."
        )
        raise ValueError(msg)
    return {upper: (offset + i, name) for i, (upper, name) in enumerate(spelt.items())}


def _choose_table(
    source: SpeciesTables,
    release: Release,
    tensors: dict[str, torch.Tensor],
    *,
    n_chromosomes: int,
    first: int | None,
) -> None:
    """Put the file of tokens in the place of the stored table, unless it is that table, whole or up to chromosomes.

    The rows of chromosomes are random vectors that the file of tokens may leave out: those of the weights count.
    """
    if source.table not in tensors:
        msg = f"The weights hold no {source.table!r}, the table of gene vectors; they are of another family."
        raise ValueError(msg)
    file = release.file(source.rows, optional=True)
    if file is None:
        return
    stored, blank = tensors[source.table], read_torch(file, ways="blank")
    shape = tuple(getattr(blank, "shape", ()))
    if len(shape) != 2 or shape[1] != stored.shape[-1]:
        msg = f"{file.name!r} holds no table of vectors of width {stored.shape[-1]}; found the shape {shape!r}."
        raise ValueError(msg)
    if shape[0] in {len(stored), len(stored) - n_chromosomes if first is None else first}:
        release.used.remove(file)  # it changes nothing
    else:
        tensors[source.table] = read_torch(file, ways="mapped")


def _gene_files(source: SpeciesTables, release: Release, offsets: Mapping[str, Any]) -> dict[str, Path]:
    """Return the file with the genes of each species that is there; the first declared one comes first."""
    wanted = {genes.species: genes.file for genes in source.genes} | _listed(source, release)
    found = {}
    for species, pattern in wanted.items():
        file = release.file([folder + pattern for folder in source.folders], optional=True)
        if file is not None and species in offsets:
            found[species] = file
    if not found:
        names = ", ".join(sorted(map(str, offsets)))
        msg = (
            f"There is no file with the genes of any of the species {names}, such as {next(iter(wanted.values()))!r}; "
            "put it beside the weights."
        )
        raise FileNotFoundError(msg)
    return found


def _listed(source: SpeciesTables, release: Release) -> dict[str, str]:
    """Return species that the user has added by the authors' own way, a table with the path of each file."""
    file = release.file(source.more_genes, optional=True)
    if file is None:
        return {}
    rows = read_table(file, delimiter=",")[1:]
    return {row[0]: PurePath(row[1]).name for row in rows if len(row) > 1}


def _names(file: Path) -> list[str]:
    """Return the genes in a file, in order; their vectors are not read, as the table holds them."""
    content = read_torch(file, ways="blank")
    names = list(content) if isinstance(content, dict) else []
    if not names or not all(isinstance(name, str) for name in names):
        msg = f"{file.name!r} is no dictionary of genes and vectors; get it from its authors."
        raise ValueError(msg)
    return names


def _specials(source: SpeciesTables, labels: Sequence[str], *, first: int, n_rows: int) -> dict[str, int]:
    """Return the special tokens: those of the family, and a token for each chromosome of every species."""
    specials = {name: row for row, name in enumerate(source.specials)}
    specials |= {f"<{label}>": first + code for code, label in enumerate(labels)}
    return specials | {f"<chromosome {row - first}>": row for row in range(first + len(labels), n_rows)}


def _vocabulary(
    genes: Mapping[str, tuple[int, str]], *, species: str, specials: Mapping[str, int]
) -> GeneVocabulary | None:
    if not genes:
        return None
    rows, names = zip(*sorted(genes.values()), strict=True)
    return GeneVocabulary(
        features=np.array(names, dtype=object),
        token_ids=np.array(rows),
        specials=specials,
        ids="symbol",
        species=(species,),
        merge="keep",
        ignore_case=True,
    )


def _with_siblings(found: Mapping[str, GeneVocabulary | None]) -> GeneVocabulary:
    present = [vocabulary for vocabulary in found.values() if vocabulary is not None]
    if not present:
        msg = "The table of chromosomes names no gene of any species that is there; the files belong to other models."
        raise ValueError(msg)
    main, *others = present
    return dataclasses.replace(main, siblings={other.species[0]: other for other in others})
