"""Folders whose configuration, vocabulary or weights are made to do harm, or damaged: refused by what is wrong."""

from __future__ import annotations

import json
import os
import pickle
from pathlib import Path
from typing import Literal, get_type_hints

import pytest
import torch
from safetensors.torch import load_file, save_file

import sclcm.reference
from sclcm.checkpoints.plain import FormatError, UnsafeFileError
from sclcm.models import load
from sclcm.models._declarations import _hints, _types, fits, from_json

CHECKPOINT = Path(sclcm.reference.__file__).parent / "geneformer/v1/checkpoint"


@pytest.fixture(scope="module")
def saved_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("model") / "saved"
    load(CHECKPOINT, device="cpu").save(folder)
    return {file.name: file.read_bytes() for file in folder.iterdir()}


@pytest.fixture
def saved(saved_files, tmp_path):
    for name, data in saved_files.items():
        (tmp_path / name).write_bytes(data)
    return tmp_path


def change(file, place, value):
    """Set what lies at a path of keys in a JSON file."""
    content = json.loads(file.read_text())
    target = content
    for key in place[:-1]:
        target = target[key]
    target[place[-1]] = value
    file.write_text(json.dumps(content))


BACKBONE = ("architecture", "backbone")
SIZES = {
    "as many rows as there are no bytes for": (("architecture", "gene", "n_tokens"), 10**12),
    "a width of a trillion": (("architecture", "d_model"), 10**12),
    "a billion blocks": ((*BACKBONE, "n_blocks"), 10**9),
    "a million blocks": ((*BACKBONE, "n_blocks"), 60_000),
    "blocks below none": ((*BACKBONE, "n_blocks"), -1),
    "no heads": ((*BACKBONE, "attention", "n_heads"), 0),
    "a hidden width beyond any number": ((*BACKBONE, "feed_forward", "d_hidden"), 10**30),
    "positions without end": (("architecture", "position", "n_positions"), 2**62),
    "half a block": ((*BACKBONE, "n_blocks"), 2.5),
    "text for a size": (("architecture", "d_model"), "32"),
    "truth for a size": ((*BACKBONE, "n_blocks"), True),
    "nothing for a size": (("architecture", "d_model"), None),
    "a list for a size": (("architecture", "d_model"), [32]),
    "an unknown activation": ((*BACKBONE, "feed_forward", "activation"), "__import__('os').system('echo hacked')"),
    "a number for an activation": ((*BACKBONE, "feed_forward", "activation"), 3),
    "a norm in no place": ((*BACKBONE, "norm"), "sideways"),
    "no backbone": (BACKBONE, None),
    "a head for a backbone": (BACKBONE, {"type": "TokenClassHead", "n_classes": 2}),
    "a text for a backbone": (BACKBONE, "BackboneConfig"),
    "heads that are none": (("architecture", "heads"), {"token": {"type": "FirstToken"}}),
    "a recipe for a model": (("architecture",), {"type": "Recipe"}),
    "a specification for a model": (("architecture",), {"type": "ModelSpec"}),
    "a Python object for a model": (("architecture",), {"type": "os.system", "command": "echo hacked"}),
    "a type that is a list": (("architecture",), {"type": ["LCMConfig"]}),
    "a model for an encoding": (("encoding",), {"type": "TokenClassHead", "n_classes": 2}),
    "recipes that are none": (("recipes",), {"embed": {"type": "MeanPooling"}}),
    "recipes in a list": (("recipes",), []),
    "a layer that is a text": (("recipes", "embed", "layer"), "last"),
    "a name that is a number": (("name",), 3),
    "columns that are numbers": (("gene_columns",), [1, 2]),
    "a padding token that there is not": (("pad",), "<nothing>"),
    "a mask that there is not": (("mask",), "<nothing>"),
    "labels without vectors": (
        ("prototypes",),
        {"labels": ["B"], "ontology_ids": [""], "scale": 1.0, "min_score": 0.5, "recipe": "embed"},
    ),
    "labels that are numbers": (("prototypes",), {"labels": [1]}),
}


@pytest.mark.parametrize("name", SIZES)
def test_configuration_that_does_not_fit_is_refused(saved, name):
    place, value = SIZES[name]
    change(saved / "config.json", place, value)
    with pytest.raises((ValueError, KeyError)) as caught:
        load(saved, device="cpu")
    assert isinstance(caught.value, ValueError)
    assert len(str(caught.value)) < 2000


@pytest.mark.parametrize(
    "name", ["name", "family", "pad", "mask", "gene_columns", "encoding", "architecture", "recipes", "prototypes"]
)
def test_missing_entry_is_named(saved, name):
    config = json.loads((saved / "config.json").read_text())
    del config[name]
    (saved / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match=rf"config\.json' lacks `{name}`; the saved model is damaged"):
        load(saved)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_configuration_with_a_number_that_is_none_is_refused(saved, number):
    file = saved / "config.json"
    text = file.read_text()
    assert '"dropout": ' in text
    file.write_text(text.replace('"eps": 1e-12', f'"eps": {number}'))
    with pytest.raises(FormatError, match=rf"{number} is no number"):
        load(saved)


