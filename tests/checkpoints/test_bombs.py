"""Tests of small files that would cost much memory or time: refused early, by what they count up."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile

import numpy as np
import pytest
import torch

from sclcm.checkpoints.plain import FormatError, UnsafeFileError
from sclcm.checkpoints.readers import read_array, read_json, read_tensors, read_torch

HEAD = b"\x80\x04"
MODULUS = (1 << 61) - 1  # what Python takes numbers by when it hashes them


def named(module, name):
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def text(value):
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def written(path, data):
    path.write_bytes(data)
    return path


def scalars(code, raws):
    """A dictionary whose keys are numpy numbers of one type."""
    dtype = named("numpy", "dtype") + text(code) + b"\x89\x88\x87R"
    dtype += b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbq\x01"
    calls = [b"h\x00h\x01C" + bytes([len(raw)]) + raw + b"\x86RN" for raw in raws]
    return HEAD + named("numpy._core.multiarray", "scalar") + b"q\x00" + dtype + b"00}(" + b"".join(calls) + b"u."


def complex_numbers_of_one_hash():
    return scalars("c16", [struct.pack("<dd", -1_000_003.0 * k, k) for k in range(1, 50)])


def long_numbers_of_one_hash():
    return scalars("f16", [(np.longdouble(2) ** 2000 * k).tobytes() for k in range(1, 50)])


def tuples_of_one_hash():
    """Pairs of integers that Python's hash of tuples, which is no secret, maps to one number."""
    word, prime1, prime2, start = 1 << 64, 11400714785074694791, 14029467366897019727, 2870177450012600261
    pairs, target = [], None
    for first in range(1, 400):
        mixed = (start + first * prime2) % word
        mixed = ((mixed << 31) | (mixed >> 33)) % word * prime1 % word
        target = (mixed + 5 * prime2) % word if target is None else target
        second = (target - mixed) * pow(prime2, -1, word) % word
        if second < MODULUS or 2 < word - second < MODULUS:
            pairs.append((first, second if second < MODULUS else second - word))
    assert len({hash(pair) for pair in pairs}) == 1
    numbers = [struct.pack("<qq", *pair) for pair in pairs]
    return HEAD + b"}(" + b"".join(b"\x8a\x08" + n[:8] + b"\x8a\x08" + n[8:] + b"\x86N" for n in numbers) + b"u."


def one_long_tuple_as_many_keys():
    row = b"(" + b"N" * 64 + b"tq\x01"
    return HEAD + row + b"0(" + b"h\x01" * 64 + b"tq\x020}(" + b"h\x02N" * 500 + b"u."


def repeated_call(module, name, arguments, times):
    return HEAD + named(module, name) + b"q\x00" + arguments + b"q\x01(" + b"h\x00h\x01R" * times + b"t."


def nested_storages():
    file = io.BytesIO()
    torch.save(torch.zeros(1).untyped_storage(), file, _use_new_zipfile_serialization=False)
    blob = file.getvalue()
    raw = b"B" + struct.pack("<I", len(blob)) + blob + b"\x85"
    return repeated_call("torch.storage", "_load_from_bytes", raw, 100_000)


