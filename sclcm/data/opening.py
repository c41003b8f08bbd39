"""`open_adata`: a file or folder of an AnnData, opened, or an error that says what it is instead."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata

from sclcm.checkpoints.plain import FormatError
from sclcm.checkpoints.readers import find_wrong, require_file

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData

_MAGIC = b"\x89HDF\r\n\x1a\n"
# What lies in HDF5 files of other kinds -> the kind, and who reads it.
_OTHERS = {
    "matrix/barcodes": ("the counts of 10x Genomics", "scanpy.read_10x_h5"),
    "row_attrs": ("a loom file", "scanpy.read_loom"),
}


def open_adata(path: Path) -> AnnData:
    """Open an .h5ad file, its matrix left in it, or read a .zarr folder.

    Parameters
    ----------
    path
        What exists there.

    Returns
    -------
    The AnnData.

    Raises
    ------
    FormatError
        It is something else, or damaged.
    """
    if not path.is_dir():
        _check_file(path)
    try:
        return anndata.read_zarr(path) if path.is_dir() else anndata.read_h5ad(path, backed="r")
    except Exception as error:  # anndata, zarr and h5py say what they like
        msg = f"`{path}` cannot be read as an AnnData ({error}); {_remedy(path)}."
        raise FormatError(msg) from error


def _check_file(path: Path) -> None:
    require_file(path)
    with path.open("rb") as file:
        head = file.read(1024)
    if not head.startswith(_MAGIC):
        what = find_wrong(head) or "no HDF5 file. Read it by scanpy, and write it as .h5ad"
        msg = f"`{path}` is {what}; expected an .h5ad file, such as `adata.write_h5ad` writes."
        raise FormatError(msg)


def _remedy(path: Path) -> str:
    """Say what to do with a file of another kind; damaged ones are to be got again."""
    if path.is_dir():
        return "expected a folder that `adata.write_zarr` wrote, or an .h5ad file"
    import h5py

    try:
        with h5py.File(path, "r") as content:
            found = next((other for place, other in _OTHERS.items() if place in content), None)
    except (OSError, RuntimeError, KeyError):
        found = None
    if found is None:
        return "download or copy the file again"
    return f"it looks like {found[0]}: read it by `{found[1]}`, and write it by `adata.write_h5ad`"
