"""The authors' numbers come out here, and `verify` notices when anything in a checkpoint or a fixture changes."""

from __future__ import annotations

import json
import pickle
import shutil

import anndata
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.sparse import csr_matrix

from sclcm.models import verify
from sclcm.models._verify import Check, compare, find_fixtures, reference_families, summary


def statuses(checks):
    return {check.array: check.status for check in checks}


def noticed(folder, **given):
    """Names of the arrays that fail or are unknown."""
    found = statuses(verify("geneformer", fixture=folder, **given))
    return {name for name, status in found.items() if status in ("FAIL", "UNKNOWN")}


@pytest.fixture
def fixture(reference, tmp_path):
    """Copy a packaged fixture to a folder that a test may change; without the second weights file, if it has one."""

    def copy(version="v1", *, name="fixture", both_files=False):
        folder = shutil.copytree(reference / version, tmp_path / name)
        if not both_files:
            (folder / "checkpoint/pytorch_model.bin").unlink(missing_ok=True)
        return folder

    return copy


def change_weights(folder, change, sub=""):
    file = folder / "checkpoint" / sub / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def flip(tensor, index=None):
    """Change the sign of one weight of usual size, or of the one that is named."""
    flat = tensor.view(-1)
    position = (
        flat.abs().sort().indices[len(flat) // 2] if index is None else torch.arange(len(flat)).view_as(tensor)[index]
    )
    flat[position] = -flat[position]


def change_expected(folder, change):
    stored = dict(np.load(folder / "expected.npz"))
    change(stored)
    np.savez(folder / "expected.npz", **stored)


def change_dictionary(folder, stem, change):
    (file,) = (folder / "checkpoint").glob(f"{stem}*.pkl")
    stored = pickle.loads(file.read_bytes())
    change(stored)
    file.write_bytes(pickle.dumps(stored, protocol=4))


# ---- as it is ----


@pytest.mark.parametrize("family", reference_families())
def test_every_array_of_the_authors_comes_out(family):
    checks = list(verify(family))
    late = [check for check in checks if check.status == "DEFERRED"]
    assert [str(check) for check in checks if check.status not in ("OK", "DEFERRED")] == []
    assert all(check.tolerance for check in late)
    late_kinds = {check.array.rpartition("/")[2].split("_")[0] for check in late}
    assert late_kinds <= {"isp", "pert", "cond", "delete", "finetune"}
    assert len(checks) - len(late) >= 10


def test_without_a_family_all_are_verified_and_named():
    found = list(verify())
    assert {check.array.split("/")[0] for check in found} == set(reference_families())
    assert "geneformer/v1/input_ids" in statuses(found)


def test_folder_of_any_name_is_a_fixture(fixture):
    folder = fixture("v2", name="some other name")
    found = statuses(verify("geneformer", fixture=folder))
    assert found["input_ids"] == "OK"
    assert set(found.values()) == {"OK", "DEFERRED"}
    assert statuses(verify("geneformer", fixture=str(folder))) == found


def test_folder_of_fixtures_is_verified_one_by_one(fixture, tmp_path):
    fixture("v1", name="held/one")
    fixture("v2", name="held/deep/two")
    found = statuses(verify("geneformer", fixture=tmp_path / "held"))
    assert {name.rpartition("/")[0] for name in found} == {"one", "deep/two"}
    assert set(found.values()) == {"OK", "DEFERRED"}


def test_folder_that_is_no_fixture_says_what_one_holds(tmp_path):
    with pytest.raises(ValueError, match=r"is no fixture: expected `checkpoint/`, `input.h5ad`"):
        list(verify("geneformer", fixture=tmp_path))
    with pytest.raises(ValueError, match="is no fixture"):
        find_fixtures(tmp_path / "nowhere")


def test_fixture_needs_a_family_and_a_family_needs_numbers(tmp_path):
    with pytest.raises(ValueError, match="`fixture` needs a family"):
        list(verify(fixture=tmp_path))
    with pytest.raises(ValueError, match="'nonsense' is unknown"):
        list(verify("nonsense"))


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize("version", ["v1", "v2"])
def test_half_precision_passes_by_its_wider_bound(reference, version, dtype):
    found = statuses(verify("geneformer", fixture=reference / version, dtype=dtype))
    assert set(found.values()) == {"OK", "DEFERRED"}


def test_half_precision_notices_a_grossly_wrong_model(fixture):
    folder = fixture("v2")
    change_weights(folder, lambda tensors: tensors["bert.encoder.layer.0.attention.self.value.weight"].neg_())
    assert {"hidden_last", "cell_emb_mean_last", "cell_emb_cls_last"} <= noticed(folder, dtype="bfloat16")


@pytest.mark.gpu
def test_accelerator_gives_the_authors_numbers(reference):
    device = "cuda" if torch.cuda.is_available() else "mps"
    assert noticed(reference, device=device) == set()


# ---- a changed checkpoint ----

LAYER = "bert.encoder.layer.1."
PRE_TRAINED = (
    "bert.embeddings.position_embeddings.weight",
    "bert.embeddings.LayerNorm.weight",
    "bert.embeddings.LayerNorm.bias",
    LAYER + "attention.self.query.weight",
    LAYER + "attention.self.key.weight",
    LAYER + "attention.self.value.bias",
    LAYER + "attention.output.dense.weight",
    LAYER + "attention.output.LayerNorm.weight",
    LAYER + "intermediate.dense.weight",
    LAYER + "output.dense.weight",
    LAYER + "output.LayerNorm.bias",
    "cls.predictions.transform.dense.weight",
    "cls.predictions.transform.LayerNorm.weight",
    "cls.predictions.bias",
)
WEIGHTS = [
    *(("v1", "", name) for name in PRE_TRAINED),
    *(("v1", "cell_classifier", name) for name in ("bert.pooler.dense.weight", "classifier.weight", "classifier.bias")),
    *(("v2", "", name) for name in ("bert.encoder.layer.0.attention.self.value.weight", LAYER + "output.dense.bias")),
    *(("v2", "gene_classifier", name) for name in ("classifier.weight", LAYER + "output.dense.weight")),
]


@pytest.mark.parametrize(("version", "sub", "name"), WEIGHTS)
def test_flipped_weight_is_noticed(fixture, version, sub, name):
    folder = fixture(version)
    change_weights(folder, lambda tensors: flip(tensors[name]), sub)
    assert noticed(folder)


@pytest.mark.parametrize("gene", ["common", "rare", "absent"])
def test_flipped_weight_of_a_gene_is_noticed_whether_expressed_or_not(fixture, gene):
    folder = fixture("v2")
    seen = np.bincount(np.load(folder / "expected.npz")["input_ids"].ravel(), minlength=224)[4:]
    token = (
        4
        + {"common": seen.argmax(), "rare": np.flatnonzero(seen == 1)[0], "absent": np.flatnonzero(seen == 0)[0]}[gene]
    )
    change_weights(folder, lambda tensors: flip(tensors["bert.embeddings.word_embeddings.weight"], (int(token), 5)))
    found = noticed(folder)
    assert found
    assert ("hidden_last" in found) == (gene != "absent")  # no cell expresses it: only the tied head knows


def test_weights_files_that_disagree_are_noticed(fixture):
    folder = fixture(both_files=True)
    assert noticed(folder) == set()
    # A shift of the key bias changes no score after the softmax: only the comparison of the files can tell.
    change_weights(folder, lambda tensors: flip(tensors[LAYER + "attention.self.key.bias"]))
    (failed,) = (check for check in verify("geneformer", fixture=folder) if check.status == "FAIL")
    assert failed.array == "checkpoint"
    assert "attention.self.key.bias differs between model.safetensors and pytorch_model.bin" in failed.tolerance


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        (lambda tensors: flip(tensors["cls.predictions.decoder.weight"]), "stored twice, but differ"),
        (lambda tensors: tensors.update(more=torch.ones(2)), "no rule names: 'more'"),
    ],
    ids=["tied", "more"],
)
def test_second_weights_file_must_be_whole(fixture, change, complaint):
    folder = fixture(both_files=True)
    file = folder / "checkpoint/pytorch_model.bin"
    tensors = {name: tensor.clone() for name, tensor in torch.load(file, weights_only=True).items()}
    change(tensors)
    torch.save(tensors, file)
    (failed,) = (check for check in verify("geneformer", fixture=folder) if check.status == "FAIL")
    assert failed.array == "checkpoint"
    assert complaint in failed.tolerance
    assert "pytorch_model.bin" in failed.tolerance


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_swapped_ids_of_the_vocabulary_are_noticed(fixture, version):
    folder = fixture(version)
    seen = np.unique(np.load(folder / "expected.npz")["input_ids"])

    def swap(tokens):
        a, b = (gene for gene, token in tokens.items() if token in seen[-2:])
        tokens[a], tokens[b] = tokens[b], tokens[a]

    change_dictionary(folder, "token_dictionary", swap)
    assert "input_ids" in noticed(folder)


