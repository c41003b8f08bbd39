"""`open_adata`: files and folders of AnnData, and what is none."""

from __future__ import annotations

import os

import anndata as ad
import h5py
import numpy as np
import pytest

from sclcm.checkpoints.plain import FormatError
from sclcm.data.opening import open_adata


def test_files_are_opened_backed(tmp_path):
    ad.AnnData(np.ones((3, 2), dtype=np.float32)).write_h5ad(tmp_path / "cells.h5ad")
    opened = open_adata(tmp_path / "cells.h5ad")
    assert opened.isbacked
    assert opened.shape == (3, 2)


OTHERS = {
    "page": (b"<html><body>sign in</body></html>", "is a web page, not the file"),
    "pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3\n", "is a git-LFS pointer"),
    "empty": (b"", "is empty"),
    "gzip": (b"\x1f\x8b\x08\0", "is compressed with gzip"),
    "table": (b"cell,CD3E\na,1\n", "is no HDF5 file. Read it by scanpy"),
    "cut": (b"\x89HDF\r\n\x1a\n" + bytes(200), "cannot be read as an AnnData .* download or copy the file again"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_what_is_no_file_of_an_anndata_is_named(tmp_path, name):
    content, message = OTHERS[name]
    path = tmp_path / "cells.h5ad"
    path.write_bytes(content)
    with pytest.raises(FormatError, match=rf"cells\.h5ad` {message}"):
        open_adata(path)


@pytest.mark.parametrize(
    ("place", "message"),
    [
        ("matrix/barcodes", "the counts of 10x Genomics: read it by `scanpy.read_10x_h5`"),
        ("row_attrs/Gene", "a loom file: read it by `scanpy.read_loom`"),
        ("other", "download or copy"),
    ],
)
def test_hdf5_files_of_other_kinds_are_told_with_their_readers(tmp_path, place, message):
    with h5py.File(tmp_path / "cells.h5", "w") as file:
        file[place] = np.arange(3)
    with pytest.raises(FormatError, match=message):
        open_adata(tmp_path / "cells.h5")


def test_folders_that_are_no_stores_are_named(tmp_path):
    with pytest.raises(FormatError, match=r"cannot be read as an AnnData .*a folder that `adata.write_zarr` wrote"):
        open_adata(tmp_path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes")
def test_pipe_is_refused_without_waiting_for_it(tmp_path):
    os.mkfifo(tmp_path / "cells.h5ad")
    with pytest.raises(FormatError, match="is no regular file"):
        open_adata(tmp_path / "cells.h5ad")
