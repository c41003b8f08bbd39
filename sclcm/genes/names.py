"""Read gene names: symbols, previous symbols, aliases and Ensembl ids of human and mouse, offline.

A name is read in this order, and the first reading that knows it decides:

1. an Ensembl gene id, in any letter case, with or without version or `_PAR_Y`; an id not in the table is itself;
2. a current symbol, exactly, then in another letter case;
3. a name that an earlier Ensembl release gave to an id, likewise: this is what data annotated with that release use;
4. a previous symbol, likewise;
5. an alias, likewise;
6. what R or anndata make of a symbol: `HLA.A` for `HLA-A`, `MATR3-1` for the second of two ids named `MATR3`.

A name that stands for several genes at the reading that decides is ambiguous and is left alone: a guess would move
counts to a gene that nobody measured. Spreadsheet dates such as `1-Mar` are unknown.

The shipped mouse table is made from Ensembl alone and has former names but no further aliases, because we could not
establish that MGI's terms allow its synonyms to be shipped; `scripts/build_gene_table.py --mgi` makes one with them.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np

from sclcm.genes.table import AMBIGUOUS, UNKNOWN, Species, as_ensembl, check_species, load_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sclcm.genes.table import GeneTable

IdType = Literal["ensembl", "symbol"]
How = Literal["exact", "version", "case", "previous", "alias", "punctuation", "suffix", "ambiguous", "unknown"]

_Row = tuple[str | None, str | None, str | None, str]  # gene, ensembl, symbol, how

HOWS: tuple[str, ...] = get_args(How)

_MIN_RATIO = 4  # one species is told from the other when it explains at least this many times more names


@dataclass(frozen=True, kw_only=True, eq=False)
class Readings:
    """What each name stands for.

    Parameters
    ----------
    gene
        A key that is equal for names of the same gene; `None` where the name is unknown or ambiguous.
    ensembl, symbol
        Its Ensembl id (`None` where there is none, or several) and its symbol (the Ensembl id of a gene without symbol,
        as in Ensembl's own files; `None` for an id that the table lacks).
    how
        How the name was read, one of `HOWS`.
    species
        The species that was given or told from the names; `None` where it could not be told.
    """

    gene: np.ndarray
    ensembl: np.ndarray
    symbol: np.ndarray
    how: np.ndarray
    species: Species | None


@dataclass(frozen=True, kw_only=True, eq=False)
class Resolution:
    """The wanted id of each name.

    Parameters
    ----------
    target
        Object array; `None` where the name is unknown or ambiguous.
    how
        How each name was read: `"exact"`, `"version"`, `"case"`, `"previous"`, `"alias"`, `"punctuation"`, `"suffix"`,
        `"ambiguous"` or `"unknown"` (also for a gene that lacks the wanted id).
    species
        The species that was given or told from the names; `None` where it could not be told.
    """

    target: np.ndarray
    how: np.ndarray
    species: Species | None


def resolve(names: Sequence[str], *, to: IdType, species: str | None = None) -> Resolution:
    """Translate gene names to current symbols or Ensembl ids.

    Parameters
    ----------
    names
        Gene names of any kind, also mixed; each is read by itself, so order and repeats do not matter.
    to
        `"ensembl"` or `"symbol"`.
    species
        `"human"` or `"mouse"`. `None` tells it from all names together; then other letter cases are read only if they
        are not names of the other species (`Actb` among human names is a mouse gene), and not at all if the species
        cannot be told.

    Returns
    -------
    The targets, and how each name was read.
    """
    if to not in ("ensembl", "symbol"):
        msg = f"`to` is {to!r}; expected 'ensembl' or 'symbol'"
        raise ValueError(msg)
    readings = read_names(names, species=species)
    target = readings.ensembl if to == "ensembl" else readings.symbol
    shared = _shared_symbols(readings.species)
    how = string_array(
        way if found is not None or way == "ambiguous" else "ambiguous" if symbol in shared else "unknown"
        for found, symbol, way in zip(target, readings.symbol, readings.how, strict=True)
    )
    return Resolution(target=target, how=how, species=readings.species)


def read_names(names: Sequence[str], *, species: str | None = None, among: Sequence[str] | None = None) -> Readings:
    """Read gene names; `resolve` is the same for one kind of target.

    Parameters
    ----------
    names
        The names to read.
    species
        `"human"` or `"mouse"`; `None` tells it from the names, as `resolve` does.
    among
        All names of the data, where `names` are some of them: the species is then told from these.

    Returns
    -------
    What each name stands for.
    """
    listed = [str(name) for name in names]
    told = check_species(species) if species is not None else guess_species(listed if among is None else among)
    reader = _Reader(told, given=species is not None)
    rows = [reader.read(name) for name in listed]
    columns = np.empty((4, len(rows)), dtype=object)
    for column, values in zip(columns, zip(*rows, strict=True), strict=False):
        column[:] = values
    return Readings(gene=columns[0], ensembl=columns[1], symbol=columns[2], how=columns[3], species=told)


def guess_species(names: Iterable[str]) -> Species | None:
    """Tell the species from Ensembl ids and current symbols; `None` if neither or both species explain the names."""
    distinct = set(map(str, names))
    # Plain human ids are most names of many data sets, and told at a fraction of the cost of reading each.
    others = [name for name in distinct if not (len(name) == 15 and name[:5] == "ENSG0" and name[5:].isdecimal())]
    ids = [found[0] for found in map(as_ensembl, others) if found is not None]
    beginnings = Counter(ensembl[:7] for ensembl in ids)
    n_mouse = beginnings["ENSMUSG"]
    n_human = sum(n for beginning, n in beginnings.items() if beginning.startswith("ENSG"))
    n_plain = len(distinct) - len(others)
    n_human += n_plain
    if len(ids) < len(others):  # no symbol looks like an id, so that ids alone load no table
        # Mouse symbols have lower-case letters, so that human data in capitals never load the mouse table.
        lower = {name for name in distinct if not name.isupper()}
        n_human += len(distinct & load_table("human").approved.keys())
        n_mouse += len(lower & load_table("mouse").approved.keys()) if len(lower) > n_plain + len(ids) else 0
    if n_human > _MIN_RATIO * n_mouse:
        return "human"
    return "mouse" if n_mouse > _MIN_RATIO * n_human else None


def beaten_aliases(targets: np.ndarray, how: np.ndarray) -> np.ndarray:
    """Mark names read as alias of a gene that is there under another name too.

    Such an alias is something else more often than not: in data with antibodies `CD62L` is the protein beside the gene
    `SELL`, and within one annotation two names are two genes.
    """
    is_alias = how == "alias"
    present = set(targets[~is_alias].tolist())
    return is_alias & np.array([target in present for target in targets.tolist()], dtype=bool)


def is_renamed(name: str, target: str, how: str) -> bool:
    """Tell whether a name became another, not counting plain translation between symbol and Ensembl id."""
    if name == target:
        return False
    translated = (as_ensembl(name) is None) != (as_ensembl(target) is None)
    return not (translated and how in ("exact", "mapped"))


def guess_id_type(names: Iterable[str]) -> IdType:
    """Tell whether names are mostly Ensembl ids or mostly symbols."""
    listed = [str(name) for name in names]
    n_ensembl = sum(as_ensembl(name) is not None for name in listed)
    return "ensembl" if 2 * n_ensembl > len(listed) else "symbol"


class _Reader:
    """Reads single names for a species that was given, told or could not be told."""

    def __init__(self, species: Species | None, *, given: bool) -> None:
        self._tables: list[GeneTable] = [load_table(s) for s in get_args(Species) if species in (s, None)]
        self._fold = species is not None
        self._others: list[Species] = [] if given or species is None else [s for s in get_args(Species) if s != species]

    def read(self, name: str) -> _Row:
        written = as_ensembl(name)
        if written is not None:
            return self._read_id(*written)
        if len(self._tables) == 1 and name in self._tables[0].approved:
            return _describe(self._tables[0], self._tables[0].approved[name], "exact")
        found = [(table, *table.find(name, fold=self._fold)) for table in self._tables]
        if any(how == "exact" for _, _, how, _ in found):
            found = [hit for hit in found if hit[2] == "exact"]
        known = [hit for hit in found if hit[1] != UNKNOWN]
        if not known or (known[0][3] and self._is_foreign(name)):
            return None, None, None, "unknown"
        table, row, how, _ = known[0]
        if len(known) > 1 or row == AMBIGUOUS:
            return None, None, None, "ambiguous"
        return _describe(table, row, how)

    def _read_id(self, ensembl: str, how: str) -> _Row:
        for table in self._tables:
            if ensembl in table.row_of_id:
                symbol = table.symbols[table.row_of_id[ensembl]]
                return (f"{table.species}:{symbol}" if symbol else ensembl), ensembl, symbol or ensembl, how
            if ensembl.startswith(table.prefix):
                return ensembl, ensembl, None, how
        return None, None, None, "unknown"

    def _is_foreign(self, name: str) -> bool:
        return any(name in load_table(species).approved for species in self._others)


def _describe(table: GeneTable, row: int, how: str) -> _Row:
    symbol, ensembl = table.symbols[row], table.ids[row]
    if not symbol:
        return ensembl, ensembl, ensembl, how
    owner = table.approved[symbol]
    return f"{table.species}:{symbol}", (table.ids[owner] or None) if owner < table.n_primary else None, symbol, how


def _shared_symbols(species: Species | None) -> frozenset[str]:
    return frozenset().union(*(load_table(s).shared for s in get_args(Species) if species in (s, None)))


def string_array(names: Iterable[str | None]) -> np.ndarray:
    """Return names as an object array, the form in which anndata stores strings even when there are none."""
    listed = list(names)
    array = np.empty(len(listed), dtype=object)
    array[:] = listed
    return array
