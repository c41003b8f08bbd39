"""Orthologues of human and mouse genes, as shipped and as the script makes them."""

from __future__ import annotations

import gzip
import importlib.util
import sys
from pathlib import Path

import numpy as np
import pytest

from sclcm.genes import orthologs
from sclcm.genes.orthologs import Orthologs, load_orthologs
from sclcm.genes.vocabulary import GeneVocabulary

SCRIPT = Path(__file__).parents[2] / "scripts" / "build_ortholog_table.py"
CD3E, SNAP25 = ("ENSG00000198851", "ENSMUSG00000032093"), ("ENSG00000132639", "ENSMUSG00000027273")


def toy():
    pairs = [("H1", "M1"), ("H2", "M2"), ("H2", "M3"), ("H4", "M4"), ("H5", "M4")]
    return Orthologs(version="1", sources=("made up",), human=[h for h, _ in pairs], mouse=[m for _, m in pairs])


def test_only_pairs_without_another_partner_are_one_gene():
    found, how = toy().find(["M1", "M2", "M3", "M4", "M9", None], to="human")
    assert found.tolist() == ["H1", None, None, None, None, None]
    assert how.tolist() == ["one", "several", "several", "several", "none", "none"]
    found, how = toy().find(["H1", "H2", "H4"], to="mouse")
    assert found.tolist() == ["M1", None, None]
    assert how.tolist() == ["one", "several", "several"]


def test_shipped_table_knows_the_genes_that_everybody_uses():
    table = load_orthologs()
    assert table.version == "105"
    for human, mouse in (CD3E, SNAP25):
        assert table.find([mouse], to="human")[0].tolist() == [human]
        assert table.find([human], to="mouse")[0].tolist() == [mouse]
    n_single = sum(how == "one" for how in table.find(sorted(set(table.mouse)), to="human")[1])
    assert 16_000 < n_single < 18_000
    assert len(set(zip(table.human, table.mouse, strict=True))) == len(table.human)
    assert all(len(human) == 15 and len(mouse) == 18 for human, mouse in zip(table.human, table.mouse, strict=True))


def test_script_reads_ids_or_else_symbols(tmp_path, monkeypatch):
    rows = (
        "human_symbol\tmouse_symbol\thuman_ensembl\tmouse_ensembl",
        f"CD3E\tCd3e\t{CD3E[0]}\t{CD3E[1]}",
        f"CD3E\tCd3e\t{CD3E[0]}\t{CD3E[1]}",
        "SNAP25\tSnap25\t\t",
        "NOSUCHGENE\tCd4\t\t",
    )
    source, out = tmp_path / "pairs.tsv.gz", tmp_path / "out.tsv.xz"
    source.write_bytes(gzip.compress("\n".join(rows).encode()))
    spec = importlib.util.spec_from_file_location("build_ortholog_table", SCRIPT)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    monkeypatch.setattr(
        sys, "argv", [SCRIPT.name, str(source), "--version", "7", "--source", "test", "--out", str(out)]
    )
    script.main()
    monkeypatch.setattr(orthologs, "files", lambda _: tmp_path)
    (tmp_path / "orthologs.tsv.xz").write_bytes(out.read_bytes())
    table = load_orthologs.__wrapped__()
    assert (table.version, table.sources) == ("7", ("test",))
    assert list(zip(table.human, table.mouse, strict=True)) == sorted([CD3E, SNAP25])


@pytest.mark.parametrize("n_human", [1, 40])
def test_vocabulary_of_both_species_reads_each_id_as_one_of_its_own(n_human):
    """Few mouse genes among many human ones are no mistake."""
    human = [f"ENSG{i:011d}" for i in range(9_000_001, 9_000_001 + n_human - 1)]
    names = [CD3E[0], SNAP25[1], *human]
    tokens = {"<pad>": 0, **{name: i for i, name in enumerate(names, start=1)}}
    vocabulary = GeneVocabulary.from_mapping(tokens, specials=["<pad>"], ids="ensembl", species=("human", "mouse"))
    found = dict(zip(vocabulary.features, vocabulary.readings.symbol, strict=True))
    assert (found[CD3E[0]], found[SNAP25[1]]) == ("CD3E", "Snap25")
    assert np.array_equal(vocabulary.readings.ensembl, vocabulary.features)