def test_configuration_nested_without_end_is_refused(saved):
    for text in ('{"format":' + '{"type":' * 200_000, '{"format": "sclcm/1", "architecture": ' + "[" * 100_000):
        (saved / "config.json").write_text(text)
        with pytest.raises((UnsafeFileError, FormatError), match=r"config\.json`"):
            load(saved)


VOCABULARIES = {
    "negative": ({"token_ids": [-1]}, "token ids from -1"),
    "beyond the table": ({"token_ids": [10**9]}, r"to 1000000000 for a table of \d+ rows"),
    "beyond any number": ({"token_ids": [10**30]}, "token ids from"),
    "fractions": ({"token_ids": [1.5]}, "`token_ids` that is not of its type"),
    "truth": ({"token_ids": [True]}, "`token_ids` that is not of its type"),
    "text": ({"token_ids": ["7"]}, "`token_ids` that is not of its type"),
    "names that are numbers": ({"features": [7]}, "`features` that is not of its type"),
    "special beyond the table": ({"specials": {"<pad>": 0, "<mask>": 2**40}}, "token ids from"),
    "special that is negative": ({"specials": {"<pad>": -3, "<mask>": 1}}, "token ids from -3"),
    "special that is a text": ({"specials": {"<pad>": "0"}}, "`specials` that is not of its type"),
    "special that is gone": ({"specials": {"<mask>": 1}}, "lacks the special token '<pad>'"),
    "names that are a list": ({"names": ["a"]}, "`names` that is not of its type"),
    "unknown species": ({"species": "human"}, "`species` that is not of its type"),
    "unknown entry": ({"evil": 1}, "unknown entry 'evil'"),
    "unknown ids": ({"ids": "entrez"}, "`ids` is 'entrez'"),
    "wider list that is none": ({"universe": {"features": []}}, "lacks `token_ids`"),
}


@pytest.mark.parametrize("name", VOCABULARIES)
def test_vocabulary_that_lies_is_refused(saved, name):
    changes, message = VOCABULARIES[name]
    file = saved / "vocabulary.json"
    stored = json.loads(file.read_text())
    for key, value in changes.items():
        stored[key] = value + stored[key][1:] if isinstance(value, list) and key != "names" else value
    file.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match=message):
        load(saved)


@pytest.mark.parametrize("what", ["features", "token_ids"])
def test_vocabulary_that_repeats_itself_is_refused(saved, what):
    file = saved / "vocabulary.json"
    stored = json.loads(file.read_text())
    stored[what][1] = stored[what][0]
    file.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="occurs more than once"):
        load(saved)
    stored[what].append(stored[what].pop())
    stored["token_ids"] = stored["token_ids"][:-1]
    file.write_text(json.dumps(stored))
    with pytest.raises(ValueError, match="features but"):
        load(saved)


