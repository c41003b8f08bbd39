"""MindSpore checkpoints: what is in them comes back, and what lies is refused."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
import torch

from sclcm.checkpoints import protofiles
from sclcm.checkpoints.plain import FormatError, UnsafeFileError
from sclcm.checkpoints.readers import read_tensors, sniff


def varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def part(field, content):
    return varint(field << 3 | 2) + varint(len(content)) + content


def entry(name, dtype, dims, content, *, packed=False, extra=b""):
    """One named tensor as MindSpore writes it, put together by hand."""
    if packed:
        shape = part(1, b"".join(map(varint, dims)))
    else:
        shape = b"".join(varint(1 << 3) + varint(size % 2**64) for size in dims)
    tensor = shape + part(2, dtype.encode()) + part(3, content)
    return part(1, part(1, name.encode()) + part(2, tensor) + extra)


@pytest.fixture
def written(tmp_path):
    def write(*parts):
        file = tmp_path / "model.ckpt"
        file.write_bytes(b"".join(parts))
        return file

    return write


FLOATS = np.arange(6, dtype="<f4").reshape(2, 3)
WEIGHT = entry("layer.weight", "Float32", (2, 3), FLOATS.tobytes())


def test_tensors_come_back_with_shape_and_type(written):
    file = written(
        WEIGHT,
        entry("half", "Float16", (2,), np.array([1.5, -2], dtype="<f2").tobytes()),
        entry("brain", "BFloat16", (2,), bytes([0x80, 0x3F, 0x20, 0xC1])),
        entry("steps", "Int64", (1,), np.array([7], dtype="<i8").tobytes()),
        entry("flags", "Bool", (3,), b"\x00\x01\x02"),
    )
    found = read_tensors(file)
    assert found["layer.weight"].equal(torch.arange(6.0).reshape(2, 3))
    assert found["half"].tolist() == [1.5, -2]
    assert found["half"].dtype == torch.float16
    assert found["brain"].equal(torch.tensor([1, -10], dtype=torch.bfloat16))
    assert found["steps"].equal(torch.tensor([7]))
    assert found["flags"].tolist() == [False, True, True]


def test_shape_may_be_packed(written):
    file = written(WEIGHT, entry("b", "Float32", (2, 3), FLOATS.tobytes(), packed=True))
    assert read_tensors(file)["b"].shape == (2, 3)


@pytest.mark.parametrize("dims", [(), (0,)])
def test_scalar_has_no_shape_or_that_of_nothing(written, dims):
    found = read_tensors(written(WEIGHT, entry("rate", "Float32", dims, np.float32(0.5).tobytes())))["rate"]
    assert found.shape == ()
    assert found == 0.5


def test_empty_tensor_is_no_scalar(written):
    assert read_tensors(written(WEIGHT, entry("none", "Float32", (0,), b"")))["none"].shape == (0,)


def test_pieces_of_a_large_tensor_are_put_together(written):
    raw = FLOATS.tobytes()
    pieces = [entry("big", "Float32", (2, 3), raw[start : start + 10]) for start in range(0, 24, 10)]
    found = read_tensors(written(WEIGHT, *pieces, entry("last", "Int32", (), b"\x01\0\0\0")))
    assert found["big"].equal(found["layer.weight"])
    assert list(found) == ["layer.weight", "big", "last"]


def test_tensors_are_alone_in_their_memory_and_may_be_written_to(written):
    found = read_tensors(written(WEIGHT))["layer.weight"]
    assert found.untyped_storage().nbytes() == found.nbytes
    found += 1
    assert found.sum() == 21


def test_checksum_is_verified(written):
    body = WEIGHT + entry("b", "Float32", (1,), b"\0\0\0\0")
    trailer = b"crc_num" + zlib.crc32(body).to_bytes(10, "big")
    assert set(read_tensors(written(body, trailer))) == {"layer.weight", "b"}
    damaged = bytearray(body)
    damaged[-1] ^= 1
    with pytest.raises(FormatError, match="its checksum is"):
        read_tensors(written(damaged, trailer))


@pytest.mark.parametrize("length", [9, 10, 13, 32, 60, 123])
def test_file_is_told_by_its_content_whatever_its_lengths_look_like(written, length):
    """A length may be a blank, `<` or `{`."""
    bare = len(part(1, b"n") + part(2, part(2, b"Int8") + part(3, b"")))
    file = written(part(1, part(1, b"n") + part(2, part(2, b"Int8") + part(3, bytes(max(length - bare, 0))))))
    assert sniff(file) == "MindSpore"


@pytest.mark.parametrize("stop", range(1, len(WEIGHT)))
def test_truncated_file_is_refused(written, stop):
    first = entry("a", "Float32", (1,), b"\0\0\0\0")
    with pytest.raises(FormatError, match="truncated or damaged"):
        read_tensors(written(first, WEIGHT[:stop]))


@pytest.mark.parametrize(
    ("lie", "says"),
    [
        (entry("a", "Float32", (2, 4), FLOATS.tobytes()), "24 bytes, which do not fit"),
        (entry("a", "Float32", (1 << 40,), FLOATS.tobytes()), "do not fit its type Float32"),
        (entry("a", "Float32", (0, 1 << 62), b""), "do not fit its type Float32"),
        (entry("a", "Float32", (-2, -3), FLOATS.tobytes()), r"the shape \(-2, -3\)"),
        (entry("a", "Float64", (2, 3), FLOATS.tobytes()), "do not fit its type Float64"),
        (entry("a", "str", (4,), b"text"), "of the type `str`"),
        (entry("a", "Float32", (1,) * 33, b"\0\0\0\0"), "without a proper name and shape"),
        (entry("", "Float32", (1,), b"\0\0\0\0"), "without a proper name"),
        (entry("a\n", "Float32", (1,), b"\0\0\0\0"), "without a proper name"),
        (entry("a" * 501, "Float32", (1,), b"\0\0\0\0"), "without a proper name"),
        (entry("a", "Float32", (1,), b"\0\0\0\0", extra=part(3, b"")), "more than a name and a tensor"),
        (WEIGHT + entry("a", "Int8", (1,), b"\0") + WEIGHT, "`layer.weight` twice"),
        (WEIGHT + entry("layer.weight", "Float32", (3, 2), FLOATS.tobytes()), "different types or shapes"),
    ],
)
def test_lying_entry_is_refused(written, lie, says):
    with pytest.raises(UnsafeFileError, match=says):
        read_tensors(written(entry("first", "Int8", (1,), b"\0"), lie))


def test_length_of_more_than_the_file_is_refused_before_anything_is_read(written):
    with pytest.raises(FormatError, match="truncated or damaged"):
        read_tensors(written(WEIGHT, b"\x0a", varint(1 << 62)))
    with pytest.raises(FormatError, match="truncated or damaged"):
        read_tensors(written(WEIGHT, b"\x0a", b"\xff" * 11))


def test_other_field_in_the_place_of_an_entry_is_refused(written):
    with pytest.raises(FormatError, match=f"no entry begins at byte {len(WEIGHT)}"):
        read_tensors(written(WEIGHT, part(2, b"text")))


def test_entry_that_is_no_message_is_refused(written):
    with pytest.raises(FormatError, match="is no protobuf message"):
        read_tensors(written(WEIGHT, part(1, b"\xff\xff\xff")))


def test_too_many_tensors_are_refused(written, monkeypatch):
    monkeypatch.setattr(protofiles, "_MAX_ENTRIES", 3)
    with pytest.raises(UnsafeFileError, match="more than 3 tensors"):
        read_tensors(written(*(entry(f"t{i}", "Int8", (1,), b"\0") for i in range(4))))


def test_encrypted_file_is_told(written):
    with pytest.raises(FormatError, match=r"is encrypted\. Load it with its key in MindSpore"):
        read_tensors(written(b"\xd8\x5e\x3a\x7f", bytes(100)))


def test_key_has_nothing_to_choose_from(written):
    with pytest.raises(ValueError, match="flat file of tensors"):
        read_tensors(written(WEIGHT), key="state_dict")
