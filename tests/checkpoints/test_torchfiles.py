"""Tests of torch files that lie: about their entries, their storages, and the tensors within these."""

from __future__ import annotations

import os
import pickle
import struct
import zipfile

import pytest
import torch

from sclcm.checkpoints.plain import FormatError, UnsafeFileError
from sclcm.checkpoints.readers import read_tensors


class Evil:
    def __reduce__(self):
        return os.system, ("echo hacked",)


def saved(path, value, **options):
    torch.save(value, path, **options)
    return path


def written(path, data):
    path.write_bytes(data)
    return path


def zip_of(path, members, method=zipfile.ZIP_STORED):
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in members:
            archive.writestr(zipfile.ZipInfo(name) if method == zipfile.ZIP_STORED else name, data)
    return path


def tensor_pickle(
    size=b"K\x02\x85", stride=b"K\x01\x85", offset=b"K\x00", count=b"K\x02", kind="FloatStorage", key="0"
):
    def text(value):
        return b"X" + struct.pack("<I", len(value)) + value.encode()

    pid = b"(" + text("storage") + f"ctorch\n{kind}\n".encode() + text(key) + text("cpu") + count + b"tQ"
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + pid + offset + size + stride + b"\x89}tR"
    return b"\x80\x02}" + text("a") + tensor + b"s."


def torch_zip(path, data=None, extra=(), storage=bytes(8)):
    pickled = tensor_pickle() if data is None else data
    return zip_of(path, [("m/data.pkl", pickled), ("m/byteorder", b"little"), ("m/data/0", storage), *extra])


def test_the_hand_made_archive_is_honest(tmp_path):
    assert read_tensors(torch_zip(tmp_path / "a.pt"))["a"].tolist() == [0, 0]


BAD_TENSORS = {
    "beyond its storage": tensor_pickle(size=b"K\x03\x85"),
    "offset beyond its storage": tensor_pickle(offset=b"K\x01"),
    "negative offset": tensor_pickle(offset=b"J\xff\xff\xff\xff"),
    "negative stride": tensor_pickle(stride=b"J\xff\xff\xff\xff\x85"),
    "stride zero": tensor_pickle(stride=b"K\x00\x85"),
    "stride zero, huge": tensor_pickle(size=b"J\x00\x00\x00\x7f\x85", stride=b"K\x00\x85"),
    "overlapping": tensor_pickle(size=b"K\x02K\x02\x86", stride=b"K\x01K\x00\x86"),
    "huge shape": tensor_pickle(size=b"\x8a\x09" + b"\xff" * 8 + b"\x00\x85"),
    "shape without strides": tensor_pickle(stride=b")"),
    "shape of floats": tensor_pickle(size=b"G\x00\x00\x00\x00\x00\x00\x00\x00\x85"),
    "shape of truth values": tensor_pickle(size=b"\x88\x85"),
    "storage larger than its bytes": tensor_pickle(count=b"J\x00\x00\x00\x7f"),
    "storage of another type": tensor_pickle(kind="DoubleStorage"),
    "storage of no type": tensor_pickle(kind="Size"),
    "storage outside": tensor_pickle(key="../0" + "x" * 200),
    "os.system": pickle.dumps({"a": Evil()}, 2),
}


@pytest.mark.parametrize("name", BAD_TENSORS)
def test_lying_tensors_are_refused(tmp_path, name):
    with pytest.raises(UnsafeFileError, match=r"a\.pt`"):
        read_tensors(torch_zip(tmp_path / "a.pt", BAD_TENSORS[name]))


def test_missing_storages_are_reported(tmp_path):
    with pytest.raises(FormatError, match=r"the storage `m/data/\.\./0` is missing"):
        read_tensors(torch_zip(tmp_path / "a.pt", tensor_pickle(key="../0")))


@pytest.mark.parametrize("name", ["../evil", "m/../../evil", "/etc/passwd", "m\\..\\evil", "C:/evil", "m/\n"])
def test_entries_that_leave_the_archive_are_refused(tmp_path, name):
    with pytest.raises(UnsafeFileError, match="points outside"):
        read_tensors(torch_zip(tmp_path / "a.pt", extra=[(name, b"")]))


