"""A fixture of other cells, in another order or number, verifies; what it should notice it notices all the same."""

from __future__ import annotations

import json
import pickle
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


@pytest.fixture
def flat_protein(copied):
    """A fixture whose cell 2 has equal values of all proteins: upstream writes zeros of it."""
    folder = copied("sctranslator")
    protein = anndata.read_h5ad(folder / "input_protein.h5ad")
    matrix = protein.X.toarray()
    matrix[2] = 7
    protein.X = matrix
    protein.write_h5ad(folder / "input_protein.h5ad")
    arrays, facts = stored(folder), json.loads((folder / "expected.json").read_text())
    for name in ("protein_value", "padded_protein_value"):
        arrays[name][2, : protein.n_vars] = np.nan
        facts[name]["tolerance"]["nan_equal"] = True
    arrays["test_y_pred"][2] = arrays["test_y_true"][2] = 0
    for name in ("test_mse", "test_ccc"):  # their rounding is another
        del arrays[name], facts[name]
    np.savez(folder / "expected.npz", **arrays)
    (folder / "expected.json").write_text(json.dumps(facts))
    return folder


def test_values_are_zeros_where_what_was_measured_cannot_be_scaled(flat_protein):
    assert not not_ok("sctranslator", flat_protein)


def test_number_of_given_features_is_read_from_ids_where_no_mask_is_stored(copied):
    folder = copied("sctranslator")
    arrays, facts = stored(folder), json.loads((folder / "expected.json").read_text())
    masks = [name for name in arrays if name.endswith("_mask")]
    np.savez(folder / "expected.npz", **{name: x for name, x in arrays.items() if name not in masks})
    (folder / "expected.json").write_text(json.dumps({k: fact for k, fact in facts.items() if k not in masks}))
    assert not not_ok("sctranslator", folder)
    arrays["padded_rna_gene"][:, -1] = 5
    np.savez(folder / "expected.npz", **{name: x for name, x in arrays.items() if name not in masks})
    assert "padded_rna_gene" in not_ok("sctranslator", folder)


def test_cells_that_lack_the_first_genes_have_values_all_the_same(copied):
    """What a sentence of fewer genes is short of is no fact of the cell: its account is its own."""
    folder = copied("sctranslator")
    data = anndata.read_h5ad(folder / "input.h5ad")
    known = np.flatnonzero(data.var_names.isin(stored(folder)["rna_kept_genes"]))
    matrix = data.X.toarray()
    matrix[3, known[: len(known) - 40]] = 0
    data.X = matrix
    data.write_h5ad(folder / "input.h5ad")
    checks = {check.array: check for check in verify("sctranslator", fixture=folder)}
    assert np.isnan(checks["padded_y_hat"].max_abs)
    assert np.isfinite(checks["test_y_pred"].max_abs)
    assert np.isfinite(checks["ko_original"].max_abs)


def store(folder, arrays):
    """Store arrays that are within 1e-6."""
    np.savez(folder / "expected.npz", **arrays)
    facts = {name: {"tolerance": {"atol": 1e-6, "rtol": 1e-6}} for name in arrays}
    (folder / "expected.json").write_text(json.dumps(facts))


@pytest.mark.parametrize("telling", [(), ("gears_input",), ("finetune_values",)])
def test_depth_of_a_batch_is_that_which_its_values_are_named_after(copied, telling):
    folder = copied("scfoundation")
    arrays, rows = stored(folder), [0, 1, 4]
    longest = arrays["batch_encoder_values"].shape[1]
    values = arrays["gathered_values_t4"][rows, :longest]
    kept = {name: arrays[name] for name in (*telling, "batch_encoder_ids")}
    kept["batch_encoder_values"] = np.where(values < 0, 103, values)
    store(folder, {**kept, "batch_values_t4": arrays["values_t4"][rows]})
    assert not not_ok("scfoundation", folder)
    store(folder, {**kept, "batch_values_t3": arrays["values_t4"][rows]})
    assert not_ok("scfoundation", folder) == {"batch_values_t3", "batch_encoder_values"}


def test_nothing_that_tells_the_cells_is_said(copied):
    folder = copied("scfoundation")
    arrays = stored(folder)
    np.savez(folder / "expected.npz", batch_prediction=arrays["batch_prediction"])
    checks = {check.array: check.tolerance for check in verify("scfoundation", fixture=folder)}
    assert "None of 'gears_input'" in checks["batch_prediction"]
    np.savez(folder / "expected.npz", bin_grid_weights=arrays["bin_grid_weights"])
    checks = {check.array: check.tolerance for check in verify("scfoundation", fixture=folder)}
    assert "'bin_grid_values' is not stored" in checks["bin_grid_weights"]