def test_vocabulary_of_another_kind_is_refused(saved):
    (saved / "vocabulary.json").write_text("[1, 2]")
    with pytest.raises(ValueError, match="holds a list where an object belongs"):
        load(saved)
    (saved / "vocabulary.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"vocabulary\.json"):
        load(saved)


def test_weights_of_half_a_table_are_refused(saved):
    file = saved / "model.safetensors"
    tensors = load_file(file)
    tensors["embed.gene.weight"] = tensors["embed.gene.weight"][:10].clone()
    tensors["../../escaped"] = torch.ones(1)
    save_file(tensors, file)
    with pytest.raises(ValueError, match=r"embed\.gene\.weight|escaped"):
        load(saved)
    assert not (saved.parent / "escaped").exists()


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes")
@pytest.mark.parametrize("name", ["model.safetensors", "vocabulary.json"])
def test_pipe_in_place_of_a_file_is_refused_without_waiting(saved, name):
    (saved / name).unlink()
    os.mkfifo(saved / name)
    with pytest.raises(FormatError, match="is no regular file"):
        load(saved)


def test_links_to_files_are_read_and_those_to_nothing_are_not(saved, saved_files, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    for name, data in saved_files.items():
        (elsewhere / name).write_bytes(data)
        (saved / name).unlink()
        (saved / name).symlink_to(elsewhere / name)
    assert load(saved, device="cpu").d_model == 32
    (elsewhere / "vocabulary.json").unlink()
    with pytest.raises(FileNotFoundError, match=r"vocabulary\.json"):
        load(saved)


# ---- a release's own configuration ----


@pytest.mark.parametrize("value", [10**12, 10**30, 2.5, "32", [32], True, {"a": 1}])
@pytest.mark.parametrize("key", ["hidden_size", "num_attention_heads", "intermediate_size", "max_position_embeddings"])
def test_size_of_a_release_that_makes_no_sense_is_refused(release, key, value):
    folder = release()
    change(folder / "config.json", (key,), value)
    with pytest.raises(ValueError, match=r".") as caught:
        load(folder, device="cpu")
    assert len(str(caught.value)) < 4000


@pytest.mark.parametrize(
    "tokens", [{"<pad>": -5}, {"<pad>": 2**40}, {"<pad>": 10**30}, {"<pad>": "0"}, {"<pad>": 2**31}]
)
def test_token_ids_of_a_release_that_make_no_sense_are_refused(release, tokens):
    folder = release()
    (file,) = folder.glob("token_dictionary*.pkl")
    stored = pickle.loads(file.read_bytes())
    file.write_bytes(pickle.dumps({**stored, **tokens}, 4))
    with pytest.raises(ValueError, match=r"token|vocabulary"):
        load(folder, device="cpu")


# ---- the check of types ----


def test_every_component_of_a_saved_model_says_its_types():
    assert {"LCMConfig", "Encoding", "Recipe", "BackboneConfig", "TableEncoder"} <= set(_types())
    assert not {"ModelSpec", "Checkpoint", "CellSentences", "VocabularySource", "Config"} & set(_types())
    for kind in _types().values():
        assert set(_hints(kind)) == set(kind.__dataclass_fields__)


def test_values_are_held_against_hints():
    hints = get_type_hints(Example)
    good = {"size": 3, "share": 1, "name": "a", "more": None, "parts": ("a",), "table": {"a": 1}, "choice": "x"}
    bad = {
        "size": True, "share": "1", "name": 1, "more": "b", "parts": ["a"], "table": {1: 1}, "choice": "z",
    }  # fmt: skip
    for name, value in good.items():
        assert fits(value, hints[name]), name
    for name, value in bad.items():
        assert not fits(value, hints[name]), name


class Example:
    """Hints of each kind."""

    size: int
    share: float
    name: str
    more: int | None
    parts: tuple[str, ...]
    table: dict[str, int]
    choice: Literal["x", "y"]


def test_component_with_a_field_of_the_wrong_type_is_named():
    with pytest.raises(ValueError, match=r"`n_tokens` of the model's TableEncoder is 'many'"):
        from_json({"type": "TableEncoder", "n_tokens": "many"})


# ---- errors say which files were read ----


def test_error_of_a_tensor_names_the_files_that_were_read(release):
    folder = release()
    file = folder / "model.safetensors"
    tensors = load_file(file)
    name = next(name for name, tensor in tensors.items() if tensor.ndim == 2)
    for wrong in (tensors[name][None], torch.zeros(()), tensors[name].to(torch.complex64)):
        save_file({**tensors, name: wrong.contiguous()}, file)
        with pytest.raises(ValueError, match=r"Read from '.*release': 'model\.safetensors', 'config\.json'"):
            load(folder, family="geneformer", device="cpu")


def test_error_of_a_vocabulary_names_its_file(release):
    folder = release()
    (file,) = folder.glob("token_dictionary*.pkl")
    tokens = pickle.loads(file.read_bytes())
    file.write_bytes(pickle.dumps({**tokens, "ENSG00000000003": -4}, 4))
    with pytest.raises(ValueError, match=rf"to 2147483647\. Read from .*{file.name}"):
        load(folder, device="cpu")


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes")
def test_pipe_is_not_taken_for_the_folder_that_it_lies_in(saved):
    os.mkfifo(saved / "pipe")
    with pytest.raises(FormatError, match=r"pipe` is no regular file"):
        load(saved / "pipe")


def test_weights_of_several_types_are_refused(saved):
    file = saved / "model.safetensors"
    tensors = load_file(file)
    for dtype in (torch.float64, torch.float16, torch.complex64):
        save_file({**tensors, "embed.norm.weight": tensors["embed.norm.weight"].to(dtype)}, file)
        with pytest.raises(ValueError, match=r"model\.safetensors' holds weights of the types .*'embed\.norm\.weight'"):
            load(saved, device="cpu")
    save_file({name: tensor.double() for name, tensor in tensors.items()}, file)
    with pytest.raises(ValueError, match=r"holds weights of the types float64"):
        load(saved, device="cpu")


def test_error_of_a_saved_model_names_its_files(saved):
    file = saved / "vocabulary.json"
    stored = json.loads(file.read_text())
    file.write_text(json.dumps({**stored, "ids": "entrez"}))
    with pytest.raises(
        ValueError, match=r"`ids` is 'entrez'.* Read from '.*': 'config\.json', 'vocabulary\.json', 'mod"
    ):
        load(saved, device="cpu")
    file.write_text(json.dumps({**stored, "species": []}))
    with pytest.raises(ValueError, match=r"vocabulary\.json' names no `species`; the saved model is damaged"):
        load(saved, device="cpu")
