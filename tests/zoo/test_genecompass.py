"""GeneCompass: what its releases may have and lack, human and mouse cells, and what users see."""

from __future__ import annotations

import json
import pickle
import re
import shutil

import anndata as ad
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from typer.testing import CliRunner

import sclcm
from sclcm._settings import settings
from sclcm.checkpoints.readers import read_tensors
from sclcm.cli import app
from sclcm.models import describe, load
from sclcm.models._verify import _packaged
from sclcm.nn.readouts import FirstToken
from sclcm.zoo._spec import Recipe

ROOT = _packaged("genecompass")
MODEL = ROOT / "checkpoint/GeneCompass_tiny"
EXPECTED = np.load(ROOT / "expected.npz")
INPUT = "bert.embeddings."


@pytest.fixture(autouse=True)
def _few_genes(monkeypatch):
    monkeypatch.setattr(settings, "min_genes_matched", 10)
    monkeypatch.setattr(settings, "progress", False)


@pytest.fixture(scope="module")
def model():
    return load(MODEL, device="cpu")


@pytest.fixture
def human():
    return ad.read_h5ad(ROOT / "input.h5ad")


@pytest.fixture
def mouse():
    return ad.read_h5ad(ROOT / "input_mouse.h5ad")


@pytest.fixture
def both(human, mouse):
    """Cells of both species over the genes of both, none of another species expressed; symbols are left out."""
    human.obs["organism"], mouse.obs["organism"] = "Homo sapiens", "mouse"
    human.obs_names, mouse.obs_names = "h" + human.obs_names, "m" + mouse.obs_names
    return ad.concat([human, mouse], join="outer", fill_value=0)


@pytest.fixture
def release(tmp_path):
    """Write a changed release: tensors by a function, settings by name, without some files."""

    def make(change=lambda tensors: tensors, *, settings=None, without=()):
        folder = tmp_path / "release"
        shutil.copytree(ROOT / "checkpoint", folder)
        tensors = change(read_tensors(MODEL / "pytorch_model.bin"))
        (folder / MODEL.name / "pytorch_model.bin").unlink()
        kept = {name: tensor.clone().contiguous() for name, tensor in tensors.items()}
        save_file(kept, folder / MODEL.name / "model.safetensors")
        file = folder / MODEL.name / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **(settings or {})}))
        for name in without:
            next(folder.rglob(name)).unlink()
        return folder

    return make


def without(*beginnings):
    return lambda tensors: {name: t for name, t in tensors.items() if not name.startswith(beginnings)}


def vectors(adata, model, **given):
    return sclcm.tl.embed(adata, model, key_added="x", copy=True, **given).obsm["x"]


def close(found, wanted):
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


# ---- what users see ----


def test_description_says_what_it_needs_and_gives():
    found = describe("genecompass")
    assert found["name"] == "genecompass.base"
    assert found["species"] == ["human", "mouse"]
    assert found["conditions"] == {"species": ["human", "mouse"]}
    assert found["gene_ids"] == "ensembl"
    assert {"embed", "cls", "cls_unmasked", "mean", "mean_unmasked"} <= set(found["recipes"])
    assert found["heads"] == ["cell_class", "token", "value"]
    assert "human_mouse_tokens.pickle" in found["files"]
    assert "not published" in found["source"]


def test_folder_above_or_the_files_themselves_tell_the_family(model):
    above, file = load(ROOT / "checkpoint", device="cpu"), load(MODEL / "pytorch_model.bin", device="cpu")
    assert {found.family for found in (model, above, file)} == {"genecompass"}
    assert above.sha256 == file.sha256
    assert (model.d_model, model.lcm.n_blocks, model.vocabulary.n_features) == (24, 3, 378)
    assert set(model.lcm.heads) == {"token", "value"}
    assert model.recipe("embed").pooling == FirstToken()


