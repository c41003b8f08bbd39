"""Tests of the file readers: honest files as torch, numpy and safetensors read them, lying and hostile ones refused."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from sclcm.checkpoints.plain import FormatError, Record, UnsafeFileError
from sclcm.checkpoints.readers import read_array, read_json, read_pickle, read_tensors, read_torch

STATE = {
    "weight": torch.arange(12.0).reshape(3, 4),
    "t": torch.arange(12.0).reshape(3, 4).T,
    "half": torch.ones(3, dtype=torch.float16),
    "bf16": torch.ones(3, dtype=torch.bfloat16),
    "ids": torch.arange(4).reshape(1, 4),
    "int": torch.arange(3, dtype=torch.int32),
    "short": torch.arange(3, dtype=torch.int16),
    "char": torch.arange(3, dtype=torch.int8),
    "byte": torch.arange(3, dtype=torch.uint8),
    "mask": torch.tensor([True, False]),
    "double": torch.arange(3, dtype=torch.float64),
    "complex": torch.ones(2, dtype=torch.complex64),
    "scalar": torch.tensor(2.5),
    "none": torch.zeros(0, 4),
    "parameter": torch.nn.Parameter(torch.ones(2)),
}
ZIP = {"_use_new_zipfile_serialization": True}
LEGACY = {"_use_new_zipfile_serialization": False}


def same(ours, theirs):
    assert list(ours) == list(theirs)
    for name, tensor in theirs.items():
        assert ours[name].dtype == tensor.dtype
        assert torch.equal(ours[name], tensor.detach()), name
        assert not ours[name].requires_grad


def saved(path, value, **options):
    torch.save(value, path, **(options or ZIP))
    return path


def written(path, data):
    path.write_bytes(data)
    return path


class Evil:
    def __reduce__(self):
        return os.system, ("echo hacked",)


# ---- honest files ----


@pytest.mark.parametrize("options", [ZIP, LEGACY], ids=["zip", "legacy"])
@pytest.mark.parametrize("protocol", [2, 4, 5])
def test_torch_files_come_back_equal(tmp_path, options, protocol):
    path = saved(tmp_path / "model.bin", STATE, pickle_protocol=protocol, **options)
    same(read_tensors(path), STATE)


def test_state_dict_of_a_module_is_read(tmp_path):
    module = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    same(read_tensors(saved(tmp_path / "a.pt", module.state_dict())), module.state_dict())


@pytest.mark.parametrize("options", [ZIP, LEGACY], ids=["zip", "legacy"])
def test_shared_storages_stay_shared(tmp_path, options):
    base = torch.arange(10.0)
    state = read_tensors(saved(tmp_path / "a.pt", {"a": base, "b": base[2:6], "c": base}, **options))
    state["a"][3] = -1
    assert state["b"][1] == -1
    assert state["c"].data_ptr() == state["a"].data_ptr()


def test_safetensors_files_come_back_equal(tmp_path):
    state = {name: tensor.detach().contiguous() for name, tensor in STATE.items()}
    save_file(state, tmp_path / "a.safetensors", metadata={"format": "pt"})
    loaded = read_tensors(tmp_path / "a.safetensors")
    same(dict(sorted(loaded.items())), dict(sorted(state.items())))


def test_the_suffix_does_not_matter(tmp_path):
    save_file({"a": torch.ones(2)}, tmp_path / "model.bin")
    assert read_tensors(tmp_path / "model.bin")["a"].tolist() == [1, 1]
    assert read_tensors(saved(tmp_path / "model.xyz", {"a": torch.ones(2)}))["a"].tolist() == [1, 1]


def test_nested_checkpoints_are_read_whole_or_by_key(tmp_path):
    nested = {
        "state_dict": {"a": torch.ones(2)},
        "models": {"gene": {"state_dict": {"b": torch.zeros(2)}}},
        "hyper_parameters": {"lr": 1e-3, "size": torch.Size([2, 3]), "layers": (1, 2), "name": None},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1)}}, "param_groups": [{"betas": (0.9, 0.99)}]}],
    }
    path = saved(tmp_path / "a.ckpt", nested)
    assert read_torch(path)["hyper_parameters"] == {"lr": 1e-3, "size": (2, 3), "layers": (1, 2), "name": None}
    same(read_tensors(path, key="state_dict"), nested["state_dict"])
    same(read_tensors(path, key=("models", "gene", "state_dict")), nested["models"]["gene"]["state_dict"])
    with pytest.raises(FormatError, match=r"Name the dictionary to read with `key`: `state_dict`, `models`"):
        read_tensors(path)
    with pytest.raises(FormatError, match="has no key 'model'; it holds"):
        read_tensors(path, key="model")


def test_pickled_dictionaries_are_read(tmp_path):
    tokens = {"<pad>": 0, "<mask>": 1, "ENSG00000000003": np.int16(2), "ENSG00000000005": np.float64(0.5)}
    for protocol in (2, 4, 5):
        assert read_pickle(written(tmp_path / "a.pkl", pickle.dumps(tokens, protocol))) == tokens


def test_tensors_in_a_plain_pickle_are_read(tmp_path):
    value = {"edges": torch.arange(6).reshape(2, 3), "weights": torch.ones(3)}
    loaded = read_pickle(written(tmp_path / "a.pkl", pickle.dumps(value, 4)))
    same(loaded, value)


def test_arrays_come_back_equal(tmp_path):
    arrays = {
        "a": np.arange(6.0).reshape(2, 3),
        "b": np.asfortranarray(np.arange(6).reshape(2, 3)),
        "c": np.array(["x"]),
    }
    np.savez(tmp_path / "a.npz", **arrays)
    np.savez_compressed(tmp_path / "b.npz", **arrays)
    for name in ("a.npz", "b.npz"):
        loaded = read_array(tmp_path / name)
        assert list(loaded) == list(arrays)
        for key, array in arrays.items():
            np.testing.assert_array_equal(loaded[key], array)
    for i, array in enumerate([*arrays.values(), np.array(1.5), np.zeros((0, 3), ">i2"), np.arange(3)]):
        np.save(tmp_path / f"{i}.npy", array)
        loaded = read_array(tmp_path / f"{i}.npy")
        np.testing.assert_array_equal(loaded, array)
        assert loaded.dtype == array.dtype


def test_arrays_of_a_npz_file_can_be_tensors(tmp_path):
    np.savez(tmp_path / "a.npz", a=np.arange(3.0), b=np.arange(3, dtype=">i4"))
    assert read_tensors(tmp_path / "a.npz")["b"].tolist() == [0, 1, 2]
    np.savez(tmp_path / "b.npz", a=np.array(["x"]))
    with pytest.raises(FormatError, match="holds text in `a`"):
        read_tensors(tmp_path / "b.npz")


def test_json_is_read(tmp_path):
    path = written(tmp_path / "a.json", b'{"a": [1, 2.5, null], "b": {"c": "d"}}')
    assert read_json(path) == {"a": [1, 2.5, None], "b": {"c": "d"}}


def test_whole_modules_are_read_when_their_classes_are_named(tmp_path):
    path = saved(tmp_path / "a.pt", torch.nn.Linear(2, 3))
    with pytest.raises(UnsafeFileError, match=r"torch\.nn\.modules\.linear\.Linear"):
        read_torch(path)
    record = read_torch(path, inert=["torch.nn.modules.linear.Linear"])
    assert isinstance(record, Record)
    assert record.state["_parameters"]["weight"].shape == (3, 2)


# ---- files that are something else ----

NOT_A_CHECKPOINT = {
    "empty": (b"", "is empty"),
    "web page": (b"\n<!DOCTYPE html><html>login</html>", "is a web page"),
    "web page, short": (b"<HTML><body>404", "is a web page"),
    "XML": (b"<?xml version='1.0'?><Error>AccessDenied</Error>", "is an XML answer"),
    "git-LFS": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12\n",
        "git-LFS pointer.*git lfs pull",
    ),
    "gzip": (b"\x1f\x8b\x08\x00\x00\x00", "gzip"),
    "HDF5": (b"\x89HDF\r\n\x1a\n", "HDF5"),
    "text": (b"Entry not found", "is a text .*not the file"),
}


@pytest.mark.parametrize("name", NOT_A_CHECKPOINT)
@pytest.mark.parametrize("reader", [read_tensors, read_torch, read_pickle, read_array])
def test_what_is_no_checkpoint_is_named(tmp_path, name, reader):
    data, message = NOT_A_CHECKPOINT[name]
    path = written(tmp_path / "model.bin", data)
    with pytest.raises(FormatError, match=rf"(?s)model\.bin` .*{message}"):
        reader(path)


def test_readers_name_the_format_they_got(tmp_path):
    np.save(tmp_path / "a.npy", np.arange(3))
    save_file({"a": torch.ones(2)}, tmp_path / "a.safetensors")
    for path in (tmp_path / "a.npy", tmp_path / "a.safetensors"):
        with pytest.raises(FormatError, match=r"is a (npy|safetensors) file where"):
            read_torch(path)
    with pytest.raises(ValueError, match="nothing to choose from"):
        read_tensors(tmp_path / "a.safetensors", key="state_dict")
    with pytest.raises(FileNotFoundError):
        read_tensors(tmp_path / "missing.pt")


@pytest.mark.parametrize("value", [[1, 2], {}, {"a": 1}, {1: torch.ones(1)}, torch.ones(2)])
def test_anything_but_a_flat_dictionary_of_tensors_is_refused(tmp_path, value):
    with pytest.raises(FormatError, match="dictionary of tensors"):
        read_tensors(saved(tmp_path / "a.pt", value))


@pytest.mark.parametrize("options", [ZIP, LEGACY], ids=["zip", "legacy"])
def test_truncated_torch_files_are_reported(tmp_path, options):
    data = saved(tmp_path / "a.pt", STATE, **options).read_bytes()
    for share in (0.02, 0.3, 0.9, 0.999):
        with pytest.raises(FormatError, match=r"truncated|damaged"):
            read_tensors(written(tmp_path / "b.pt", data[: int(len(data) * share)]))


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'{"a": 1, "a": 2}', "names the key `a` twice"),
        (b'{"a": {"b": 1, "c": 2, "b": 3}}', "names the key `b` twice"),
        (b'{"a": 1', "no valid JSON"),
        (b"[" * 200_000, "nests too deeply"),
        (b"1" * 10_000, "no valid JSON"),
        (b"\xff\xfe\x00", "no valid JSON"),
    ],
)
def test_bad_json_is_refused(tmp_path, data, message):
    with pytest.raises((UnsafeFileError, FormatError), match=message):
        read_json(written(tmp_path / "a.json", data))


# ---- properties ----


def honest_files(folder):
    folder.mkdir(exist_ok=True)
    small = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(2, dtype=torch.float16), "c": torch.arange(3)}
    saved(folder / "honest.pt", small)
    saved(folder / "honest.legacy.pt", small, **LEGACY)
    save_file(small, folder / "honest.safetensors")
    np.savez_compressed(folder / "honest.npz", a=np.arange(3), b=np.zeros((2, 2)))
    np.save(folder / "honest.npy", np.arange(3))
    written(folder / "honest.pkl", pickle.dumps(small, 4))
    written(folder / "honest.json", b'{"a": 1}')
    return sorted(folder.iterdir())


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    return [(path.suffix, path.read_bytes()) for path in honest_files(tmp_path_factory.mktemp("honest"))]


@given(data=st.data())
@settings(
    max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
def test_flipped_bytes_never_raise_anything_else(tmp_path, honest, data):
    suffix, content = data.draw(st.sampled_from(honest))
    raw = bytearray(content)
    for _ in range(data.draw(st.integers(1, 6))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    path = written(tmp_path / f"flipped{suffix}", bytes(raw[: data.draw(st.integers(len(raw) // 2, len(raw)))]))
    for reader in (read_json,) if suffix == ".json" else (read_array, read_torch, read_tensors):
        try:
            reader(path)
        except (UnsafeFileError, FormatError):
            continue


def test_reading_files_imports_and_runs_nothing(tmp_path):
    count = len(honest_files(tmp_path))
    for name, options in {"zip": ZIP, "legacy": LEGACY}.items():
        saved(tmp_path / f"bad.{name}.pt", {"a": Evil()}, **options)
        saved(tmp_path / f"module.{name}.pt", torch.nn.Linear(1, 1), **options)
    np.save(tmp_path / "bad.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "bad.npz", a=np.array([Evil()], dtype=object))
    script = Path(__file__).with_name("audit.py")
    run = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=False, timeout=120)
    assert run.stdout == f"{count + 6} files, 11 read", run.stderr
    assert "hacked" not in run.stderr
