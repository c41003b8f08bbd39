from __future__ import annotations

from types import SimpleNamespace

import anndata as ad
import h5py
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sclcm.data.matrix import _of_file, choose_matrix, layer_names

COUNTS = np.array([[0, 3, 0, 1], [2, 0, 0, 0], [0, 0, 0, 0], [1, 1, 5, 9], [0, 7, 0, 0]])


def unsorted_with_duplicates() -> sparse.csr_matrix:
    """Hold `COUNTS`: indices backwards, the 9 stored as 4 + 5, zeros stored too."""
    data = np.array([1, 3, 0, 2, 4, 5, 5, 1, 1, 7], dtype=np.float32)
    indices = np.array([3, 1, 0, 0, 3, 3, 2, 1, 0, 1])
    return sparse.csr_matrix((data, indices, np.array([0, 3, 4, 4, 9, 10])), shape=COUNTS.shape)


def as_dask(values: np.ndarray | sparse.spmatrix, chunks: tuple[int, int] = (2, -1)) -> object:
    return pytest.importorskip("dask.array").from_array(values, chunks=chunks, asarray=False)


STORED = {
    "C order": lambda: COUNTS.astype(np.float32),
    "Fortran order": lambda: np.asfortranarray(COUNTS.astype(np.float32)),
    "float64": lambda: COUNTS.astype(np.float64),
    "float16": lambda: COUNTS.astype(np.float16),
    "int64": lambda: COUNTS.astype(np.int64),
    "uint8": lambda: COUNTS.astype(np.uint8),
    "csr matrix": lambda: sparse.csr_matrix(COUNTS),
    "csc matrix": lambda: sparse.csc_matrix(COUNTS.astype(np.float32)),
    "csr array": lambda: sparse.csr_array(COUNTS.astype(np.float32)),
    "csc array": lambda: sparse.csc_array(COUNTS.astype(np.float32)),
    "unsorted, duplicates, stored zeros": unsorted_with_duplicates,
    "dask of numpy": lambda: as_dask(COUNTS.astype(np.float32)),
    "dask by columns": lambda: as_dask(COUNTS.astype(np.float32), (-1, 2)),
    "dask of csc by columns": lambda: as_dask(sparse.csc_matrix(COUNTS.astype(np.float32)), (-1, 2)),
    "dask of csr": lambda: as_dask(sparse.csr_matrix(COUNTS.astype(np.float32))),
}


@pytest.mark.parametrize("kind", STORED)
def test_rows_that_share_memory_with_the_source_cannot_be_written_to(kind: str):
    stored = STORED[kind]()
    source = choose_matrix(ad.AnnData(stored))
    for start, stop in ((0, 2), (1, 5), (2, 99), (0, 0)):
        rows = source.view(start, stop)
        assert rows.has_canonical_format
        assert np.all(rows.data != 0)
        np.testing.assert_array_equal(rows.toarray(), COUNTS[start:stop])
        if rows.data.flags.writeable:
            rows.data[:], rows.indices[:] = -1, 0
    np.testing.assert_array_equal(source.read(0, 5).toarray(), COUNTS)


def test_a_canonical_matrix_is_not_copied():
    stored = sparse.csr_matrix(COUNTS.astype(np.float32))
    rows = choose_matrix(ad.AnnData(stored)).view(1, 4)
    assert np.shares_memory(rows.data, stored.data)
    assert stored.data.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        rows.data[0] = 3


def assert_reads_counts(adata: ad.AnnData, expected: np.ndarray = COUNTS, **which: object) -> None:
    source = choose_matrix(adata, **which)
    assert source.shape == expected.shape
    for start, stop in ((0, 2), (1, 2), (1, len(expected)), (2, 99), (0, 0), (0, 2)):
        rows = source.read(start, stop)
        assert type(rows) is sparse.csr_matrix
        assert rows.dtype in (np.float32, np.float64)
        assert rows.has_canonical_format
        assert np.all(rows.data != 0)
        np.testing.assert_array_equal(rows.toarray(), expected[start:stop])


@pytest.mark.parametrize("kind", STORED)
def test_rows_are_canonical_whatever_the_storage(kind: str):
    assert_reads_counts(ad.AnnData(STORED[kind]()))


@pytest.mark.parametrize("kind", STORED)
def test_rows_of_a_view_are_those_of_the_subset(kind: str):
    adata = ad.AnnData(STORED[kind]())
    assert_reads_counts(adata[[4, 0, 3]][:, [3, 1]], COUNTS[np.ix_([4, 0, 3], [3, 1])])


def test_bools_are_read_as_ones():
    assert_reads_counts(ad.AnnData(COUNTS > 0), (COUNTS > 0).astype(int))