def test_swapped_special_tokens_are_noticed(fixture):
    folder = fixture("v2")
    change_dictionary(folder, "token_dictionary", lambda tokens: tokens.update({"<cls>": 3, "<eos>": 2}))
    assert "input_ids" in noticed(folder)


def test_changed_median_is_noticed(fixture):
    folder = fixture()
    gene = anndata.read_h5ad(folder / "input.h5ad")[1].to_df().iloc[0]
    ids = anndata.read_h5ad(folder / "input.h5ad").var["ensembl_id"]
    vocabulary = pickle.loads(next((folder / "checkpoint").glob("token_dictionary*.pkl")).read_bytes())
    strong = next(ids[name] for name in gene.sort_values(ascending=False).index if ids[name] in vocabulary)
    change_dictionary(folder, "gene_median_dictionary", lambda medians: medians.update({strong: medians[strong] * 50}))
    assert "input_ids" in noticed(folder)


def test_changed_count_is_noticed(fixture):
    folder = fixture()
    adata = anndata.read_h5ad(folder / "input.h5ad")
    adata.X.data[:] += adata.X.indices % 5
    adata.write_h5ad(folder / "input.h5ad")
    assert {"input_ids", "norm_counts"} <= noticed(folder)


# ---- changed numbers ----


def nudge(array):
    """Change one entry: the largest number, a label, or one token of the mask that is no padding."""
    changed = array.copy()
    flat = changed.reshape(-1)
    if array.dtype.kind == "U":
        flat[0] = "other"
    elif array.dtype.kind == "b":
        flat[np.flatnonzero(flat)[0]] = False
    elif array.dtype.kind == "i":
        flat[0] += 1
    else:
        flat[np.abs(flat).argmax()] *= 1.001
    return changed


