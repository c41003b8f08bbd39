"""Tests of files cut at every length, of archives that lie, and of tensors and settings of unusual kinds."""

from __future__ import annotations

import argparse
import enum
import io
import os
import pickle
import struct
import sys
import types
import zipfile
from collections import OrderedDict
from datetime import date
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sclcm.checkpoints.plain import FormatError, Record, UnsafeFileError
from sclcm.checkpoints.readers import read_array, read_json, read_tensors, read_torch

STATE = {"a": torch.arange(6.0).reshape(2, 3), "b": torch.arange(3)}


def written(path, data):
    path.write_bytes(data)
    return path


def saved(path, value, **options):
    torch.save(value, path, **options)
    return path


def honest(folder):
    """One honest file of each format, and the readers that it is for."""
    save_file(STATE, folder / "a.safetensors")
    np.save(folder / "a.npy", np.arange(6).reshape(2, 3))
    np.savez(folder / "a.npz", a=np.arange(3), b=np.zeros(2))
    np.savez_compressed(folder / "packed.npz", a=np.arange(3))
    saved(folder / "a.pt", STATE)
    saved(folder / "a.ckpt", {"state_dict": STATE, "epoch": 3, "callbacks": {}, "hyper_parameters": {"lr": 1e-3}})
    saved(folder / "old.pt", STATE, _use_new_zipfile_serialization=False)
    written(folder / "a.pkl", pickle.dumps({"<pad>": 0, "B": np.int64(2), "C": np.arange(3), "D": {"E"}}, 4))
    written(folder / "old.pkl", pickle.dumps({"<pad>": 0, "B": 1.5}, 0))
    written(folder / "tensors.pkl", pickle.dumps(STATE, 4))
    written(folder / "a.json", b'{"<pad>": 0, "B": [1, 2.5]}')
    return sorted(folder.iterdir())