def test_layers_and_raw_are_read_in_place_of_x():
    adata = ad.AnnData(np.ones(COUNTS.shape), layers={"counts": sparse.csc_matrix(COUNTS)})
    assert_reads_counts(adata, layer="counts")
    adata.raw = ad.AnnData(sparse.csr_matrix(COUNTS), obs=adata.obs)
    small = adata[:, :1].copy()
    assert_reads_counts(small, use_raw=True)
    assert_reads_counts(small[[3, 1]], COUNTS[[3, 1]], use_raw=True)
    assert list(choose_matrix(small, use_raw=True).var.index) == list(adata.var_names)


@pytest.mark.parametrize("make", [np.array, sparse.csr_matrix, sparse.csc_matrix], ids=["dense", "csr", "csc"])
def test_backed_files_and_their_views_are_read(make, tmp_path):
    adata = ad.AnnData(make(COUNTS.astype(np.float32)))
    adata.raw = adata
    adata.write_h5ad(tmp_path / "counts.h5ad")
    backed = ad.read_h5ad(tmp_path / "counts.h5ad", backed="r")
    assert_reads_counts(backed)
    assert_reads_counts(backed, use_raw=True)
    assert_reads_counts(backed[[0, 3]], COUNTS[[0, 3]])
    assert_reads_counts(backed[[0, 3]], COUNTS[[0, 3]], use_raw=True)
    backed.file.close()


def test_view_of_a_file_that_anndata_cannot_read_is_named_with_the_way(tmp_path):
    ad.AnnData(sparse.csr_matrix(COUNTS.astype(np.float32))).write_h5ad(tmp_path / "counts.h5ad")
    backed = ad.read_h5ad(tmp_path / "counts.h5ad", backed="r")[::-1]
    try:
        is_read = backed.X.shape == COUNTS.shape  # some releases of anndata 0.13 leave out the last row
    except ValueError:  # as anndata 0.12 says of rows in reverse order
        is_read = False
    if is_read:
        assert_reads_counts(backed, COUNTS[::-1])
    else:
        with pytest.raises(ValueError, match=r"anndata cannot read \.X of this view of a file .* into memory before"):
            choose_matrix(backed)


def test_view_of_a_file_of_which_anndata_returns_other_rows_is_refused():
    view = SimpleNamespace(n_obs=5)
    assert _of_file(view, lambda _: COUNTS, name=".X") is COUNTS
    with pytest.raises(ValueError, match=r"cannot read \.X of this view of a file \(it returns other rows\); read"):
        _of_file(view, lambda _: COUNTS[:4], name=".X")


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize("make", [np.array, sparse.csr_matrix, sparse.csc_matrix], ids=["dense", "csr", "csc"])
def test_zarr_stores_are_read_on_disk_and_lazily(make, tmp_path):
    zarr = pytest.importorskip("zarr")
    ad.AnnData(make(COUNTS.astype(np.float32))).write_zarr(tmp_path / "counts.zarr")
    group = zarr.open(str(tmp_path / "counts.zarr"), mode="r")
    stored = group["X"] if isinstance(group["X"], zarr.Array) else ad.io.sparse_dataset(group["X"])
    if make is not np.array:
        adata = ad.AnnData(X=stored)
        assert_reads_counts(adata)
        assert_reads_counts(adata[[3, 1]], COUNTS[[3, 1]])
    pytest.importorskip("xarray")
    assert_reads_counts(ad.experimental.read_lazy(tmp_path / "counts.zarr"))


def test_a_file_ordered_by_columns_is_read_in_windows(monkeypatch, tmp_path, caplog):
    monkeypatch.setattr("sclcm.data.rows._WINDOW_VALUES", 6)
    monkeypatch.setattr("sclcm.data.rows._BLOCK_VALUES", 2)
    ad.AnnData(sparse.csc_matrix(COUNTS)).write_h5ad(tmp_path / "counts.h5ad")
    backed = ad.read_h5ad(tmp_path / "counts.h5ad", backed="r")
    assert_reads_counts(backed)
    backed.file.close()
    assert "takes 2 passes over the file" in caplog.text


def test_what_is_read_shares_no_memory_with_the_source():
    adata = ad.AnnData(sparse.csr_matrix(COUNTS.astype(np.float32)))
    source = choose_matrix(adata)
    source.read(0, 5).data[:] = -1
    source.read(0, 5).indices[:] = 0
    assert_reads_counts(adata)


def test_the_source_names_itself_its_cells_and_its_genes():
    adata = ad.AnnData(COUNTS, obs=pd.DataFrame(index=list("abcde")), var=pd.DataFrame(index=list("wxyz")))
    adata.layers["counts"] = COUNTS
    adata.raw = adata
    names = [choose_matrix(adata, **which).name for which in ({}, {"layer": "counts"}, {"use_raw": True})]
    assert names == [".X", ".layers['counts']", ".raw.X"]
    assert list(choose_matrix(adata).obs_names) == list("abcde")
    assert list(choose_matrix(adata).var.index) == list("wxyz")


