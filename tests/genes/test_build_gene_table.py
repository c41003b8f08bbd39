"""The script that rebuilds the gene tables, on a few lines of each public format."""

from __future__ import annotations

import gzip
import importlib.util
import json
import lzma
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "scripts" / "build_gene_table.py"

HGNC = (
    "hgnc_id\tsymbol\tlocus_type\tstatus\talias_symbol\tprev_symbol\tensembl_gene_id\n"
    'HGNC:1\tSEPTIN2\tgene\tApproved\t"KIAA0158|2-SEP"\tSEPT2|DIFF6\tENSG00000168385\n'
    "HGNC:2\tMATR3\tgene\tApproved\t\t\tENSG00000015479\n"
    "HGNC:3\tOLD1~withdrawn\tgene\tEntry Withdrawn\t\t\t\n"
    'HGNC:4\tNOID\t"RNA, transfer"\tApproved\tNOALIAS\t\t\n'
)
GTF = (
    "#!genome-build GRCh38\n"
    '1\te\tgene\t1\t2\t.\t+\t.\tgene_id "ENSG00000280987.4"; gene_name "MATR3";\n'
    '1\te\ttranscript\t1\t2\t.\t+\t.\tgene_id "ENSG00000280987.4"; gene_name "MATR3";\n'
    '1\te\tgene\t1\t2\t.\t+\t.\tgene_id "ENSG00000000009.1"; gene_name "NOVEL1";\n'
    '1\te\tgene\t1\t2\t.\t+\t.\tgene_id "ENSG00000000010.1";\n'
)
OLDER = "ensembl_id\tsymbol\nENSG00000000009\tRP11-1A1.1\nENSG00000168385\tSEPT2\nLRG_1\tX\n"
FAMILY = "".join(f"ENSG0000000010{i},Y_RNA\n" for i in range(4))


@pytest.fixture
def build(monkeypatch, tmp_path):
    spec = importlib.util.spec_from_file_location("build_gene_table", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "build_gene_table", module)
    spec.loader.exec_module(module)

    def run(*arguments):
        monkeypatch.setattr(
            sys, "argv", ["build", *map(str, arguments), "--out", str(tmp_path / "out.tsv.xz"), "--version", "1"]
        )
        module.main()
        first, *lines = lzma.decompress((tmp_path / "out.tsv.xz").read_bytes()).decode().splitlines()
        header = json.loads(first)
        n = header["n"]
        return header, list(zip(*(lines[i * n : (i + 1) * n] for i in range(5)), strict=True))

    return run


def test_human_table_is_built_from_hgnc_and_ensembl_files(build, tmp_path):
    (tmp_path / "hgnc.txt").write_text(HGNC)
    with gzip.open(tmp_path / "genes.gtf.gz", "wt") as handle:
        handle.write(GTF)
    (tmp_path / "older.tsv").write_text(OLDER)
    (tmp_path / "family.csv").write_text(FAMILY)
    (tmp_path / "aliases.tsv").write_text("alias\tsymbol\nM3\tMATR3\nX\tNOT_THERE\n")
    header, rows = build(
        *("human", "--hgnc", tmp_path / "hgnc.txt", "--aliases", tmp_path / "aliases.tsv", "--source", "a test"),
        *("--ensembl", tmp_path / "genes.gtf.gz", tmp_path / "older.tsv", tmp_path / "family.csv"),
    )
    assert header == {
        "species": "human",
        "prefix": "ENSG",
        "version": "1",
        "sources": ["a test"],
        "n_primary": 4,
        "n": 10,
    }
    assert rows[:6] == [
        ("15479", "MATR3", "", "", "M3"),
        ("168385", "SEPTIN2", "SEPT2", "DIFF6|SEPT2", "KIAA0158"),
        ("", "NOID", "", "", "NOALIAS"),
        ("9", "NOVEL1", "RP11-1A1.1", "", ""),
        ("10", "", "", "", ""),
        ("100", "", "", "", "Y_RNA"),
    ]
    assert rows[-1] == ("280987", "MATR3", "", "", "")


def test_mouse_table_is_built_from_mgi_files(build, tmp_path):
    (tmp_path / "list2.rpt").write_text(
        "MGI Accession ID\tMarker Symbol\tStatus\tFeature Type\tMarker Synonyms (pipe-separated)\n"
        "MGI:1\tSeptin2\tO\tprotein coding gene\tSept2|Nedd5\n"
        "MGI:2\tTg(1)\tO\ttransgene\t\n"
    )
    (tmp_path / "ensembl.rpt").write_text(
        "MGI:1\tSeptin2\tseptin\t1\t1\tENSMUSG00000116429\tT\nMGI:1\tSeptin2\tseptin\t1\t1\tENSMUSG00000026276\tT\n"
    )
    header, rows = build("mouse", "--mgi", tmp_path / "list2.rpt", tmp_path / "ensembl.rpt")
    assert header["n"] == 1
    assert rows == [("26276", "Septin2", "", "", "Nedd5|Sept2")]