def test_named_model_asks_for_what_is_published_and_goes_on_without_medians(model, human, tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "cache_dir", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"scidb.cn.*\n  pytorch_model.bin\n  config.json\n  human_mouse_tok"):
        load("genecompass", device="cpu")
    folder = tmp_path / "genecompass/base"
    folder.mkdir(parents=True)
    for file in describe("genecompass")["files"]:
        shutil.copy(next((ROOT / "checkpoint").rglob(file)), folder)
    with pytest.warns(UserWarning, match="have not published"):
        found = load("genecompass", device="cpu")
    assert found.name == "genecompass"
    assert found.vocabulary.to_json() == model.vocabulary.to_json()


def test_saved_model_gives_the_same(model, human, mouse, tmp_path):
    model.save(tmp_path / "saved")
    found = load(tmp_path / "saved", device="cpu")
    assert found.recipes == model.recipes
    for adata in (human, mouse):
        for recipe in ("embed", "mean_unmasked"):
            np.testing.assert_array_equal(vectors(adata, found, recipe=recipe), vectors(adata, model, recipe=recipe))


# ---- cells of two species ----


def test_mouse_symbols_are_read_by_the_mouse_table(model, mouse):
    wanted = vectors(mouse, model)
    mouse.var_names = mouse.var["gene_symbol"].astype(str)
    mouse.var = mouse.var[[]]
    mouse.var_names_make_unique()
    found = sclcm.tl.embed(mouse, model, copy=True)
    assert found.uns["genecompass"]["params"]["matched_genes"] >= 100
    assert np.median(np.linalg.norm(found.obsm["X_genecompass"] - wanted, axis=1)) < 1e-4


def test_mouse_cells_differ_from_human_ones_of_the_same_tokens(model, mouse):
    as_human = EXPECTED["mouse_cls_species_none"]
    assert np.abs(vectors(mouse, model) - as_human).max() > 0.1


def test_genes_of_both_species_need_a_word(model, both, unchanged):
    with (
        unchanged(both),
        pytest.raises(ValueError, match=r"needs the species of each cell, but the data has 221 human and 130 mouse"),
    ):
        sclcm.tl.embed(both, model)


@pytest.mark.parametrize("recipe", ["cls", "cls_unmasked", "mean"])
def test_column_says_which_cell_is_what(model, human, mouse, both, recipe):
    found = vectors(both, model, recipe=recipe, conditions={"species": "organism"})
    close(found[:11], vectors(human, model, recipe=recipe))
    close(found[11:], vectors(mouse, model, recipe=recipe))


def test_genes_of_another_species_than_the_cell_are_left_out(model, human, both):
    """A human cell with counts of mouse genes beside its own, as alignment to both genomes gives."""
    wanted = vectors(human, model)
    cells = both[:11].copy()
    is_mouse = cells.var_names.str.startswith("ENSMUSG")
    x = cells.X.toarray()
    x[:, is_mouse] = 3
    cells.X = x
    close(vectors(cells, model, conditions={"species": "human"}), wanted)


@pytest.mark.parametrize("how", ["vocabulary", "contextual"])
def test_species_that_is_said_decides_how_names_are_read(model, mouse, how):
    """Symbols in capitals look like those of human genes."""
    mouse.var_names = mouse.var["gene_symbol"].astype(str)
    mouse.var = mouse.var[[]]
    mouse.var_names_make_unique()
    sclcm.tl.embed_genes(mouse, model, how=how, key_added="wanted")
    mouse.var_names = mouse.var_names.str.upper()
    sclcm.tl.embed_genes(mouse, model, how=how, key_added="found", conditions={"species": "mouse"})
    np.testing.assert_array_equal(mouse.varm["found"], mouse.varm["wanted"])
    assert np.isfinite(mouse.varm["found"]).all(1).sum() > 60


