"""Vocabularies that a release keeps as lists: read and checked."""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING, Any, NoReturn, Protocol

import numpy as np

from sclcm.checkpoints.h5files import read_var_names
from sclcm.checkpoints.readers import read_json
from sclcm.genes.vocabulary import GeneVocabulary
from sclcm.zoo._vocabularies import GeneList

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from sclcm.zoo._vocabularies import ListedGenes, SynonymTable, TokenLists, VarNames, WiderGenes

_MAX_BYTES = 64 << 20


class Files(Protocol):
    """Where the files of a release are looked for."""

    def dictionary(self, patterns: Sequence[str]) -> Mapping[str, Any]:
        """Return the dictionary in the one file that fits."""

    def file(self, patterns: Sequence[str], *, optional: bool = False) -> Path | None:
        """Return the one file that fits; `None` if none does and that is allowed."""

    def mapping(self, file: Path) -> Mapping[str, Any]:
        """Return the dictionary in a file; `TypeError` if it holds something else."""


def read_token_lists(source: TokenLists, release: Files) -> GeneVocabulary:
    """Read a vocabulary whose tokens are a list in order of their ids."""
    content = release.dictionary(source.files)
    tokens, genes = (names_in(content, key, kinds=(list, tuple)) for key in (source.tokens, source.genes))
    token_to_id = {name: i for i, name in enumerate(tokens)}
    if len(token_to_id) < len(tokens):
        _refuse(source.tokens, "names a token twice")
    if missing := [name for name in (*source.specials, *genes) if name not in token_to_id]:
        _refuse(source.tokens, f"lacks {missing[0]!r}")
    gene_ids = [token_to_id[name] for name in genes]
    if gene_ids != sorted(set(gene_ids)):
        _refuse(source.genes, f"is not in the order of {source.tokens!r}, or names a gene twice")
    among = set(genes)
    vocabulary = GeneVocabulary.from_mapping(
        token_to_id, specials=[name for name in tokens if name not in among], ids=source.ids, species=source.species
    )
    return GeneVocabulary.from_json({**vocabulary.to_json(), "universe": _wider(source, release).to_json()})


def read_gene_list(source: GeneList, release: Files) -> GeneVocabulary:
    """Read a vocabulary whose genes are a table in order of their ids, and whose special tokens are known."""
    header, *rows = read_table(release.file(source.files), delimiter=source.delimiter)
    asked = [source.column] + ([] if source.number is None else [source.number])
    if missing := [name for name in asked if name not in header]:
        _refuse(missing[0], f"is none of the columns, which are {header!r}")
    if short := [i for i, row in enumerate(rows) if len(row) != len(header)]:
        _refuse(source.column, f"cannot be read in row {short[0]}, which has {len(rows[short[0]])} columns")
    genes = [row[header.index(source.column)] for row in rows]
    if source.number is not None:
        numbers = [row[header.index(source.number)] for row in rows]
        if wrong := [i for i, number in enumerate(numbers) if number != str(i)]:
            _refuse(source.number, f"numbers the gene {genes[wrong[0]]!r} {numbers[wrong[0]]}, in row {wrong[0]}")
    return _numbered(source, genes)


def read_var_list(source: VarNames, release: Files) -> GeneVocabulary:
    """Read a vocabulary whose genes are those of an AnnData file, in its order."""
    file = release.file(source.files)
    if file is not None and file.suffix == ".json":
        return _numbered(source, _genes_by_id(file, len(source.before)))
    return _numbered(source, [] if file is None else read_var_names(file))


def _genes_by_id(file: Path, first_id: int) -> list[str]:
    """Read the genes of a dictionary of tokens, which are those from an id on, without a gap."""
    content = read_json(file)
    if not isinstance(content, dict) or not all(type(number) is int for number in content.values()):
        msg = f"{file.name!r} is no dictionary of token -> id; it is damaged or of another family."
        raise ValueError(msg)
    genes = sorted((number, name) for name, number in content.items() if number >= first_id)
    if [number for number, _ in genes] != list(range(first_id, first_id + len(genes))):
        msg = f"{file.name!r} does not number its genes from {first_id} on, one after the other."
        raise ValueError(msg)
    return [name for _, name in genes]


