from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sclcm._settings import settings
from sclcm.data.genes import choose_gene_names, gene_names, require_overlap
from sclcm.genes.table import load_table
from sclcm.genes.vocabulary import GeneVocabulary

SYMBOLS = ["CD3D", "CD3E", "MS4A1", "NKG7", "LYZ", "GNLY", "CD8A", "PPBP"]
IDS = [
    *("ENSG00000167286", "ENSG00000198851", "ENSG00000156738", "ENSG00000105374"),
    *("ENSG00000090382", "ENSG00000115523", "ENSG00000153563", "ENSG00000163736"),
]


def vocabulary(features: list[str], ids: str = "ensembl", names: dict[str, str] | None = None) -> GeneVocabulary:
    tokens = {"<pad>": 0, **{feature: i + 1 for i, feature in enumerate(features)}}
    return GeneVocabulary.from_mapping(tokens, specials=["<pad>"], ids=ids, names=names)


def choose(var: pd.DataFrame, features: list[str] = IDS, **options: object) -> tuple[int, str]:
    alignment, key = choose_gene_names(var, vocabulary(features), **{"gene_key": None, **options})
    return alignment.report.n_matched, key


def test_var_names_come_before_columns_of_well_known_name():
    assert choose(pd.DataFrame({"gene_ids": IDS}, index=SYMBOLS)) == (8, "var_names")


def test_a_column_that_the_model_prefers_comes_first():
    var = pd.DataFrame({"ensembl_id": IDS}, index=SYMBOLS)
    assert choose(var, preferred=("ensembl_id", "other")) == (8, "ensembl_id")


def test_a_column_wins_where_var_names_say_little():
    var = pd.DataFrame({"n_cells": 3, "Gene_IDs": IDS}, index=[str(i) for i in range(8)])
    assert choose(var) == (8, "Gene_IDs")
    half_known = pd.DataFrame({"feature_name": SYMBOLS}, index=[*IDS[:4], "a", "b", "c", "d"])
    assert choose(half_known) == (8, "feature_name")


def test_a_column_that_is_named_is_taken_even_if_it_matches_less():
    var = pd.DataFrame({"mine": IDS[:2] + ["?"] * 6}, index=SYMBOLS)
    assert choose(var, gene_key="mine") == (2, "mine")
    assert choose(var.assign(mine=None), gene_key="var_names") == (8, "var_names")


def test_a_column_that_is_missing_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"no column 'symbol'; its columns are \['gene_ids'\]"):
        choose(pd.DataFrame({"gene_ids": IDS}, index=SYMBOLS), gene_key="symbol")


def test_names_may_be_categories_and_may_be_missing():
    var = pd.DataFrame({"symbol": pd.Categorical([*SYMBOLS[:7], None])}, index=[str(i) for i in range(8)])
    assert gene_names(var, "symbol") == [*SYMBOLS[:7], ""]
    assert choose(var) == (7, "symbol")


def test_genes_named_twice_share_a_feature():
    alignment, _ = choose_gene_names(
        pd.DataFrame(index=["CD3D", "LYZ", "CD3D"]), vocabulary(SYMBOLS, "symbol"), gene_key=None
    )
    counts = np.array([[1.0, 10.0, 100.0]]) @ alignment.matrix().toarray()
    assert counts[0, SYMBOLS.index("CD3D")] == 101
    assert alignment.report.merged == {"CD3D": ("CD3D", "CD3D")}


def check(names: list[str], features: list[str] = IDS, **options: object) -> None:
    known = vocabulary(features)
    alignment, _ = choose_gene_names(pd.DataFrame(index=names), known, gene_key=None)
    require_overlap(alignment, model="toycell", vocabulary=known, names=names, **options)


def test_enough_overlap_passes():
    check(SYMBOLS)
    check(SYMBOLS[:4] + [f"novel{i}" for i in range(96)], min_genes=4)


@pytest.mark.parametrize(
    ("names", "options", "message"),
    [
        (["g1", "g2", "g3"], {}, r"'toycell' knows 0 of the 3 genes of the data, expected at least 8"),
        (
            SYMBOLS[:3],
            {"min_genes": 4},
            r"knows 3 of the 3 genes.*at least 4.*lower `sclcm.settings.min_genes_matched`",
        ),
        (
            SYMBOLS[:3] + [f"novel{i}" for i in range(97)],
            {"min_genes": 3},
            r"knows 3 of the 100 genes.*at least 10% of them.*Ensembl gene ids, or lower `sclcm.settings.min_share`",
        ),
    ],
)
def test_low_overlap_is_refused(names, options, message):
    with pytest.raises(ValueError, match=message):
        check(names, **options)


def test_the_floors_are_settings(monkeypatch):
    with pytest.raises(ValueError, match="expected at least 8"):
        check(SYMBOLS[:2])
    monkeypatch.setattr(settings, "min_genes_matched", 2)
    check(SYMBOLS[:2])


def test_mouse_genes_are_refused_by_a_human_model_even_where_letter_case_would_match():
    mouse = ["Cd3d", "Cd3e", "Ms4a1", "Nkg7", "Lyz2", "Cd8a", "Ppbp", "Actb", "Gapdh", "Xist"]
    known = vocabulary(SYMBOLS, "symbol", names={symbol: symbol for symbol in SYMBOLS})
    alignment, _ = choose_gene_names(pd.DataFrame(index=mouse), known, gene_key=None)
    with pytest.raises(ValueError, match=r"mouse genes, and 'toycell' was trained on human; choose a model"):
        require_overlap(alignment, model="toycell", vocabulary=known, names=mouse, min_genes=1)


def test_lower_case_symbols_are_refused_with_the_way_to_read_them():
    names = [name.lower() for name in load_table("human").symbols[:400] if name]
    known = vocabulary([name.upper() for name in names], "symbol")
    alignment, _ = choose_gene_names(pd.DataFrame(index=names), known, gene_key=None)
    with pytest.raises(ValueError, match=r"Read as human names .* `adata = sclcm\.pp\.unify_genes\(adata, species='hu"):
        require_overlap(alignment, model="toycell", vocabulary=known, names=names)
