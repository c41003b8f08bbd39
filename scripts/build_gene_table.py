"""Rebuild the gene tables that `sclcm.genes.names` ships, from public files given as arguments.

Human, from the HGNC complete set (CC0) and the gene lists of some Ensembl releases, newest first::

    python scripts/build_gene_table.py human --hgnc hgnc_complete_set.txt \
        --ensembl Homo_sapiens.GRCh38.110.gtf.gz Homo_sapiens.GRCh38.90.gtf.gz Homo_sapiens.GRCh37.75.gtf.gz \
        --version 2026-06-25 --source "HGNC complete set of 2026-06-25" --source "Ensembl 110, 90, 75"

Mouse, from Ensembl alone, or with the MGI marker reports (`--mgi MRK_List2.rpt MRK_ENSEMBL.rpt`) before it::

    python scripts/build_gene_table.py mouse --ensembl Mus_musculus.GRCm39.110.gtf.gz Mus_musculus.GRCm38.90.gtf.gz \
        --version 110 --source "Ensembl 110, 90"

Formats, plain or gzipped:

`--hgnc`
    `hgnc_complete_set.txt` of genenames.org: tab separated with the columns `symbol`, `status`, `prev_symbol`,
    `alias_symbol`, `ensembl_gene_id`; several values in one cell are joined by `|`.
`--mgi`
    `MRK_List2.rpt` (with a header: `MGI Accession ID`, `Marker Symbol`, `Status`, synonyms joined by `|`) and
    `MRK_ENSEMBL.rpt` (without: first column the MGI accession, sixth the Ensembl gene id). Only markers with an Ensembl
    id are kept. Read MGI's terms before you publish a table made with it.
`--ensembl`
    A GTF, or a table whose header names the columns `ensembl_id` and `symbol` (or BioMart's `Gene stable ID` and `Gene
    name`, with `Gene Synonym` if there), or two comma separated columns id,name without a header. The first list that
    names an id decides its name; names in later lists are its former names, which data annotated with those releases
    use. Leave alternative haplotypes out.
`--aliases`
    A table with the columns `alias` and `symbol`.

Primary rows come first: an approved symbol with the Ensembl id that HGNC or MGI gives it, or a name that Ensembl gives
to one id only. Secondary rows follow: further Ensembl ids of those symbols, and symbols that two or three ids share
without anybody having said which is meant. A name of more ids than that (`Y_RNA`) is a family of genes; it becomes an
alias of each, hence ambiguous. Spreadsheet dates (`2-Sep`) are left out: they stand for several genes.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import json
import lzma
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

PREFIX = {"human": "ENSG", "mouse": "ENSMUSG"}
MAX_IDS_PER_SYMBOL = 3
MONTH = r"(jan|feb|mar|march|apr|may|jun|jul|aug|sep|sept|oct|nov|dec)"
DATE = re.compile(rf"\d{{1,4}}[-/. ]({MONTH}|\d{{1,2}})([-/. ]\d{{1,4}})?|{MONTH}[-/. ]\d{{1,4}}", re.IGNORECASE)
UNUSABLE = re.compile(r"[\t\n|]|^\s*$")
GTF_ATTRIBUTE = re.compile(r'(gene_id|gene_name) "([^"]*)"')


@dataclass
class Gene:
    """One gene: its symbol and Ensembl id, its former names in Ensembl, its previous symbols, its other names."""

    symbol: str
    ensembl: str = ""
    previous: set[str] = field(default_factory=set)
    aliases: set[str] = field(default_factory=set)
    former: set[str] = field(default_factory=set)


@dataclass
class Listed:
    """What Ensembl says of an id: its newest name, its former names, and synonyms."""

    name: str = ""
    former: set[str] = field(default_factory=set)
    synonyms: set[str] = field(default_factory=set)


def open_text(path: str) -> IO[str]:
    """Open a plain or gzipped text file."""
    if path.endswith(".gz"):
        return gzip.open(path, "rt", encoding="utf-8", newline="")
    return Path(path).open(encoding="utf-8", newline="")


def read_table(path: str) -> Iterator[dict[str, str]]:
    """Read a tab separated table with a header."""
    with open_text(path) as handle:
        for row in csv.DictReader(handle, delimiter="\t"):
            yield {key.strip(): (value or "").strip() for key, value in row.items() if key}


def split_names(cell: str) -> set[str]:
    """Split a cell of names joined by `|`, without spreadsheet dates and unusable text."""
    names = {name.strip().strip('"') for name in cell.split("|")}
    return {name for name in names if not UNUSABLE.search(name) and not DATE.fullmatch(name)}


def read_hgnc(path: str) -> list[Gene]:
    """Read the HGNC complete set."""
    approved = (row for row in read_table(path) if row["status"] == "Approved")
    return [
        Gene(row["symbol"], row["ensembl_gene_id"], split_names(row["prev_symbol"]), split_names(row["alias_symbol"]))
        for row in approved
    ]


def read_mgi(markers: str, ensembl: str) -> list[Gene]:
    """Read the MGI marker list and MGI's list of Ensembl ids."""
    ids: dict[str, str] = {}
    with open_text(ensembl) as handle:
        for row in sorted(csv.reader(handle, delimiter="\t"), key=lambda row: row[5:6]):
            ids.setdefault(row[0].strip(), row[5].strip())  # of several ids the oldest, as Ensembl itself prefers
    genes = []
    for marker in read_table(markers):
        ensembl_id = ids.get(marker["MGI Accession ID"], "")
        synonyms = next((value for key, value in marker.items() if "ynonym" in key), "")
        if ensembl_id.startswith(PREFIX["mouse"]) and marker["Status"] == "O":
            genes.append(Gene(marker["Marker Symbol"], ensembl_id, aliases=split_names(synonyms)))
    return genes