NAMES = [
    "a.ckpt", "a.json", "a.npy", "a.npz", "a.pkl", "a.pt", "a.safetensors", "old.pkl", "old.pt", "packed.npz",
    "tensors.pkl",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_file_cut_at_any_length_is_refused(tmp_path, name):
    assert name in {path.name for path in honest(tmp_path)}
    data = (tmp_path / name).read_bytes()
    reader = {".json": read_json, ".npy": read_array, ".npz": read_array, ".safetensors": read_tensors}.get(
        Path(name).suffix, read_torch
    )
    reader(tmp_path / name)
    for n in range(len(data)):
        with pytest.raises((FormatError, UnsafeFileError), match=name):
            reader(written(tmp_path / name, data[:n]))


# ---- archives ----


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {entry.filename: archive.read(entry) for entry in archive.infolist()}


def rebuilt(path, contents, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for entry, data in contents.items():
            archive.writestr(entry, data)
    return path


def widened(data, at, **lies):
    """Let the directory entry at `at` say that its sizes are in a field of 64 bits, and make these up."""
    n_name, n_extra = struct.unpack_from("<HH", data, at + 28)
    extra = struct.pack("<HHQQ", 1, 16, lies["size"], lies["packed"])
    end = at + 46 + n_name + n_extra
    entry = data[at : at + 20] + b"\xff" * 8 + struct.pack("<HH", n_name, len(extra)) + data[at + 32 : at + 46]
    changed = data[:at] + entry + data[at + 46 : at + 46 + n_name] + extra + data[end:]
    directory = changed.index(b"PK\x05\x06")
    length = struct.unpack_from("<I", changed, directory + 12)[0] + len(extra) - n_extra
    return changed[: directory + 12] + struct.pack("<I", length) + changed[directory + 16 :]


@pytest.mark.parametrize(("size", "packed"), [(1 << 40, 1 << 40), ((1 << 64) - 1, (1 << 64) - 1), (1 << 40, 24)])
def test_sizes_of_64_bits_that_lie_are_refused(tmp_path, size, packed):
    path = rebuilt(tmp_path / "a.pt", members(saved(tmp_path / "b.pt", STATE)))
    data = path.read_bytes()
    at = data.index(b"b/data/0", data.index(b"PK\x01\x02")) - 46
    with pytest.raises(UnsafeFileError, match=r"a\.pt` (lets|holds) `b/data/0`"):
        read_tensors(written(path, widened(data, at, size=size, packed=packed)))
    assert read_tensors(written(path, widened(data, at, size=24, packed=24)))["a"].equal(STATE["a"])


def test_table_of_contents_of_64_bits_that_lies_is_refused(tmp_path):
    path = rebuilt(tmp_path / "a.pt", members(saved(tmp_path / "b.pt", STATE)))
    data = path.read_bytes()
    end = data.index(b"PK\x05\x06")
    for record in (
        struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 1 << 60, 1 << 60, 1 << 60, 0),
        struct.pack("<4sQHHIIQQQQ", b"PK\x06\x06", 44, 45, 45, 0, 0, 3, 3, 1 << 62, 1 << 62),
        bytes(56),
    ):
        locator = struct.pack("<4sIQI", b"PK\x06\x07", 0, end, 1)
        with pytest.raises((UnsafeFileError, FormatError), match=r"a\.pt` (lists|is a truncated)"):
            read_tensors(written(path, data[:end] + record + locator + data[end:]))


def test_entry_that_reaches_into_the_next_is_refused(tmp_path):
    path = rebuilt(tmp_path / "a.pt", members(saved(tmp_path / "b.pt", STATE)))
    data = bytearray(path.read_bytes())
    at = data.index(b"b/data/0") - 30
    struct.pack_into("<H", data, at + 28, 40)
    with pytest.raises(UnsafeFileError, match="reach into what follows it"):
        read_tensors(written(path, bytes(data)))


def test_encrypted_entries_are_refused(tmp_path):
    path = rebuilt(tmp_path / "a.pt", members(saved(tmp_path / "b.pt", STATE)))
    data = bytearray(path.read_bytes())
    at = data.index(b"b/data/0", data.index(b"PK\x01\x02")) - 46
    data[at + 8] |= 1
    with pytest.raises(UnsafeFileError, match="encrypted"):
        read_tensors(written(path, bytes(data)))


def test_archive_within_an_archive_stays_closed(tmp_path):
    inner = saved(tmp_path / "b.pt", STATE).read_bytes()
    nested = rebuilt(tmp_path / "a.pt", {"b.pt": inner})
    with pytest.raises(FormatError, match=r"it holds `b\.pt` and no `data\.pkl`"):
        read_tensors(nested)
    contents = {**members(tmp_path / "b.pt"), "b/extra/b.pt": inner}
    assert read_tensors(rebuilt(nested, contents))["b"].equal(STATE["b"])


def test_link_in_an_archive_is_not_followed(tmp_path):
    secret = written(tmp_path / "secret", bytes(range(24)))
    contents = members(saved(tmp_path / "b.pt", STATE))
    link = zipfile.ZipInfo("b/data/0")
    link.external_attr = 0o120777 << 16
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        for name, data in contents.items():
            archive.writestr(link if name == link.filename else name, str(secret) if name == link.filename else data)
    with pytest.raises(UnsafeFileError, match=r"announces 24 bytes for `b/data/0`"):
        read_tensors(tmp_path / "a.pt")


def test_reading_writes_no_files(tmp_path):
    folder = tmp_path / "only"
    folder.mkdir()
    save_file({"../../escaped": torch.ones(1), "/tmp/escaped": torch.ones(1)}, folder / "a.safetensors")
    assert set(read_tensors(folder / "a.safetensors")) == {"../../escaped", "/tmp/escaped"}
    assert [path.name for path in tmp_path.rglob("*")] == ["only", "a.safetensors"]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes")
def test_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "a.pt")
    for reader in (read_tensors, read_torch, read_json, read_array):
        with pytest.raises(FormatError, match="is no regular file"):
            reader(tmp_path / "a.pt")
    with pytest.raises(FormatError, match="is no regular file"):
        read_tensors(tmp_path)


