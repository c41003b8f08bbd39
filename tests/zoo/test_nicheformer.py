"""Nicheformer's files and sentences: each dialect is one model, and padding is part of the recipe."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import sclcm
import sclcm.reference
from sclcm._settings import settings
from sclcm.models import describe, load, verify
from sclcm.tl import embed, embed_genes

REFERENCE = Path(sclcm.reference.__file__).parent / "nicheformer"
CHECKPOINT = REFERENCE / "checkpoint"
KEY = "X_nicheformer"
TOLD = {"technology_mean": "dissociated"}


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(settings, "progress", False)


@pytest.fixture(scope="module")
def model():
    return load(CHECKPOINT, device="cpu", dtype="float32")


@pytest.fixture
def adata():
    return anndata.read_h5ad(REFERENCE / "input.h5ad")


@pytest.fixture(scope="module")
def stored():
    """What the checkpoint file holds."""
    return torch.load(CHECKPOINT / "nicheformer.ckpt", weights_only=True)


@pytest.fixture
def release(tmp_path):
    """A folder with the companion files and whatever weights a test writes."""
    for file in ("model.h5ad", "dissociated_mean_script.npy", "cosmx_mean_script.npy"):
        shutil.copy(CHECKPOINT / file, tmp_path)
    return tmp_path


def vectors(adata, model, **given):
    return embed(adata, model, copy=True, **{"conditions": TOLD, **given}).obsm[KEY]


def loaded(folder, **given):
    return load(folder, family="nicheformer", device="cpu", dtype="float32", **given)


def on_the_hub(stored, folder):
    """Write the weights as the release on the model hub has them."""
    heads = ("classifier_head.weight", "classifier_head.bias")
    unused = ("pooler_head.", "cls_head.")
    state = {
        name if name in heads else f"nicheformer.{name}": tensor.contiguous()
        for name, tensor in stored["state_dict"].items()
        if not name.startswith(unused)
    }
    state["nicheformer.pos"] = torch.arange(56)
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(stored["hyper_parameters"]))


# ---- files ----


def test_release_on_the_hub_is_the_same_model(model, stored, release, adata):
    on_the_hub(stored, release)
    hub = loaded(release)
    assert hub.lcm.state_dict().keys() == model.lcm.state_dict().keys()
    assert np.array_equal(vectors(adata, hub), vectors(adata, model))


def test_dictionary_of_the_hub_names_the_same_genes(model, stored, release, adata):
    on_the_hub(stored, release)
    (release / "model.h5ad").unlink()
    genes = {str(gene): 30 + i for i, gene in enumerate(model.vocabulary.features)}
    specials = {"[PAD]": 1, "[MASK]": 0, "[CLS]": 2, "[MODALITY_spatial]": 4, "[SPECIES_human]": 5}
    (release / "vocab.json").write_text(json.dumps({**specials, **genes}))
    assert np.array_equal(vectors(adata, loaded(release)), vectors(adata, model))
    (release / "vocab.json").write_text(json.dumps({**specials, **genes, "ENSG1": 400}))
    with pytest.raises(ValueError, match="does not number its genes from 30 on"):
        loaded(release)


def test_settings_of_the_published_checkpoint_are_read(stored, release, adata, model):
    older = {"autoregressive": False, "pool": None, "supervised_task": False}  # of the code that trained it
    content = {**stored, "hyper_parameters": {**stored["hyper_parameters"], **older}}
    torch.save(content, release / "nicheformer.ckpt")
    np.testing.assert_array_equal(vectors(adata, loaded(release)), vectors(adata, model))


def test_fine_tuned_model_has_its_own_head(stored, release, adata):
    state = {f"backbone.{name}": tensor for name, tensor in stored["state_dict"].items()}
    torch.manual_seed(0)
    head = {"pooler_head.weight": torch.randn(32, 32), "pooler_head.bias": torch.randn(32)}
    head["linear_head.weight"] = torch.randn(7, 32)
    torch.save({"state_dict": state | head, "hyper_parameters": {"lr": 1e-4}}, release / "tuned.ckpt")
    with pytest.raises(ValueError, match="lacks 'context_length'; pass it"):
        loaded(release)
    asked = ("context_length", "nheads", "dropout", "specie", "assay", "modality")
    settings_ = {name: stored["hyper_parameters"][name] for name in asked}
    with pytest.raises(ValueError, match="lacks 'extract_layers'; pass it"):
        loaded(release, **settings_)
    tuned = loaded(release, extract_layers=[1], **settings_)
    cells = torch.from_numpy(sclcm.tl.embed(adata, tuned, copy=True).obsm["X_nicheformer"])
    wanted = torch.tanh(cells @ head["pooler_head.weight"].T + head["pooler_head.bias"]) @ head["linear_head.weight"].T
    found = torch.from_numpy(sclcm.tl.embed(adata, tuned, recipe="predicted", copy=True).obsm["X_nicheformer"])
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def fine_tuned(stored, release, **settings_):
    """Write a fine-tuned model with a plain head and load it; return its head's weight as well."""
    state = {f"backbone.{name}": tensor for name, tensor in stored["state_dict"].items()}
    state["linear_head.weight"] = torch.randn(7, 32, generator=torch.Generator().manual_seed(0))
    settings_ = {**stored["hyper_parameters"], "extract_layers": [0, 1], "function_layers": "mean", **settings_}
    torch.save({"state_dict": state, "hyper_parameters": settings_}, release / "tuned.ckpt")
    return state["linear_head.weight"]