def test_species_that_the_model_does_not_know_is_refused(model, human):
    human.obs["organism"] = "rat"
    with pytest.raises(ValueError, match=r"`.obs\['organism'\]` is 'rat' for 11 cells; expected 'human' or 'mouse'"):
        sclcm.tl.embed(human, model, conditions={"species": "organism"})
    with pytest.raises(KeyError, match="neither a species"):
        sclcm.tl.embed(human, model, conditions={"species": "zebrafish"})


def test_command_line_takes_the_species(both, tmp_path):
    both.write_h5ad(tmp_path / "in.h5ad")
    arguments = ["embed", str(tmp_path / "in.h5ad"), "-o", str(tmp_path / "out.h5ad"), "-m", str(MODEL)]
    result = CliRunner().invoke(app, [*arguments, "--condition", "species=organism"])
    assert result.exit_code == 0, result.output
    assert ad.read_h5ad(tmp_path / "out.h5ad").obsm["X_genecompass"].shape == (16, 24)
    assert CliRunner().invoke(app, arguments).exit_code != 0


# ---- a cell's vector is its own ----


@pytest.mark.parametrize("recipe", ["cls", "cls_unmasked", "mean", "mean_unmasked"])
def test_neither_order_nor_neighbours_nor_batches_matter(model, human, recipe):
    wanted = vectors(human, model, recipe=recipe)
    order = np.random.default_rng(0).permutation(human.n_obs)
    genes = np.random.default_rng(1).permutation(human.n_vars)
    close(vectors(human[order, genes].copy(), model, recipe=recipe), wanted[order])
    close(vectors(human[9:10].copy(), model, recipe=recipe), wanted[9:10])
    close(vectors(human, model, recipe=recipe, batch_size=2), wanted)
    human.X = human.X.toarray()
    close(vectors(human, model, recipe=recipe), wanted)


def test_cell_without_a_known_gene_is_zeros_and_one_gene_is_enough(model, human):
    x = human.X.toarray()
    x[0] = 0
    x[1] = 0
    x[1, list(human.var["in_vocab"]).index(True)] = 2
    human.X = x
    with pytest.warns(UserWarning, match="1 of .* cells express no gene"):
        found = vectors(human, model)
    assert not found[0].any()
    assert np.isfinite(found).all()
    assert found[1].any()


# ---- genes ----


def test_gene_vectors_from_the_table_and_in_context(model, human):
    sclcm.tl.embed_genes(human, model, key_added="table")
    known = np.isfinite(human.varm["table"]).all(1)
    rows = [model.vocabulary.token_ids[model.vocabulary.feature_positions[name]] for name in human.var_names[known]]
    np.testing.assert_array_equal(human.varm["table"][known], model.lcm.embed.gene.weight[rows].numpy())
    sclcm.tl.embed_genes(human, model, how="contextual", key_added="context")
    seen = np.isfinite(human.varm["context"]).all(1)
    assert 0 < seen.sum() <= known.sum()


def test_mean_by_place_is_given_to_the_genes_of_the_first_cell(model, human):
    sclcm.tl.embed_genes(human, model, how="by_place", mask_padding=False, key_added="x")
    genes = model.vocabulary.labels(EXPECTED["human_input_ids"][0])
    close(human[:, list(genes)].varm["x"], EXPECTED["human_grn_positional_mean"])
    others = ~human.var_names.isin(genes)
    assert np.isnan(human.varm["x"][others]).all()


# ---- medians ----


def test_medians_may_be_missing_which_is_said(model, release, human, mouse):
    folder = release(without=("human_gene_median_after_filter.pickle",))
    with pytest.warns(UserWarning, match=r"'human_gene_median_after_filter.pickle' not found. The authors divided"):
        found = load(folder, device="cpu")
    close(vectors(mouse, found), vectors(mouse, model))
    assert np.abs(vectors(human, found) - vectors(human, model)).max() > 0.01


def test_without_medians_counts_are_not_divided(release, human):
    names = [f"{species}_gene_median_after_filter.pickle" for species in ("human", "mouse")]
    with pytest.warns(UserWarning, match=r"'human\S+' and 'mouse\S+' not found"):
        found = load(release(without=names), device="cpu")
    assert set(found.arrays["median"]) == {1.0}
    assert np.isfinite(vectors(human, found)).all()


