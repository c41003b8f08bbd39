"""CellPLM's files: nothing is skipped or made up, and heads are there where the file has them."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch

import sclcm.reference
from sclcm.models import build, describe, load, verify
from sclcm.tl import embed

REFERENCE = Path(sclcm.reference.__file__).parent / "cellplm"
WEIGHTS, SETTINGS = "20990101_tiny.best.ckpt", "20990101_tiny.config.json"
LATENT = "latent.layers.1.inference."


@pytest.fixture
def release(tmp_path):
    """Copy the packaged checkpoint and change its tensors and settings."""

    def make(change=lambda tensors: tensors, **settings):
        folder = tmp_path / "release"
        shutil.copytree(REFERENCE / "checkpoint", folder, dirs_exist_ok=True)
        stored = torch.load(folder / WEIGHTS, weights_only=True)["model_state_dict"]
        torch.save({"model_state_dict": change(dict(stored)), "epoch": 7}, folder / WEIGHTS)
        found = json.loads((folder / SETTINGS).read_text()) | settings
        kept = {key: value for key, value in found.items() if value is not None}
        (folder / SETTINGS).write_text(json.dumps(kept))
        return folder

    return make


def loaded(folder):
    return load(folder, device="cpu", dtype="float32")


def without(*starts):
    return lambda tensors: {name: tensor for name, tensor in tensors.items() if not name.startswith(starts)}


def test_files_are_known_for_the_family():
    model = loaded(REFERENCE / "checkpoint")
    assert (model.family, model.token_unit, model.pad) == ("cellplm", "cell", "")
    assert set(model.lcm.heads) == {"mixture", "latent_most_probable", "latent_weighted", "latent_drawn", "counts"}
    assert set(model.recipes) == {"embed", "backbone", "weighted", "drawn"}


def test_model_without_weights_has_the_backbone_alone():
    genes = loaded(REFERENCE / "checkpoint").vocabulary.features[:50]
    model = build("cellplm", genes, d_model=16, n_blocks=1, d_hidden=8, device="cpu")
    assert model.architecture.backbone.attention.n_heads == 8
    assert (model.lcm.n_blocks, model.width(model.recipe("embed"))) == (1, 16)


def test_description_names_the_recipe_of_published_files():
    assert "latent_most_probable" in describe("cellplm")["recipes"]["embed"]


def test_of_several_pairs_in_a_folder_the_weights_name_theirs(release):
    folder = release()
    other = json.loads((folder / SETTINGS).read_text()) | {"enc_head": 2}
    (folder / "20991231_tiny.config.json").write_text(json.dumps(other))
    shutil.copy(folder / WEIGHTS, folder / "20991231_tiny.best.ckpt")
    for stem, n_heads in (("20990101_tiny", 4), ("20991231_tiny", 2)):
        model = load(folder / f"{stem}.best.ckpt", family="cellplm", device="cpu")
        assert model.architecture.backbone.attention.n_heads == n_heads
    with pytest.raises(ValueError, match="holds 2 files like"):
        load(folder, family="cellplm", device="cpu")


def test_tensors_that_are_never_used_may_lack(release):
    model = loaded(release(without("embedder.norm0", "embedder.pe_enc")))
    whole = loaded(REFERENCE / "checkpoint")
    for name, tensor in whole.lcm.state_dict().items():
        assert tensor.equal(model.lcm.state_dict()[name]), name


@pytest.mark.parametrize(
    "name",
    [
        "embedder.feat_enc.emb",
        "embedder.extra_linear.3.bias",
        "encoder.layers.1.self_attn.key_projection.weight",
        "encoder.layers.0._ff_block.3.bias",
        "pre_latent_norm.norm.weight",
        LATENT + "inference_qzyx.2.var.bias",
        LATENT + "y_var.weight",
        "decoder.layers.0.1.weight",
        "decoder.covariate_layers.0.dataset.2.bias",
        "decoder.out_layer.dec_mean.0.weight",
    ],
)
def test_missing_tensor_is_an_error(release, name):
    with pytest.raises(ValueError, match=r"lack|Missing"):
        loaded(release(without(name)))


def test_tensor_without_a_rule_is_an_error(release):
    with pytest.raises(ValueError, match=r"no rule names: 'encoder\.layers\.0\.gate'"):
        loaded(release(lambda tensors: {**tensors, "encoder.layers.0.gate": torch.zeros(3)}))


@pytest.mark.parametrize(
    ("key", "value"), [("enc_mod", "transformer"), ("norm", "layernorm"), ("dsbn", True), ("cat_pe", True)]
)
def test_models_of_another_kind_are_refused(release, key, value):
    with pytest.raises(ValueError, match=f"says '{key}' is {value!r}"):
        loaded(release(**{key: value}))


@pytest.mark.parametrize(
    "key",
    [
        *("enc_hid", "enc_layers", "num_clusters", "post_latent_dim", "dec_hid", "dec_layers", "out_dim"),
    ],
)
def test_configuration_whose_sizes_the_weights_contradict_is_refused(release, key):
    with pytest.raises(ValueError, match=f"says '{key}' is 21, but the weights say"):
        loaded(release(**{key: 21}))


@pytest.mark.parametrize(("key", "value"), [("latent_mod", "vae"), ("dec_mod", "mlp")])
def test_parts_of_another_kind_are_refused(release, key, value):
    with pytest.raises(ValueError, match=f"says '{key}' is '{value}', but the weights say"):
        loaded(release(**{key: value}))


def test_fine_tuned_classifier_is_read_by_the_configuration_that_it_began_with(release):
    def change(tensors):
        return without("latent.", "decoder.")(tensors) | {
            "latent.layers.1.lat_2lat.0.weight": torch.randn(5, 16),
            "latent.layers.1.lat_2lat.0.bias": torch.randn(5),
            "head.mlp.1.weight": torch.randn(4, 5),
            "head.mlp.1.bias": torch.randn(4),
        }

    for settings in ({}, {"latent_mod": "ae", "post_latent_dim": 5, "dec_mod": "mlp", "dec_layers": 1, "out_dim": 4}):
        assert set(loaded(release(change, **settings)).lcm.heads) == {"latent", "cell_class"}


def test_heads_are_8_where_the_configuration_does_not_name_them(release):
    assert loaded(release(enc_head=None)).architecture.backbone.attention.n_heads == 8
    assert loaded(release(enc_head=2)).architecture.backbone.attention.n_heads == 2


def test_file_without_decoder_or_latent_space_embeds_by_its_last_norm(release):
    model = loaded(release(without("latent.", "decoder.")))
    assert not model.lcm.heads
    adata = anndata.read_h5ad(REFERENCE / "input.h5ad")
    embed(adata, model, batch_key="batch")
    wanted = np.load(REFERENCE / "expected.npz")["pre_latent_norm"]
    np.testing.assert_allclose(adata.obsm["X_cellplm"], wanted, rtol=1e-5, atol=1e-5)


def test_fine_tuned_classifier_has_its_own_latent_layer(release):
    def change(tensors):
        return without("latent.", "decoder.")(tensors) | {
            "latent.layers.1.lat_2lat.0.weight": torch.randn(5, 16),
            "latent.layers.1.lat_2lat.0.bias": torch.randn(5),
            "head.mlp.1.weight": torch.randn(4, 5),
            "head.mlp.1.bias": torch.randn(4),
        }

    model = loaded(release(change, latent_mod="ae"))
    assert set(model.lcm.heads) == {"latent", "cell_class"}
    assert model.width(model.recipe("embed")) == 5
    z = model.lcm.read_cells("latent", torch.randn(3, 16))
    assert model.lcm.read_cells("cell_class", z).shape == (3, 4)


@pytest.mark.parametrize("places", [(1,), (1, 4), (1, 4, 7), (0,), (0, 2), (0, 2, 4)])
def test_class_head_may_have_more_layers_with_and_without_dropout(release, tmp_path, places):
    def change(tensors):
        widths = [*(5, 6, 7)[: len(places)], 4]
        shapes = {f"mlp.{place}": (widths[i + 1], widths[i]) for i, place in enumerate(places)}
        head = {f"head.{name}.weight": torch.randn(shape) for name, shape in shapes.items()}
        head |= {f"head.{name}.bias": torch.randn(shape[0]) for name, shape in shapes.items()}
        latent = {
            "latent.layers.1.lat_2lat.0.weight": torch.randn(5, 16),
            "latent.layers.1.lat_2lat.0.bias": torch.randn(5),
        }
        stored.update(head)
        return without("latent.", "decoder.")(tensors) | head | latent

    stored = {}
    model, z = loaded(release(change, latent_mod="ae")), torch.randn(3, 5)
    wanted = z
    for i in places:
        wanted = (wanted.relu() if i > 1 else wanted) @ stored[f"head.mlp.{i}.weight"].t() + stored[
            f"head.mlp.{i}.bias"
        ]
    torch.testing.assert_close(model.lcm.read_cells("cell_class", z), wanted, rtol=1e-4, atol=1e-5)
    model.save(tmp_path / "saved")
    assert loaded(tmp_path / "saved").lcm.read_cells("cell_class", z).equal(model.lcm.read_cells("cell_class", z))


@pytest.mark.parametrize("names", [("platform",), ("batch", "dataset", "platform"), ()])
def test_covariates_are_those_that_the_decoder_has(release, names):
    def change(tensors):
        bare = without("decoder.covariate_layers.")(tensors)
        for size, name in enumerate(names, 2):
            layer = f"decoder.covariate_layers.0.{name}."
            bare |= {layer + "0.weight": torch.randn(size, 16), layer + "1.weight": torch.randn(1)}
            bare |= {layer + "2.weight": torch.randn(16), layer + "2.bias": torch.randn(16)}
        return bare

    sizes = {f"{name}_num": names.index(name) + 2 if name in names else 0 for name in ("batch", "dataset", "platform")}
    decoder = loaded(release(change, **sizes)).lcm.heads["counts"]
    found = [decoder.n_labels(name) for name in ("batch", "dataset", "platform")]
    assert found == list(sizes.values())


def test_decoder_may_have_more_hidden_layers(release):
    def change(tensors):
        more = {
            name.replace("layers.0", "layers.1", 1): tensor
            for name, tensor in tensors.items()
            if name.startswith(("decoder.layers.", "decoder.covariate_layers."))
        }
        more["decoder.layers.1.0.weight"] = torch.randn(16, 16)
        return tensors | more

    decoder = loaded(release(change, dec_layers=3)).lcm.heads["counts"]
    assert len(decoder.blocks) == 2
    assert decoder(torch.randn(3, 12)).shape == (3, 320)


@pytest.mark.parametrize(
    ("settings", "wrong"),
    [
        ({"dae": False}, {"pre_loss", "pre_target_loss"}),
        ({"w_li": None}, {"pre_loss", "pre_latent_loss"}),
        ({"w_en": None}, {"pre_loss", "pre_latent_loss"}),
    ],
)
def test_loss_is_that_of_the_configuration(release, settings, wrong):
    """Without an entry, it is what the authors' code takes then; those of the fixture have other settings."""
    folder = release(**settings)
    folder = folder.rename(folder.parent / "checkpoint").parent
    for name in ("input.h5ad", "expected.npz", "expected.json"):
        shutil.copy(REFERENCE / name, folder)
    assert {check.array for check in verify("cellplm", fixture=folder) if check.status != "OK"} == wrong


def test_saved_model_gives_the_same_bits(tmp_path):
    model, adata = loaded(REFERENCE / "checkpoint"), anndata.read_h5ad(REFERENCE / "input.h5ad")
    model.save(tmp_path / "saved")
    again = loaded(tmp_path / "saved")
    for recipe in model.recipes:
        one, other = (embed(adata, m, recipe=recipe, batch_key="batch", copy=True) for m in (model, again))
        assert np.array_equal(one.obsm["X_cellplm"], other.obsm["X_cellplm"])