def _numbered(source: GeneList | VarNames, genes: list[str]) -> GeneVocabulary:
    """Number genes one after the other, between the special tokens before and after them."""
    tokens = (*source.before, *genes, *source.after)
    if len(set(tokens)) < len(tokens) or "" in genes:
        column = source.column if isinstance(source, GeneList) else "var"
        _refuse(column, "names a gene twice, or one like a special token, or none in some row")
    return GeneVocabulary.from_mapping(
        {name: i for i, name in enumerate(tokens)},
        specials=source.specials,
        ids=source.ids,
        species=source.species,
        merge=source.merge,
    )


def read_listed_genes(source: ListedGenes, release: Files) -> GeneVocabulary:
    """Read a vocabulary that is a list of genes in order of their ids."""
    genes = names_in(release.dictionary(source.files), source.genes, kinds=(list, tuple))
    token_to_id = {name: i for i, name in enumerate(genes)}
    if len(token_to_id) < len(genes):
        _refuse(source.genes, "names a gene twice")
    return GeneVocabulary.from_mapping(token_to_id, specials=(), ids=source.ids, species=source.species)


def names_in(content: Mapping[str, Any], key: str, *, kinds: tuple[type, ...] = (list, tuple, set)) -> list[str]:
    """Return the names that an entry of a dictionary lists; of a set, sorted, as its own order means nothing."""
    found = content.get(key)
    names: list[Any] = list(found) if isinstance(found, (list, tuple, set)) and isinstance(found, kinds) else []
    if not names or not all(isinstance(name, str) for name in names):
        _refuse(key, "is missing, or lists no names")
    return sorted(names) if isinstance(found, set) else names


def _wider(source: TokenLists, release: Files) -> GeneVocabulary:
    """Read the wider list, in the order of its characters, and the other names of its genes."""
    wider = source.wider
    rows = read_table(release.file(wider.files), delimiter="\t")
    names = sorted({_respelt(row[0], wider) for row in rows[1:] if row and row[0]})
    file = release.file(wider.synonyms.files, optional=True)
    return GeneVocabulary(
        features=np.array(names, dtype=object),
        token_ids=np.arange(len(names)),
        specials={},
        ids=source.ids,
        species=source.species,
        synonyms=None if file is None else _synonyms(wider.synonyms, wider, file),
        merge=wider.merge,
    )


def _synonyms(table: SynonymTable, wider: WiderGenes, file: Path) -> dict[str, tuple[str, ...]]:
    header, *rows = read_table(file, delimiter=",")
    column, value = table.status
    if missing := [name for name in (table.symbol, *table.others, column) if name not in header]:
        msg = f"{file.name!r} has no column {missing[0]!r}; its columns are {header!r}. Get the file from its authors."
        raise ValueError(msg)
    places = {name: header.index(name) for name in (table.symbol, *table.others, column)}
    found: dict[str, set[str]] = {}
    for row in rows:
        if len(row) == len(header) and row[places[column]] == value:
            symbol = _respelt(row[places[table.symbol]], wider)
            for other in (row[places[name]] for name in table.others):
                if other:
                    found.setdefault(_respelt(other, wider), set()).add(symbol)
    return {name: tuple(sorted(symbols)) for name, symbols in found.items()}


def _respelt(name: str, wider: WiderGenes) -> str:
    for old, new in wider.respell:
        name = name.replace(old, new)
    return name


def read_table(file: Path | None, *, delimiter: str) -> list[list[str]]:
    """Read a small table of text; the first row is its header."""
    if file is None or file.stat().st_size > _MAX_BYTES:
        msg = f"{file and file.name!r} has more than {_MAX_BYTES:,} bytes, too many for a list of genes."
        raise ValueError(msg)
    try:
        rows = list(csv.reader(io.StringIO(file.read_text(encoding="utf-8"), newline=""), delimiter=delimiter))
    except (UnicodeDecodeError, csv.Error) as error:
        msg = f"{file.name!r} is no table of text: {error}. Get the file from its authors."
        raise ValueError(msg) from error
    if len(rows) < 2:
        msg = f"{file.name!r} holds no rows; get the file from its authors."
        raise ValueError(msg)
    return rows


def _refuse(entry: str, what: str) -> NoReturn:
    msg = f"The entry {entry!r} of the vocabulary {what}; the file is damaged or of another family."
    raise ValueError(msg)
