"""Tests of array and safetensors files whose headers lie."""

from __future__ import annotations

import json
import os
import struct
import zipfile

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from sclcm.checkpoints.plain import FormatError, UnsafeFileError
from sclcm.checkpoints.readers import read_array, read_tensors


class Evil:
    def __reduce__(self):
        return os.system, ("echo hacked",)


def written(path, data):
    path.write_bytes(data)
    return path


def test_arrays_of_objects_are_refused(tmp_path):
    np.save(tmp_path / "a.npy", np.array([Evil()], dtype=object), allow_pickle=True)
    np.savez(tmp_path / "a.npz", a=np.array(["x", None], dtype=object))
    for name in ("a.npy", "a.npz"):
        with pytest.raises(UnsafeFileError, match=r"objects.*astype\(str\)"):
            read_array(tmp_path / name)


def npy(header, data=bytes(24)):
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


@pytest.mark.parametrize(
    "header",
    [
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (999999999999,), }",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (4,), }",
        b"{'descr': [('a', '<f8')], 'fortran_order': False, 'shape': (3,), }",
        b"{'descr': '|V8', 'fortran_order': False, 'shape': (3,), }",
        b"{'descr': '<f8', 'fortran_order': False, 'shape': (" + b"1," * 300 + b"), }",
        b"__import__('os').system('echo hacked')",
        b"(" * 5000,
        b"",
    ],
)
def test_lying_array_headers_are_refused(tmp_path, header):
    with pytest.raises((UnsafeFileError, FormatError), match=r"a\.npy`"):
        read_array(written(tmp_path / "a.npy", npy(header)))


def test_deflate_bombs_are_refused(tmp_path):
    header = npy(b"{'descr': '|u1', 'fortran_order': False, 'shape': (100000000,), }", b"")
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", header + bytes(100_000_000))
    with pytest.raises(UnsafeFileError, match="unpacks"):
        read_array(path)


def safetensors_file(path, header, data=bytes(8)):
    raw = header if isinstance(header, bytes) else json.dumps(header).encode()
    return written(path, struct.pack("<Q", len(raw)) + raw + data)


def entry(start=0, stop=8, shape=(2,), dtype="F32"):
    return {"dtype": dtype, "shape": list(shape), "data_offsets": [start, stop]}


LYING_HEADERS = {
    "beyond the file": {"a": entry(0, 80, (20,))},
    "overlapping": {"a": entry(), "b": entry()},
    "overlapping by half": {"a": entry(), "b": entry(4, 12)},
    "hole": {"a": entry(4, 8, (1,))},
    "rest": {"a": entry(0, 4, (1,))},
    "wrong shape": {"a": entry(shape=(3,))},
    "huge shape": {"a": entry(shape=(1 << 62, 1 << 62))},
    "zero times huge": {"a": entry(0, 0, (0, 1 << 63)), "b": entry()},
    "negative": {"a": entry(shape=(-2, -1))},
    "backwards": {"a": entry(8, 0)},
    "unknown dtype": {"a": entry(dtype="X32")},
    "dtype of a list": {"a": {**entry(), "dtype": ["F32"]}},
    "no dtype": {"a": {"shape": [2], "data_offsets": [0, 8]}},
    "no object": {"a": 1},
    "a list": [1],
    "no JSON": b"{nothing",
    "duplicate keys": b'{"a": ' + json.dumps(entry()).encode() + b', "a": ' + json.dumps(entry()).encode() + b"}",
    "deep": b'{"a":' * 100_000,
}


@pytest.mark.parametrize("name", LYING_HEADERS)
def test_lying_safetensors_headers_are_refused(tmp_path, name):
    with pytest.raises((UnsafeFileError, FormatError), match=r"a\.safetensors`"):
        read_tensors(safetensors_file(tmp_path / "a.safetensors", LYING_HEADERS[name]))


def test_safetensors_files_of_endless_names_are_refused(tmp_path):
    header = {f"{i}": entry(0, 0, (0,)) for i in range(100_001)}
    with pytest.raises(UnsafeFileError, match="names 100,001 tensors"):
        read_tensors(safetensors_file(tmp_path / "a.safetensors", header, b""))


@pytest.mark.parametrize("length", [10_000, 1 << 40, (1 << 64) - 1])
def test_giant_safetensors_headers_are_refused(tmp_path, length):
    with pytest.raises(FormatError, match="truncated"):
        read_tensors(written(tmp_path / "a.safetensors", struct.pack("<Q", length) + b'{"a": 1}'))


def test_truncated_safetensors_files_are_reported(tmp_path):
    save_file({"a": torch.ones(100)}, tmp_path / "a.safetensors")
    data = (tmp_path / "a.safetensors").read_bytes()
    for n in (4, 20, len(data) // 2, len(data) - 1):
        with pytest.raises(FormatError, match=r"truncated|Get|Download"):
            read_tensors(written(tmp_path / "b.safetensors", data[:n]))
