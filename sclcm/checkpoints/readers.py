"""Published files -> tensors or plain Python data, by what they contain and never by what they ask for."""

from __future__ import annotations

import json
import mmap
import re
import stat
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sclcm.checkpoints.arrayfiles import MAX_HEADER, check_safetensors, parse_npy, read_npz
from sclcm.checkpoints.plain import FormatError, UnsafeFileError, shorten
from sclcm.checkpoints.protofiles import ENCRYPTED, is_proto_checkpoint, read_proto_tensors
from sclcm.checkpoints.rebuild import RECORDS
from sclcm.checkpoints.torchfiles import Ways, allowed_names, is_legacy, read_legacy, read_zip
from sclcm.checkpoints.unpickle import Machine

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence

    import numpy as np
    import torch

_MAX_JSON = 64 << 20
_MAX_JSON_PARTS = 1_000_000
_SMALL = 64 << 20


def read_tensors(
    path: str | Path, *, key: str | Sequence[str] | None = None, mapped: bool = False
) -> dict[str, torch.Tensor]:
    """Read a flat dictionary of tensors from a safetensors, torch, npz or MindSpore file, whatever its suffix.

    Parameters
    ----------
    path
        The file.
    key
        Where the tensors lie in a nested checkpoint, such as `"state_dict"`, or `("gene", "state_dict")`.
    mapped
        Leave the tensors of a safetensors file, and large ones of a torch file, in it until they are used. Only for
        files that are replaced and never written into: what is written there shows in the tensors.

    Returns
    -------
    Tensor of each name, on the CPU, without gradients; tensors that share memory in the file share it here.
    """
    path = Path(path)
    kind = sniff(path)
    if kind in {"safetensors", "npz", "MindSpore"} and key is not None:
        msg = f"`{path}` is a flat file of tensors; `key={key!r}` has nothing to choose from. Leave it out."
        raise ValueError(msg)
    if kind == "safetensors":
        tensors = _read_safetensors(path)
        return tensors if mapped else {name: tensor.clone() for name, tensor in tensors.items()}
    if kind == "npz":
        return _tensors_of_arrays(path)
    if kind == "MindSpore":
        return read_proto_tensors(path)
    content = read_torch(path, ways="mapped" if mapped else "read")
    return _flat_tensors(content, path, (key,) if isinstance(key, str) else tuple(key or ()))


def read_torch(path: str | Path, *, inert: Collection[str] = (), ways: Ways = "read") -> Any:
    """Read a file of `torch.save`, or a pickle with tensors, into plain Python data.

    Parameters
    ----------
    path
        The file: zip archive, the older format, or a plain pickle.
    inert
        Full names of classes and functions (`"functools.partial"`) whose instances are kept as inert `Record` objects,
        as those of a few classes of plain settings (`argparse.Namespace`, paths, dates) always are.
    ways
        `"mapped"` leaves large tensors of a zip archive in the file until they are used, as `read_tensors` says;
        `"blank"` leaves out the numbers of its tensors, which are then on the device `meta`.

    Returns
    -------
    Dictionaries, lists, tuples, sets, text, numbers, arrays, tensors, and a `Record` for each instance in `inert`.
    """
    path, names = Path(path), RECORDS | frozenset(inert)
    kind = sniff(path)
    if kind == "zip":
        return read_zip(path, inert=names, ways=ways)
    data = _contents(path)
    if kind == "legacy":
        return read_legacy(data, f"{path}", inert=names)
    if kind != "pickle":
        _refuse_kind(path, kind, "a pickle or a file of `torch.save`")
    return Machine(data, source=f"{path}", table=allowed_names(f"{path}"), inert=names).load()