def test_gene_vectors_of_logarithms_are_read_by_their_own_recipe(copied):
    """At a fixed depth asked for, logarithms with totals give what counts give; without totals they do not."""
    folder = copied("scfoundation")
    arrays, facts = stored(folder), json.loads((folder / "expected.json").read_text())
    same = {"gene_f1_A": "gene_f1_F", "gene_expression_f1_A": "gene_expression_f1_F"}
    other = {"gene_f1_T": "gene_f1_F", "gene_expression_f1_T": "gene_expression_f1_F"}
    for new, old in {**same, **other}.items():
        arrays[new], facts[new] = arrays[old], facts[old]
    np.savez(folder / "expected.npz", **arrays)
    (folder / "expected.json").write_text(json.dumps(facts))
    checks = {check.array: check for check in verify("scfoundation", fixture=folder)}
    assert {checks[name].status for name in same} == {"OK"}
    assert all(checks[name].status == "FAIL" and np.isfinite(checks[name].max_abs) for name in other)


@pytest.mark.parametrize(
    "file", ["mouse_gene_symbol_to_human_gene_symbol.pkl", "mouse_gene_ID_to_human_gene_symbol.pkl"]
)
def test_genes_of_mice_are_told_from_their_names(copied, file):
    """The same cells, their genes called as mouse genes are, by a dictionary of the release."""
    folder = copied("sctranslator")
    human = [str(name) for name in anndata.read_h5ad(folder / "input.h5ad").var["gene_symbol"]]
    human += [str(name) for name in anndata.read_h5ad(folder / "input_protein.h5ad").var["gene_symbol"]]
    called = "ENSMUSG{:011d}" if "_ID_" in file else "Mousegene{}"
    mouse = {name: called.format(i + 10**7) for i, name in enumerate(dict.fromkeys(human))}
    dictionary = folder / "checkpoint/ID_dic" / file
    dictionary.write_bytes(pickle.dumps({new: old for old, new in mouse.items()}, protocol=2))
    arrays = stored(folder)
    for name in ("input", "input_protein"):
        data = anndata.read_h5ad(folder / f"{name}.h5ad")
        renamed = {old: f"v{i}" for i, old in enumerate(data.var_names)}
        data.var["gene_symbol"] = [mouse[str(symbol)] for symbol in data.var["gene_symbol"]]
        data.var_names = list(renamed.values())
        data.write_h5ad(folder / f"{name}.h5ad")
        if name == "input":
            arrays |= {key: np.array([renamed[old] for old in arrays[key]]) for key in ("rna_kept_genes", "ko_gene")}
    np.savez(folder / "expected.npz", **arrays)
    assert not not_ok("sctranslator", folder)
    dictionary.unlink()
    assert not_ok("sctranslator", folder)


def test_proteins_of_a_cell_are_found_by_its_name(copied):
    folder = copied("sctranslator")
    protein = anndata.read_h5ad(folder / "input_protein.h5ad")
    protein[::-1].copy().write_h5ad(folder / "input_protein.h5ad")
    assert not not_ok("sctranslator", folder)
    protein[1:].copy().write_h5ad(folder / "input_protein.h5ad")
    assert "test_y_true" in not_ok("sctranslator", folder)


def test_columns_that_the_authors_do_not_read_find_no_genes(copied):
    """Ids would find genes whose symbols the release does not know."""
    folder = copied("sctranslator")
    data = anndata.read_h5ad(folder / "input.h5ad")
    kept = stored(folder)["rna_kept_genes"]
    symbols = data.var["gene_symbol"].astype(str)
    symbols[kept[:60]] = "RETIRED"
    data.var["gene_symbol"] = symbols
    data.write_h5ad(folder / "input.h5ad")
    np.savez(folder / "expected.npz", rna_kept_genes=kept[60:])
    facts = json.loads((folder / "expected.json").read_text())
    (folder / "expected.json").write_text(json.dumps({"rna_kept_genes": facts["rna_kept_genes"]}))
    assert not not_ok("sctranslator", folder)


@pytest.mark.parametrize("column", ["gene_name", "symbols"])
def test_names_may_stand_in_a_column(copied, column):
    folder = copied("scfoundation")
    data = anndata.read_h5ad(folder / "input.h5ad")
    data.var = data.var[[]].assign(**{column: data.var_names.to_numpy()})
    data.var_names = [f"ENSG{i:011d}" for i in range(data.n_vars)]
    data.write_h5ad(folder / "input.h5ad")
    assert not not_ok("scfoundation", folder)


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


def test_means_may_be_of_any_cells_of_a_step(copied):
    folder = copied("cellplm")
    arrays = stored(folder)
    for rows in ([0, 2], [1, 3], [3]):
        np.savez(folder / "expected.npz", **{**arrays, "pre_mean": arrays["pre_mean"][rows]})
        assert not not_ok("cellplm", folder)
    np.savez(folder / "expected.npz", **{**arrays, "pre_mean": arrays["pre_mean"][[2, 0]]})
    assert not_ok("cellplm", folder) == {"pre_mean"}
