"""Published files -> tensors or plain Python data, by what they contain and never by what they ask for."""

from __future__ import annotations

import json
import mmap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sclcm.checkpoints.arrayfiles import check_safetensors, parse_npy, read_npz
from sclcm.checkpoints.plain import FormatError, UnsafeFileError, shorten
from sclcm.checkpoints.torchfiles import allowed_names, is_legacy, read_legacy, read_zip
from sclcm.checkpoints.unpickle import Machine

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import numpy as np
    import torch

_MAX_JSON = 512 << 20
_SMALL = 64 << 20


def read_tensors(path: str | Path, *, key: str | Sequence[str] | None = None) -> dict[str, torch.Tensor]:
    """Read a flat dictionary of tensors from a safetensors, torch or npz file, whatever its suffix.

    Parameters
    ----------
    path
        The file.
    key
        Where the tensors lie in a nested checkpoint, such as `"state_dict"`, or `("gene", "state_dict")`.

    Returns
    -------
    Tensor of each name, on the CPU, without gradients; tensors that share memory in the file share it here.
    """
    path = Path(path)
    kind = sniff(path)
    if kind in {"safetensors", "npz"} and key is not None:
        msg = f"`{path}` is a flat file of tensors; `key={key!r}` has nothing to choose from. Leave it out."
        raise ValueError(msg)
    if kind == "safetensors":
        return _read_safetensors(path)
    if kind == "npz":
        return _tensors_of_arrays(path)
    return _flat_tensors(read_torch(path), path, (key,) if isinstance(key, str) else tuple(key or ()))


def read_torch(path: str | Path, *, inert: Collection[str] = ()) -> Any:
    """Read a file of `torch.save`, or a pickle with tensors, into plain Python data.

    Parameters
    ----------
    path
        The file: zip archive, the older format, or a plain pickle.
    inert
        Full names of classes and functions (`"functools.partial"`) whose instances are kept as inert `Record` objects.

    Returns
    -------
    Dictionaries, lists, tuples, sets, text, numbers, arrays, tensors, and a `Record` for each instance in `inert`.
    """
    path, names = Path(path), frozenset(inert)
    kind = sniff(path)
    if kind == "zip":
        return read_zip(path, inert=names)
    data = _contents(path)
    if kind == "legacy":
        return read_legacy(data, f"{path}", inert=names)
    _require(kind == "pickle", f"`{path}` is a {kind} file where a pickle or a file of `torch.save` is expected")
    return Machine(data, source=f"{path}", table=allowed_names(f"{path}"), inert=names).load()


def read_pickle(path: str | Path) -> Any:
    """Read a pickled dictionary (or any plain data, with numpy arrays and numbers) without running anything in it."""
    return read_torch(path)


def read_json(path: str | Path) -> Any:
    """Read a JSON file of bounded size and nesting, in which no object names a key twice."""
    path = Path(path)
    sniff(path)
    size = path.stat().st_size
    if size > _MAX_JSON:
        msg = f"`{path}` has {size:,} bytes; a JSON file of a checkpoint has at most {_MAX_JSON:,}."
        raise UnsafeFileError(msg)
    return _parse_json(path.read_bytes(), f"{path}")


def read_array(path: str | Path) -> np.ndarray | dict[str, np.ndarray]:
    """Read a `.npy` file as an array, or a `.npz` file as a dictionary of arrays; never arrays of objects."""
    path = Path(path)
    kind = sniff(path)
    if kind == "npy":
        return parse_npy(_contents(path), f"{path}")
    _require(kind == "npz", f"`{path}` is a {kind} file where a `.npy` or `.npz` file is expected")
    return read_npz(path)


# ---- what a file is ----

_WRONG: Mapping[bytes, str] = {
    b"version https://git-lfs": "a git-LFS pointer: a note of 3 lines in place of the file. Run `git lfs pull`, or "
    "download the file itself",
    b"<!doctype html": "a web page, not the file. The download needs a login, a confirmation or another address",
    b"<html": "a web page, not the file. The download needs a login, a confirmation or another address",
    b"<?xml": "an XML answer of a server, not the file. The download needs another address or permission",
    b"\x89hdf": "an HDF5 file; checkpoints are not read from HDF5",
    b"\x1f\x8b": "compressed with gzip. Unpack it first",
}