def test_fine_tuned_model_reads_the_mean_of_its_blocks(stored, release, adata, model):
    weight = fine_tuned(stored, release)
    tuned = loaded(release)
    assert tuned.lcm.heads["cell"].out.bias is None
    assert tuned.labels is None
    both = [
        sclcm.tl.embed(adata, model, recipe=name, copy=True).obsm["X_nicheformer"]
        for name in ("embed", "second_to_last")
    ]
    vectors_ = np.mean(both, axis=0)
    for recipe, wanted in (("fine_tuned", vectors_), ("predicted", vectors_ @ weight.numpy().T)):
        found = sclcm.tl.embed(adata, tuned, recipe=recipe, copy=True).obsm["X_nicheformer"]
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    fine_tuned(stored, release, without_context=False)
    with_context = sclcm.tl.embed(adata, loaded(release), recipe="fine_tuned", copy=True).obsm["X_nicheformer"]
    assert np.abs(with_context - vectors_).max() > 1e-3
    fine_tuned(stored, release, function_layers="sum")
    for recipe, wanted in (("fine_tuned", 2 * vectors_), ("predicted", 2 * vectors_ @ weight.numpy().T)):
        found = sclcm.tl.embed(adata, loaded(release), recipe=recipe, copy=True).obsm["X_nicheformer"]
        np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)
    fine_tuned(stored, release, function_layers="sum", without_context=False)
    summed = sclcm.tl.embed(adata, loaded(release), recipe="fine_tuned", copy=True).obsm["X_nicheformer"]
    np.testing.assert_allclose(summed, 2 * with_context, rtol=1e-4, atol=1e-5)
    refused = (
        ({"function_layers": "concat"}, "only models with 'mean' or 'sum' are known"),
        ({"pool": "cls"}, "only models with None or 'mean' are known"),
        ({"nlayers": 1}, "says 'nlayers' is 1, but the weights say 2; they are of different models"),
        ({"dim_model": 16}, "says 'dim_model' is 16, but the weights say 32"),
        ({"dim_feedforward": 32}, "says 'dim_feedforward' is 32, but the weights say 64"),
        ({"n_tokens": 331}, "says 'n_tokens' is 331, but the weights say 330"),
        ({"learnable_pe": False}, "says 'learnable_pe' is False, but the weights say True"),
    )
    for setting, message in refused:
        fine_tuned(stored, release, **setting)
        with pytest.raises(ValueError, match=message):
            loaded(release)
    fine_tuned(stored, release, extract_layers=[2])
    with pytest.raises(ValueError, match=r"names the blocks \(2,\); expected numbers from 0 to 1"):
        sclcm.tl.embed(adata, loaded(release), recipe="fine_tuned")


