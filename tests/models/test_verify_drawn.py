"""Arrays that upstream drew at random: `verify` takes what could have been drawn, and notices everything else."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from scipy.sparse import csr_matrix
from torch import nn

import sclcm.reference
from sclcm.models import verify
from sclcm.models._measure import Measurement
from sclcm.models._verify import compare
from sclcm.reference._probes import find_probe
from sclcm.reference.scgpt.arrays import ARRAYS

REFERENCE = Path(sclcm.reference.__file__).parent / "scgpt"
EXPECTED = dict(np.load(REFERENCE / "expected.npz"))
PAD = 170


@pytest.fixture
def fixture(tmp_path):
    """Copy of the packaged fixture, to be changed."""
    return Path(shutil.copytree(REFERENCE, tmp_path / "fixture"))


def failed(folder):
    """Names of the arrays that fail."""
    return {check.array for check in verify("scgpt", fixture=folder) if check.status in ("FAIL", "UNKNOWN")}


def is_noticed(folder):
    """Whether any array fails; stops at the first."""
    return any(check.status == "FAIL" for check in verify("scgpt", fixture=folder))


def change_expected(folder, **changed):
    np.savez(folder / "expected.npz", **{**EXPECTED, **changed})


def change_json(file, change):
    content = json.loads(file.read_text())
    change(content)
    file.write_text(json.dumps(content))


def changed(name, place, value):
    array = EXPECTED[name].copy()
    array[place] = value
    return array


def measurement(folder, **draws):
    adata = anndata.read_h5ad(folder / "input.h5ad")
    return Measurement(
        adata, folder / "checkpoint", family="scgpt", draws={**EXPECTED, **draws}, dtype="float32", device="cpu"
    )


# ---- a changed checkpoint ----

BLOCK = "transformer_encoder.layers.1."
WEIGHTS = [
    ("checkpoint", "encoder.embedding.weight", 24 * 89),  # a gene of many cells
    ("checkpoint", "flag_encoder.weight", 30),
    ("checkpoint", "value_encoder.linear1.bias", None),
    ("checkpoint", BLOCK + "self_attn.Wqkv.weight", -1),
    ("checkpoint", BLOCK + "norm2.bias", None),
    ("checkpoint", "decoder.fc.2.weight", None),
    ("checkpoint", "mvc_decoder.gene2query.bias", None),
    ("checkpoint_annotation", "cls_decoder._decoder.5.bias", None),
    ("checkpoint_integration", "dsbn.bns.1.running_mean", None),
    ("checkpoint_integration", "batch_encoder.enc_norm.bias", None),
    ("checkpoint_integration", "decoder.zero_logit.4.weight", None),
    ("checkpoint_integration", "mvc_decoder.W_zero_logit.bias", None),
    ("checkpoint_integration", "grad_reverse_discriminator._decoder.2.weight", None),
]


@pytest.mark.parametrize(("folder", "name", "place"), WEIGHTS)
def test_flipped_weight_is_noticed(fixture, folder, name, place):
    file = fixture / folder / "best_model.pt"
    tensors = torch.load(file, weights_only=True)
    flat = tensors[name].view(-1)
    place = int(flat.abs().argmax()) if place is None else place
    flat[place] = -flat[place]
    torch.save(tensors, file)
    assert is_noticed(fixture)


@pytest.mark.parametrize("pair", [("CCNI", "CUTA"), ("<pad>", "<cls>"), ("<cls>", "<eoc>")])
def test_swapped_ids_are_noticed(fixture, pair):
    one, other = pair
    change_json(
        fixture / "checkpoint/vocab.json",
        lambda tokens: tokens.update({one: tokens[other], other: tokens[one]}),
    )
    assert "embed_full_genes" in failed(fixture)


@pytest.mark.parametrize(("key", "value"), [("nheads", 4), ("pad_value", 0)])
def test_changed_setting_is_noticed(fixture, key, value):
    change_json(fixture / "checkpoint/args.json", lambda settings: settings.update({key: value}))
    assert is_noticed(fixture)


# ---- changed numbers ----

INPUTS = {
    *("gen_pcpt_gene", "gen_pcpt_expr", "gen_gen_gene", "gen_target", "mask", "int_batch_labels"),
    *("embed_full_values", "embed_short_values", "embed_short_genes", "grn_genes", "attn_genes", "attn_values"),
    *("pre_binned", "tok_sampled_genes", "tok_sampled_values", "random_mask_value", "attn_rank_sum"),
}
"""What is a draw or decided by one, in whole or in part."""


def nudge(array):
    if array.dtype.kind == "U":
        return np.array(["other", *array[1:]])
    wrong = array.copy().reshape(-1)
    place = int(np.abs(wrong).argmax())
    wrong[place] = wrong[place] + 1 if array.dtype.kind == "i" else wrong[place] * 1.001 + 0.001
    return wrong.reshape(array.shape)


def test_one_changed_value_of_any_computed_array_is_noticed(fixture):
    drawn = ("pert_", "bn_", "bin_")
    names = {name for name in EXPECTED if not name.startswith(drawn)} - INPUTS
    bins = {name for name in EXPECTED if name.startswith("bin_") and not name.endswith(("_in", "_rand"))}
    names |= bins | {"bn_cell_emb"}
    assert len(names) > 60
    change_expected(fixture, **{name: nudge(EXPECTED[name]) for name in names})
    assert names - failed(fixture) == set()


CHANGES = {
    "another gene": ("embed_full_genes", (0, 3), 7, "embed_full_genes"),
    "a bin that is possible": ("embed_full_values", (0, 5), 18, "hidden_last"),
    "a bin that is not": ("embed_full_values", (0, 5), 49, "embed_full_values"),
    "a gene twice in a sample": ("embed_short_genes", (1, 3), EXPECTED["embed_short_genes"][1, 4], "embed_short_genes"),
    "no cls in a sample": ("embed_short_genes", (1, 0), PAD, "embed_short_genes"),
    "another mask": ("mask", (0, 0), True, "mlm_output"),
    "a mask of padding": ("mask", (0, -1), True, "mask"),
    "another batch": ("int_batch_labels", 0, 2, "int_cell_emb"),
    "no such batch": ("int_batch_labels", 0, 3, "int_batch_labels"),
    "another gene to be seen": ("gen_pcpt_gene", (0, 2), 100, "gen_pcpt_preds"),
    "a bin to be seen": ("gen_pcpt_expr", (0, 2), 30, "gen_cell_emb"),
    "no bin": ("gen_pcpt_expr", (0, 2), 51, "gen_pcpt_expr"),
    "another target": ("gen_gen_gene", (0, 2), 100, "gen_gen_preds"),
    "another value of a target": ("gen_target", (0, 2), 1, "gen_losses"),
    "another uniform number": ("bin_allequal_rand", 0, 0.999, "bin_allequal_51"),
    "no uniform number": ("bin_allequal_rand", 0, 1.0, "bin_allequal_rand"),
    "another row": ("bin_two_in", 0, 0.5, "bin_two_7"),
    "another statistic": ("bn_running_mean", 3, 1.0, "bn_cell_emb"),
    "another gene of a set": ("attn_genes", (slice(None), 5), 100, "attn_scores_raw"),
    "cells of other genes": ("attn_genes", (1, 5), 100, "attn_genes"),
    "a bin of a set": ("attn_values", (0, 1), 9, "attn_values"),
    "a prepared bin of a zero": ("pre_binned", (0, 1), 3, "pre_binned"),
    "another gene in a network": ("grn_genes", 0, "ARL6IP5", "grn_edges"),
    "a gene that is not expressed": ("tok_sampled_genes", (0, 3), 100, "tok_sampled_genes"),
    "a count of a known gene": ("tok_sampled_values", (0, 2), 5, "tok_sampled_values"),
    "one more hidden value": ("random_mask_value", (0, 1), -1, "random_mask_value"),
    "ranks beyond all ties": ("attn_rank_sum", (0, 0), 9, "attn_rank_sum"),
}


def agrees(measured, name):
    """Whether an array can be computed and is the expected one."""
    try:
        found = measured.take(find_probe(name, ARRAYS), name)
    except ValueError:
        return False
    tolerance = {"atol": 1e-5, "rtol": 1e-5} if np.asarray(found).dtype.kind == "f" else {"atol": 0, "rtol": 0}
    return compare(np.asarray(found), measured.draws[name], name=name, tolerance=tolerance).status == "OK"


@pytest.mark.parametrize("case", CHANGES)
def test_changed_draw_is_noticed_where_it_matters(case):
    name, place, value, consequence = CHANGES[case]
    assert np.any(EXPECTED[name][place] != value)
    assert agrees(measurement(REFERENCE), consequence)
    assert not agrees(measurement(REFERENCE, **{name: changed(name, place, value)}), consequence)


def test_other_cells_and_genes_are_noticed(fixture):
    adata = anndata.read_h5ad(fixture / "input.h5ad")
    adata.var["feature_name"] = np.roll(adata.var["feature_name"].to_numpy(), 1)
    adata.write_h5ad(fixture / "input.h5ad")
    assert {"embed_full_genes", "embed_short_genes", "tok_sampled_genes"} <= failed(fixture)


# ---- what could have been drawn ----


def torch_encoder(lcm):
    """PyTorch's encoder with the same weights."""
    heads = lcm.backbone.blocks[0].attn.n_heads
    encoder = nn.TransformerEncoder(nn.TransformerEncoderLayer(24, heads, 40, batch_first=True), lcm.n_blocks)
    for layer, block in zip(encoder.layers, lcm.backbone.blocks, strict=True):
        state = {"self_attn.in_proj_weight": block.attn.qkv.weight, "self_attn.in_proj_bias": block.attn.qkv.bias}
        parts = {"self_attn.out_proj": block.attn.out, "linear1": block.ff.up, "linear2": block.ff.down}
        parts |= {"norm1": block.norm1, "norm2": block.norm2}
        state |= {f"{name}.{kind}": getattr(part, kind) for name, part in parts.items() for kind in ("weight", "bias")}
        layer.load_state_dict(state)
    return encoder.eval()