def sniff(path: Path) -> str:
    """Tell what a file is from its first bytes; refuse an empty one, a web page and a git-LFS pointer."""
    with path.open("rb") as file:
        head = file.read(512)
    start = head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    wrong = next((what for magic, what in _WRONG.items() if start.startswith(magic)), None)
    if not head:
        wrong = "empty. Download or copy it again"
    if wrong is not None:
        msg = f"`{path}` is {wrong}."
        raise FormatError(msg)
    magics = {b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"\x93NUMPY": "npy"}
    kind = "legacy" if is_legacy(head) else "pickle"
    kind = next((name for magic, name in magics.items() if head.startswith(magic)), kind)
    if kind == "zip":
        first = head[30 : 30 + int.from_bytes(head[26:28], "little")]
        return "npz" if first.endswith(b".npy") else "zip"
    header = head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= 100_000_000
    return "safetensors" if kind == "pickle" and (header or path.suffix == ".safetensors") else kind


def _require(condition: object, what: str) -> None:
    if not condition:
        msg = f"{what}. Use the reader for it, or get the right file."
        raise FormatError(msg)


def _contents(path: Path) -> bytes | mmap.mmap:
    if path.stat().st_size <= _SMALL:
        return path.read_bytes()
    with path.open("rb") as file:
        return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)


# ---- tensors ----


def _read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    check_safetensors(path, _parse_json)
    import safetensors
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except safetensors.SafetensorError as error:
        msg = f"`{path}` is a damaged safetensors file ({error}). Download or copy the file again."
        raise FormatError(msg) from error


def _tensors_of_arrays(path: Path) -> dict[str, torch.Tensor]:
    import torch

    arrays = read_array(path)
    bad = [name for name, array in arrays.items() if array.dtype.kind in "SU"] if isinstance(arrays, dict) else []
    if bad or not isinstance(arrays, dict):
        msg = f"`{path}` holds text in {_some(bad)}, which is no tensor. Read it with `read_array`."
        raise FormatError(msg)
    return {
        name: torch.from_numpy(array.astype(array.dtype.newbyteorder("="), copy=False))
        for name, array in arrays.items()
    }


def _flat_tensors(value: Any, path: Path, keys: tuple[str, ...]) -> dict[str, torch.Tensor]:
    import torch

    for i, key in enumerate(keys):
        if not isinstance(value, dict) or key not in value:
            msg = f"`{path}` has no key {key!r} under {keys[:i]}; it holds {_some(value)}."
            raise KeyError(msg)
        value = value[key]
    if not isinstance(value, dict) or not value:
        msg = f"`{path}` holds {_some(value)} instead of a dictionary of tensors. Name where they are with `key`."
        raise FormatError(msg)
    others = [name for name, item in value.items() if not isinstance(name, str) or not isinstance(item, torch.Tensor)]
    if others:
        nested = [name for name in others if isinstance(value[name], dict)]
        hint = f"Name the dictionary to read with `key`: {_some(nested)}." if nested else "Read it with `read_torch`."
        msg = f"`{path}` is not a flat dictionary of tensors: {_some(others)} are something else. {hint}"
        raise FormatError(msg)
    _check_total(value, path)
    return value


def _check_total(tensors: Mapping[str, torch.Tensor], path: Path) -> None:
    total, size = sum(tensor.nbytes for tensor in tensors.values()), path.stat().st_size
    if total > 64 * size:
        msg = f"`{path}` of {size:,} bytes unfolds to tensors of {total:,} bytes. Get the file from its authors."
        raise UnsafeFileError(msg)


def _some(names: Any) -> str:
    if not isinstance(names, (dict, list)):
        return f"an object of type `{type(names).__name__}`"
    shown = [
        f"`{shorten(str(name)[:80]) if isinstance(name, (str, int)) else type(name).__name__}`"
        for name in list(names)[:6]
    ]
    more = f" and {len(names) - 6:,} more" if len(names) > 6 else ""
    return (", ".join(shown) or "nothing") + more


# ---- JSON ----


def _parse_json(data: bytes, source: str) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in found if names.count(name) > 1)
            msg = f"`{source}` names the key `{shorten(twice)}` twice. Get the file from its authors."
            raise UnsafeFileError(msg)
        return found

    try:
        return json.loads(data, object_pairs_hook=unique)
    except UnsafeFileError:
        raise
    except RecursionError as error:
        msg = f"`{source}` nests too deeply for a JSON file of a checkpoint."
        raise UnsafeFileError(msg) from error
    except ValueError as error:
        msg = f"`{source}` is no valid JSON ({error}). Download or copy the file again."
        raise FormatError(msg) from error