def test_link_to_a_file_is_read_as_the_hub_stores_them(tmp_path):
    saved(tmp_path / "blob", STATE)
    (tmp_path / "a.pt").symlink_to(tmp_path / "blob")
    assert read_tensors(tmp_path / "a.pt")["a"].equal(STATE["a"])
    (tmp_path / "b.pt").symlink_to(tmp_path / "b.pt")
    with pytest.raises(OSError, match=r"b\.pt"):
        read_tensors(tmp_path / "b.pt")


# ---- tensors of other kinds ----

UNUSUAL = {
    "sparse": (lambda: torch.eye(3).to_sparse(), "_rebuild_sparse_tensor"),
    "sparse rows": (lambda: torch.eye(3).to_sparse_csr(), "_rebuild_sparse_tensor"),
    "quantised": (lambda: torch.quantize_per_tensor(torch.ones(3), 0.1, 0, torch.qint8), "_rebuild_qtensor"),
    "without data": (lambda: torch.empty(3, device="meta"), "_rebuild_meta_tensor_no_storage"),
}


@pytest.mark.filterwarnings("ignore:Sparse CSR", "ignore:.*quantiz", "ignore:.*TypedStorage")
@pytest.mark.parametrize("name", UNUSUAL)
def test_tensors_of_other_kinds_are_refused_by_name(tmp_path, name):
    make, message = UNUSUAL[name]
    with pytest.raises(UnsafeFileError, match=message):
        read_tensors(saved(tmp_path / "a.pt", {"a": make()}))


def test_tensor_expanded_from_one_number_is_refused(tmp_path):
    huge = torch.zeros(1).expand(1 << 40)
    with pytest.raises(UnsafeFileError, match=r"repeats one element \(stride 0\)"):
        read_tensors(saved(tmp_path / "a.pt", {"a": huge}))
    windows = torch.arange(100.0).as_strided((50, 50), (1, 1))
    with pytest.raises(UnsafeFileError, match="repeats the 100 elements"):
        read_tensors(saved(tmp_path / "b.pt", {"a": windows}))


def test_numbers_of_unknown_type_are_refused(tmp_path):
    contents = members(saved(tmp_path / "b.pt", STATE))
    for wrong in (b"FlyingStorage", b"QInt8Storage\n", b"FloatStorage.\n"):
        changed = {n: d.replace(b"FloatStorage\n", wrong[:13].ljust(13, b"\n")) for n, d in contents.items()}
        with pytest.raises((UnsafeFileError, FormatError), match=r"a\.pt`"):
            read_tensors(rebuilt(tmp_path / "a.pt", changed))


# ---- Lightning's checkpoints, with the settings of a run beside the tensors ----


class Mode(enum.Enum):
    """An enumeration that some authors' settings hold."""

    FAST = "fast"


def stub(module, name, base):
    """A class that pickles under another module's name."""
    return type(name, (base,), {"__module__": module, "__qualname__": name})


@pytest.fixture
def attribute_dict(monkeypatch):
    module = types.ModuleType("pytorch_lightning.utilities.parsing")
    module.AttributeDict = stub(module.__name__, "AttributeDict", dict)
    parents = ("pytorch_lightning", "pytorch_lightning.utilities")
    for name in parents:
        monkeypatch.setitem(sys.modules, name, types.ModuleType(name))
    monkeypatch.setitem(sys.modules, module.__name__, module)
    return module.AttributeDict