def measured(reference, version):
    names = np.load(reference / version / "expected.npz").files
    return [name for name in names if not name.startswith("isp_")]


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_one_changed_value_of_any_array_is_noticed(fixture, reference, version):
    from sclcm.models import _verify

    folder = fixture(version)
    expected = {name: np.asarray(array) for name, array in np.load(folder / "expected.npz").items()}
    names = measured(reference, version)
    # The draws are inputs: a change of one shows in what was computed from it.
    draws = {"hidden_cells": "hidden_last", "mlm_mask": "mlm_loss"}
    plain = [name for name in names if name not in draws]
    change_expected(folder, lambda stored: stored.update({name: nudge(stored[name]) for name in plain}))
    found = statuses(_verify.verify("geneformer", fixture=folder))
    assert {name for name in plain if found[name] != "FAIL"} == set()
    for draw, consequence in draws.items():
        change_expected(folder, lambda stored, draw=draw: stored.update({**expected, draw: nudge(expected[draw])}))
        assert consequence in noticed(folder)


def test_array_without_a_probe_is_unknown(fixture):
    folder = fixture()
    change_expected(folder, lambda stored: stored.update(mystery=np.zeros(3)))
    assert statuses(verify("geneformer", fixture=folder))["mystery"] == "UNKNOWN"


@pytest.mark.parametrize("side", ["expected.npz", "expected.json"])
def test_array_missing_on_one_side_is_noticed(fixture, side):
    folder = fixture()
    if side == "expected.npz":
        change_expected(folder, lambda stored: stored.pop("hidden_last"))
    else:
        facts = json.loads((folder / side).read_text())
        del facts["hidden_last"]
        (folder / side).write_text(json.dumps(facts))
    assert noticed(folder) == {"hidden_last"}


