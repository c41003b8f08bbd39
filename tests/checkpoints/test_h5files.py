"""Names of features out of AnnData files, and nothing else."""

from __future__ import annotations

import os
import warnings
import zlib

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sclcm.checkpoints.h5files import check_h5, read_var_names
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


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="has no pipes")
@pytest.mark.parametrize("reader", [read_var_names, check_h5])
def test_pipe_is_refused_without_waiting_for_it(path, reader):
    os.mkfifo(path)
    with pytest.raises(FormatError, match=r"model\.h5ad` is no regular file"):
        reader(path)


def test_texts_that_are_one_long_text_again_and_again_are_refused(path):
    with h5py.File(path, "w") as file:
        var = file.create_group("var")
        var.attrs["_index"] = "_index"
        var.create_dataset("_index", (100_000,), dtype=h5py.string_dtype(), chunks=(1000,), fillvalue="A" * 5000)
    assert path.stat().st_size < 20_000
    for reader in (read_var_names, check_h5):
        with pytest.raises(UnsafeFileError, match=r"unfolds to texts of more than"):
            reader(path)


# ---- whole files ----


def test_files_that_anndata_writes_pass_the_check(path):
    adata = anndata.AnnData(sparse.random(50, 30, 0.2, format="csr"))
    adata.obs["a"] = pd.Categorical(["x"] * 50)
    adata.layers["dense"], adata.uns["more"] = np.zeros((50, 30)), {"a": {"b": np.arange(3), "c": "text"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # anndata's own
        adata.write_h5ad(path, compression="gzip")
    assert check_h5(path) is None


def cycle(file):
    file.create_group("a")["again"] = file["/"]


def chunk(file):
    file.create_dataset("X", (1,), maxshape=(None,), chunks=(1 << 28,), dtype="f8")


HOSTILE = {
    "another file": (lambda file: file.__setitem__("X", h5py.ExternalLink("/etc/passwd", "/")), "in another place"),
    "soft link to itself": (lambda file: file.__setitem__("X", h5py.SoftLink("/X")), "in another place"),
    "bytes elsewhere": (
        lambda file: file.create_dataset("X", (8,), dtype="u1", external=[("/etc/passwd", 0, 8)]),
        "in another place",
    ),
    "numbers without end": (lambda file: file.create_dataset("X", (1 << 40,), dtype="f8", chunks=(9,)), "announces"),
    "many such": (
        lambda file: [file.create_dataset(f"{i}", (9000, 999), "f4", chunks=(9, 9)) for i in range(9)],
        "ann",
    ),
    "sides without end": (
        lambda file: file.create_dataset("X", (1 << 40, 1 << 40), dtype="f8", chunks=(9, 9)),
        "announces",
    ),
    "a chunk of gigabytes": (chunk, "announces"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_file_that_points_elsewhere_or_unfolds_without_end_is_refused(path, name):
    make, message = HOSTILE[name]
    with h5py.File(path, "w") as file:
        make(file)
    with pytest.raises(UnsafeFileError, match=message):
        check_h5(path)


def test_group_that_holds_itself_ends_the_check(path):
    with h5py.File(path, "w") as file:
        cycle(file)
    assert check_h5(path) is None


def test_virtual_data_are_refused(path):
    layout = h5py.VirtualLayout((4,), "f8")
    layout[:] = h5py.VirtualSource("/etc/passwd", "X", (4,))
    with h5py.File(path, "w") as file:
        file.create_virtual_dataset("X", layout)
    with pytest.raises(UnsafeFileError, match="in another place"):
        check_h5(path)


def test_other_files_are_named_by_the_check(path):
    path.write_bytes(b"<html>")
    with pytest.raises(FormatError, match=r"model\.h5ad` is no HDF5 file"):
        check_h5(path)
    path.write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(3000))
    with pytest.raises(FormatError, match=r"model\.h5ad` is a damaged HDF5 file"):
        check_h5(path)


@pytest.mark.parametrize("layout", [{}, {"chunks": (2,)}, {"chunks": (2,), "compression": "gzip"}])
@pytest.mark.parametrize("reader", [read_var_names, check_h5])
def test_length_of_a_text_that_lies_is_refused_before_room_is_made_for_it(path, layout, reader):
    with h5py.File(path, "w") as file:
        var = file.create_group("var")
        var.attrs["_index"] = "_index"
        index = var.create_dataset("_index", data=np.array(NAMES, dtype=h5py.string_dtype()), **layout)
        if layout:
            mask, piece = index.id.read_direct_chunk((0,))
            lying = b"\xff\xff\xff\x7f" + (zlib.decompress(piece) if "compression" in layout else piece)[4:]
            index.id.write_direct_chunk((0,), zlib.compress(lying) if "compression" in layout else lying, mask)
        where = index.id.get_offset()
    raw = bytearray(path.read_bytes())
    if not layout:
        raw[where : where + 4] = b"\xff\xff\xff\x7f"
    path.write_bytes(raw)
    with pytest.raises(UnsafeFileError, match=r"unfolds to a text of 2,147,483,647 bytes in `/var/_index`"):
        reader(path)


@pytest.mark.parametrize("layout", [{"shuffle": True, "compression": "gzip"}, {"compression": "lzf"}])
def test_packed_texts_are_read(path, layout):
    with h5py.File(path, "w") as file:
        var = file.create_group("var")
        var.attrs["_index"] = "_index"
        var.create_dataset("_index", data=np.array(NAMES, dtype=h5py.string_dtype()), chunks=(2,), **layout)
    assert read_var_names(path) == NAMES
    assert check_h5(path) is None


def test_texts_in_a_header_are_refused(path):
    plan = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plan.set_layout(h5py.h5d.COMPACT)
    with h5py.File(path, "w") as file:
        var = file.create_group("var")
        var.attrs["_index"] = "_index"
        h5py.h5d.create(
            var.id, b"_index", h5py.h5t.py_create(h5py.string_dtype(), logical=True), h5py.h5s.create_simple((3,)), plan
        )
    with pytest.raises(FormatError, match="stores the texts of `/var/_index` as anndata never does"):
        read_var_names(path)


def test_piece_that_is_larger_than_its_file_is_refused(path):
    with h5py.File(path, "w") as file:
        data = file.create_dataset("X", data=np.arange(1000.0), chunks=(1000,), compression="gzip")
        size = data.id.get_chunk_info(0).size
    raw = path.read_bytes()
    path.write_bytes(raw.replace(size.to_bytes(4, "little") + bytes(4), b"\xff\xff\xff\x7f" + bytes(4)))
    assert path.read_bytes() != raw
    with pytest.raises(FormatError, match="has a piece of `/X` of more bytes than the file"):
        check_h5(path)
