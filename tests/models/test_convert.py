"""Converting any release to a folder of our own: the same bits, whole or not at all."""

from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import sclcm.reference
from sclcm.cli import app
from sclcm.models import convert, load
from sclcm.models._measure import stated
from sclcm.zoo._registry import get_spec

REFERENCES = Path(sclcm.reference.__file__).parent


def main_checkpoints():
    """The checkpoint of every packaged fixture, whatever families there are."""
    return sorted(folder for folder in REFERENCES.rglob("checkpoint") if folder.is_dir())


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def family_of(folder):
    return folder.relative_to(REFERENCES).parts[0]


def given_of(folder):
    """Return what the files of a checkpoint state nowhere, from the run of its authors' code."""
    run = folder.parent / "run.json"
    return stated(family_of(folder), json.loads(run.read_text())) if run.is_file() else {}


def bits_of(tensor):
    return tensor.contiguous().reshape(-1).view(torch.uint8)


def same(found, wanted):
    left, right = found.lcm.state_dict(), wanted.lcm.state_dict()
    assert list(left) == list(right)
    for name, tensor in right.items():
        assert left[name].dtype == tensor.dtype
        assert bits_of(left[name]).equal(bits_of(tensor)), name
    assert found.arrays.keys() == wanted.arrays.keys()
    for name, array in wanted.arrays.items():
        assert found.arrays[name].dtype == array.dtype
        assert found.arrays[name].shape == array.shape
        assert found.arrays[name].tobytes() == array.tobytes()
    assert found.vocabulary.to_json() == wanted.vocabulary.to_json()
    fields = set(vars(wanted)) - {"vocabulary", "arrays", "prototypes", "lcm", "digest"}
    assert {"name", "family", "encoding", "architecture", "recipes", "pad", "mask", "gene_columns"} <= fields
    for name in fields:
        assert getattr(found, name) == getattr(wanted, name), name


@pytest.mark.parametrize("folder", main_checkpoints(), ids=lambda folder: str(folder.relative_to(REFERENCES).parent))
def test_every_family_converts_to_the_same_bits(tmp_path, folder):
    family = family_of(folder)
    target = convert(folder, tmp_path / "converted", family=family, **given_of(folder))
    assert target == tmp_path / "converted"
    assert names(target) == ["config.json", "model.safetensors", "vocabulary.json"]
    assert names(tmp_path) == ["converted"]
    same(load(target, device="cpu"), load(folder, family=family, device="cpu", **given_of(folder)))
    again = convert(target, tmp_path / "again")
    for file in target.iterdir():
        text = file.read_bytes()
        if file.name != "config.json":  # it names the files that it was made from
            assert (again / file.name).read_bytes() == text


def test_model_of_the_package_converts_with_its_prototypes(tmp_path):
    wanted = load("sclcm-mini", device="cpu")
    found = load(convert("sclcm-mini", tmp_path / "mini"), device="cpu")
    same(found, wanted)
    assert found.prototypes.to_json() == wanted.prototypes.to_json()
    assert found.prototypes.vectors.dtype == np.float32
    assert found.prototypes.vectors.tobytes() == wanted.prototypes.vectors.tobytes()


def test_converted_weights_are_mapped_and_those_of_a_release_are_not(tmp_path, release):
    folder = release()
    target = convert(folder, tmp_path / "converted")
    model, wanted = load(target, device="cpu"), load(folder, device="cpu")
    weights = folder / "model.safetensors"
    before = {name: tensor.clone() for name, tensor in wanted.lcm.state_dict().items()}
    weights.write_bytes(bytes(weights.stat().st_size))
    assert all(tensor.equal(before[name]) for name, tensor in wanted.lcm.state_dict().items())
    model.lcm.embed.gene.weight.zero_()
    assert not load(target, device="cpu").lcm.embed.gene.weight.eq(0).all()


