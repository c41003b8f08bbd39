"""Rebuild the table of orthologues that `sclcm.genes.orthologs` ships, from public homologies given as an argument.

From a table of Ensembl BioMart, plain or gzipped, with a row for each pair::

    python scripts/build_ortholog_table.py human_mouse.tsv.gz --version 105 --source "Ensembl 105 homologies"

Its header names the columns `human_ensembl` and `mouse_ensembl`, or BioMart's `Gene stable ID` and `Mouse gene stable
ID`; where an id is missing, `human_symbol` and `mouse_symbol` (`Gene name`, `Mouse gene name`) are read by the gene
tables of the package. Pairs of which one side cannot be read are left out. All pairs are kept, of one gene with several
as well, so that the package can tell these from genes without orthologue.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import lzma
from pathlib import Path
from typing import TYPE_CHECKING

from sclcm.genes.names import resolve
from sclcm.genes.table import load_table

if TYPE_CHECKING:
    from sclcm.genes.table import Species

COLUMNS: dict[Species, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "human": (("human_ensembl", "Gene stable ID"), ("human_symbol", "Gene name")),
    "mouse": (("mouse_ensembl", "Mouse gene stable ID"), ("mouse_symbol", "Mouse gene name")),
}


def read_ids(rows: list[dict[str, str]], species: Species) -> list[str | None]:
    """Return the Ensembl id of one side of each row, by the id or else by the symbol."""
    id_columns, symbol_columns = COLUMNS[species]
    written = [next((row[c] for c in (*id_columns, *symbol_columns) if row.get(c)), "") for row in rows]
    return resolve(written, to="ensembl", species=species).target.tolist()


def main() -> None:
    """Read the arguments, build the table, write it beside `sclcm/genes/orthologs.py`."""
    parser = argparse.ArgumentParser(description="Rebuild the table of orthologues of sclcm from a public file.")
    parser.add_argument("table")
    parser.add_argument("--source", action="append", default=[], help="what was used, with its release")
    parser.add_argument("--version", required=True, help="release of the source")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "sclcm" / "genes" / "orthologs.tsv.xz")
    given = parser.parse_args()
    opened = gzip.open if given.table.endswith(".gz") else open
    with opened(given.table, "rt", encoding="utf-8", newline="") as handle:
        rows = list(csv.DictReader(handle, delimiter="\t"))
    pairs = sorted({(h, m) for h, m in zip(read_ids(rows, "human"), read_ids(rows, "mouse"), strict=True) if h and m})
    header = {"version": given.version, "sources": given.source, "n": len(pairs)}
    columns = [
        [pair[i].removeprefix(load_table(species).prefix).lstrip("0") for pair in pairs]
        for i, species in enumerate(("human", "mouse"))
    ]
    text = "\n".join([json.dumps(header), *("\n".join(column) for column in columns)]) + "\n"
    given.out.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


if __name__ == "__main__":
    main()