@pytest.mark.parametrize("new", [True, False])
def test_lightning_checkpoint_is_read_with_its_settings(tmp_path, attribute_dict, new):
    settings = attribute_dict(
        lr=1e-3,
        n=np.int64(3),
        share=np.float32(0.5),
        betas=(0.9, 0.99),
        args=argparse.Namespace(seed=1, out=Path("runs/a")),
        day=date(2024, 1, 2),
    )
    checkpoint = {
        "epoch": 3,
        "pytorch-lightning_version": "2.1.0",
        "state_dict": OrderedDict(STATE),
        "callbacks": {"ModelCheckpoint{'monitor': 'loss'}": {"best_model_score": torch.tensor(0.5), "path": "a"}},
        "optimizer_states": [{"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"params": [0]}]}],
        "lr_schedulers": [{"base_lrs": [1e-3], "_last_lr": [1e-3]}],
        "hparams_name": "kwargs",
        "hyper_parameters": settings,
    }
    path = saved(tmp_path / "a.ckpt", checkpoint, _use_new_zipfile_serialization=new)
    assert read_tensors(path, key="state_dict")["a"].equal(STATE["a"])
    found = read_torch(path)["hyper_parameters"]
    assert {key: found[key] for key in ("lr", "n", "share", "betas")} == {
        "lr": 1e-3, "n": 3, "share": 0.5, "betas": (0.9, 0.99),
    }  # fmt: skip
    assert type(found) is dict
    assert isinstance(found["args"], Record)
    assert found["args"].name == "argparse.Namespace"
    assert found["args"].state["seed"] == 1
    assert isinstance(found["args"].state["out"], Record)
    assert isinstance(found["day"], Record)


def test_classes_of_the_authors_are_refused_until_they_are_named(tmp_path):
    path = saved(tmp_path / "a.ckpt", {"state_dict": STATE, "hyper_parameters": {"mode": Mode.FAST}})
    name = f"{Mode.__module__}.Mode"
    for read in (lambda: read_tensors(path, key="state_dict"), lambda: read_torch(path)):
        with pytest.raises(UnsafeFileError, match=rf"asks for the Python object `{name}`"):
            read()
    assert read_torch(path, inert=[name])["hyper_parameters"]["mode"].args == ("fast",)


def test_records_of_settings_cannot_be_called_twice_or_filled_like_containers(tmp_path):
    namespace = b"\x80\x02cargparse\nNamespace\n)\x81"
    for tail in (b"}b}b.", b"X\x01\x00\x00\x00aNs.", b"Na.", b")R."):
        with pytest.raises(UnsafeFileError, match=r"a\.pkl`"):
            read_torch(written(tmp_path / "a.pkl", namespace + tail))


# ---- what is no checkpoint at all ----

ANSWERS = {
    "JSON of a server": (b'{"error":"Repository not found"}', "JSON text, perhaps the error message of a server"),
    "JSON list of a server": (b'[{"message": "denied"}]', "JSON text"),
    "plain text": (b"Access denied.", r"a text \(Access_denied\.\), not the file"),
    "comment before a page": (b"<!-- saved --><html></html>", "a web page"),
    "fragment of a page": (b"<head><title>Sign in</title></head>", "a web page"),
    "page after a byte order mark": (b"\xef\xbb\xbf\n <!DOCTYPE HTML>", "a web page"),
    "bzip2": (b"BZh91AY&SY", "bzip2"),
    "xz": (b"\xfd7zXZ\x00\x00", "xz"),
    "zstd": (b"\x28\xb5\x2f\xfd\x04", "zstd"),
    "tar": (bytes(257) + b"ustar\x0000" + bytes(240), "a tar archive"),
}


@pytest.mark.parametrize("suffix", [".bin", ".safetensors", ".ckpt", ".npz"])
@pytest.mark.parametrize("name", ANSWERS)
def test_answers_of_servers_and_packed_files_are_named(tmp_path, name, suffix):
    data, message = ANSWERS[name]
    with pytest.raises(FormatError, match=rf"model\{suffix}` is .*{message}"):
        read_tensors(written(tmp_path / f"model{suffix}", data))


def test_numbers_of_a_safetensors_header_may_be_large_or_odd_but_must_be_true(tmp_path):
    for entry in (
        '{"dtype":"F32","shape":[2],"data_offsets":[0,1e1]}',
        '{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}',
        '{"dtype":"F32","shape":[true,2],"data_offsets":[0,8]}',
        '{"dtype":"F32","shape":[NaN],"data_offsets":[0,8]}',
        '{"dtype":"F32","shape":[2],"data_offsets":[0,8,16]}',
        '{"dtype":"F32","shape":[2],"data_offsets":[-8,0]}',
        '{"dtype":"F32","shape":[2],"data_offsets":[0,' + "9" * 5000 + "]}",
        '{"dtype":"F32","shape":"2","data_offsets":[0,8]}',
        '{"dtype":"F32","shape":null,"data_offsets":{}}',
        '{"dtype":"F32","shape":[2],"data_offsets":[0,8],"data_offsets":[0,8]}',
        '{"dtype":"F32","shape":[2],"data_offsets":[0,8],"more":1}',
        "[]",
    ):
        header = f'{{"a":{entry}}}'.encode()
        file = written(tmp_path / "a.safetensors", struct.pack("<Q", len(header)) + header + bytes(8))
        with pytest.raises((UnsafeFileError, FormatError), match=r"a\.safetensors`"):
            read_tensors(file)


def test_every_number_type_of_safetensors_is_read(tmp_path):
    for dtype, bits in {"BOOL": 8, "U16": 16, "U32": 32, "U64": 64, "BF16": 16, "F8_E4M3": 8, "C64": 64}.items():
        header = f'{{"a":{{"dtype":"{dtype}","shape":[2],"data_offsets":[0,{bits // 4}]}}}}'.encode()
        file = written(tmp_path / "a.safetensors", struct.pack("<Q", len(header)) + header + bytes(bits // 4))
        assert read_tensors(file)["a"].shape == (2,)


def test_python_objects_behind_aliases_are_refused(tmp_path):
    for module, name in (
        ("os", "popen"), ("posix", "execv"), ("posix", "posix_spawn"), ("nt", "startfile"), ("subprocess", "run"),
        ("subprocess", "check_output"), ("_posixsubprocess", "fork_exec"), ("pty", "spawn"), ("commands", "getoutput"),
        ("shutil", "rmtree"), ("builtins", "compile"), ("builtins", "open"), ("builtins", "setattr"), ("io", "open"),
        ("operator", "methodcaller"), ("operator", "itemgetter"), ("functools", "reduce"), ("types", "FunctionType"),
        ("copyreg", "__newobj__"), ("copyreg", "add_extension"), ("copy_reg", "_reconstructor"), ("code", "interact"),
        ("timeit", "timeit"), ("ctypes", "CDLL"), ("asyncio", "run"), ("urllib.request", "urlopen"), ("pip", "main"),
        ("torch", "load.__globals__"), ("torch.utils.cpp_extension", "load"), ("torch._utils", "_rebuild_wrapper"),
        ("numpy.testing._private.utils", "runstring"), ("pandas", "read_pickle"), ("joblib", "load"),
        ("collections", "OrderedDict.__init__"), ("collections", "OrderedDict.__reduce_ex__"), ("sys", "exit"),
    ):  # fmt: skip
        data = b"\x80\x02c" + f"{module}\n{name}\n".encode() + b"X\x04\x00\x00\x00echo\x85R."
        buffer = io.BytesIO()
        with zipfile.ZipFile(buffer, "w") as archive:
            archive.writestr("m/data.pkl", data)
        for content in (data, buffer.getvalue()):
            with pytest.raises(UnsafeFileError, match=rf"asks for the Python object `{module}\.{name}`"):
                read_torch(written(tmp_path / "a.bin", content))