@pytest.mark.parametrize("wrong", [0.0, -1.0, float("nan"), "many"])
def test_median_that_is_no_positive_number_is_refused(release, wrong):
    folder = release()
    file = folder / "dict/human_gene_median_after_filter.pickle"
    medians = pickle.loads(file.read_bytes())
    medians[next(iter(medians))] = wrong
    file.write_bytes(pickle.dumps(medians))
    with pytest.raises(ValueError, match=r"does not give a number|expected a positive number"):
        load(folder, device="cpu")


# ---- what a release may lack ----

PRIORS = {"promoter": "promoter", "co_exp": "co_expression", "gene_family": "family", "peca_grn": "regulation"}


def narrower(*gone, values=True):
    """Leave out prior vectors, or values, and the columns that read them."""

    def change(tensors):
        kept = without(*(INPUT + name + "_" for name in gone))(tensors)
        width = 24
        parts = {"word": slice(0, width), "value": slice(width, width + 1)}
        parts |= {name: slice(width + 1 + i * width, 1 + (i + 2) * width) for i, name in enumerate(PRIORS)}
        stay = [part for name, part in parts.items() if name not in gone and (values or name != "value")]
        name = INPUT + "concat_embeddings.cat_fc.weight"
        kept[name] = torch.cat([tensors[name][:, part] for part in stay], dim=1)
        return kept

    return change


@pytest.mark.parametrize("gone", [(), ("promoter",), ("co_exp", "peca_grn"), ("promoter", "gene_family", "peca_grn")])
def test_prior_vectors_are_those_that_the_checkpoint_has(release, human, gone):
    found = load(release(narrower(*gone), settings={f"use_{name}": False for name in gone}), device="cpu")
    assert list(found.lcm.embed.fusion.priors) == [ours for name, ours in PRIORS.items() if name not in gone]
    assert np.isfinite(vectors(human, found)).all()


def test_values_may_be_left_out(release, human):
    found = load(release(narrower(values=False), settings={"use_values": False}), device="cpu")
    assert found.lcm.embed.fusion.up.in_features == 5 * 24
    assert np.isfinite(vectors(human, found)).all()


def test_model_without_a_vector_of_the_species_pools_genes(release, human, mouse):
    found = load(release(without("bert.cls_embedding"), settings={"use_cls_token": False}), device="cpu")
    assert (found.encoding.reserved, found.lcm.embed.prefix) == (False, None)
    assert set(found.recipes) == {"embed", "mean", "mean_unmasked"}
    assert np.abs(vectors(human, found) - vectors(human, found, recipe="mean")).max() == 0
    full = human[human.obs_names[EXPECTED["human_length"] == 97]].copy()  # no padding: all is genes, the first as well
    close(vectors(full, found, recipe="mean_unmasked"), vectors(full, found, recipe="mean"))
    assert np.isfinite(vectors(mouse, found)).all()


def test_fine_tuned_classifier_brings_its_head(release):
    def change(tensors):
        kept = without("cls.", "cls4value.", "emb_warmup.")(tensors)
        head = {"bert.pooler.dense": (24, 24), "classifier": (7, 24)}
        for name, shape in head.items():
            kept |= {name + ".weight": torch.randn(shape), name + ".bias": torch.randn(shape[0])}
        return kept

    found = load(release(change), device="cpu")
    assert set(found.lcm.heads) == {"cell_class"}
    assert found.architecture.heads["cell_class"].n_classes == 7


# ---- strictness ----