@pytest.mark.parametrize(
    ("which", "error", "message"),
    [
        ({"use_raw": "no"}, TypeError, r"`use_raw` is 'no'; expected `True` or `False`"),
        ({"layer": "counts", "use_raw": True}, ValueError, r"`layer='counts'` and `use_raw=True` exclude each other"),
        ({"layer": "raw"}, KeyError, r"no layer 'raw'; `adata.layers` has \['counts'\]"),
        ({"use_raw": True}, ValueError, r"`adata.raw` is missing; leave `use_raw` out"),
    ],
)
def test_a_choice_that_is_not_there_is_refused(which, error, message):
    with pytest.raises(error, match=message):
        choose_matrix(ad.AnnData(COUNTS, layers={"counts": COUNTS}), **which)


def test_a_missing_x_points_to_the_layers():
    adata = ad.AnnData(obs=pd.DataFrame(index=list("abcde")), layers={"counts": COUNTS})
    with pytest.raises(ValueError, match=r"`.X` is missing; pass `layer='counts'`"):
        choose_matrix(adata)
    assert_reads_counts(adata, layer="counts")
    assert_reads_counts(adata[[1, 3]], COUNTS[[1, 3]], layer="counts")
    with pytest.raises(ValueError, match=r"`.X` is missing; assign counts to it"):
        choose_matrix(ad.AnnData(obs=pd.DataFrame(index=list("abcde")), var=pd.DataFrame(index=["g"])))


@pytest.mark.parametrize(
    ("adata", "message"), [(ad.AnnData(COUNTS[:0]), "has no cells"), (ad.AnnData(COUNTS[:, :0]), "has no genes")]
)
def test_no_cells_and_no_genes_are_refused(adata, message):
    with pytest.raises(ValueError, match=message):
        choose_matrix(adata)


def test_types_that_hold_no_counts_are_refused():
    with pytest.raises(TypeError, match=r"`adata` is a str.*read_h5ad"):
        choose_matrix("cells.h5ad")
    with pytest.raises(TypeError, match=r"`adata` is a DataFrame.*AnnData\(frame\)"):
        choose_matrix(pd.DataFrame(COUNTS))
    adata = ad.AnnData(COUNTS.astype(float))
    adata.layers["masked"] = np.ma.masked_equal(COUNTS, 3)
    if isinstance(adata.layers["masked"], np.ma.MaskedArray):
        with pytest.raises(TypeError, match=r"masked array.*filled\(0\)"):
            choose_matrix(adata, layer="masked").read(0, 1)
    adata.layers["complex"] = COUNTS.astype(complex)
    with pytest.raises(TypeError, match=r"holds values of type complex128; expected numbers"):
        choose_matrix(adata, layer="complex").read(0, 1)


def test_rows_beyond_the_matrix_are_refused():
    with pytest.raises(ValueError, match=r"rows 6 to 5 of .X were asked for; it has 5 cells"):
        choose_matrix(ad.AnnData(COUNTS)).read(6, 9)


@pytest.mark.parametrize(("chunk", "bytes_kept"), [(100, 2**19), (200_000, 800_000), (4_000_000, 2**23)])
def test_of_a_file_read_by_rows_about_a_chunk_is_remembered(chunk, bytes_kept, tmp_path):
    adata = ad.AnnData(sparse.csr_matrix(COUNTS.astype(np.float32)))
    adata.write_h5ad(tmp_path / "counts.h5ad")
    with h5py.File(tmp_path / "counts.h5ad", "r+") as file:
        for name in ("data", "indices"):
            stored = file["X"][name][:]
            del file["X"][name]
            file["X"].create_dataset(name, data=stored, chunks=(chunk,), maxshape=(None,))
    backed = ad.read_h5ad(tmp_path / "counts.h5ad", backed="r")
    assert_reads_counts(backed)
    source = choose_matrix(backed)
    for name in ("data", "indices"):
        stored = backed.file["X"][name]
        assert stored.id.get_access_plist().get_chunk_cache()[1] == bytes_kept
    np.testing.assert_array_equal(source.read(0, 5).toarray(), COUNTS)
    backed.file.close()


def test_layers_are_those_that_have_a_name():
    adata = ad.AnnData(np.ones((2, 3), np.float32), layers={"counts": np.ones((2, 3), np.float32)})
    assert layer_names(adata) == ["counts"]
    assert layer_names(SimpleNamespace(layers={None: adata.X, "counts": adata.X})) == [
        "counts"
    ]  # as anndata 0.13 has it