BOMBS = {
    "complex keys of one hash": (complex_numbers_of_one_hash(), "`complex128` as a key"),
    "long keys of one hash": (long_numbers_of_one_hash(), "as a key"),
    "tuple keys of one hash": (tuples_of_one_hash(), "made to collide"),
    "one long tuple as many keys": (one_long_tuple_as_many_keys(), "a nested or very long one, as keys"),
    "empty lists": (HEAD + b"(" + b"]" * 100_000 + b"l.", r"more than 70,\d\d\d containers"),
    "empty dictionaries": (HEAD + b"(" + b"}" * 100_000 + b"l.", "containers"),
    "empty sets": (HEAD + b"(" + b"\x8f" * 300_000 + b"l.", "multiplies its own data|containers"),
    "frozen sets": (HEAD + b"(" + b"(\x91" * 300_000 + b"l.", "multiplies its own data|containers"),
    "tuples of one": (HEAD + b"(" + b"N\x85" * 200_000 + b"l.", "containers"),
    "memo by number": (HEAD + b"N" + b"\x94" * 200_000 + b".", "objects in its memo"),
    "a stack without end": (HEAD + b"N(" + b"N" * 5_000_000 + b"t0.", "in no container"),
    "dtypes": (
        repeated_call("numpy", "dtype", text("f8") + b"\x89\x88\x87", 200_000),
        "multiplies its own data",
    ),
    "unfinished arrays": (
        repeated_call(
            "numpy._core.multiarray", "_reconstruct", named("numpy", "ndarray") + b"K\x00\x85C\x01b\x87", 200_000
        ),
        "multiplies its own data",
    ),
    "nested storages": (nested_storages(), "multiplies its own data"),
    "sets of one list": (
        HEAD + b"](" + b"".join(b"M" + struct.pack("<H", i) for i in range(60_000)) + b"e\x85q\x01"
        + named("builtins", "set") + b"q\x00(" + b"h\x00h\x01R" * 100 + b"t.",
        "multiplies its own data",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BOMBS)
def test_pickles_that_cost_more_than_they_weigh_are_refused(tmp_path, name):
    data, message = BOMBS[name]
    with pytest.raises(UnsafeFileError, match=rf"a\.pkl` .*({message})"):
        read_torch(written(tmp_path / "a.pkl", data))


def test_many_tensors_of_one_storage_are_refused(tmp_path):
    pid = b"(" + text("storage") + named("torch", "FloatStorage") + text("0") + text("cpu") + b"K\x01tQ"
    tensor = named("torch._utils", "_rebuild_tensor_v2") + b"q\x00(" + pid + b"K\x00))\x89}tq\x01("
    with zipfile.ZipFile(tmp_path / "a.pt", "w") as archive:
        archive.writestr("m/data.pkl", b"\x80\x02" + tensor + b"h\x00h\x01R" * 100_000 + b"t.")
        archive.writestr("m/data/0", bytes(4))
    with pytest.raises(UnsafeFileError, match="multiplies its own data"):
        read_torch(tmp_path / "a.pt")


def test_numbers_of_the_memo_do_not_say_how_long_it_is(tmp_path):
    data = HEAD + b"N" + b"".join(b"r" + struct.pack("<I", 0xFFFFFFFF - i) for i in range(50)) + b"."
    assert read_torch(written(tmp_path / "a.pkl", data)) is None
    with pytest.raises(FormatError, match="is damaged"):
        read_torch(written(tmp_path / "b.pkl", data[:-1] + b"0j" + struct.pack("<I", 1 << 31) + b"."))


def test_honest_data_of_many_small_containers_is_read(tmp_path):
    rows = {"pairs": [(i, i + 1) for i in range(100_000)], "empty": [[] for _ in range(20_000)], "sets": [{1}] * 9}
    rows["keys"] = {(i, "cell_emb"): [i] for i in range(15_000)}
    rows["numbers"] = {np.float32(i): np.int64(i) for i in range(20_000)}
    assert read_torch(written(tmp_path / "a.pkl", pickle.dumps(rows, 4))) == rows


# ---- JSON and the header of safetensors ----


def test_a_key_named_twice_among_many_is_found_at_once(tmp_path):
    pairs = ",".join(f'"{i}":1' for i in range(200_000))
    with pytest.raises(UnsafeFileError, match="names the key `199999` twice"):
        read_json(written(tmp_path / "a.json", f'{{{pairs},"199999":1}}'.encode()))


@pytest.mark.parametrize("part", ["[]", "{}"])
def test_text_of_too_many_lists_is_refused(tmp_path, part):
    data = ("[" + ",".join([part] * 1_100_000) + "]").encode()
    with pytest.raises(UnsafeFileError, match="1,100,001 lists and objects"):
        read_json(written(tmp_path / "a.json", data))
    header = b'{"a":' + data + b"}"
    file = written(tmp_path / "a.safetensors", struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(UnsafeFileError, match="lists and objects"):
        read_tensors(file)


def test_giant_text_is_refused_before_it_is_read(tmp_path):
    with (tmp_path / "a.json").open("wb") as file:
        file.write(b"{")
        file.truncate(1 << 40)
    with pytest.raises(UnsafeFileError, match=r"1,099,511,627,776 bytes; a JSON file"):
        read_json(tmp_path / "a.json")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_numbers_that_json_does_not_know_are_refused(tmp_path, number):
    with pytest.raises(FormatError, match=rf"no valid JSON \({number} is no number\)"):
        read_json(written(tmp_path / "a.json", f'{{"eps": {number}}}'.encode()))


def test_shape_of_very_many_sides_is_refused(tmp_path):
    entry = {"dtype": "F32", "shape": [(1 << 62) - 1] * 200_000, "data_offsets": [0, 8]}
    header = json.dumps({"a": entry}).encode()
    file = written(tmp_path / "a.safetensors", struct.pack("<Q", len(header)) + header + bytes(8))
    with pytest.raises(UnsafeFileError, match="lying header: the tensor `a`"):
        read_tensors(file)


# ---- arrays ----


def npy(shape, data, code="|u1"):
    header = f"{{'descr': '{code}', 'fortran_order': False, 'shape': {shape}, }}".encode()
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + data


def test_zeros_packed_beside_noise_are_refused(tmp_path):
    path = tmp_path / "a.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.npy", npy("(60000000,)", bytes(60_000_000)))
        archive.writestr("b.npy", npy("(300000,)", os.urandom(300_000)))
    for reader in (read_array, read_tensors):
        with pytest.raises(UnsafeFileError, match="unpacks"):
            reader(path)


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ("(000000000000000000008,)", "something other than one array"),
        ("(2 4,)", "something other than one array"),
        ("(2,,4)", "something other than one array"),
        ("(,)", "something other than one array"),
        ("(-8,)", "something other than one array"),
        ("(7,)", "has a lying header"),
        ("(9,)", "is truncated"),
        ("(9223372036854775807, 9223372036854775807)", "is truncated"),
        ("(0, 9223372036854775807)", "has a lying header"),
        ("(" + "1, " * 70 + "8)", "is damaged"),
    ],
)
def test_shapes_that_lie_are_refused(tmp_path, shape, message):
    with pytest.raises((UnsafeFileError, FormatError), match=rf"a\.npy`.*{message}"):
        read_array(written(tmp_path / "a.npy", npy(shape, bytes(8))))


@pytest.mark.parametrize(("shape", "size"), [("()", 1), ("(8,)", 8), ("(2, 4)", 8), ("(2,4,)", 8), ("(0, 3)", 0)])
def test_shapes_that_are_true_are_read(tmp_path, shape, size):
    assert read_array(written(tmp_path / "a.npy", npy(shape, bytes(size)))).size == size


def test_header_longer_than_the_file_is_refused(tmp_path):
    data = b"\x93NUMPY\x02\x00" + struct.pack("<I", 0xFFFFFFFF) + b"{'descr'"
    with pytest.raises((UnsafeFileError, FormatError), match=r"a\.npy`"):
        read_array(written(tmp_path / "a.npy", data))
