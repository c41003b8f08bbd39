"""Saving and reading back, recipes, and what else a loaded model answers."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from scipy.sparse import random as random_sparse

from sclcm.encoding.batches import iter_batches
from sclcm.encoding.chunks import CellChunk
from sclcm.engine.infer import to_tensors
from sclcm.models import load
from sclcm.models._declarations import from_json, to_json
from sclcm.nn.readouts import Concatenated, FirstToken, LinearHead, MeanPooling
from sclcm.zoo._spec import Recipe


@pytest.fixture(
    params=["v1/checkpoint", "v1/checkpoint/cell_classifier", "v2/checkpoint", "v2/checkpoint/gene_classifier"]
)
def model(reference, request):
    return load(reference / request.param, device="cpu")


@pytest.fixture
def first(reference):
    return load(reference / "v1/checkpoint", device="cpu")


def make_chunk(model, n_cells=6):
    counts = random_sparse(n_cells, model.vocabulary.n_features, 0.3, "csr", np.float32, rng=0)
    counts.data = np.ceil(counts.data * 9)
    totals = np.asarray(counts.sum(1)).ravel()
    return CellChunk(start=0, counts=counts, totals=totals, n_genes=np.diff(counts.indptr))


def outputs(model):
    pad = model.vocabulary.specials[model.pad]
    batches = iter_batches(model.encode(make_chunk(model)), pad=pad, max_tokens=200)
    with torch.inference_mode():
        return [model.lcm(to_tensors(batch, model.device)) for batch in batches]


def test_saved_model_loads_back_bit_by_bit(model, tmp_path):
    model.save(tmp_path / "saved")
    found = load(tmp_path / "saved", device="cpu")
    weights, wanted = found.lcm.state_dict(), model.lcm.state_dict()
    assert list(weights) == list(wanted)
    assert all(weights[name].dtype == wanted[name].dtype and weights[name].equal(wanted[name]) for name in wanted)
    assert found.vocabulary.to_json() == model.vocabulary.to_json()
    assert list(found.arrays) == list(model.arrays)
    for name, array in model.arrays.items():
        assert found.arrays[name].dtype == array.dtype
        assert found.arrays[name].tobytes() == array.tobytes()
    for name in ("name", "family", "gene_columns", "pad", "mask", "encoding", "architecture", "recipes"):
        assert getattr(found, name) == getattr(model, name)
    assert all(map(torch.equal, outputs(found), outputs(model)))
    assert not found.lcm.training


def test_saved_model_is_a_folder_of_json_and_safetensors(first, tmp_path):
    first.save(tmp_path / "new/saved")
    folder = tmp_path / "new/saved"
    assert sorted(file.name for file in folder.iterdir()) == ["config.json", "model.safetensors", "vocabulary.json"]
    config = json.loads((folder / "config.json").read_text())
    assert config["format"] == "sclcm/1"
    assert config["source_sha256"] == first.sha256


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_saved_as_it_is(first, tmp_path, dtype):
    half = first.to("cpu", dtype)
    half.save(tmp_path / "saved")
    found = load(tmp_path / "saved", device="cpu", dtype=dtype)
    assert all(a.equal(b) for a, b in zip(found.lcm.state_dict().values(), half.lcm.state_dict().values(), strict=True))
    assert load(tmp_path / "saved", device="cpu").dtype == torch.float32


def test_model_may_be_saved_where_it_was_loaded_from_and_elsewhere_again(first, tmp_path):
    first.save(tmp_path / "saved")
    second = load(tmp_path / "saved", device="cpu")
    before = {name: array.copy() for name, array in second.arrays.items()}
    second.save(tmp_path / "saved")
    second.save(tmp_path / "saved")
    assert np.array_equal(second.arrays["median"], before["median"])
    third = load(tmp_path / "saved", device="cpu")
    assert third.sha256 != first.sha256
    assert all(map(torch.equal, outputs(third), outputs(first)))


def test_weights_file_of_a_saved_model_loads_too(first, tmp_path):
    first.save(tmp_path / "saved")
    found = load(tmp_path / "saved/model.safetensors", device="cpu")
    assert all(map(torch.equal, outputs(found), outputs(first)))


def test_saving_over_other_peoples_files_is_refused(first, tmp_path, release):
    for folder, name in ((tmp_path, "notes.txt"), (release(), "")):
        (tmp_path / "notes.txt").write_text("mine")
        before = sorted(file.name for file in folder.iterdir())
        with pytest.raises(FileExistsError, match=rf"holds '{name}.*already; save into a new or empty folder"):
            first.save(folder)
        assert sorted(file.name for file in folder.iterdir()) == before


def test_saving_over_a_release_with_our_file_names_is_refused(first, tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    (tmp_path / "model.safetensors").write_bytes(b"theirs")
    with pytest.raises(FileExistsError, match=r"'config\.json'.* already"):
        first.save(tmp_path)
    assert (tmp_path / "model.safetensors").read_bytes() == b"theirs"


def test_saved_model_of_another_version_says_so(first, tmp_path):
    first.save(tmp_path)
    file = tmp_path / "config.json"
    text = file.read_text()
    file.write_text(text.replace("sclcm/1", "sclcm/2"))
    with pytest.raises(ValueError, match=r"'sclcm/2'.*Update sclcm"):
        load(tmp_path)
    file.write_text(text.replace('"type": "MeanPooling"', '"type": "MaxPooling"'))
    with pytest.raises(ValueError, match="'MaxPooling', which this version does not have; update sclcm"):
        load(tmp_path)
    file.write_text(text.replace('"l2_normalize"', '"l3_normalize"'))
    with pytest.raises(ValueError, match="'Recipe' does not fit this version of sclcm"):
        load(tmp_path)


@pytest.mark.parametrize("change", ["missing", "extra", "misshapen"])
def test_saved_model_with_other_tensors_is_refused_by_name(first, tmp_path, change):
    first.save(tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    name = "backbone.blocks.1.norm2.bias"
    if change == "missing":
        del tensors[name]
    elif change == "extra":
        name = "backbone.blocks.9.norm2.bias"
        tensors[name] = torch.zeros(3)
    else:
        tensors[name] = tensors[name][1:].contiguous()
    save_file(tensors, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=name.replace(".", r"\.")):
        load(tmp_path)


def test_every_declaration_survives_json(model):
    for declaration in (model.encoding, model.architecture, model.recipes):
        assert from_json(json.loads(json.dumps(to_json(declaration)))) == declaration


def test_model_is_shown_in_a_line(first):
    assert repr(first) == (
        "<Pretrained 'geneformer': 36,840 weights in 3 blocks of width 32, 230 genes, recipes 'embed', 'mean', "
        "'mean_last'; float32 on cpu>"
    )


# ---- recipes ----


def test_recipe_is_found_by_name_or_passes_through(first):
    assert first.recipe("mean_last") is first.recipes["mean_last"]
    own = dataclasses.replace(first.recipe("mean"), layer=-4, l2_normalize=True)
    assert first.recipe(own) is own
    assert (first.depth(own), first.depth(first.recipe("mean_last")), first.depth(first.recipe("mean"))) == (0, 3, 2)


@pytest.mark.parametrize("recipe", ["cls", "", None, 3, ["embed"]])
def test_unknown_recipe_lists_those_that_exist(first, recipe):
    with pytest.raises(ValueError, match=r"`recipe` is .*'geneformer' has 'embed', 'mean', 'mean_last'"):
        first.recipe(recipe)


@pytest.mark.parametrize("layer", [0, 1, -5, -100])
def test_layer_that_does_not_exist_is_refused(first, layer):
    with pytest.raises(ValueError, match=rf"`recipe.layer` is {layer}; expected -1 \(the last block\) to -4"):
        first.recipe(Recipe(layer=layer))


def test_width_is_that_of_the_tokens_or_of_the_head(first):
    assert first.width(Recipe(pooling=Concatenated(parts=(MeanPooling(), FirstToken())))) == 64
    config = dataclasses.replace(first.architecture, heads={"project": LinearHead(d_in=32, d_out=5)})
    model = dataclasses.replace(first, architecture=config, lcm=type(first.lcm)(config))
    assert model.width(Recipe(pooling=FirstToken())) == 32
    assert model.width(Recipe(pooling=MeanPooling(), head="project")) == 5


def test_head_that_does_not_exist_is_refused(first):
    with pytest.raises(ValueError, match=r"`recipe.head` is 'cell_class'; 'geneformer' has the heads \['token'\]"):
        first.recipe(Recipe(head="cell_class"))


def test_head_that_is_no_projection_of_cells_is_refused(first, reference):
    with pytest.raises(ValueError, match=r"`recipe.head` is 'token', a TiedTokenHead, .*LinearHead"):
        first.recipe(Recipe(head="token"))
    classifier = load(reference / "v1/checkpoint/cell_classifier")
    with pytest.raises(ValueError, match=r"`recipe.head` is 'cell_class', a PooledClassHead, .*LinearHead"):
        classifier.recipe(Recipe(head="cell_class"))


# ---- vectors of genes ----


def test_gene_vectors_are_the_rows_of_the_vocabulary(model):
    vectors = model.gene_vectors()
    table = model.lcm.embed.gene.weight.numpy()
    assert vectors.shape == (model.vocabulary.n_features, model.d_model)
    assert vectors.dtype == np.float32
    for feature in (0, 7, -1):
        assert np.array_equal(vectors[feature], table[model.vocabulary.token(model.vocabulary.features[feature])])


def test_gene_vectors_are_a_copy(first):
    first.gene_vectors()[:] = 0
    assert first.lcm.embed.gene.weight.abs().sum() > 0