def test_fine_tuned_model_labels_niches(stored, release, adata, tmp_path):
    weight = fine_tuned(stored, release, supervised_task="niche_classification")
    tuned = loaded(release, labels=[f"niche {i}" for i in range(7)])
    vectors_ = sclcm.tl.embed(adata, tuned, recipe="fine_tuned", copy=True).obsm["X_nicheformer"]
    found = sclcm.tl.annotate(adata, tuned, copy=True).obs
    wanted = (vectors_ @ weight.numpy().T).argmax(1)
    assert found["nicheformer_label"].tolist() == [f"niche {i}" for i in wanted]
    tuned.save(tmp_path / "saved")
    again = sclcm.tl.annotate(adata, sclcm.models.load(tmp_path / "saved", device="cpu"), copy=True).obs
    assert again["nicheformer_label"].equals(found["nicheformer_label"])
    with pytest.raises(ValueError, match="2 names of classes do not fit the model, whose head scores 7"):
        loaded(release, labels=["a", "b"])


def test_model_with_computed_positions_has_no_table_of_them(stored, release, adata):
    state = {name: t for name, t in stored["state_dict"].items() if name != "positional_embedding.weight"}
    settings_ = {**stored["hyper_parameters"], "learnable_pe": False}
    torch.save({"state_dict": state, "hyper_parameters": settings_}, release / "waves.ckpt")
    waves = loaded(release)
    assert not any("position" in name for name in waves.lcm.state_dict())
    assert np.isfinite(vectors(adata, waves)).all()


def test_tensor_without_a_rule_and_settings_of_another_kind_are_refused(stored, release):
    extra = {**stored["state_dict"], "extra.weight": torch.zeros(2)}
    torch.save({**stored, "state_dict": extra}, release / "nicheformer.ckpt")
    with pytest.raises(ValueError, match=r"no rule names: 'extra.weight'"):
        loaded(release)
    other = {**stored["hyper_parameters"], "batch_first": False}
    torch.save({**stored, "hyper_parameters": other}, release / "nicheformer.ckpt")
    with pytest.raises(ValueError, match="'batch_first' is False"):
        loaded(release)


def test_vocabulary_of_another_model_is_refused(release, stored):
    torch.save(stored, release / "nicheformer.ckpt")
    shorter = anndata.read_h5ad(release / "model.h5ad")[:, :299].copy()
    shorter.write_h5ad(release / "model.h5ad")
    for file in release.glob("*.npy"):
        np.save(file, np.load(file)[:299])
    with pytest.raises(ValueError, match="has 329 tokens, the model's table 330 rows"):
        loaded(release)


@pytest.mark.parametrize(("array", "message"), [(np.ones(7), "shape \\(7,\\)"), (np.full(300, np.inf), "infinite")])
def test_means_that_do_not_fit_are_refused(release, stored, array, message):
    torch.save(stored, release / "nicheformer.ckpt")
    np.save(release / "cosmx_mean_script.npy", array)
    with pytest.raises(ValueError, match=message):
        loaded(release)


def test_saved_model_is_the_same(model, adata, tmp_path):
    model.save(tmp_path / "saved")
    again = load(tmp_path / "saved", device="cpu", dtype="float32")
    for recipe in model.recipes:
        assert np.array_equal(vectors(adata, again, recipe=recipe), vectors(adata, model, recipe=recipe))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda encoding: encoding["context"][0]["tokens"].append("frog"), "names the token 'frog'"),
        (lambda encoding: encoding["normalize"][1]["choice"].update(otherwise="visium"), "lacks arrays among which"),
    ],
)
def test_saved_model_with_conditions_of_another_is_refused(model, tmp_path, change, message):
    model.save(tmp_path / "saved")
    file = tmp_path / "saved" / "config.json"
    config = json.loads(file.read_text())
    change(config["encoding"])
    file.write_text(json.dumps(config))
    with pytest.raises(ValueError, match=message):
        load(tmp_path / "saved")