@pytest.mark.parametrize("n_heads", [2, 3, 4])
@pytest.mark.filterwarnings("ignore")  # PyTorch's own, of packed sentences
def test_pooled_padding_is_what_the_encoder_of_torch_leaves(fixture, n_heads):
    change_json(fixture / "checkpoint/args.json", lambda settings: settings.update(nheads=n_heads))
    measured = measurement(fixture)
    lcm, ids = measured.pretrained.lcm, torch.as_tensor(EXPECTED["embed_full_genes"])
    values = torch.as_tensor(EXPECTED["embed_full_values"])
    with torch.no_grad():
        x = lcm.embed.value(lcm.embed.genes(ids), values, ids != PAD)
        x = torch_encoder(lcm)(x, src_key_padding_mask=ids == PAD)
    found = measured.take(ARRAYS["cell_emb_avg_pool"], "cell_emb_avg_pool")
    torch.testing.assert_close(torch.as_tensor(found), x.mean(1), rtol=1e-4, atol=1e-5)
    weighted = nn.functional.normalize((x * values[..., None]).sum(1), dim=-1)
    found = measured.take(ARRAYS["cell_emb_w_pool"], "cell_emb_w_pool")
    torch.testing.assert_close(torch.as_tensor(found), weighted, rtol=1e-4, atol=1e-5)


