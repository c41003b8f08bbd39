"""scGPT's files: every dialect is one model, and nothing is skipped or made up."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import sclcm.reference
from sclcm.models import describe, load
from sclcm.nn import configs
from sclcm.nn.pooling import pool
from sclcm.nn.tokens import TokenTensors

REFERENCE = Path(sclcm.reference.__file__).parent / "scgpt"
FOLDERS = ("checkpoint", "checkpoint_annotation", "checkpoint_integration")
WIDTH = 24


@pytest.fixture
def release(tmp_path):
    """Copy a packaged checkpoint, with the dictionaries of the pre-trained one, and change its tensors."""

    def make(change=lambda tensors: tensors, *, folder="checkpoint", save=torch.save, settings=None):
        target = tmp_path / "release"
        shutil.copytree(REFERENCE / "checkpoint", target, dirs_exist_ok=True)
        tensors = torch.load(REFERENCE / folder / "best_model.pt", weights_only=True)
        save(change(dict(tensors)), target / "best_model.pt")
        arguments = json.loads((target / "args.json").read_text())
        (target / "args.json").write_text(json.dumps({**arguments, **(settings or {})}))
        return target

    return make


def loaded(folder, **given):
    return load(folder, family="scgpt", device="cpu", dtype="float32", **given)


def packaged(folder="checkpoint"):
    return loaded(REFERENCE / folder, vocabulary=REFERENCE / "checkpoint")


def make_tokens():
    ids = torch.tensor([[171, 1, 5, 60], [171, 9, 170, 170]])
    values = torch.tensor([[-2.0, 7, 50, 1], [-2, 3, -2, -2]])
    return TokenTensors(
        token_ids_bl=ids,
        mask_bl=ids != 170,
        gene_mask_bl=(ids != 170) & (ids != 171),
        value_bl=values,
        condition_b=torch.tensor([2, 0]),
    )


@torch.inference_mode()
def outputs(model):
    """What every head gives."""
    tokens = make_tokens()
    x = model.lcm(tokens)
    return {name: model.lcm.read(name, x, tokens, x[:, 0]) for name in model.lcm.heads} | {"cells": x[:, 0]}


def assert_same(model, wanted, **tolerance):
    found, wanted = outputs(model), outputs(wanted)
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        real = make_tokens().mask_bl if tensor.shape == (2, 4) else ...
        torch.testing.assert_close(found[name][real], tensor[real], **(tolerance or {"rtol": 0, "atol": 0}))


def renamed(*pairs, prefix=""):
    """Names of another dialect."""

    def change(tensors):
        for old, new in pairs:
            tensors = {re.sub(old, new, name): tensor for name, tensor in tensors.items()}
        return {prefix + name: tensor for name, tensor in tensors.items()}

    return change


TO_TORCH = (r"self_attn\.(Wqkv\.)", "self_attn.in_proj_")
TO_FLASH = (r"self_attn\.in_proj_", "self_attn.Wqkv.")
TO_WRAPPER = (r"self_attn\.(Wqkv|out_proj)", r"self_attn._impl.\1")
DIALECTS = {
    "flash": renamed(TO_TORCH, TO_FLASH),
    "torch": renamed(TO_TORCH),
    "wrapper": renamed(TO_TORCH, TO_FLASH, TO_WRAPPER),
    "parallel": renamed(TO_TORCH, prefix="module."),
    "parallel wrapper": renamed(TO_TORCH, TO_FLASH, TO_WRAPPER, prefix="module."),
    "another order": lambda tensors: dict(reversed(tensors.items())),
}


@pytest.mark.parametrize("folder", FOLDERS)
@pytest.mark.parametrize("dialect", DIALECTS)
def test_every_dialect_is_the_same_model(release, folder, dialect):
    assert_same(loaded(release(DIALECTS[dialect], folder=folder)), packaged(folder))


FORMATS = {
    "older torch": lambda tensors, file: torch.save(tensors, file, _use_new_zipfile_serialization=False),
    "safetensors": save_file,
}


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_the_same_model(release, kind):
    assert_same(loaded(release(save=FORMATS[kind])), packaged())


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float16, 0.01), (torch.bfloat16, 0.1), (torch.float64, 0)])
def test_weights_of_other_number_types_become_float32(release, dtype, bound):
    def change(tensors):
        return {name: tensor.to(dtype) if tensor.is_floating_point() else tensor for name, tensor in tensors.items()}

    model = loaded(release(change, folder="checkpoint_integration"))
    assert {parameter.dtype for parameter in model.lcm.parameters()} == {torch.float32}
    assert_same(model, packaged("checkpoint_integration"), rtol=bound, atol=bound)


# ---- what the tensors say ----


def without(*prefixes):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if not name.startswith(prefixes)}


HEADS = {
    "checkpoint": {"value", "cell_gene"},
    "checkpoint_annotation": {"value", "cell_gene", "cell_class"},
    "checkpoint_integration": {
        *("value", "expressed", "cell_gene", "cell_gene_expressed", "cell_class", "batch_class"),
    },
}


@pytest.mark.parametrize("folder", FOLDERS)
def test_heads_are_those_that_the_checkpoint_has(folder):
    model = packaged(folder)
    assert set(model.lcm.heads) == HEADS[folder]
    assert (model.architecture.role is not None) == (folder == "checkpoint")
    assert model.n_conditions == (3 if folder == "checkpoint_integration" else None)


def test_heads_that_a_checkpoint_lacks_are_left_out(release):
    bare = without("decoder.", "mvc_decoder.", "cls_decoder.", "grad_reverse", "flag_encoder.")
    model = loaded(release(bare))
    assert set(model.lcm.heads) == set()
    torch.testing.assert_close(outputs(model)["cells"], outputs(packaged())["cells"], rtol=0, atol=0)


@pytest.mark.parametrize("n_layers", [1, 2, 3, 4])
def test_depth_of_the_class_head_is_read_off_the_tensors(release, n_layers):
    def change(tensors):
        kept = without("cls_decoder._decoder.")(tensors)
        for block in range(n_layers - 1):
            linear, norm = f"cls_decoder._decoder.{3 * block}.", f"cls_decoder._decoder.{3 * block + 2}."
            kept |= {linear + "weight": torch.randn(WIDTH, WIDTH), linear + "bias": torch.randn(WIDTH)}
            kept |= {norm + "weight": torch.randn(WIDTH), norm + "bias": torch.randn(WIDTH)}
        return kept

    model = loaded(release(change, folder="checkpoint_annotation"))
    assert len(model.lcm.heads["cell_class"].layers) == 3 * (n_layers - 1)
    assert outputs(model)["cell_class"].shape == (2, 4)


def test_older_checkpoints_norm_the_sum_of_embeddings(release):
    corpus = {
        "bn.weight": torch.rand(WIDTH),
        "bn.bias": torch.rand(WIDTH),
        "bn.running_mean": torch.rand(WIDTH),
        "bn.running_var": torch.rand(WIDTH) + 1,
        "bn.num_batches_tracked": torch.tensor(9),
    }
    model, plain, tokens = loaded(release(lambda tensors: {**tensors, **corpus})), packaged(), make_tokens()
    assert model.architecture.embedding_norm == configs.BatchNorm(eps=6.1e-5)
    with torch.inference_mode():
        x = plain.lcm.embed(tokens)
        scaled = (x - corpus["bn.running_mean"]) / (corpus["bn.running_var"] + 6.1e-5).sqrt()
        wanted = scaled * corpus["bn.weight"] + corpus["bn.bias"]
        torch.testing.assert_close(model.lcm.embed(tokens), wanted, rtol=1e-4, atol=1e-5)


def test_values_may_be_rows_of_a_table(release):
    table = {
        "value_encoder.embedding.weight": torch.randn(53, WIDTH),
        "value_encoder.enc_norm.weight": torch.rand(WIDTH),
        "value_encoder.enc_norm.bias": torch.rand(WIDTH),
    }
    folder = release(
        lambda tensors: {**without("value_encoder.")(tensors), **table},
        settings={"pad_value": 51, "input_emb_style": "category"},
    )
    model = loaded(folder)
    assert model.architecture.value == configs.ValueTable(n_values=53, norm=configs.LayerNorm(eps=1e-5))
    assert model.encoding.special_value == 51
    assert model.lcm.embed.value.rows.table.weight.equal(table["value_encoder.embedding.weight"])


# ---- strictness ----

NAME = "transformer_encoder.layers.1.linear2.weight"
MISSING = {
    "encoder.embedding.weight": r"lacks the tensor 'encoder\.embedding\.weight'",
    "encoder.enc_norm.bias": r"lacks the tensors of these rules: .*'encoder\.enc_norm\.bias'",
    "value_encoder.linear2.bias": r"lacks the tensors of these rules: .*'value_encoder\.linear2\.bias'",
    "mvc_decoder.gene2query.weight": r"lacks the tensors of these rules: .*'mvc_decoder\.gene2query\.weight'",
    "transformer_encoder.layers.1.norm1.weight": r"Missing .*backbone\.blocks\.1\.norm1\.weight",
    "transformer_encoder.layers.0.self_attn.out_proj.bias": r"Missing .*backbone\.blocks\.0\.attn\.out\.bias",
    "decoder.fc.2.bias": r"Missing .*heads\.value\.layers\.2\.bias",
}


@pytest.mark.parametrize("name", MISSING)
def test_missing_tensor_is_an_error_that_names_it(release, name):
    with pytest.raises(ValueError, match=MISSING[name]):
        loaded(release(without(name)))


@pytest.mark.parametrize(
    "name", ["lora.0.weight", "decoder.fc.6.scale", "transformer_encoder.norm.weight", "flag_encoder.bias"]
)
def test_tensor_without_a_rule_is_an_error_that_names_it(release, name):
    with pytest.raises(ValueError, match=rf"no rule names: '{re.escape(name)}'"):
        loaded(release(lambda tensors: {**tensors, name: torch.zeros(WIDTH)}))


def test_mixture_of_dialects_is_an_error(release):
    def change(tensors):
        first = "transformer_encoder.layers.0.self_attn."
        return renamed((re.escape(first + "Wqkv."), first + "in_proj_"))(tensors)

    with pytest.raises(ValueError, match=r"no rule names: 'transformer_encoder\.layers\.0\.self_attn\.in_proj_bias'"):
        loaded(release(change))


def test_tensor_of_another_shape_is_an_error_that_names_it(release):
    with pytest.raises(ValueError, match=r"backbone\.blocks\.1\.ff\.down\.weight"):
        loaded(release(lambda tensors: {**tensors, NAME: torch.zeros(WIDTH, 41)}))


def test_vocabulary_of_another_model_is_an_error(release):
    folder = release()
    tokens = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps({**tokens, "LATEGENE": 173}))
    with pytest.raises(ValueError, match="has 174 tokens, the model's table 173 rows"):
        loaded(folder)


@pytest.mark.parametrize("lacking", [("<eoc>",), ("<pad>", "<cls>", "<eoc>")])
def test_special_tokens_that_the_file_lacks_come_after_its_last(release, lacking):
    folder = release()
    tokens = json.loads((folder / "vocab.json").read_text())
    (folder / "vocab.json").write_text(json.dumps({name: i for name, i in tokens.items() if name not in lacking}))
    assert dict(loaded(folder).vocabulary.specials) == {"<pad>": 170, "<cls>": 171, "<eoc>": 172}


def test_vocabulary_that_lacks_a_token_within_is_an_error(release):
    folder = release()
    tokens = json.loads((folder / "vocab.json").read_text())
    del tokens["<cls>"]
    (folder / "vocab.json").write_text(json.dumps(tokens))
    with pytest.raises(ValueError, match="172"):
        loaded(folder)


def test_setting_that_is_not_there_is_named(release):
    folder = release()
    settings = json.loads((folder / "args.json").read_text())
    del settings["nheads"]
    (folder / "args.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="nheads"):
        loaded(folder)


@pytest.mark.parametrize(
    ("key", "value"), [("embsize", 48), ("d_hid", 24), ("nlayers", 1), ("nlayers", 3), ("input_emb_style", "category")]
)
def test_sizes_that_the_tensors_contradict_are_refused(release, key, value):
    with pytest.raises(ValueError, match=rf"says '{key}' is {value!r}, but the weights say"):
        loaded(release(settings={key: value}))


@pytest.mark.parametrize(("key", "value"), [("pre_norm", True), ("pad_token", "<x>")])
def test_settings_of_another_model_are_refused(release, key, value):
    with pytest.raises(ValueError, match=rf"says '{key}' is {value!r}, but only models with"):
        loaded(release(settings={key: value}))


# ---- what users see ----


def test_folder_tells_its_family(release):
    model = load(release(), device="cpu")
    assert (model.family, model.d_model, model.lcm.n_blocks) == ("scgpt", WIDTH, 2)
    assert model.vocabulary.ids == "symbol"
    assert (model.vocabulary.specials["<cls>"], model.vocabulary.n_tokens) == (171, 173)
    assert (model.encoding.special_value, model.encoding.max_tokens) == (-2, 60)


def test_description_says_what_it_needs_and_gives():
    found = describe("scgpt")
    assert found["name"] == "scgpt.human"
    assert found["gene_ids"] == "symbol"
    assert {"embed", "cls", "avg_pool", "w_pool"} <= set(found["recipes"])
    assert set(found["heads"]) == HEADS["checkpoint_integration"]
    assert found["files"] == ["best_model.pt", "args.json", "vocab.json"]
    with pytest.raises(ValueError, match="has no checkpoint 'mouse'; it has 'human', 'continual'"):
        describe("scgpt.mouse")


@torch.inference_mode()
def test_recipes_are_the_first_token_the_mean_and_the_weighted_sum():
    model, tokens = packaged(), make_tokens()
    x = model.lcm(tokens)
    by_hand = {
        "embed": x[:, 0],
        "avg_pool": torch.stack([x[0].mean(0), x[1, :2].mean(0)]),
        "w_pool": torch.stack([(x[0] * tokens.value_bl[0, :, None]).sum(0), -2 * x[1, 0] + 3 * x[1, 1]]),
    }
    for name, wanted in by_hand.items():
        torch.testing.assert_close(pool(model.recipe(name).pooling, x, tokens), wanted, rtol=1e-4, atol=1e-5)
    assert [model.recipe(name).l2_normalize for name in by_hand] == [True, False, True]


def test_vectors_of_genes_are_normed_table_rows():
    expected = np.load(REFERENCE / "expected.npz")["gene_embeddings"]
    model = packaged()
    np.testing.assert_allclose(model.gene_vectors(), expected[model.vocabulary.token_ids], rtol=1e-4, atol=1e-5)