MISSING = {
    INPUT + "word_embeddings.weight": "lacks the tensor",
    INPUT + "homologous_index": "lacks the tensor .*homologous_index",
    INPUT + "promoter_knowledge": "lacks the tensor .*promoter_knowledge",
    INPUT + "promoter_embeddings.linear1.weight": "promoter",
    INPUT + "concat_embeddings.cat_ln.bias": r"cat_ln\.bias",
    "bert.encoder.layer.1.output.LayerNorm.bias": r"blocks\.1\.norm2\.bias",
    "cls4value.predictions.decoder.weight": r"cls4value\.predictions\.decoder\.weight",
}


@pytest.mark.parametrize("name", MISSING)
def test_missing_tensor_is_an_error_that_names_it(release, name):
    with pytest.raises(ValueError, match=MISSING[name]):
        load(release(without(name)), device="cpu")


@pytest.mark.parametrize("name", ["lora.weight", "emb_warmup.rate", INPUT + "promoter_embeddings.linear2.weight"])
def test_tensor_without_a_rule_is_an_error_that_names_it(release, name):
    with pytest.raises(ValueError, match=rf"no rule names: '{re.escape(name)}'"):
        load(release(lambda tensors: {**tensors, name: torch.zeros(3)}), device="cpu")


CHANGED = {
    "emb_warmup.alpha": (lambda t: t * 0.5, "'emb_warmup.alpha' should hold 1 throughout"),
    INPUT + "position_ids": (lambda t: t.flip(1), "position_ids' should hold 0, 1, 2"),
    INPUT + "homologous_index": (lambda t: t - 1, "should hold token ids, whole numbers from 0 to 379"),
    "cls.predictions.decoder.weight": (lambda t: t + 1, "one tensor stored twice, but differ"),
}


@pytest.mark.parametrize("name", CHANGED)
def test_tensor_that_cannot_be_so_is_refused(release, name):
    change, message = CHANGED[name]
    with pytest.raises(ValueError, match=message):
        load(release(lambda tensors: {**tensors, name: change(tensors[name])}), device="cpu")


def test_other_positions_are_refused(release):
    with pytest.raises(ValueError, match="'position_embedding_type' is 'relative_key'"):
        load(release(settings={"position_embedding_type": "relative_key"}), device="cpu")


CONTRADICTED = {
    **dict.fromkeys(["vocab_size", "max_position_embeddings", "type_vocab_size", "num_hidden_layers"], 7),
    **dict.fromkeys(["use_cls_token", "use_promoter", "use_co_exp", "use_gene_family", "use_peca_grn"], False),
}


@pytest.mark.parametrize("name", CONTRADICTED)
def test_configuration_that_contradicts_the_weights_is_refused(release, name):
    with pytest.raises(ValueError, match=f"says '{name}' is {CONTRADICTED[name]}, but the weights say"):
        load(release(settings={name: CONTRADICTED[name]}), device="cpu")


def test_longest_sentence_may_be_given_up_to_the_places_of_the_model(model, human):
    assert model.encoding.max_tokens == 97
    shorter = load(MODEL, device="cpu", max_len=40)
    assert shorter.encoding.max_tokens == 40
    assert np.abs(vectors(human, shorter) - vectors(human, model)).max() > 1e-3
    with pytest.raises(ValueError, match="Sentences may have 98 tokens, but the model knows 97 places"):
        load(MODEL, device="cpu", max_len=98)


def test_setting_whether_values_are_read_must_be_there(release):
    folder = release()
    file = folder / MODEL.name / "config.json"
    stated = json.loads(file.read_text())
    del stated["use_values"]
    file.write_text(json.dumps(stated))
    with pytest.raises(ValueError, match="use_values"):
        load(folder, device="cpu")
    assert load(folder, device="cpu", use_values=True).d_model == 24


def test_padding_can_be_seen_only_up_to_a_longest_sentence(model, reference):
    endless = load(reference / "scmulan/checkpoint", device="cpu")
    with pytest.raises(ValueError, match="padding cannot be seen"):
        endless.recipe(Recipe(mask_padding=False))
    assert not model.recipe(Recipe(mask_padding=False)).mask_padding
