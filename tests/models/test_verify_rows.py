"""A fixture of other cells, in another order or number, verifies; what it should notice it notices all the same."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pytest

import sclcm.reference
from sclcm.models import verify
from sclcm.models._measure import said
from sclcm.models._measure_rows import rows_that_fit
from sclcm.reference._probes import Said

REFERENCE = Path(sclcm.reference.__file__).parent
ORDER = [7, 3, 0, 9, 5, 1, 2, 8, 4, 6]


def not_ok(family, folder):
    return {check.array for check in verify(family, fixture=folder) if check.status not in ("OK", "DEFERRED")}


def stored(folder):
    return dict(np.load(folder / "expected.npz"))


@pytest.fixture
def copied(tmp_path):
    def copy(family):
        return Path(shutil.copytree(REFERENCE / family, tmp_path / family))

    return copy


def take_cells(folder, rows, *, keep=()):
    """Leave only some cells, in some order; arrays named in `keep` have no row for each cell."""
    adata = anndata.read_h5ad(folder / "input.h5ad")
    n_obs = adata.n_obs
    adata[rows].copy().write_h5ad(folder / "input.h5ad")
    arrays = stored(folder)
    np.savez(
        folder / "expected.npz",
        **{k: x[rows] if x.ndim and len(x) == n_obs and k not in keep else x for k, x in arrays.items()},
    )


# ---- rows of which nothing says the cells ----


@pytest.fixture
def reordered(copied):
    """Decoded genes are of the cells 2, 5, 6 of it (0, 1, 2 before) and 2, 5, 8; its cell 1 has a total of one."""
    folder = copied("scfoundation")
    take_cells(folder, ORDER)
    moved = {f"_cell{cell}_": f"_cell{ORDER.index(cell)}_" for cell in (0, 1)}

    def renamed(name):
        return next((name.replace(old, new) for old, new in moved.items() if old in name), name)

    np.savez(folder / "expected.npz", **{renamed(name): array for name, array in stored(folder).items()})
    facts = json.loads((folder / "expected.json").read_text())
    (folder / "expected.json").write_text(json.dumps({renamed(name): fact for name, fact in facts.items()}))
    return folder


def test_cells_of_rows_are_found_out(reordered):
    assert not not_ok("scfoundation", reordered)


@pytest.mark.parametrize(
    "name", ["gene_f1_F", "gene_expression_f1_F", "gene_batch_f1_A", "gears_input", "batch_values_f1"]
)
def test_exchanged_rows_are_noticed(reordered, name):
    arrays = stored(reordered)
    np.savez(reordered / "expected.npz", **{**arrays, name: arrays[name][[1, 0, 2]]})
    assert name in not_ok("scfoundation", reordered)


@pytest.mark.parametrize(
    "name", ["gene_f1_F", "gene_expression_f1_F", "gene_batch_f1_A", "gears_input", "cell_all_t4_A_ce"]
)
@pytest.mark.parametrize("change", [0.01, -1e6, np.nan])
def test_one_changed_value_is_noticed_and_no_more(reordered, name, change):
    arrays = stored(reordered)
    arrays[name].flat[3] += change
    np.savez(reordered / "expected.npz", **arrays)
    assert not_ok("scfoundation", reordered) == {name}


def test_row_of_another_cell_with_a_total_of_one_is_noticed(reordered):
    arrays = stored(reordered)
    arrays["cell_all_t4_A_ce"][[1, 4]] = arrays["cell_all_t4_A_ce"][[4, 1]]
    np.savez(reordered / "expected.npz", **arrays)
    assert not_ok("scfoundation", reordered) == {"cell_all_t4_A_ce"}


def test_rows_are_those_that_fit_best_in_the_order_of_the_input():
    ours = np.arange(12.0).reshape(4, 3)
    assert rows_that_fit(ours, ours[[1, 3]] + 0.1, "a") == [1, 3]
    assert rows_that_fit(ours, ours[[3, 1]], "a") == [1, 3]
    assert rows_that_fit(ours, np.where(ours == 9, np.inf, ours)[[2, 3]], "a") == [2, 3]
    assert len(set(rows_that_fit(ours[[0, 0, 1]], ours[[0, 0]], "a"))) == 2


@pytest.mark.parametrize("shape", [(0, 3), (5, 3), (2, 4)])
def test_rows_of_another_shape_are_refused(shape):
    with pytest.raises(ValueError, match="expected 1 to 4 cells"):
        rows_that_fit(np.zeros((4, 3)), np.zeros(shape), "a")


# ---- numbers of rows ----


def test_as_many_cells_are_read_as_are_stored(copied):
    folder = copied("scbert")
    kept = stored(folder)["kept_cells"]
    names = list(anndata.read_h5ad(folder / "input.h5ad").obs_names)
    take_cells(folder, [i for i, name in enumerate(names) if name != kept[-2]], keep=stored(folder))
    arrays = stored(folder)
    rows = [0, 1, 2, 3, 4, 5, 6, 8]
    for name, array in arrays.items():
        if array.ndim and len(array) == len(kept):
            arrays[name] = array[rows]
        elif array.ndim and len(array) == len(kept) + 1:
            arrays[name] = array[[*rows, 9]]
    arrays["encodings_single"] = arrays["encodings_single"][[0, 1, 3]]
    np.savez(folder / "expected.npz", **arrays)
    # Upstream's numbers of a batch depend on all of its cells.
    assert not not_ok("scbert", folder) - {"encodings_batch", "cell_embedding_mean_batch"}


def test_cells_that_fill_no_batch_may_be_left_out_but_no_others(copied):
    folder = copied("sctranslator")
    rows = list(range(11))
    take_cells(folder, rows)
    protein = anndata.read_h5ad(folder / "input_protein.h5ad")
    protein[rows].copy().write_h5ad(folder / "input_protein.h5ad")
    arrays = stored(folder)
    arrays |= {name: x[:8] for name, x in arrays.items() if name.startswith(("test_y", "zero_"))}
    arrays |= {name: arrays[name][:10] for name in ("ko_original", "ko_y_hat")}
    found, truth = (arrays[name].astype(np.float64) for name in ("test_y_pred", "test_y_true"))
    batches = [slice(0, 4), slice(4, 8)]
    arrays["test_mse"] = np.mean([np.mean((found[at] - truth[at]) ** 2) for at in batches])
    pairs = [(found[at].ravel(), truth[at].ravel()) for at in batches]
    arrays["test_ccc"] = np.mean([a @ b / np.linalg.norm(a) / np.linalg.norm(b) for a, b in pairs])
    np.savez(folder / "expected.npz", **arrays)
    assert not not_ok("sctranslator", folder)
    np.savez(folder / "expected.npz", **{**arrays, "test_y_pred": arrays["test_y_pred"][:4]})
    assert not_ok("sctranslator", folder) == {"test_y_pred"}


# ---- settings that only words give ----


@pytest.mark.parametrize(
    ("words", "found"),
    [("mean over batches of 16 (the last)", 16), ("mean over batches", 4), ("", 4)],
)
def test_number_is_read_from_words(words, found):
    assert said(Said(pattern=r"batches of (\d+)", otherwise=4), {"meaning": words, "produced_by": None}) == found
    assert said(Said(pattern=r"batches of (\d+)", otherwise=4), None) == 4


def test_several_words_are_read_between_commas():
    setting = Said(pattern=r"\[([\d, ]+)\]", otherwise=("0",))
    assert said(setting, {"produced_by": "f(layers=[0, 2,3])"}) == ("0", "2", "3")


SETTINGS = [
    ("scmulan", "cond_prompt_ids", "Blood, NK cell", "Blood, B cell"),
    ("tgpt", "greedy_generation", "first 6 tokens", "first 5 tokens"),
    ("sctranslator", "test_ccc", "batches of 4", "batches of 3"),
    ("nicheformer", "ft_logits", "extract_layers=[0,1]", "extract_layers=[1]"),
    ("scgpt", "grn_edges", "cosine >= 0.3", "cosine >= 0.6"),
    ("scgpt", "pre_genes", "filter_gene_by_counts=3", "filter_gene_by_counts=9"),
]


@pytest.mark.parametrize(("family", "array", "old", "new"), SETTINGS)
def test_another_setting_gives_other_numbers(copied, family, array, old, new):
    folder = copied(family)
    text = (folder / "expected.json").read_text()
    assert old in text
    (folder / "expected.json").write_text(text.replace(old, new))
    assert array in not_ok(family, folder)