def read_checkpoint(
    path: str | Path, *, tensors: str, settings: str, within: str | None = None
) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Read a file of `torch.save` with tensors under one key and the settings of the model under another.

    Parameters
    ----------
    path
        The file.
    tensors
    settings
        The two keys.
    within
        The entry with the two, in a file that holds several models.

    Returns
    -------
    Tensor of each name, and the settings by name.
    """
    path = Path(path)
    content = read_torch(path)
    if within is not None:
        if not isinstance(content, dict) or within not in content:
            msg = f"`{path}` has no entry {within!r}; it holds {_some(content)}."
            raise FormatError(msg)
        content = content[within]
    found = content.get(settings) if isinstance(content, dict) else None
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        msg = f"`{path}` has no settings under {settings!r}; it holds {_some(content)}."
        raise FormatError(msg)
    return _flat_tensors(content, path, (tensors,)), found


def read_pickle(path: str | Path) -> Any:
    """Read a pickled dictionary (or any plain data, with numpy arrays and numbers) without running anything in it."""
    return read_torch(path)


def read_json(path: str | Path, *, nan: bool = False) -> Any:
    """Read a JSON file of bounded size and nesting, in which no object names a key twice.

    Parameters
    ----------
    path
        The file.
    nan
        Accept `NaN` and `Infinity`, which Python writes but JSON does not know.

    Returns
    -------
    Dictionaries, lists, text, numbers, truth values and `None`.
    """
    path = Path(path)
    sniff(path)
    size = path.stat().st_size
    if size > _MAX_JSON:
        msg = f"`{path}` has {size:,} bytes; a JSON file of a checkpoint has at most {_MAX_JSON:,}."
        raise UnsafeFileError(msg)
    return _parse_json(path.read_bytes(), f"{path}", nan=nan)


def read_array(path: str | Path) -> np.ndarray | dict[str, np.ndarray]:
    """Read a `.npy` file as an array, or a `.npz` file as a dictionary of arrays; never arrays of objects."""
    path = Path(path)
    kind = sniff(path)
    if kind == "npy":
        return parse_npy(_contents(path), f"{path}")
    if kind != "npz":
        _refuse_kind(path, kind, "a `.npy` or `.npz` file")
    return read_npz(path)


# ---- what a file is ----

_PAGE = "a web page, not the file. The download needs a login, a confirmation or another address"
_WRONG: Mapping[bytes, str] = {
    b"version https://git-lfs": "a git-LFS pointer: a note of 3 lines in place of the file. Run `git lfs pull`, or "
    "download the file itself",
    b"<?xml": "an XML answer of a server, not the file. The download needs another address or permission",
    b"<": _PAGE,
    b"\x89hdf": "an HDF5 file; checkpoints are not read from HDF5",
    b"\x1f\x8b": "compressed with gzip. Unpack it first",
    b"bzh": "compressed with bzip2. Unpack it first",
    b"\xfd7zxz": "compressed with xz. Unpack it first",
    b"\x28\xb5\x2f\xfd": "compressed with zstd. Unpack it first",
}
_SENTENCE = re.compile(rb"[A-Za-z][A-Za-z ,.'!:;-]{3,400}\s*")


def require_file(path: Path) -> None:
    """Refuse what is no regular file: opening a pipe would wait for ever."""
    if not stat.S_ISREG(path.stat().st_mode):
        msg = f"`{path}` is no regular file. Name a file that lies on disk."
        raise FormatError(msg)


def _start(head: bytes) -> bytes:
    return head.removeprefix(b"\xef\xbb\xbf").lstrip().lower()


def find_wrong(head: bytes) -> str | None:
    """Say what the first bytes of a file are, if they are those of no file that was meant, and what to do then."""
    if not head:
        return "empty. Download or copy it again"
    if head.startswith(ENCRYPTED):
        return "encrypted. Load it with its key in MindSpore, and save it again without one"
    if head[257:262] == b"ustar":
        return "a tar archive. Unpack it first"
    if _SENTENCE.fullmatch(head):
        return f"a text ({shorten(head[:60].decode().strip().replace(' ', '_'))}), not the file. Download it again"
    return next((what for magic, what in _WRONG.items() if _start(head).startswith(magic)), None)


def sniff(path: Path) -> str:
    """Tell what a file is from its first bytes; refuse an empty one, a web page and a git-LFS pointer."""
    require_file(path)
    with path.open("rb") as file:
        head = file.read(1024)
    if is_proto_checkpoint(head):  # first: its lengths may look like any text
        return "MindSpore"
    if (wrong := find_wrong(head)) is not None:
        msg = f"`{path}` is {wrong}."
        raise FormatError(msg)
    start = _start(head)
    magics = {b"PK\x03\x04": "zip", b"PK\x05\x06": "zip", b"\x93NUMPY": "npy"}
    kind = "legacy" if is_legacy(head) else "pickle"
    kind = next((name for magic, name in magics.items() if head.startswith(magic)), kind)
    if kind == "zip":
        first = head[30 : 30 + int.from_bytes(head[26:28], "little")]
        return "npz" if first.endswith(b".npy") else "zip"
    if kind != "pickle" or (head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= MAX_HEADER):
        return kind if kind != "pickle" else "safetensors"
    if start.startswith((b"{", b"[")):
        return "JSON"
    return "safetensors" if path.suffix == ".safetensors" else kind


def _refuse_kind(path: Path, kind: str, wanted: str) -> NoReturn:
    found = "JSON text, perhaps the error message of a server," if kind == "JSON" else f"{kind} file"
    msg = f"`{path}` is a {found} where {wanted} is expected. Use the reader for it, or get the right file."
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
            under = f" under {'/'.join(map(str, keys[:i]))!r}" if i else ""
            msg = f"`{path}` has no key {key!r}{under}; it holds {_some(value)}. Get the file from its authors."
            raise FormatError(msg)
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
    if total > min(64 * size, 4 * size + (1 << 30)):
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


def _parse_json(data: bytes, source: str, *, nan: bool = False) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(pairs)
        if len(found) != len(pairs):
            twice = Counter(name for name, _ in pairs).most_common(1)[0][0]
            msg = f"`{source}` names the key `{shorten(twice)}` twice. Get the file from its authors."
            raise UnsafeFileError(msg)
        return found

    def constant(name: str) -> None:
        msg = f"{name} is no number"
        raise ValueError(msg)

    if (parts := data.count(b"[") + data.count(b"{")) > _MAX_JSON_PARTS:
        msg = (
            f"`{source}` has {parts:,} lists and objects; a JSON file of a checkpoint has at most {_MAX_JSON_PARTS:,}."
        )
        raise UnsafeFileError(msg)
    try:
        return json.loads(data, object_pairs_hook=unique, parse_constant=None if nan else constant)
    except UnsafeFileError:
        raise
    except RecursionError as error:
        msg = f"`{source}` nests too deeply for a JSON file of a checkpoint."
        raise UnsafeFileError(msg) from error
    except ValueError as error:
        msg = f"`{source}` is no valid JSON ({error}). Download or copy the file again."
        raise FormatError(msg) from error