def read_ensembl(path: str) -> Iterator[tuple[str, str, set[str]]]:
    """Read Ensembl ids with their names and other names, from a GTF or a table."""
    with open_text(path) as handle:
        first = next(line for line in handle if not line.startswith("#"))
    if path.removesuffix(".gz").endswith((".gtf", ".gff2")):
        yield from read_gtf(path)
    elif "\t" in first:
        for row in read_table(path):
            ensembl_id = row.get("ensembl_id") or row.get("Gene stable ID") or ""
            others = "|".join(row.get(key, "") for key in ("aliases", "previous", "Gene Synonym"))
            yield ensembl_id, row.get("symbol") or row.get("Gene name") or "", split_names(others)
    else:
        with open_text(path) as handle:
            yield from ((row[0], row[1], set()) for row in csv.reader(handle))


def read_gtf(path: str) -> Iterator[tuple[str, str, set[str]]]:
    """Read the gene lines of a GTF."""
    with open_text(path) as handle:
        for line in handle:
            if not line.startswith("#") and line.split("\t", 3)[2] == "gene":
                found = dict(GTF_ATTRIBUTE.findall(line))
                yield found["gene_id"], found.get("gene_name", ""), set()


def unique_owner(genes: Iterable[Gene], attribute: str) -> dict[str, Gene]:
    """Map each name to the one gene that has it; names of several genes are left out."""
    owners: dict[str, Gene] = {}
    counts: Counter[str] = Counter()
    for gene in genes:
        for name in getattr(gene, attribute):
            owners[name] = gene
            counts[name] += 1
    return {name: gene for name, gene in owners.items() if counts[name] == 1}


def add_ensembl(genes: list[Gene], listed: dict[str, Listed], *, with_synonyms: bool) -> list[Gene]:
    """Add the genes of Ensembl lists to the approved ones; return the secondary rows."""
    by_id = {gene.ensembl: gene for gene in genes if gene.ensembl}
    by_symbol = {gene.symbol: gene for gene in genes}
    renamed = unique_owner(genes, "previous")
    n_ids = Counter(entry.name for ensembl_id, entry in listed.items() if ensembl_id not in by_id)
    secondary = []
    for ensembl_id, entry in sorted(listed.items()):
        name = entry.name
        owner = by_symbol.get(name) or renamed.get(name)
        if ensembl_id in by_id:
            gene = by_id[ensembl_id]
        elif not name or n_ids[name] > MAX_IDS_PER_SYMBOL:
            gene = Gene("", ensembl_id, aliases={name})
            secondary.append(gene)
        elif owner is not None and not owner.ensembl:
            gene = by_id[ensembl_id] = owner
            gene.ensembl = ensembl_id
        elif owner is not None or n_ids[name] > 1:
            gene = Gene(owner.symbol if owner is not None else name, ensembl_id)
            secondary.append(gene)
        else:
            gene = Gene(name, ensembl_id)
            genes.append(gene)
        if gene.symbol:
            gene.former |= entry.former | {name}
        gene.aliases |= entry.synonyms if with_synonyms else set()
    return secondary


