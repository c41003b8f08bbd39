"""From a name or a path to a model."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from sclcm._settings import settings
from sclcm.checkpoints.files import checkpoint_digest, sha256_of
from sclcm.models import describe, list_models, load
from sclcm.nn import readouts

DICTIONARIES = ("token_dictionary", "gene_median_dictionary", "ensembl_mapping_dict")


def same_weights(a, b):
    left, right = a.lcm.state_dict(), b.lcm.state_dict()
    return left.keys() == right.keys() and all(left[name].equal(right[name]) for name in left)


def change_tensors(folder, change, file="model.safetensors"):
    tensors = load_file(folder / file)
    change(tensors)
    save_file(tensors, folder / file)


def change_pickle(folder, stem, change):
    (file,) = folder.glob(f"{stem}*.pkl")
    stored = pickle.loads(file.read_bytes())
    changed = change(stored)
    file.write_bytes(pickle.dumps(stored if changed is None else changed, protocol=4))


def change_config(folder, **values):
    file = folder / "config.json"
    config = {**json.loads(file.read_text()), **values}
    file.write_text(json.dumps({key: value for key, value in config.items() if value is not None}))


# ---- by path ----


@pytest.mark.parametrize("family", [None, "geneformer"])
@pytest.mark.parametrize(("version", "d_model", "n_blocks"), [("v1", 32, 3), ("v2", 36, 2)])
def test_folder_of_authors_files_is_loaded(reference, family, version, d_model, n_blocks):
    folder = reference / version / "checkpoint"
    model = load(folder, family=family)
    assert (model.name, model.family) == ("geneformer", "geneformer")
    assert (model.d_model, model.lcm.n_blocks) == (d_model, n_blocks)
    assert not model.lcm.training
    assert not any(parameter.requires_grad for parameter in model.lcm.parameters())
    assert list(model.lcm.heads) == ["token"]
    assert model.n_parameters == sum(tensor.numel() for tensor in load_file(folder / "model.safetensors").values())


def test_sentence_frame_and_default_recipe_follow_from_the_vocabulary(reference):
    first, second = (load(reference / version / "checkpoint") for version in ("v1", "v2"))
    assert (set(first.vocabulary.specials), first.mask) == ({"<pad>", "<mask>"}, "<mask>")
    assert set(second.vocabulary.specials) == {"<pad>", "<mask>", "<cls>", "<eos>"}
    assert set(first.recipes) == {"embed", "mean", "mean_last"}
    assert set(second.recipes) == {"embed", "mean", "mean_last", "cls", "cls_last"}
    assert first.recipes["embed"].pooling == readouts.MeanPooling()
    assert second.recipes["embed"].pooling == readouts.FirstToken()


def test_path_may_be_text_and_may_be_the_weights_file(reference):
    folder = reference / "v1/checkpoint"
    wanted = load(folder)
    assert same_weights(load(str(folder)), wanted)
    for file in ("model.safetensors", "pytorch_model.bin"):
        assert same_weights(load(folder / file), wanted)
        assert same_weights(load(folder / file, family="geneformer"), wanted)


def test_weights_file_of_another_name_is_read_where_it_is_named(release):
    folder = release()
    (folder / "pytorch_model.bin").unlink()
    file = (folder / "model.safetensors").rename(folder / "step_500.safetensors")
    assert same_weights(load(file), load(file, family="geneformer"))


def test_torch_file_is_read_where_there_is_no_other(release):
    folder = release()
    wanted = load(folder)
    (folder / "model.safetensors").unlink()
    found = load(folder)
    assert same_weights(found, wanted)
    assert found.sha256 != wanted.sha256


def test_digest_is_of_the_files_that_were_read(release):
    folder = release()
    read = [next(folder.glob(f"{name}*.pkl")) for name in DICTIONARIES]
    read += [folder / "config.json", folder / "model.safetensors"]
    assert load(folder).sha256 == checkpoint_digest(read)
    change_pickle(folder, "gene_name_id_dict", lambda names: {**names, "extra": "ENSG0"})
    assert load(folder).sha256 == checkpoint_digest(read)
    before = sha256_of(read[1])
    change_pickle(folder, "gene_median_dictionary", lambda medians: {**medians, "extra": 1.0})
    assert sha256_of(read[1]) != before
    assert load(folder).sha256 == checkpoint_digest(read)


@pytest.mark.parametrize(
    ("folder", "head", "kind"),
    [
        ("v1/checkpoint/cell_classifier", "cell_class", readouts.PooledClassHead(n_classes=3)),
        ("v2/checkpoint/gene_classifier", "gene_class", readouts.TokenClassHead(n_classes=2)),
    ],
)
def test_classifier_finds_its_dictionaries_one_folder_up(reference, folder, head, kind):
    model = load(reference / folder)
    assert dict(model.architecture.heads) == {head: kind}
    parent = load((reference / folder).parent)
    assert model.vocabulary.digest() == parent.vocabulary.digest()
    assert np.array_equal(model.arrays["median"], parent.arrays["median"])


def test_dictionaries_may_lie_in_a_folder_that_is_named(release, tmp_path):
    folder, elsewhere = release(), tmp_path / "dictionaries"
    wanted = load(folder)
    elsewhere.mkdir()
    for file in folder.glob("*.pkl"):
        file.rename(elsewhere / file.name)
    with pytest.raises(ValueError, match="fit no family; pass `family=`"):
        load(folder)
    with pytest.raises(FileNotFoundError, match="token_dictionary"):
        load(folder, family="geneformer")
    for given in (elsewhere, str(elsewhere)):
        found = load(folder, vocabulary=given)
        assert same_weights(found, wanted)
        assert found.vocabulary.digest() == wanted.vocabulary.digest()


def test_dictionaries_in_the_named_folder_win_over_those_beside_the_weights(release, reference):
    folder = release("v1")
    right = reference / "v1/checkpoint"
    change_pickle(folder, "gene_median_dictionary", lambda medians: dict.fromkeys(medians, 1.0))
    assert set(load(folder).arrays["median"]) == {1.0}
    assert np.array_equal(load(folder, vocabulary=right).arrays["median"], load(right).arrays["median"])


def test_folder_of_dictionaries_that_does_not_exist_is_an_error(reference, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"`vocabulary` is '.*nowhere'.*no folder"):
        load(reference / "v1/checkpoint", vocabulary=tmp_path / "nowhere")


def test_configuration_is_never_that_of_the_folder_above(release):
    folder = release()
    (folder / "cell_classifier/config.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"config\.json"):
        load(folder / "cell_classifier")


def test_dictionaries_may_be_json(release):
    folder = release()
    wanted = load(folder)
    for stem in DICTIONARIES:
        (file,) = folder.glob(f"{stem}*.pkl")
        plain = {
            key: value if isinstance(value, str) else float(value)
            for key, value in pickle.loads(file.read_bytes()).items()
        }
        if stem == "token_dictionary":
            plain = {key: int(value) for key, value in plain.items()}
        file.with_suffix(".json").write_text(json.dumps(plain))
        file.unlink()
    found = load(folder)
    assert found.vocabulary.digest() == wanted.vocabulary.digest()
    assert np.array_equal(found.arrays["median"], wanted.arrays["median"])


def test_model_that_is_loaded_or_saved_takes_no_further_sizes(reference, tmp_path):
    model = load(reference / "v1/checkpoint")
    with pytest.raises(TypeError, match=r"`hidden_size`.* a model that is loaded already takes no further arguments"):
        load(model, hidden_size=32)
    model.save(tmp_path / "saved")
    with pytest.raises(TypeError, match=r"`vocabulary`.* a saved model takes no further arguments"):
        load(tmp_path / "saved", vocabulary=reference)


# ---- files that do not fit ----


def test_folder_of_nothing_fits_no_family(tmp_path):
    with pytest.raises(ValueError, match=r"\(none\) fit no family; pass `family=`, one of \[.*'geneformer'"):
        load(tmp_path)
    (tmp_path / "notes.txt").write_text("x")
    with pytest.raises(ValueError, match=r"\(notes.txt\) fit no family"):
        load(tmp_path)


def test_unknown_family_lists_those_that_exist(reference):
    with pytest.raises(ValueError, match=r"'geneformr' is unknown; known are .*'geneformer'"):
        load(reference / "v1/checkpoint", family="geneformr")


def test_dictionaries_of_another_model_are_refused(reference):
    with pytest.raises(ValueError, match=r"vocabulary .* has 224 tokens, the model's table 232 rows.*vocabulary="):
        load(reference / "v1/checkpoint/cell_classifier", vocabulary=reference / "v2/checkpoint")


def test_missing_median_is_named(release):
    folder = release()
    change_pickle(folder, "gene_median_dictionary", lambda medians: dict(list(medians.items())[1:]))
    with pytest.raises(ValueError, match=r"gene_median_dictionary_gc30M.pkl' lacks 1 genes .* such as 'ENSG"):
        load(folder)


@pytest.mark.parametrize("bad", [0.0, -1.0, float("nan"), float("inf")])
def test_median_that_is_no_positive_number_is_named(release, bad):
    folder = release()
    gene = load(folder).vocabulary.features[3]
    change_pickle(folder, "gene_median_dictionary", lambda medians: medians | {gene: bad})
    with pytest.raises(ValueError, match=r"gives .* for 'ENSG.*'; expected a positive number"):
        load(folder)


@pytest.mark.parametrize("stem", DICTIONARIES)
def test_missing_dictionary_is_named(release, stem):
    folder = release()
    (file,) = folder.glob(f"{stem}*.pkl")
    file.unlink()
    with pytest.raises(FileNotFoundError, match=stem):
        load(folder, family="geneformer")


def test_two_dictionaries_of_a_kind_are_refused(release, reference):
    folder = release()
    (file,) = (reference / "v2/checkpoint").glob("token_dictionary*.pkl")
    (folder / file.name).write_bytes(file.read_bytes())
    with pytest.raises(ValueError, match="holds 2 files like `token_dictionary"):
        load(folder, family="geneformer")


def test_dictionary_that_is_none_is_refused(release):
    folder = release()
    change_pickle(folder, "token_dictionary", list)
    with pytest.raises(ValueError, match=r"token_dictionary.* holds a list; expected a dictionary"):
        load(folder)


@pytest.mark.parametrize(
    "key", ["hidden_size", "num_attention_heads", "layer_norm_eps", "hidden_act", "max_position_embeddings"]
)
def test_missing_configuration_is_named_and_can_be_given(release, key):
    folder = release()
    wanted = load(folder)
    value = json.loads((folder / "config.json").read_text())[key]
    change_config(folder, **{key: None})
    with pytest.raises(
        ValueError, match=rf"configuration lacks '{key}'; pass it, as in `load\(\.\.\., {key}=\.\.\.\)`"
    ):
        load(folder)
    assert load(folder, **{key: value}).architecture == wanted.architecture


def test_argument_that_the_family_does_not_know_is_refused(reference):
    with pytest.raises(TypeError, match=r"`devise`.*'geneformer' takes .*hidden_size.*vocabulary"):
        load(reference / "v1/checkpoint", devise="cpu")


@pytest.mark.parametrize(
    "name",
    [
        "bert.embeddings.position_embeddings.weight",
        "bert.embeddings.LayerNorm.bias",
        "bert.encoder.layer.1.attention.self.key.weight",
        "bert.encoder.layer.2.intermediate.dense.bias",
        "cls.predictions.transform.dense.weight",
    ],
)
def test_missing_tensor_is_named(release, name):
    folder = release()
    change_tensors(folder, lambda tensors: tensors.pop(name))
    ours = {"bert.encoder.layer.2.intermediate.dense.bias": r"backbone\.blocks\.2\.ff\.up\.bias"}
    with pytest.raises(ValueError, match=ours.get(name, name.replace(".", r"\."))):
        load(folder)


def test_left_over_tensor_is_named(release):
    folder = release()
    change_tensors(folder, lambda tensors: tensors.update({"bert.encoder.layer.0.lora.weight": torch.zeros(2)}))
    with pytest.raises(ValueError, match=r"no rule names: 'bert\.encoder\.layer\.0\.lora\.weight'"):
        load(folder)


@pytest.mark.parametrize(
    ("name", "ours"),
    [
        ("bert.encoder.layer.1.output.dense.weight", r"backbone\.blocks\.1\.ff\.down\.weight"),
        ("cls.predictions.transform.dense.bias", r"heads\.token\.dense\.bias"),
        ("bert.embeddings.token_type_embeddings.weight", r"embed\.segment\.weight"),
    ],
)
def test_misshapen_tensor_is_named(release, name, ours):
    folder = release()
    change_tensors(folder, lambda tensors: tensors.update({name: tensors[name][..., :-1].contiguous()}))
    with pytest.raises(ValueError, match=ours):
        load(folder)


def test_tensor_stored_twice_that_disagrees_is_named(release):
    folder = release()
    table = "bert.embeddings.word_embeddings.weight"
    change_tensors(folder, lambda tensors: tensors.update({"cls.predictions.decoder.weight": tensors[table] + 1}))
    with pytest.raises(ValueError, match="stored twice, but differ"):
        load(folder)


def test_weights_in_half_precision_become_float32(release):
    folder = release()
    change_tensors(folder, lambda tensors: tensors.update({name: t.half() for name, t in tensors.items()}))
    model = load(folder, device="cpu")
    assert {tensor.dtype for tensor in model.lcm.state_dict().values()} == {torch.float32}


# ---- by name ----


def test_names_are_listed_and_described():
    names = list_models()
    assert "geneformer.v2-104m" in names
    assert len(names) == len(set(names))
    found = describe("geneformer.v2-104m")
    assert found["name"] == "geneformer.v2-104m"
    assert found["license"] == "Apache-2.0"
    assert {"embed", "mean", "cls"} <= set(found["recipes"])
    assert {"token", "cell_class", "gene_class"} <= set(found["heads"])
    assert found["gene_ids"] == "ensembl"
    assert any("token_dictionary" in file for file in found["files"])
    json.dumps(found)


def test_family_alone_means_its_first_checkpoint():
    assert describe("geneformer") == describe("geneformer.v1-10m")


@pytest.mark.parametrize("name", ["genformer", "", "geneformer/v1", "no/such/path"])
def test_unknown_name_lists_those_that_are_known(name):
    for function in (describe, load):
        if name == "" and function is load:
            continue  # an empty path is the current folder
        with pytest.raises(ValueError, match=r"neither a path that exists nor a known model.*geneformer\.v1-10m"):
            function(name)


def test_unknown_checkpoint_lists_those_of_the_family():
    for function in (describe, load):
        with pytest.raises(ValueError, match="'geneformer' has no checkpoint 'v9'; it has 'v1-10m'"):
            function("geneformer.v9")


def test_published_name_that_is_not_here_says_what_to_get_and_where(monkeypatch, tmp_path):
    monkeypatch.setattr(settings, "offline", True)
    monkeypatch.setattr(settings, "cache_dir", tmp_path)
    with pytest.raises(FileNotFoundError) as caught:
        load("geneformer.v2-316m")
    text = str(caught.value)
    for part in ("offline", "ctheodoris/Geneformer", "V2-316M", "config.json", "model.safetensors",
                 "token_dictionary_gc104M.pkl", str(tmp_path), "sclcm.models.load("):  # fmt: skip
        assert part in text


# ---- where and in which number type ----


def test_number_type_is_chosen_by_name_or_by_torch(reference):
    folder = reference / "v1/checkpoint"
    assert load(folder, device="cpu").dtype == torch.float32
    for name, dtype in (("bfloat16", torch.bfloat16), ("float16", torch.float16), ("float32", torch.float32)):
        assert load(folder, dtype=name).dtype == load(folder, dtype=dtype).dtype == dtype


@pytest.mark.parametrize("dtype", ["float64", "half", torch.float64, torch.int8, None])
def test_unknown_number_type_lists_those_that_are_known(reference, dtype):
    with pytest.raises(ValueError, match="expected 'auto', 'float32', 'bfloat16', 'float16'"):
        load(reference / "v1/checkpoint", dtype=dtype)


@pytest.mark.parametrize("device", ["gpu", "cpu:x", ""])
def test_unknown_device_is_refused(reference, device):
    with pytest.raises(ValueError, match=r"`device` is .*; expected 'auto', 'cpu', 'cuda'"):
        load(reference / "v1/checkpoint", device=device)


@pytest.mark.skipif(torch.cuda.is_available(), reason="has the device")
@pytest.mark.parametrize("device", ["cuda", "cuda:1", torch.device("cuda")])
def test_device_that_is_not_there_is_refused(reference, device):
    with pytest.raises(ValueError, match=r"`device` is .*cuda.*, but this PyTorch finds no such device"):
        load(reference / "v1/checkpoint", device=device)


def test_moving_a_model_leaves_the_original_alone(reference):
    model = load(reference / "v1/checkpoint", device="cpu")
    assert model.to("cpu", "float32") is model
    half = model.to("cpu", "bfloat16")
    assert (model.dtype, half.dtype) == (torch.float32, torch.bfloat16)
    assert half.lcm.heads["token"](torch.zeros(1, 32, dtype=torch.bfloat16)).dtype == torch.bfloat16
    half.lcm.embed.gene.weight.zero_()
    assert model.lcm.embed.gene.weight.abs().sum() > 0
    assert same_weights(model, load(reference / "v1/checkpoint", device="cpu"))


def test_loaded_model_passes_through_as_it_is(reference):
    model = load(reference / "v1/checkpoint", device="cpu")
    assert load(model) is model
    half = load(model, dtype="bfloat16")
    assert half.dtype == torch.bfloat16
    assert load(half) is half
    assert load(half, dtype="float32").dtype == torch.float32


@pytest.mark.gpu
def test_model_moves_to_the_accelerator(reference):
    model = load(reference / "v1/checkpoint")
    assert model.device.type in ("cuda", "mps")
    assert load(model) is model
    assert load(model, device="cpu").device.type == "cpu"


@pytest.mark.parametrize("name", [None, 3, True, "", ["scgpt"]])
def test_what_is_no_name_of_a_model_is_refused(name):
    with pytest.raises(TypeError, match=r"The model is .*; expected a name that `list_models` gives, a path"):
        load(name)


def test_names_that_no_file_can_have_are_unknown_models():
    for name in ("a" * 5000, "a\0b"):
        with pytest.raises(ValueError, match="is neither a path that exists nor a known model"):
            load(name)


def test_family_that_is_not_that_of_the_name_is_refused(release, tmp_path):
    with pytest.raises(ValueError, match="'sclcm-mini' is a model of the family 'sclcm-mini', not 'scgpt'"):
        load("sclcm-mini", family="scgpt", device="cpu")
    load(release(), family="geneformer", device="cpu").save(tmp_path / "saved")
    assert load(tmp_path / "saved", family="geneformer", device="cpu").family == "geneformer"
    with pytest.raises(ValueError, match="saved' is a model of the family 'geneformer', not 'uce'"):
        load(tmp_path / "saved", family="uce", device="cpu")
