"""Checkpoints of MindSpore: named tensors as protobuf messages, one after the other."""

from __future__ import annotations

import math
import re
import zlib
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING, Any, BinaryIO, NoReturn

import numpy as np

from sclcm.checkpoints.plain import FormatError, UnsafeFileError, shorten

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import torch

ENCRYPTED = (b"\xd8\x5e\x3a\x7f", b"\xd9\x5e\x3a\x7f", b"\xda\x5e\x3a\x7f")
"""What a file begins with that MindSpore has encrypted, one beginning for each cipher."""

_ENTRY = 0x0A  # field 1 of the outermost message, of known length: one named tensor
_HEAD = re.compile(rb"\x0a[\x80-\xff]{0,9}[\x00-\x7f]\x0a(.)", re.DOTALL)
_NAME = re.compile(rb"[\x21-\x7e]{1,500}")
_TRAILER, _TRAILER_LENGTH = b"crc_num", 17
_MAX_ENTRIES = 200_000
_MAX_AXES = 32
_MAX_BYTES = (1 << 31) - 1  # of one message: no protobuf library takes more
_DTYPES = {
    "Bool": "|u1",
    "Int8": "|i1",
    "Int16": "<i2",
    "Int32": "<i4",
    "Int64": "<i8",
    "UInt8": "|u1",
    "UInt16": "<u2",
    "UInt32": "<u4",
    "UInt64": "<u8",
    "Float16": "<f2",
    "Float32": "<f4",
    "Float64": "<f8",
    "BFloat16": "<i2",  # numpy has no such type: torch reads the bits
}


def is_proto_checkpoint(head: bytes) -> bool:
    """Whether the first bytes of a file are a protobuf message that begins with a named tensor."""
    found = _HEAD.match(head)
    if found is None:
        return False
    name = head[found.end() : found.end() + found[1][0]]
    after = head[found.end() + found[1][0] : found.end() + found[1][0] + 1]
    return bool(_NAME.fullmatch(name)) and after == b"\x12"


def read_proto_tensors(path: Path) -> dict[str, torch.Tensor]:
    """Read every named tensor of a MindSpore checkpoint, those of an optimiser included.

    Entry by entry, since a protobuf library takes no message of 2 GiB, which whole files exceed. Pieces of one large
    tensor, which follow each other under one name, are put together. A checksum at the end is verified.

    Parameters
    ----------
    path
        The file.

    Returns
    -------
    Tensor of each name, on the CPU, each with memory of its own.
    """
    tensors: dict[str, torch.Tensor] = {}
    pending: _Pending | None = None
    for name, dtype, dims, content in _entries(path):
        if pending is None or pending.name != name:
            if pending is not None:
                tensors[pending.name] = pending.finish(path)
            if name in tensors:
                _refuse(path, f"names the tensor `{shorten(name)}` twice")
            if len(tensors) >= _MAX_ENTRIES:
                _refuse(path, f"names more than {_MAX_ENTRIES:,} tensors")
            pending = _Pending(name=name, dtype=dtype, dims=dims)
        pending.add(path, dtype, dims, content=content)
    if pending is None:
        msg = f"`{path}` holds no tensor. Download or copy the file again."
        raise FormatError(msg)
    tensors[pending.name] = pending.finish(path)
    return tensors


@dataclass(kw_only=True)
class _Pending:
    """A tensor of which more pieces may follow."""

    name: str
    dtype: str
    dims: tuple[int, ...]
    pieces: list[bytes] = field(default_factory=list)
    size: int = 0

    def add(self, path: Path, dtype: str, dims: tuple[int, ...], *, content: bytes) -> None:
        """Take a piece; all say the same of the whole."""
        if (dtype, dims) != (self.dtype, self.dims):
            _refuse(path, f"gives pieces of the tensor `{shorten(self.name)}` different types or shapes")
        self.pieces.append(content)
        self.size += len(content)

    def finish(self, path: Path) -> torch.Tensor:
        """Return the tensor; its shape and type must account for every byte."""
        import torch

        kind = np.dtype(_DTYPES[self.dtype])
        # A scalar is written without a shape, or with that of nothing at all.
        dims = () if self.dims == (0,) and self.size == kind.itemsize else self.dims
        room = math.prod(max(size, 1) for size in dims) * kind.itemsize  # numpy lays out what has no elements, too
        if math.prod(dims) * kind.itemsize != self.size or room >= 1 << 62:
            what = f"the tensor `{shorten(self.name)}` {self.size:,} bytes, which do not fit its type {self.dtype}"
            _refuse(path, f"gives {what} and shape {dims}")
        memory = bytearray().join(self.pieces)
        self.pieces.clear()
        array = np.frombuffer(memory, dtype=kind).reshape(dims)
        tensor = torch.from_numpy(array.astype(kind.newbyteorder("="), copy=False))
        if self.dtype == "Bool":
            return tensor != 0
        return tensor.view(torch.bfloat16) if self.dtype == "BFloat16" else tensor


