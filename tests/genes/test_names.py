"""Gene names: known facts as facts, and what must hold for any list of names."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sclcm.genes.names import guess_id_type, guess_species, resolve
from sclcm.genes.table import as_ensembl, load_table

HUMAN = ("CD3E", "ACTB", "GAPDH", "MALAT1", "HLA-A", "CD19", "LYZ", "NKG7", "MS4A1")


def read(name, *, to="symbol", species="human"):
    resolution = resolve([name], to=to, species=species)
    return resolution.target[0], resolution.how[0]


@pytest.mark.parametrize(
    ("name", "symbol", "how"),
    [
        ("TP53", "TP53", "exact"),
        ("tp53", "TP53", "case"),
        ("C1orf112", "FIRRM", "previous"),
        ("C1ORF112", "FIRRM", "previous"),
        ("SEPT2", "SEPTIN2", "previous"),  # also an alias of SEPTIN6
        ("MARCH1", "MARCHF1", "previous"),
        ("MARC1", "MTARC1", "previous"),
        ("QARS", "QARS1", "previous"),  # HGNC lists it for EPRS1 too; Ensembl called only QARS1 so
        ("RP11-1143G9.4", "ENSG00000257764", "previous"),
        ("T", "TBXT", "previous"),  # also a mouse gene
        ("NOV", "CCN3", "previous"),  # also an alias of PLXNA1 and RPL10
        ("p53", "TP53", "alias"),
        ("TEC", "TEC", "exact"),  # also an alias of RHBDF2
        ("HLA-A", "HLA-A", "exact"),
        ("HLA.A", "HLA-A", "punctuation"),
        ("HLA_A", "HLA-A", "punctuation"),
        ("MT.ND1", "MT-ND1", "punctuation"),
        ("MATR3-1", "MATR3", "suffix"),
        ("MATR3.1", "MATR3", "suffix"),
        ("ENSG00000141510", "TP53", "exact"),
        ("ENSG00000141510.18", "TP53", "version"),
        ("ensg00000141510", "TP53", "case"),
        ("ENSG00000182378.15_PAR_Y", "PLCXD1", "version"),
        ("ENSGR0000182378", "PLCXD1", "version"),
    ],
)
def test_human_names_are_read(name, symbol, how):
    if symbol.startswith("ENSG"):
        assert read(name, to="ensembl") == (symbol, how)
    else:
        assert read(name) == (symbol, how)


@pytest.mark.parametrize(
    "name",
    ["1-Mar", "01-Mar", "2-Sep", "Sep-02", "1-Dec", "2-sep", "43525", "", "GENE", "CD4-1", "CD3_TotalSeqB"],
)
def test_spreadsheet_dates_and_other_text_are_unknown(name):
    for to in ("symbol", "ensembl"):
        assert read(name, to=to) == (None, "unknown")


@pytest.mark.parametrize("name", ["COX1", "CD16", "Y_RNA"])
def test_names_of_several_genes_are_ambiguous(name):
    assert read(name) == (None, "ambiguous")
    assert read(name, to="ensembl") == (None, "ambiguous")


@pytest.mark.parametrize(
    ("name", "target", "how"),
    [
        ("Actb", "ENSMUSG00000029580", "exact"),
        ("ACTB", "ENSMUSG00000029580", "case"),
        ("Gnb2l1", "ENSMUSG00000020372", "previous"),
        ("March1", "ENSMUSG00000036469", "previous"),
        ("mt-Nd1", "ENSMUSG00000064341", "exact"),
        ("ENSMUSG00000029580.14", "ENSMUSG00000029580", "version"),
        ("X1700037C18Rik", "ENSMUSG00000005983", "punctuation"),
        ("ENSG00000141510", None, "unknown"),
        ("CD20", None, "unknown"),
    ],
)
def test_mouse_names_are_read(name, target, how):
    assert read(name, to="ensembl", species="mouse") == (target, how)


def test_id_that_the_table_lacks_stands_for_itself():
    assert read("ENSG00000999999.2", to="ensembl") == ("ENSG00000999999", "version")
    assert read("ENSG00000999999") == (None, "unknown")


def test_gene_without_symbol_goes_by_its_id():
    table = load_table("human")
    row = table.symbols.index("")
    assert read(table.ids[row]) == (table.ids[row], "exact")


def test_mouse_symbols_among_human_names_are_not_taken_as_human():
    resolution = resolve([*HUMAN, "Actb", "Cd3e", "cd8a"], to="symbol")
    assert resolution.species == "human"
    assert resolution.target.tolist() == [*HUMAN, None, None, "CD8A"]
    assert read("Actb") == ("ACTB", "case")  # unless the species was given


def test_without_a_species_letter_case_is_not_guessed():
    resolution = resolve(["cd3e", "actb"], to="symbol")
    assert resolution.species is None
    assert resolution.how.tolist() == ["unknown", "unknown"]


def test_mixed_species_are_read_by_exact_names():
    resolution = resolve(["CD3E", "Actb", "ENSG00000141510", "ENSMUSG00000029580"], to="symbol")
    assert resolution.species is None
    assert resolution.target.tolist() == ["CD3E", "Actb", "TP53", "Actb"]


def test_species_is_told_from_names():
    assert guess_species(HUMAN) == "human"
    assert guess_species(["Cd3e", "Actb", "Gapdh"]) == "mouse"
    assert guess_species(["ENSG00000141510.3"]) == "human"
    assert guess_species(["ENSMUSG00000029580", "ENSMUSG00000064341"]) == "mouse"
    assert guess_species(["ENSDARG00000000001", "gene_1"]) is None
    assert guess_species([]) is None


def test_id_type_is_told_from_names():
    assert guess_id_type(["ENSG00000141510", "ENSG00000999999.1", "CD3E"]) == "ensembl"
    assert guess_id_type(HUMAN) == "symbol"
    assert guess_id_type([]) == "symbol"


def test_wrong_arguments_are_refused():
    with pytest.raises(ValueError, match="`species` is 'rat'; expected one of"):
        resolve(["A"], to="symbol", species="rat")
    with pytest.raises(ValueError, match="`to` is 'entrez'"):
        resolve(["A"], to="entrez")


def test_no_names_resolve_to_nothing():
    resolution = resolve([], to="symbol")
    assert resolution.target.shape == resolution.how.shape == (0,)


@pytest.mark.parametrize("species", ["human", "mouse"])
def test_table_is_sound(species):
    table = load_table(species)
    lengths = {len(column) for column in (table.ids, table.symbols, table.former, table.previous, table.aliases)}
    assert len(lengths) == 1
    assert table.version
    assert table.sources
    ids = [ensembl for ensembl in table.ids if ensembl]
    assert len(ids) - len(set(ids)) < 5  # HGNC gives a few ids to two symbols
    assert all(as_ensembl(ensembl) == (ensembl, "exact") for ensembl in ids)
    assert len(set(table.symbols[: table.n_primary])) == table.n_primary
    assert not any(
        name[:1].isdigit() and name[-3:].lower() in ("mar", "sep", "dec")
        for cell in table.aliases
        for name in cell.split("|")
    )


@pytest.mark.parametrize(
    ("species", "to"), [("human", "symbol"), ("human", "ensembl"), ("mouse", "symbol"), ("mouse", "ensembl")]
)
def test_resolving_twice_changes_nothing(species, to):
    table = load_table(species)
    names = [
        name
        for column in (table.symbols, table.ids, table.aliases)
        for cell in column[::37]
        for name in cell.split("|")
    ]
    once = resolve(names, to=to, species=species).target
    found = once[np.array([target is not None for target in once])]
    assert len(found) > 1_000
    again = resolve(found.tolist(), to=to, species=species)
    assert again.target.tolist() == found.tolist()
    assert set(again.how) == {"exact"}


@st.composite
def gene_names(draw):
    table = load_table(draw(st.sampled_from(["human", "mouse"])))
    names = {
        name
        for row in range(0, len(table.ids), 997)
        for column in (table.symbols, table.ids, table.aliases)
        for name in column[row].split("|")
    }
    known = st.sampled_from(sorted(names))
    mangle = st.sampled_from([str, str.lower, str.upper, lambda name: name.replace("-", "."), lambda name: f"{name}.1"])
    return draw(
        st.lists(st.one_of(st.builds(lambda name, f: f(name), known, mangle), st.text(max_size=8)), max_size=30)
    )


@given(names=gene_names(), order=st.randoms(use_true_random=False))
def test_order_of_names_does_not_matter(names, order):
    shuffled = order.sample(range(len(names)), len(names))
    straight, mixed = resolve(names, to="symbol"), resolve([names[i] for i in shuffled], to="symbol")
    assert straight.target[shuffled].tolist() == mixed.target.tolist()
    assert straight.how[shuffled].tolist() == mixed.how.tolist()


@given(names=gene_names())
def test_target_is_missing_exactly_where_name_is_unknown_or_ambiguous(names):
    for to in ("symbol", "ensembl"):
        resolution = resolve(names, to=to)
        missing = [target is None for target in resolution.target]
        assert missing == [how in ("unknown", "ambiguous") for how in resolution.how]
