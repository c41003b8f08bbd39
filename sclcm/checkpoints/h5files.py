"""HDF5 files of AnnData: the names of features, read without anything else; and the check of a whole file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sclcm.checkpoints.h5texts import check_texts, is_text
from sclcm.checkpoints.plain import FormatError, UnsafeFileError
from sclcm.checkpoints.readers import require_file

if TYPE_CHECKING:
    from collections.abc import Iterator

    import h5py
    import numpy as np

_MAX_NAMES = 1_000_000
_MAX_BYTES = 64 << 20
_MAX_RATIO = 64  # of what a file unfolds to, to its size
_MAX_OBJECTS = 100_000
_MAGIC = b"\x89HDF\r\n\x1a\n"
# What h5py raises on damaged files.
_UNREADABLE = (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, UnicodeDecodeError)


def read_var_names(path: str | Path) -> list[str]:
    """Read the names of the features of an AnnData file, in its order, from `var` alone.

    Parameters
    ----------
    path
        An .h5ad file of any version of anndata.

    Returns
    -------
    The names.

    Raises
    ------
    FormatError
        The file is no AnnData file, or damaged.
    UnsafeFileError
        It points to other files, or holds more names than any list of genes.
    """
    import h5py

    path = Path(path)
    _check_start(path)
    try:
        with h5py.File(path, "r") as content:
            names = _names(content, path)
    except (FormatError, UnsafeFileError):
        raise
    except _UNREADABLE as error:
        msg = f"`{path}` cannot be read as an AnnData file ({error}). Download or copy the file again."
        raise FormatError(msg) from error
    if not names:
        msg = f"`{path}` names no features in `var`. Get the file from its authors."
        raise FormatError(msg)
    return names


def _check_start(path: Path) -> None:
    require_file(path)
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            msg = f"`{path}` is no HDF5 file, such as anndata writes. Get the file from its authors."
            raise FormatError(msg)


def _names(content: h5py.File, path: Path) -> list[str]:
    import h5py

    var = _own(content, "var", path)
    if isinstance(var, h5py.Dataset):  # anndata before 0.7 kept tables as records
        fields = var.dtype.names or ()
        key = next((name for name in ("index", "_index") if name in fields), None)
        if key is None:
            _damaged(path, "has a table `var` without an index")
        return _texts(var, path, key)
    key = var.attrs.get("_index", "_index")
    name = key.decode() if isinstance(key, bytes) else str(key)
    index = _own(var, name, path)
    if isinstance(index, h5py.Group) and "values" in index:  # anndata 0.13 keeps beside texts which of them are missing
        index = _own(index, "values", path)
    if not isinstance(index, h5py.Dataset):
        _damaged(path, f"has an index `var/{name}` that is no list of names")
    return _texts(index, path, None)


def _own(group: h5py.Group, name: str, path: Path) -> Any:
    """Return a member that lies in the file itself."""
    import h5py

    if "/" in name or group.get(name, getlink=True) is None:
        _damaged(path, f"lacks `{name}`")
    if not isinstance(group.get(name, getlink=True), h5py.HardLink):
        _foreign(path, name)
    found = group[name]
    if isinstance(found, h5py.Dataset):
        if found.is_virtual or found.external:
            _foreign(path, name)
        _check_pieces(found, path)
    return found


def _check_pieces(stored: h5py.Dataset, path: Path) -> None:
    """Refuse pieces that are larger than the file: HDF5 makes room for one before it looks for it."""
    size = path.stat().st_size
    if stored.chunks is not None and stored.id.chunk_iter(lambda chunk: chunk.size > size or None):
        _damaged(path, f"has a piece of `{stored.name}` of more bytes than the file")


def _texts(stored: h5py.Dataset, path: Path, field: str | None) -> list[str]:
    if stored.ndim != 1 or stored.shape[0] > _MAX_NAMES or stored.nbytes > _MAX_BYTES:
        msg = f"`{path}` holds names of shape {stored.shape}; a list of genes has at most {_MAX_NAMES:,}."
        raise UnsafeFileError(msg)
    values = [value for block in _blocks(stored, path, field) for value in block.tolist()]
    names = [value.decode() if isinstance(value, bytes) else value for value in values]
    if not all(isinstance(name, str) for name in names):
        _damaged(path, "names its features by something else than text")
    return names


def _blocks(stored: h5py.Dataset, path: Path, field: str | None = None) -> Iterator[np.ndarray]:
    """Read a list of texts piece by piece; refuse one in which many entries are the same long text."""
    check_texts(stored, path, room=_MAX_BYTES)
    n_rows = stored.shape[0]
    step = max(1, _MAX_BYTES // max(path.stat().st_size, 1))  # no text is longer than the file that holds it
    total = 0
    for start in range(0, n_rows, step):
        block = stored[start : start + step]
        yield (block := block if field is None else block[field])
        total += sum(len(value) for value in block.tolist() if isinstance(value, (str, bytes)))
        if total > _MAX_BYTES:
            msg = f"`{path}` unfolds to texts of more than {_MAX_BYTES:,} bytes. Get the file from its authors."
            raise UnsafeFileError(msg)


# ---- whole files ----


def check_h5(path: str | Path) -> None:
    """Refuse an HDF5 file that points to anything outside it, or unfolds to far more than it holds.

    Raises
    ------
    FormatError
        The file is no HDF5 file, or damaged.
    UnsafeFileError
        It holds links or data in other places, or announces more numbers than it could hold.
    """
    import h5py

    path = Path(path)
    _check_start(path)
    try:
        with h5py.File(path, "r") as content:
            _check_members(content, path)
    except (FormatError, UnsafeFileError):
        raise
    except _UNREADABLE as error:
        msg = f"`{path}` is a damaged HDF5 file ({error}). Download or copy the file again."
        raise FormatError(msg) from error


def _check_members(content: h5py.File, path: Path) -> None:
    import h5py

    room = _MAX_RATIO * path.stat().st_size + _MAX_BYTES
    groups, seen = [content["/"]], set()
    while groups:
        group = groups.pop()
        for name in group:
            found = _own(group, name, path)
            address = h5py.h5o.get_info(found.id).addr
            if address in seen:
                continue
            seen.add(address)
            if isinstance(found, h5py.Group):
                groups.append(found)
            elif isinstance(found, h5py.Dataset):
                room -= _weight(found, path)
            if room < 0 or len(seen) > _MAX_OBJECTS:
                msg = f"`{path}` announces far more data than it holds. Get the file from its authors."
                raise UnsafeFileError(msg)


def _weight(stored: h5py.Dataset, path: Path) -> int:
    """Return the bytes that reading a data set takes, of a chunk of it at least; texts are looked at."""
    sides = [stored.shape or (), stored.chunks or ()]
    weight = max(math.prod(side) for side in sides) * stored.dtype.itemsize
    if weight <= _MAX_RATIO * _MAX_BYTES:
        check_texts(stored, path, room=_MAX_RATIO * _MAX_BYTES)
        if is_text(stored.dtype) and len(sides[0]) == 1:
            for _ in _blocks(stored, path):
                pass
    return weight


def _foreign(path: Path, name: str) -> NoReturn:
    msg = f"`{path}` keeps `{name}` in another place or file, which is not followed. Get the file from its authors."
    raise UnsafeFileError(msg)


def _damaged(path: Path, what: str) -> NoReturn:
    msg = f"`{path}` {what}; it is no AnnData file, or damaged. Get the file from its authors."
    raise FormatError(msg)