def _entries(path: Path) -> Iterator[tuple[str, str, tuple[int, ...], bytes]]:
    """Yield name, type, shape and bytes of each entry."""
    from google.protobuf.message import DecodeError
    from google.protobuf.unknown_fields import UnknownFieldSet

    entry_type = _entry_type()
    for message in _messages(path):
        try:
            entry = entry_type.FromString(message)
        except DecodeError as error:
            msg = f"`{path}` is damaged: an entry of {len(message):,} bytes is no protobuf message. Get the file again."
            raise FormatError(msg) from error
        if len(UnknownFieldSet(entry)) or len(UnknownFieldSet(entry.tensor)):
            _refuse(path, "holds entries with more than a name and a tensor, such as tables that grow")
        if not _NAME.fullmatch(entry.tag) or len(entry.tensor.dims) > _MAX_AXES:
            _refuse(path, "holds a tensor without a proper name and shape")
        name, dtype = entry.tag.decode("ascii"), entry.tensor.tensor_type.decode("ascii", "replace")
        if dtype not in _DTYPES:
            _refuse(
                path, f"holds the tensor `{shorten(name)}` of the type `{shorten(dtype)}`, which is none of numbers"
            )
        dims = tuple(entry.tensor.dims)
        if any(size < 0 for size in dims):
            _refuse(path, f"gives the tensor `{shorten(name)}` the shape {dims}")
        yield name, dtype, dims, entry.tensor.tensor_content


@cache
def _entry_type() -> Any:
    """Return the class of an entry: `{tag: bytes = 1, tensor = 2: {dims = 1, tensor_type = 2, tensor_content = 3}}`."""
    from google.protobuf import descriptor_pool, message_factory
    from google.protobuf.descriptor_pb2 import FieldDescriptorProto as Field
    from google.protobuf.descriptor_pb2 import FileDescriptorProto

    file = FileDescriptorProto(name="sclcm_checkpoint.proto", package="sclcm", syntax="proto2")
    one, many = Field.LABEL_OPTIONAL, Field.LABEL_REPEATED
    tensor = file.message_type.add(name="Tensor")
    tensor.field.add(name="dims", number=1, label=many, type=Field.TYPE_INT64)
    tensor.field.add(name="tensor_type", number=2, label=one, type=Field.TYPE_BYTES)
    tensor.field.add(name="tensor_content", number=3, label=one, type=Field.TYPE_BYTES)
    entry = file.message_type.add(name="Entry")
    entry.field.add(name="tag", number=1, label=one, type=Field.TYPE_BYTES)
    entry.field.add(name="tensor", number=2, label=one, type=Field.TYPE_MESSAGE, type_name=".sclcm.Tensor")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("sclcm.Entry"))


# ---- the outermost message: entries with their lengths, and perhaps a checksum behind them ----


def _messages(path: Path) -> Iterator[bytes]:
    """Yield the bytes of each entry, and verify the checksum after the last."""
    size = path.stat().st_size
    with path.open("rb") as file:
        wanted = _checksum(file, size)
        stop = size if wanted is None else size - _TRAILER_LENGTH
        source = _Counted(file)
        while file.tell() < stop:
            if source.read(1)[0] != _ENTRY:
                msg = f"`{path}` is damaged, or no MindSpore checkpoint: no entry begins at byte {file.tell() - 1:,}."
                raise FormatError(msg)
            length = source.varint()
            if length is None or length > min(stop - file.tell(), _MAX_BYTES):
                msg = (
                    f"`{path}` is truncated or damaged: it ends within the entry that begins before byte "
                    f"{file.tell():,}. Download or copy the file again."
                )
                raise FormatError(msg)
            yield source.read(length)
    if wanted is not None and source.checksum != wanted:
        msg = f"`{path}` is damaged: its checksum is {source.checksum:#x}, expected {wanted:#x}. Get the file again."
        raise FormatError(msg)


def _checksum(file: BinaryIO, size: int) -> int | None:
    """Return the checksum that the file ends with, if it does."""
    file.seek(max(size - _TRAILER_LENGTH, 0))
    trailer = file.read(_TRAILER_LENGTH)
    file.seek(0)
    return int.from_bytes(trailer[len(_TRAILER) :], "big") if trailer.startswith(_TRAILER) else None


class _Counted:
    """Reads a file and keeps the checksum of what it has read."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.checksum = 0

    def read(self, length: int) -> bytes:
        """Read so many bytes."""
        data = self._file.read(length)
        self.checksum = zlib.crc32(data, self.checksum)
        return data

    def varint(self) -> int | None:
        """Read a length, seven bits a byte, the lowest first; `None` if the file ends or no length is so long."""
        value = 0
        for shift in range(0, 70, 7):
            byte = self.read(1)
            if not byte:
                return None
            value |= (byte[0] & 0x7F) << shift
            if byte[0] < 0x80:
                return value
        return None


def _refuse(path: Path, what: str) -> NoReturn:
    msg = f"`{path}` {what}. Get the file from its authors."
    raise UnsafeFileError(msg)