@pytest.mark.parametrize(
    "change",
    [
        lambda array: array[:, :-1],
        lambda array: array.T,
        lambda array: np.where(np.arange(array.shape[1]) == 2, np.nan, array),
        lambda array: array.astype(str),
        lambda array: array + 1j,
    ],
    ids=["cut", "transposed", "nan", "text", "complex"],
)
def test_array_of_another_kind_is_noticed(fixture, change):
    folder = fixture()
    change_expected(folder, lambda stored: stored.update(cell_emb_mean_last=change(stored["cell_emb_mean_last"])))
    assert noticed(folder) == {"cell_emb_mean_last"}


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("hidden_cells", np.array([0, 0, 1, 2])),
        ("hidden_cells", np.array([0, 1, 2, 99])),
        ("hidden_cells", np.array([0.0, 1.0, 2.0, 3.0])),
        ("mlm_mask", np.ones((8, 72), dtype=bool)),
        ("mlm_mask", np.zeros((8, 71), dtype=bool)),
        ("mlm_mask", np.zeros((8, 72), dtype=np.float32)),
    ],
    ids=["repeated", "outside", "no integers", "hides padding", "other shape", "no booleans"],
)
def test_draw_that_cannot_be_one_fails_and_the_others_are_still_compared(fixture, name, value):
    folder = fixture()
    change_expected(folder, lambda stored: stored.update({name: value}))
    found = statuses(verify("geneformer", fixture=folder))
    assert found[name] == "FAIL"
    assert found["input_ids"] == found["cell_emb_mean_last"] == "OK"


def with_a_cell_without_genes(folder, row):
    """Insert a cell that has counts, but of no gene that the model knows."""
    adata = anndata.read_h5ad(folder / "input.h5ad")
    more = anndata.concat([adata[:row], adata[:1], adata[row:]], index_unique="-", keys=["a", "b", "c"], merge="same")
    counts = more.X.toarray()
    unknown = np.flatnonzero(more.var["ensembl_id"].str.startswith("UNMAPPED"))
    counts[row] = 0
    counts[row, unknown[:2]] = 5
    more.X = csr_matrix(counts)
    more.write_h5ad(folder / "input.h5ad")


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_cell_without_genes_has_no_row_as_upstream_leaves_it_out(fixture, version):
    folder = fixture(version)
    with_a_cell_without_genes(folder, 3)
    assert noticed(folder) == set()


def test_cell_that_upstream_is_not_to_read_has_no_row(fixture):
    folder = fixture()
    adata = anndata.read_h5ad(folder / "input.h5ad")
    more = anndata.concat([adata[:2], adata[5:6], adata[2:]], index_unique="-", keys=["a", "b", "c"], merge="same")
    more.obs["filter_pass"] = np.where(np.arange(more.n_obs) == 2, 0, 1)
    more.write_h5ad(folder / "input.h5ad")
    assert noticed(folder) == set()


def test_cell_without_genes_may_have_a_row(fixture):
    folder = fixture("v1")
    with_a_cell_without_genes(folder, 3)
    change_expected(folder, lambda stored: stored.update(length=np.insert(stored["length"], 3, 0)))
    found = statuses(verify("geneformer", fixture=folder))
    assert found["length"] == "OK"
    assert found["input_ids"] == "FAIL"


def test_group_that_no_cell_belongs_to_fails(fixture):
    folder = fixture()
    change_expected(folder, lambda stored: stored.update(state_emb_b7=stored["state_emb_b1"]))
    facts = json.loads((folder / "expected.json").read_text())
    (folder / "expected.json").write_text(json.dumps({**facts, "state_emb_b7": facts["state_emb_b1"]}))
    assert noticed(folder) == {"state_emb_b7"}


def test_group_may_be_one_of_another_column_of_text(fixture):
    folder = fixture()
    adata = anndata.read_h5ad(folder / "input.h5ad")
    adata.obs = adata.obs.rename(columns={"batch": "donor"})
    adata.write_h5ad(folder / "input.h5ad")
    assert noticed(folder) == set()


def test_no_rows_of_scores_prove_nothing(fixture):
    folder = fixture()
    change_expected(folder, lambda stored: stored.update(mlm_logits_masked=stored["mlm_logits_masked"][:0]))
    assert noticed(folder) == {"mlm_logits_masked"}
    change_expected(folder, lambda stored: stored.update(mlm_logits_masked=np.float32(1)))
    assert noticed(folder) == {"mlm_logits_masked"}


