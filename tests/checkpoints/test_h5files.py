"""Names of features out of AnnData files, and nothing else."""

from __future__ import annotations

import warnings

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest

from sclcm.checkpoints.h5files import read_var_names
from sclcm.checkpoints.plain import FormatError, UnsafeFileError

NAMES = ["ENSG00000000003", "ENSMUSG00000000001", "größer"]


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.h5ad"


def test_names_come_in_the_order_of_the_file(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's own
        anndata.AnnData(np.ones((1, 3)), var=pd.DataFrame(index=NAMES)).write_h5ad(path)
    assert read_var_names(path) == NAMES


def test_index_with_a_name_is_found(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        anndata.AnnData(np.ones((1, 3)), var=pd.DataFrame(index=pd.Index(NAMES, name="gene"))).write_h5ad(path)
    assert read_var_names(path) == NAMES


def test_tables_of_early_versions_are_read(path):
    with h5py.File(path, "w") as file:
        file["var"] = np.array([(b"A", 1), (b"B", 2)], dtype=[("index", "S3"), ("n", "i4")])
    assert read_var_names(path) == ["A", "B"]


def test_texts_that_may_be_missing_are_read_as_anndata_writes_them_now(path):
    with h5py.File(path, "w") as file:
        var = file.create_group("var")
        var.attrs["_index"] = "_index"
        index = var.create_group("_index")
        index.attrs["encoding-type"] = "nullable-string-array"
        index["values"], index["mask"] = np.array(NAMES, dtype=h5py.string_dtype()), np.zeros(3, dtype=bool)
    assert read_var_names(path) == NAMES


def group(path, **members):
    with h5py.File(path, "w") as file:
        var = file.create_group("var")
        var.attrs["_index"] = "_index"
        for name, member in members.items():
            var[name] = member


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, "lacks `_index`"),
        ({"_index": np.array([], dtype="S3")}, "names no features"),
        ({"_index": np.arange(3)}, "something else than text"),
        ({"_index": np.array([b"\xff\xfe"])}, "cannot be read"),
    ],
)
def test_what_is_no_list_of_names_is_refused(path, members, message):
    group(path, **members)
    with pytest.raises(FormatError, match=message):
        read_var_names(path)


def test_other_files_are_not_followed(path, tmp_path):
    group(tmp_path / "other.h5", _index=np.array([b"A"]))
    group(path, _index=h5py.ExternalLink("other.h5", "/var/_index"))
    with pytest.raises(UnsafeFileError, match="which is not followed"):
        read_var_names(path)
    group(path, _index=h5py.SoftLink("/etc"))
    with pytest.raises(UnsafeFileError, match="which is not followed"):
        read_var_names(path)


def test_data_in_other_files_is_not_read(path, tmp_path):
    (tmp_path / "raw").write_bytes(b"abc")
    with h5py.File(path, "w") as file:
        file.create_group("var").create_dataset("_index", (1,), "S3", external=[(str(tmp_path / "raw"), 0, 3)])
    with pytest.raises(UnsafeFileError, match="which is not followed"):
        read_var_names(path)


def test_endless_list_is_refused(path):
    with h5py.File(path, "w") as file:
        file.create_group("var").create_dataset("_index", (10**9,), "S30", chunks=(1024,))
    with pytest.raises(UnsafeFileError, match="at most 1,000,000"):
        read_var_names(path)


def test_matrix_of_names_is_refused(path):
    group(path, _index=np.array([[b"A", b"B"]]))
    with pytest.raises(UnsafeFileError, match=r"shape \(1, 2\)"):
        read_var_names(path)


def test_other_and_damaged_files_are_refused(path):
    path.write_text("no HDF5")
    with pytest.raises(FormatError, match="no HDF5 file"):
        read_var_names(path)
    group(path, _index=np.array([b"A"] * 1000))
    path.write_bytes(path.read_bytes()[:700])
    with pytest.raises(FormatError, match=r"cannot be read|lacks"):
        read_var_names(path)
    with h5py.File(path, "w") as file:
        file["obs"] = 1
    with pytest.raises(FormatError, match="lacks `var`"):
        read_var_names(path)