def test_entries_outside_the_folder_are_refused(tmp_path):
    with pytest.raises(UnsafeFileError, match="outside its folder"):
        read_tensors(torch_zip(tmp_path / "a.pt", extra=[("other/x", b"")]))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_entries_of_the_same_name_are_refused(tmp_path):
    with pytest.raises(UnsafeFileError, match=r"`m/data/0` twice"):
        read_tensors(torch_zip(tmp_path / "a.pt", extra=[("m/data/0", bytes(8))]))


def test_compressed_torch_files_are_refused(tmp_path):
    members = [("m/data.pkl", tensor_pickle()), ("m/data/0", bytes(1_000_000))]
    path = zip_of(tmp_path / "a.pt", members, zipfile.ZIP_DEFLATED)
    with pytest.raises(UnsafeFileError, match="compressed"):
        read_tensors(path)


def test_other_archives_are_named(tmp_path):
    with pytest.raises(FormatError, match=r"not one of `torch\.save`: it holds `word/document\.xml`"):
        read_tensors(zip_of(tmp_path / "a.docx", [("word/document.xml", b"<x/>")]))
    with pytest.raises(FormatError, match="TorchScript"):
        read_tensors(torch_zip(tmp_path / "a.pt", extra=[("m/constants.pkl", b"")]))
    with pytest.raises(FormatError, match="big-endian"):
        read_tensors(zip_of(tmp_path / "b.pt", [("m/data.pkl", tensor_pickle()), ("m/byteorder", b"big")]))


def test_lying_directories_are_refused(tmp_path):
    path = torch_zip(tmp_path / "a.pt")
    data = path.read_bytes()
    central = data.index(b"PK\x01\x02")
    end = data.index(b"PK\x05\x06")
    third = data.index(b"m/data/0", central) - 46
    lies = {
        "two names": data[:central].replace(b"m/data/0", b"m/data/1") + data[central:],
        "sizes": data[: third + 20] + struct.pack("<II", 80_000, 80_000) + data[third + 28 :],
        "shared bytes": data[: third + 42] + struct.pack("<I", 0) + data[third + 46 :],
        "far away": data[: third + 42] + struct.pack("<I", 1 << 30) + data[third + 46 :],
        "encrypted": data[: third + 8] + b"\x01" + data[third + 9 :],
        "giant count": data[: end + 8] + b"\xff\xff\xff\xff" + data[end + 12 :],
        "giant table": data[: end + 12] + struct.pack("<I", 1 << 30) + data[end + 16 :],
        "cut": data[:-1],
        "tail": data + b"x",
    }
    for lie, content in lies.items():
        with pytest.raises((UnsafeFileError, FormatError), match=r"a\.pt`"):
            read_tensors(written(path, content))
        assert lie


def test_tensors_that_unfold_one_storage_many_times_are_refused(tmp_path):
    base = torch.zeros(100_000)
    many = {f"t{i}": base for i in range(200)}
    with pytest.raises(UnsafeFileError, match="unfolds"):
        read_tensors(saved(tmp_path / "a.pt", many))


def test_legacy_files_that_lie_are_refused(tmp_path):
    path = saved(tmp_path / "a.pt", {"a": torch.arange(4.0)}, _use_new_zipfile_serialization=False)
    data = path.read_bytes()
    size = struct.pack("<q", 4)
    at = data.rindex(size)
    with pytest.raises(UnsafeFileError, match="two sizes"):
        read_tensors(written(path, data[:at] + struct.pack("<q", 1 << 40) + data[at + 8 :]))
    with pytest.raises(UnsafeFileError, match=r"os\.system|posix\.system|nt\.system"):
        read_tensors(saved(tmp_path / "b.pt", {"a": Evil()}, _use_new_zipfile_serialization=False))
    with pytest.raises(FormatError, match=r"not a file of `torch\.save`"):
        read_tensors(written(path, data.replace(b"M\xe9\x03.", b"M\xe8\x03.", 1)))
