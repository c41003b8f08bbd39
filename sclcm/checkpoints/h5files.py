"""Names out of an HDF5 file of AnnData, without reading anything else of it or following it anywhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from sclcm.checkpoints.plain import FormatError, UnsafeFileError

if TYPE_CHECKING:
    import h5py

_MAX_NAMES = 1_000_000
_MAX_BYTES = 64 << 20
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
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC:
            msg = f"`{path}` is no HDF5 file, such as anndata writes. Get the file from its authors."
            raise FormatError(msg)
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
    if isinstance(found, h5py.Dataset) and (found.is_virtual or found.external):
        _foreign(path, name)
    return found


def _texts(stored: h5py.Dataset, path: Path, field: str | None) -> list[str]:
    if stored.ndim != 1 or stored.shape[0] > _MAX_NAMES or stored.nbytes > _MAX_BYTES:
        msg = f"`{path}` holds names of shape {stored.shape}; a list of genes has at most {_MAX_NAMES:,}."
        raise UnsafeFileError(msg)
    values = (stored[:] if field is None else stored[field]).tolist()
    names = [value.decode() if isinstance(value, bytes) else value for value in values]
    if not all(isinstance(name, str) for name in names):
        _damaged(path, "names its features by something else than text")
    return names


def _foreign(path: Path, name: str) -> NoReturn:
    msg = f"`{path}` keeps `{name}` in another place or file, which is not followed. Get the file from its authors."
    raise UnsafeFileError(msg)


def _damaged(path: Path, what: str) -> NoReturn:
    msg = f"`{path}` {what}; it is no AnnData file, or damaged. Get the file from its authors."
    raise FormatError(msg)