def test_cells_that_fit_are_collated_in_the_order_of_var_and_padded(fixture):
    adata = anndata.read_h5ad(fixture / "input.h5ad")
    tokens = json.loads((fixture / "checkpoint/vocab.json").read_text())
    ids = np.array([tokens.get(gene, PAD) for gene in adata.var["feature_name"]])
    genes, values = np.full((9, 160), PAD), np.full((9, 160), -2, dtype=np.float32)
    genes[:, 0], values[:, 0] = tokens["<cls>"], 0
    for cell, counts in enumerate(adata.X.toarray()):
        there = np.flatnonzero(counts)
        genes[cell, 1 : len(there) + 1], values[cell, 1 : len(there) + 1] = ids[there], counts[there]
    measured = measurement(fixture, tok_sampled_genes=genes, tok_sampled_values=values)
    assert np.array_equal(measured.take(ARRAYS["tok_sampled_genes"], "tok_sampled_genes"), genes)
    assert np.array_equal(measured.take(ARRAYS["tok_sampled_values"], "tok_sampled_values"), values)
    wrong = np.where(values == 1, 2, values)
    measured = measurement(fixture, tok_sampled_genes=genes[:, ::-1].copy(), tok_sampled_values=wrong)
    assert np.array_equal(measured.take(ARRAYS["tok_sampled_genes"], "tok_sampled_genes"), genes)
    assert np.array_equal(measured.take(ARRAYS["tok_sampled_values"], "tok_sampled_values"), values)


def test_cell_may_have_no_targets(fixture):
    empty = {name: EXPECTED[name].copy() for name in ("gen_gen_gene", "gen_target", "gen_gen_preds")}
    for name, nothing in (("gen_gen_gene", PAD), ("gen_target", -2), ("gen_gen_preds", 0)):
        empty[name][1] = nothing
    change_expected(fixture, **empty)
    assert failed(fixture) & set(empty) == set()


def test_ranks_of_ties_may_be_in_any_order():
    """With one head the column of ranks has more ties than the tolerance allows for."""
    from sclcm.models._measure_binning import possible_sum

    by_row = np.array([[[[0.5, 0.0, 0.5], [0.5, 0.5, 0.0], [0.5, 0.0, 0.5]]]])
    for first, second, third in ((0, 1, 2), (2, 0, 1), (1, 2, 0)):
        stored = np.array([[first, 0, 1], [second, 2, 0], [third, 1, 2]]) / 3
        assert possible_sum(by_row, stored, "ranks") == pytest.approx(stored)
    wrong = np.array([[0, 2, 1], [1, 2, 0], [2, 1, 2]]) / 3
    assert possible_sum(by_row, wrong, "ranks")[0, 1] == pytest.approx(1 / 3)