@pytest.mark.parametrize(
    "fact", [3, {}, {"tolerance": None}, {"tolerance": {"atol": 1}}, {"tolerance": {"atol": 0, "rtol": float("inf")}}]
)
def test_array_without_a_tolerance_fails_and_the_others_are_still_compared(fixture, fact):
    folder = fixture()
    facts = json.loads((folder / "expected.json").read_text())
    (folder / "expected.json").write_text(json.dumps({**facts, "hidden_last": fact}))
    assert noticed(folder) == {"hidden_last"}


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"null", b"\xff\xfe", b"[" * 100_000])
@pytest.mark.parametrize("file", ["expected.npz", "expected.json", "input.h5ad", "checkpoint/config.json"])
def test_file_that_cannot_be_read_is_named(fixture, file, content):
    folder = fixture()
    (folder / file).write_bytes(content)
    with pytest.raises((ValueError, TypeError), match=file):
        list(verify("geneformer", fixture=folder))


def test_missing_classifier_fails_and_the_others_are_still_compared(fixture):
    folder = fixture()
    shutil.rmtree(folder / "checkpoint/cell_classifier")
    assert noticed(folder) == {"cellclf_logits"}


def test_dictionaries_that_do_not_serve_are_named(fixture):
    folder = fixture()
    change_dictionary(folder, "gene_median_dictionary", lambda table: table.update(dict.fromkeys(table, "high")))
    with pytest.raises(ValueError, match=r"'gene_median_dictionary_gc30M\.pkl' does not give a number for every gene"):
        list(verify("geneformer", fixture=folder))
    change_dictionary(folder, "token_dictionary", lambda table: table.pop("<pad>"))
    with pytest.raises(ValueError, match=r"'token_dictionary_gc30M\.pkl' lacks the padding token '<pad>'"):
        list(verify("geneformer", fixture=folder))


# ---- comparing ----

TOLERANCE = {"atol": 0.1, "rtol": 0.01}


@pytest.mark.parametrize(
    ("found", "wanted", "status", "max_abs"),
    [
        ([1.0, 2.0], [1.0, 2.0], "OK", 0.0),
        ([1.0, 102.0], [1.05, 101.0], "OK", 1.0),
        ([1.0, 2.0], [1.0, 2.2], "FAIL", 0.2),
        ([], [], "OK", 0.0),
        ([1.0], [np.inf], "FAIL", np.inf),
        ([np.nan], [1.0], "FAIL", np.nan),
        ([np.nan], [np.nan], "FAIL", np.nan),
    ],
)
def test_numbers_are_compared_within_their_tolerance(found, wanted, status, max_abs):
    check = compare(np.array(found), np.array(wanted), name="x", tolerance=TOLERANCE)
    assert check.status == status
    assert check.max_abs == pytest.approx(max_abs, nan_ok=True)


def test_nan_may_be_declared_equal():
    a, b = np.array([np.nan, 1.0]), np.array([np.nan, 1.05])
    assert compare(a, b, name="x", tolerance={**TOLERANCE, "nan_equal": True}).status == "OK"
    assert compare(a, b[::-1], name="x", tolerance={**TOLERANCE, "nan_equal": True}).status == "FAIL"


def test_text_is_compared_exactly_and_shapes_always():
    assert compare(np.array(["a", "b"]), np.array(["a", "b"]), name="x", tolerance=TOLERANCE).status == "OK"
    wrong = compare(np.array(["a", "c"]), np.array(["a", "b"]), name="x", tolerance=TOLERANCE)
    assert (wrong.status, wrong.max_abs) == ("FAIL", 1.0)
    assert "shape (2, 1), expected (1, 2)" in str(
        compare(np.ones((2, 1)), np.ones((1, 2)), name="x", tolerance=TOLERANCE)
    )


def test_check_is_one_line_and_the_summary_counts():
    checks = [
        Check(status="OK", array="a", max_abs=1e-7, max_rel=0.5, tolerance="atol=1e-05"),
        Check(status="FAIL", array="b"),
    ]
    assert str(checks[0]) == "OK a 1e-07 0.5 atol=1e-05"
    assert summary(checks) == "1 ok, 1 fail, 0 deferred, 0 unknown"