def test_model_stays_whole_when_its_folder_is_replaced_or_deleted(tmp_path, reference):
    target = convert(reference / "v1/checkpoint", tmp_path / "model")
    model = load(target, device="cpu")
    digest = load(target, device="cpu").sha256
    convert(reference / "v2/checkpoint", target)
    same(model, load(reference / "v1/checkpoint", device="cpu"))
    assert load(target, device="cpu").d_model != model.d_model
    assert model.sha256 == digest
    assert names(tmp_path) == ["model"]


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_half_precision_is_rounded_once(tmp_path, reference, dtype):
    folder = reference / "v1/checkpoint"
    found = load(convert(folder, tmp_path / "half", dtype=dtype), device="cpu", dtype=dtype)
    wanted = load(folder, device="cpu", dtype=dtype)
    assert found.dtype == getattr(torch, dtype)
    same(found, wanted)


def test_place_that_is_taken_is_refused_before_anything_is_read(tmp_path, release):
    folder = release()
    before = {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()}
    with pytest.raises(FileExistsError, match=r"holds '.*' already; save into a new or empty folder"):
        convert(tmp_path / "no such model", folder)
    with pytest.raises(FileExistsError, match="is a file; a model is saved as a folder"):
        convert(folder, folder / "config.json")
    assert {file.name: file.read_bytes() for file in folder.iterdir() if file.is_file()} == before


def test_failure_leaves_no_half_written_folder(tmp_path, release, monkeypatch):
    import sclcm.models._saved as saved

    target = convert(release(), tmp_path / "out/model")
    before = {file.name: file.read_bytes() for file in target.iterdir()}

    def broken(tensors, path):
        Path(path).write_bytes(b"half")
        msg = "No space left on device"
        raise OSError(msg)

    monkeypatch.setattr(saved, "save_file", broken)
    for place in (target, tmp_path / "out/other"):
        with pytest.raises(OSError, match="No space left"):
            convert(tmp_path / "release", place)
    assert names(tmp_path / "out") == ["model"]
    assert {file.name: file.read_bytes() for file in target.iterdir()} == before


@pytest.mark.skipif(os.name == "nt", reason="needs links")
def test_folder_behind_a_link_is_written_where_it_is(tmp_path, reference):
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    convert(reference / "v1/checkpoint", tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert names(tmp_path / "real") == ["config.json", "model.safetensors", "vocabulary.json"]


# ---- on the command line ----


def run(*arguments):
    return CliRunner().invoke(app, ["--quiet", "convert", *map(str, arguments)])


def test_command_writes_what_the_function_writes(tmp_path, reference):
    folder = reference / "v1/checkpoint"
    result = run(folder, tmp_path / "a", "--family", "geneformer")
    assert result.exit_code == 0, result.stderr
    assert result.stdout.startswith(f"{tmp_path / 'a'}: ")
    convert(folder, tmp_path / "b", family="geneformer")
    for name in names(tmp_path / "b"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "b" / name).read_bytes()


def test_command_states_what_the_files_do_not(tmp_path, release):
    import json

    folder = release()
    config = json.loads((folder / "config.json").read_text())
    heads, activation = config.pop("num_attention_heads"), config.pop("hidden_act")
    (folder / "config.json").write_text(json.dumps(config))
    result = run(folder, tmp_path / "a")
    assert result.exit_code == 1
    assert "configuration lacks 'num_attention_heads'" in result.stderr
    assert not (tmp_path / "a").exists()
    result = run(folder, tmp_path / "a", "--set", f"num_attention_heads={heads}", "--set", f"hidden_act={activation}")
    assert result.exit_code == 0, result.stderr
    assert load(tmp_path / "a").architecture.backbone.attention.n_heads == heads


@pytest.mark.parametrize("stated", ["n_heads", "=8", "n heads=8", "dtype=float16"])
def test_command_refuses_what_states_nothing(tmp_path, reference, stated):
    result = run(reference / "v1/checkpoint", tmp_path / "a", "--set", stated)
    assert result.exit_code == 2
    assert "NAME=VALUE" in " ".join(result.stderr.split())


def test_command_says_in_one_line_what_is_wrong(tmp_path, release):
    for arguments in ((tmp_path / "nothing", tmp_path / "a"), (release(), tmp_path / "release")):
        result = run(*arguments)
        assert result.exit_code == 1
        assert result.stdout == ""
        assert result.stderr.startswith("error: ")
        assert len(result.stderr.splitlines()) == 1


def test_no_family_is_named_where_none_is_known():
    assert {family_of(folder) for folder in main_checkpoints()} >= {"geneformer"}
    assert all(get_spec(family_of(folder)).name for folder in main_checkpoints())