def test_description_says_what_cells_are_told():
    found = describe("nicheformer")
    assert found["conditions"]["specie"] == ["human", "mouse"]
    assert found["conditions"]["technology_mean"] == ["dissociated", "merfish", "cosmx", "xenium", "iss"]
    assert "MERFISH" in found["conditions"]["assay"]


# ---- sentences and vectors ----


def test_vectors_depend_on_the_cell_alone(model, adata):
    for recipe in ("embed", "mean", "raw_means"):
        whole = vectors(adata, model, recipe=recipe)
        order = np.array([7, 2, 11, 0, 5])
        np.testing.assert_allclose(vectors(adata[order], model, recipe=recipe), whole[order], rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(vectors(adata, model, recipe=recipe, batch_size=1), whole, rtol=1e-5, atol=1e-6)
        genes = np.random.default_rng(0).permutation(adata.n_vars)
        np.testing.assert_allclose(vectors(adata[:, genes], model, recipe=recipe), whole, rtol=1e-5, atol=1e-6)


def by_torch(state, row, *, padded):
    """Token vectors of a cell by PyTorch's own layers."""
    x = state["embeddings.weight"][row] + state["positional_embedding.weight"][: len(row)]
    for i in range(2):
        layer = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, layer_norm_eps=1e-12, batch_first=True)
        start = f"encoder.layers.{i}."
        layer.load_state_dict({k.removeprefix(start): v for k, v in state.items() if k.startswith(start)})
        mask = torch.as_tensor(row == 1).unsqueeze(0) if padded else None
        x = layer.train()(x.unsqueeze(0), src_key_padding_mask=mask)[0]  # in training it takes no shortcuts
    return x.detach()


def test_plain_mean_is_that_of_the_gene_tokens(model, adata, stored):
    tokens = np.load(REFERENCE / "expected.npz")["input_ids"]
    wanted = [by_torch(stored["state_dict"], row[row != 1], padded=False)[3:].mean(0).numpy() for row in tokens]
    np.testing.assert_allclose(vectors(adata, model, recipe="mean"), wanted, rtol=1e-4, atol=1e-5)


def test_padding_counts_in_long_sentences_too(stored, release, adata):
    torch.manual_seed(0)
    state = {**stored["state_dict"], "positional_embedding.weight": torch.randn(600, 32)}
    long = {**stored["hyper_parameters"], "context_length": 600}
    torch.save({"state_dict": state, "hyper_parameters": long}, release / "long.ckpt")
    adata = adata[:2].copy()
    tokens = np.ones((2, 600), dtype=np.int64)
    tokens[:, :56] = np.load(REFERENCE / "expected.npz")["input_ids"][:2]
    wanted = [by_torch(state, row, padded=True)[3:].mean(0).numpy() for row in tokens]
    np.testing.assert_allclose(vectors(adata, loaded(release)), wanted, rtol=1e-4, atol=1e-5)


def test_names_say_the_same_as_numbers(model, adata):
    wanted = vectors(adata, model)
    adata.obs["organism"] = "Homo sapiens"
    adata.obs["assay"] = adata.obs["assay"].map({11: "10x 3' v3", 8: "NanoString digital spatial profiling"})
    adata.obs["modality"] = adata.obs["modality"].map({3: "dissociated", 4: "spatial"})
    del adata.obs["specie"]
    assert np.array_equal(vectors(adata, model), wanted)


def test_mean_of_the_technology_follows_from_the_assay(model, adata):
    found = vectors(adata, model, conditions=None)
    spatial = (adata.obs["assay"] == 8).to_numpy()
    assert np.array_equal(found[~spatial], vectors(adata, model)[~spatial])
    wanted = vectors(adata, model, conditions={"technology_mean": "cosmx"})
    assert np.array_equal(found[spatial], wanted[spatial])


