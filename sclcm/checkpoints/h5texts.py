"""Lengths of texts in an HDF5 file, as they lie in it: HDF5 makes room for whatever a file claims before it looks."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from sclcm.checkpoints.plain import FormatError, UnsafeFileError

if TYPE_CHECKING:
    from pathlib import Path

    import h5py

# What stands for a text in a data set: its length, and where in the file it lies.
_ELEMENT = np.dtype([("length", "<u4"), ("heap", "<u8"), ("number", "<u4")])


def check_texts(stored: h5py.Dataset, path: Path, *, room: int) -> None:
    """Refuse a data set with a text that claims to be longer than its file, or with more than `room` bytes of texts.

    Raises
    ------
    UnsafeFileError
        It does.
    FormatError
        It is not stored as texts are.
    """
    import h5py

    if h5py.check_vlen_dtype(stored.dtype) is None and not is_text(stored.dtype):
        return
    layout, widths = stored.id.get_create_plist().get_layout(), stored.file.id.get_create_plist().get_sizes()
    if layout not in _LAYOUTS or widths != (8, 8):
        msg = f"`{path}` stores the texts of `{stored.name}` as anndata never does. Get the file from its authors."
        raise FormatError(msg)
    raw = _whole(stored, path) if stored.chunks is None else _in_pieces(stored)
    lengths = np.frombuffer(raw, dtype=_ELEMENT)["length"]
    size, longest, total = path.stat().st_size, int(lengths.max(initial=0)), int(lengths.sum(dtype=np.uint64))
    if longest > size or total > room:
        what = f"a text of {longest:,} bytes" if longest > size else f"texts of more than {room:,} bytes"
        msg = f"`{path}` of {size:,} bytes unfolds to {what} in `{stored.name}`. Get the file from its authors."
        raise UnsafeFileError(msg)


_LAYOUTS = (1, 2)  # in one piece, or in several; not in the header


def is_text(dtype: np.dtype) -> bool:
    """Whether a data set holds texts of any length."""
    import h5py

    text = h5py.check_string_dtype(dtype)
    return text is not None and text.length is None


def _whole(stored: h5py.Dataset, path: Path) -> bytes:
    offset = stored.id.get_offset()
    if offset is None:  # nothing was ever written
        return b""
    n_bytes = math.prod(stored.shape) * _ELEMENT.itemsize
    with path.open("rb") as file:
        file.seek(offset)
        raw = file.read(min(n_bytes, path.stat().st_size))
    if len(raw) != n_bytes:
        msg = f"`{path}` is truncated or damaged: it ends within `{stored.name}`. Download or copy the file again."
        raise FormatError(msg)
    return raw


def _in_pieces(stored: h5py.Dataset) -> bytes:
    """Unpack the pieces of a data set by what packed them, but not as texts: in a file of our own, in memory."""
    import h5py

    theirs, ours = stored.id.get_create_plist(), h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    ours.set_chunk(stored.chunks)
    for i in range(theirs.get_nfilters()):
        code, flags, values, _ = theirs.get_filter(i)
        ours.set_filter(code, flags, values)
    pieces: list[tuple[tuple[int, ...], int]] = []
    stored.id.chunk_iter(lambda piece: pieces.append((piece.chunk_offset, piece.filter_mask)))
    raw = np.zeros(stored.shape, dtype=f"V{_ELEMENT.itemsize}")
    with h5py.File("texts", "w", driver="core", backing_store=False, block_size=1 << 16) as scratch:
        kind = h5py.h5t.create(h5py.h5t.OPAQUE, _ELEMENT.itemsize)
        copy = h5py.h5d.create(scratch.id, b"elements", kind, stored.id.get_space(), ours)
        for place, mask in pieces:
            copy.write_direct_chunk(place, stored.id.read_direct_chunk(place)[1], mask)
        copy.read(h5py.h5s.ALL, h5py.h5s.ALL, raw)
    return raw.tobytes()