def add_aliases(genes: list[Gene], path: str) -> None:
    """Add the aliases of a table to the genes of those symbols."""
    by_symbol = {gene.symbol: gene for gene in reversed(genes) if gene.symbol}
    for row in read_table(path):
        gene = by_symbol.get(row["symbol"])
        if gene is not None:
            gene.aliases |= split_names(row["alias"])


def read_listed(paths: list[str], prefix: str) -> dict[str, Listed]:
    """Read all Ensembl lists, newest first."""
    listed: dict[str, Listed] = {}
    for path in paths:
        for versioned, name, synonyms in read_ensembl(path):
            ensembl_id = versioned.split(".")[0]
            if not re.fullmatch(prefix + r"\d{11}", ensembl_id):
                continue
            entry = listed.setdefault(ensembl_id, Listed())
            entry.synonyms |= synonyms
            if name and not name.startswith("ENS") and not DATE.fullmatch(name) and not UNUSABLE.search(name):
                entry.name = entry.name or name
                entry.former.add(name)
    return listed


def write(path: Path, genes: list[Gene], header: dict[str, object]) -> None:
    """Write the table: a JSON line, then one column after the other, each a line per gene; xz compressed."""
    species = str(header["species"])
    columns = (
        [gene.ensembl.removeprefix(PREFIX[species]).lstrip("0") for gene in genes],
        [gene.symbol for gene in genes],
        ["|".join(sorted(gene.former - {gene.symbol, ""})) for gene in genes],
        ["|".join(sorted(gene.previous - {gene.symbol, ""})) for gene in genes],
        ["|".join(sorted(gene.aliases - gene.previous - {gene.symbol, ""})) for gene in genes],
    )
    text = "\n".join([json.dumps(header), *("\n".join(column) for column in columns)]) + "\n"
    path.write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


def main() -> None:
    """Read the arguments, build one table, write it beside `sclcm/genes/names.py`."""
    parser = argparse.ArgumentParser(description="Rebuild a gene table of sclcm from public files.")
    parser.add_argument("species", choices=list(PREFIX))
    parser.add_argument("--hgnc")
    parser.add_argument("--mgi", nargs=2, metavar=("MRK_LIST2", "MRK_ENSEMBL"))
    parser.add_argument("--ensembl", nargs="*", default=[])
    parser.add_argument("--ensembl-synonyms", action="store_true", help="take synonyms from the Ensembl lists too")
    parser.add_argument("--aliases")
    parser.add_argument("--source", action="append", default=[], help="what was used, with its date or release")
    parser.add_argument("--version", required=True, help="version of the table: the date of its newest source")
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    genes = read_hgnc(given.hgnc) if given.hgnc else []
    genes += read_mgi(*given.mgi) if given.mgi else []
    genes = sorted(genes, key=lambda gene: (gene.ensembl or "~", gene.symbol))
    secondary = add_ensembl(
        genes, read_listed(given.ensembl, PREFIX[given.species]), with_synonyms=given.ensembl_synonyms
    )
    if given.aliases:
        add_aliases(genes, given.aliases)
    header = {
        "species": given.species,
        "prefix": PREFIX[given.species],
        "version": given.version,
        "sources": given.source,
        "n_primary": len(genes),
        "n": len(genes) + len(secondary),
    }
    out = given.out or Path(__file__).parents[1] / "sclcm" / "genes" / f"{given.species}.tsv.xz"
    write(out, genes + secondary, header)


if __name__ == "__main__":
    main()