def test_missing_column_and_missing_means_are_errors_that_leave_the_data_alone(model, adata):
    adata.obs["assay"] = 7
    with pytest.raises(ValueError, match=r"12 of the cells by its array 'merfish'.*\['dissociated', 'cosmx'\]"):
        embed(adata, model)
    del adata.obs["modality"]
    with pytest.raises(KeyError, match=r"modality \(column 'modality'\).*'dissociated' \(3\), 'spatial' \(4\)"):
        embed(adata, model)
    assert not adata.obsm.keys()
    assert not adata.uns


def test_condition_without_a_value_is_hidden_from_attention(model, adata):
    known, unknown = vectors(adata, model), vectors(adata, model, conditions={**TOLD, "assay": None})
    assert np.isfinite(unknown).all()
    assert np.abs(known - unknown).max() > 1e-3


def test_conditions_are_noted(model, adata):
    embed(adata, model, conditions={"assay": "CosMx", "technology_mean": None})
    noted = adata.uns["nicheformer"]["params"]["conditions"]
    assert noted == {"assay": "CosMx", "technology_mean": "None"}


def test_genes_have_their_rows_of_the_table_and_contextual_vectors(model, adata, stored):
    embed_genes(adata, model)
    known = adata.var_names.isin(model.vocabulary.features)
    found = adata.varm["nicheformer_genes"]
    assert np.isnan(found[~known]).all()
    place = model.vocabulary.feature_positions[adata.var_names[known][0]]
    np.testing.assert_array_equal(found[known][0], stored["state_dict"]["embeddings.weight"][30 + place].numpy())
    embed_genes(adata, model, how="contextual", conditions=TOLD, key_added="k")
    tokens = np.load(REFERENCE / "expected.npz")["tokens_dataset"][:, :53]
    assert np.isfinite(adata.varm["k"]).any(1).sum() == len(np.unique(tokens[tokens > 0]))


# ---- reference numbers notice ----


@pytest.fixture
def fixture(tmp_path):
    return Path(shutil.copytree(REFERENCE, tmp_path / "fixture", ignore=shutil.ignore_patterns("*.py", "__pycache__")))


def failed(folder):
    return {check.array for check in verify("nicheformer", fixture=folder) if check.status in ("FAIL", "UNKNOWN")}


@pytest.mark.parametrize("name", ["embeddings.weight", "encoder.layers.0.norm1.bias", "classifier_head.bias"])
def test_flipped_weight_is_noticed(fixture, stored, name):
    changed = {**stored["state_dict"], name: -stored["state_dict"][name]}
    torch.save({**stored, "state_dict": changed}, fixture / "checkpoint" / "nicheformer.ckpt")
    assert failed(fixture)


def test_swapped_genes_are_noticed(fixture):
    genes = anndata.read_h5ad(fixture / "checkpoint/model.h5ad")
    order = np.arange(300)
    order[[3, 150]] = 150, 3
    genes[:, order].copy().write_h5ad(fixture / "checkpoint/model.h5ad")
    assert {"vocab_genes", "counts_aligned"} <= failed(fixture)


@pytest.mark.parametrize("name", ["mlm_input_ids", "mlm_mask", "mlm_targets", "ft_w_linear_head.weight", "sort_key"])
def test_changed_array_is_noticed(fixture, name):
    expected = dict(np.load(fixture / "expected.npz"))
    array = expected[name].copy()
    array.flat[17] += 1
    np.savez(fixture / "expected.npz", **{**expected, name: array})
    assert failed(fixture)


def test_mouse_data_are_told_the_way_over_orthologues(model):
    names = [*(f"Slc{i}a1" for i in range(1, 45)), *(f"Zfp{i}" for i in range(1, 200)), "Cd3e", "Snap25", "Gad1"]
    mouse = anndata.AnnData(np.ones((2, len(names)), dtype=np.float32), var=pd.DataFrame(index=names))
    way = r"mouse genes.*`adata = sclcm\.pp\.map_orthologs\(adata, to='human', unmapped='keep'\)`"
    with pytest.raises(ValueError, match=way):
        embed(mouse, model, conditions={"specie": "mouse", "assay": "MERFISH", "modality": "spatial"} | TOLD)
