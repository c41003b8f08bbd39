"""The containers of plain arrays: numpy's `.npy` and `.npz`, and the header of a safetensors file."""

from __future__ import annotations

import math
import re
from typing import TYPE_CHECKING, Any

from sclcm.checkpoints.archives import Archive
from sclcm.checkpoints.plain import FormatError, Refusal, UnsafeFileError, shorten
from sclcm.checkpoints.rebuild import array_dtype, make_array

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable
    from pathlib import Path

    import numpy as np

_HEADER = re.compile(
    rb"\{'descr': '([<>|=])([A-Za-z?]\d{0,6})', 'fortran_order': (True|False), "
    rb"'shape': \(((?:\d{1,19}(?:, ?\d{1,19})*,?)?)\),? ?\}\s*"
)
MAX_HEADER = 100_000_000
_MAX_AXES = 64
_MAX_TENSORS = 100_000
_BITS = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ"), 8),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 16),
    **dict.fromkeys(("U32", "I32", "F32"), 32),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 64),
}


# ---- numpy ----


def parse_npy(data: bytes | mmap.mmap, source: str) -> np.ndarray:
    """Read one array from the bytes of a `.npy` file."""
    version = data[6:8]
    width = {b"\x01\x00": 2, b"\x02\x00": 4, b"\x03\x00": 4}.get(version, 0)
    if data[:6] != b"\x93NUMPY" or not width or len(data) < 8 + width:
        msg = f"`{source}` is truncated, or no `.npy` file. Download or copy the file again."
        raise FormatError(msg)
    start = 8 + width + int.from_bytes(data[8 : 8 + width], "little")
    order, code, fortran, shape = _parse_header(data[8 + width : min(start, 8 + width + 20_000)], source)
    try:
        dtype = array_dtype(code, order)
    except Refusal as refusal:
        msg = f"`{source}` holds an array that is not of plain numbers or text: {refusal}. {_OBJECTS}."
        raise UnsafeFileError(msg) from refusal
    count = math.prod(shape)
    if len(data) - start != count * dtype.itemsize:
        what = "is truncated" if len(data) - start < count * dtype.itemsize else "has a lying header"
        msg = f"`{source}` {what}: its {len(data):,} bytes do not fit an array of shape {shape}. Get the file again."
        raise FormatError(msg)
    return _make(data[start:], dtype, shape, fortran=fortran, source=source)


_OBJECTS = (
    "Arrays of objects are pickles in disguise and are not read; load it where it was made and save it again with "
    "a dtype of numbers or text (`array.astype(str)`)"
)


def _make(raw: bytes, dtype: Any, shape: tuple[int, ...], *, fortran: bool, source: str) -> np.ndarray:
    try:
        return make_array(raw, dtype, shape, order="F" if fortran else "C")
    except (Refusal, ValueError, MemoryError) as error:
        msg = f"`{source}` is damaged: {error}. Download or copy the file again."
        raise FormatError(msg) from error


def _parse_header(header: bytes, source: str) -> tuple[str, str, bool, tuple[int, ...]]:
    found = _HEADER.fullmatch(header)
    if found is None:
        kind = "an array of objects" if b"'|O'" in header else "something other than one array of numbers or text"
        msg = f"`{source}` holds {kind}. {_OBJECTS}."
        raise UnsafeFileError(msg)
    order, code, fortran, shape = (part.decode() for part in found.groups())
    return order, code, fortran == "True", tuple(int(size) for size in shape.split(",") if size)


def read_npz(path: Path) -> dict[str, np.ndarray]:
    """Read every array of a `.npz` file."""
    with Archive(path) as archive:
        limit = 32 * archive.size + (32 << 20)
        total = sum(entry.size for entry in archive.entries.values())
        if total > limit:
            archive.unsafe(f"unpacks {archive.size:,} bytes to {total:,}")
        names = list(archive.entries)
        return {name.removesuffix(".npy"): _member(archive, name, limit) for name in names}


def _member(archive: Archive, name: str, limit: int) -> np.ndarray:
    return parse_npy(archive.read(name, limit=limit), f"{archive.path}:{shorten(name)}")


# ---- safetensors ----


def check_safetensors(path: Path, parse: Callable[[bytes, str], Any]) -> None:
    """Check the header of a safetensors file: every tensor has just its own bytes, and every byte its tensor."""
    size = path.stat().st_size
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        if length > min(MAX_HEADER, size - 8):
            msg = (
                f"`{path}` is truncated or no safetensors file: a header of {length:,} bytes in {size:,}. Get it again."
            )
            raise FormatError(msg)
        header = parse(file.read(length), f"{path}")
    if not isinstance(header, dict):
        msg = f"`{path}` is no safetensors file: its header is no JSON object."
        raise FormatError(msg)
    if len(header) > _MAX_TENSORS:
        msg = f"`{path}` names {len(header):,} tensors; a checkpoint has at most {_MAX_TENSORS:,}."
        raise UnsafeFileError(msg)
    spans = sorted((*_span(name, entry, path), name) for name, entry in header.items() if name != "__metadata__")
    at = 0
    for start, stop, name in spans:
        if start != at:
            _lies(path, name, f"lies at byte {start:,} where the one before it ends at {at:,}")
        at = stop
    if at != size - 8 - length:
        msg = f"`{path}` holds {size - 8 - length:,} bytes of tensors; its header announces {at:,}. Get the file again."
        raise FormatError(msg)


def _span(name: str, entry: Any, path: Path) -> tuple[int, int]:
    if not isinstance(entry, dict) or entry.keys() != {"dtype", "shape", "data_offsets"}:
        _lies(path, name, "lacks its dtype, shape or position")
    shape, offsets, bits = entry["shape"], entry["data_offsets"], _BITS.get(f"{entry['dtype']}")
    lists = isinstance(shape, list) and isinstance(offsets, list) and len(shape) <= _MAX_AXES
    numbers = [*shape, *offsets] if lists else [None]
    if any(type(n) is not int or not 0 <= n < 1 << 62 for n in numbers) or len(offsets) != 2 or bits is None:
        _lies(path, name, "has an unknown dtype or no valid shape and position")
    start, stop = offsets
    if (stop - start) * 8 != math.prod(shape) * bits:
        _lies(path, name, f"is given {stop - start:,} bytes, which do not fit its shape and dtype")
    return start, stop


def _lies(path: Path, name: str, what: str) -> None:
    msg = f"`{path}` has a lying header: the tensor `{shorten(name)}` {what}. Get the file from its authors."
    raise UnsafeFileError(msg)