def test_ranks_of_scores_that_differ_by_a_rounding_may_be_in_either_order():
    from sclcm.models._measure_binning import possible_shares

    scores = np.array([[[[1.0, 3.0, 2.0, 2.0 + 2e-6]]]])
    for ranks in ([0, 3, 1, 2], [0, 3, 2, 1]):
        stored = np.array([[ranks]]) / 4
        assert possible_shares(scores, stored, "ranks").tolist() == stored.tolist()
    wrong = np.array([[[3, 0, 1, 2]]]) / 4
    assert possible_shares(scores, wrong, "ranks").tolist() == [[[0, 0.75, 0.25, 0.5]]]


def test_names_come_from_the_column_that_upstream_reads_however_little_it_matches(fixture):
    adata = anndata.read_h5ad(fixture / "input.h5ad")
    names = adata.var["feature_name"].astype(str).to_numpy()
    names[::3] = [f"{name}-old" for name in names[::3]]
    adata.var["feature_name"] = names
    adata.write_h5ad(fixture / "input.h5ad")
    tokens = json.loads((fixture / "checkpoint/vocab.json").read_text())
    found = measurement(fixture).input
    assert found.gene_key == "feature_name"
    assert names[found.alignment.var_index].tolist() == [name for name in names if name in tokens]


# ---- what a fixture says itself ----


def test_hidden_values_are_those_that_the_configuration_says(fixture):
    hidden = EXPECTED["random_mask_value"]
    change_json(fixture / "checkpoint/args.json", lambda settings: settings.update({"mask_value": -5}))
    change_expected(fixture, random_mask_value=np.where(hidden == -1, np.float32(-5), hidden))
    assert {"mlm_output", "masked_cell_emb", "int_mvc_output", "losses"} <= failed(fixture)
    assert "random_mask_value" not in failed(fixture)


def test_threshold_of_similarity_is_read_from_the_words_of_the_fixture(fixture):
    facts = json.loads((fixture / "expected.json").read_text())
    facts["losses"]["meaning"] = facts["losses"]["meaning"].replace("thres 0.3", "thres 0.8")
    (fixture / "expected.json").write_text(json.dumps(facts))
    m = measurement(fixture)
    m.facts = facts
    found = np.asarray(m.take(find_probe("losses", ARRAYS), "losses"))
    assert np.flatnonzero(~np.isclose(found, EXPECTED["losses"], rtol=1e-5, atol=1e-5)).tolist() == [3]


def test_gene_of_two_columns_may_be_chosen_twice(fixture):
    adata = anndata.read_h5ad(fixture / "input.h5ad")
    names = adata.var["feature_name"].astype(str).to_numpy(copy=True)
    names[5] = names[0]
    adata.var["feature_name"] = names
    adata.write_h5ad(fixture / "input.h5ad")
    tokens = EXPECTED["attn_genes"][:, [0, 1, 1, 3]]
    drawn = np.full((len(tokens), 4), 25, dtype=np.float32)
    m = measurement(fixture, attn_genes=tokens, attn_values=drawn)
    assert (m.take(find_probe("attn_genes", ARRAYS), "attn_genes") == tokens).all()
    values = m.take(find_probe("attn_values", ARRAYS), "attn_values")
    counts = adata.X.toarray()[: len(tokens), [0, 5]]
    assert ((values[:, 1:3] > 0) == (counts > 0)).all()
    once = measurement(fixture, attn_genes=tokens[:, [0, 1, 1, 1]], attn_values=drawn)
    with pytest.raises(ValueError, match="each as often as the input"):
        once.take(find_probe("attn_genes", ARRAYS), "attn_genes")


def test_cell_without_a_gene_of_enough_counts_has_edges_of_zero(fixture):
    adata = anndata.read_h5ad(fixture / "input.h5ad")
    counts = adata.X.toarray()
    rare = int(np.flatnonzero(counts.sum(0) == 0)[0])
    counts[-1] = 0
    counts[-1, rare] = 1
    adata.X = csr_matrix(counts)
    adata.write_h5ad(fixture / "input.h5ad")
    kept = np.flatnonzero(counts.sum(0) >= 3)
    m = measurement(fixture, pre_binned=np.zeros((adata.n_obs, len(kept)), dtype=np.int16))
    edges = m.take(find_probe("pre_bin_edges", ARRAYS), "pre_bin_edges")
    assert (edges[-1] == 0).all()
    assert (edges[:-1, 1:] > 0).all()
    bins = m.take(find_probe("pre_binned", ARRAYS), "pre_binned")
    assert (bins[-1] == 0).all()
    assert (bins[:-1].max(1) > 0).all()
