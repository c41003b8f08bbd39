from __future__ import annotations

from typing import TYPE_CHECKING

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import sparse

from sclcm.data import stream
from sclcm.data.matrix import choose_matrix
from sclcm.data.stream import ChunkReader, align_rows, iter_chunks
from sclcm.data.validation import refuse_counts
from sclcm.genes.align import AlignmentReport, GeneAlignment

if TYPE_CHECKING:
    from sclcm.encoding.chunks import CellChunk

N_GENES = 6


def alignment(var_index: list[int], feature_index: list[int], *, n_var: int = N_GENES, n_features: int = 4):
    report = AlignmentReport(n_var=n_var, n_matched=len(var_index), n_features=n_features, n_covered=n_features)
    return GeneAlignment(
        n_var=n_var,
        n_features=n_features,
        var_index=np.array(var_index, dtype=np.int64),
        feature_index=np.array(feature_index, dtype=np.int64),
        report=report,
    )


SUMMING = alignment([0, 1, 3, 4], [2, 0, 2, 3])


def read(adata: ad.AnnData, *, chunk_size: int = 2, **options: object) -> list[CellChunk]:
    which = {key: options.pop(key) for key in ("layer", "use_raw") if key in options}
    return list(iter_chunks(choose_matrix(adata, **which), SUMMING, adata.obs, chunk_size=chunk_size, **options))


def together(chunks: list[CellChunk]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    counts = sparse.vstack([chunk.counts for chunk in chunks]).toarray()
    return counts, np.concatenate([c.totals for c in chunks]), np.concatenate([c.n_genes for c in chunks])


count_matrices = st.integers(1, 9).flatmap(
    lambda n: arrays(np.int64, (n, N_GENES), elements=st.sampled_from([0, 0, 0, 1, 2, 7, 400]))
)
FORMATS = {
    "fortran": np.asfortranarray,
    "float32": lambda x: x.astype(np.float32),
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "csr_array": sparse.csr_array,
}


def test_counts_are_aligned_and_facts_are_those_of_the_full_row():
    counts = np.array([[1, 2, 4, 8, 16, 32], [0, 0, 3, 0, 0, 0], [0, 0, 0, 0, 0, 0]])
    aligned, totals, n_genes = together(read(ad.AnnData(counts)))
    np.testing.assert_array_equal(aligned, [[2, 0, 9, 16], [0, 0, 0, 0], [0, 0, 0, 0]])
    np.testing.assert_array_equal(totals, [63, 3, 0])
    np.testing.assert_array_equal(n_genes, [6, 1, 0])


@given(counts=count_matrices, chunk_size=st.integers(1, 10), kind=st.sampled_from(sorted(FORMATS)))
@settings(deadline=None, max_examples=60)
def test_neither_chunk_size_nor_storage_changes_what_is_read(counts, chunk_size, kind):
    expected = together(read(ad.AnnData(counts), chunk_size=100))
    chunks = read(ad.AnnData(FORMATS[kind](counts)), chunk_size=chunk_size)
    assert [chunk.start for chunk in chunks] == list(range(0, len(counts), chunk_size))
    assert all(chunk.counts.has_canonical_format and chunk.counts.dtype == np.float32 for chunk in chunks)
    for found, wanted in zip(together(chunks), expected, strict=True):
        np.testing.assert_array_equal(found, wanted)


@given(counts=count_matrices, chunk_size=st.integers(1, 10), n_values=st.integers(1, 20))
@settings(deadline=None, max_examples=60)
def test_pieces_of_chunks_are_the_chunks(counts, chunk_size, n_values):
    adata = ad.AnnData(counts)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(stream, "PIECE_VALUES", n_values)
        reader = ChunkReader(choose_matrix(adata), SUMMING, adata.obs, chunk_size=chunk_size)
        blocks = list(reader.pieces())
    assert [block.chunk for block in blocks] == [block.start // chunk_size * chunk_size for block in blocks]
    chunks = [reader.make(block) for block in blocks]
    assert [chunk.start for chunk in chunks] == np.cumsum([0, *(chunk.n_cells for chunk in chunks)])[:-1].tolist()
    for found, wanted in zip(together(chunks), together(read(adata, chunk_size=100)), strict=True):
        np.testing.assert_array_equal(found, wanted)


@given(
    counts=count_matrices, features=st.permutations(range(8)), n_known=st.integers(0, N_GENES), ascending=st.booleans()
)
@settings(deadline=None, max_examples=60)
def test_columns_that_are_taken_are_those_that_a_product_sums(counts, features, n_known, ascending):
    features = sorted(features[:n_known]) if ascending else features[:n_known]
    one_to_one = alignment(
        sorted(np.random.default_rng(n_known).permutation(N_GENES)[:n_known]), features, n_features=8
    )
    assert one_to_one.is_one_to_one
    rows = sparse.csr_matrix(counts.astype(np.float64))
    found = align_rows(rows, one_to_one)
    assert found.has_canonical_format
    assert found.dtype == np.float32
    assert found.nnz == np.count_nonzero(found.toarray())
    np.testing.assert_array_equal(found.toarray(), (rows @ one_to_one.matrix()).toarray())


def test_values_beyond_float32_leave_no_explicit_zeros():
    rows = sparse.csr_matrix(np.array([[1e-60, 2.0, 0, 0, 0, 0]]))
    assert align_rows(rows, alignment([0, 1], [0, 1])).nnz == 1


def stored_bytes(adata: ad.AnnData) -> list[bytes]:
    matrices = [adata.X, *adata.layers.values(), adata.raw.X]
    found = [
        part.tobytes() for m in matrices for part in ((m.data, m.indices, m.indptr) if sparse.issparse(m) else (m,))
    ]
    return [*found, adata.obs.to_csv().encode(), adata.var.to_csv().encode(), repr(adata).encode()]


@given(counts=count_matrices, value=st.sampled_from([0.5, -1.0, np.nan, np.inf, 3.0]), use_raw=st.booleans())
@settings(deadline=None, max_examples=40)
def test_adata_is_bit_identical_after_success_and_after_failure(counts, value, use_raw):
    matrix = sparse.csr_matrix(counts.astype(np.float64))
    matrix.data[:1] = value
    matrix.indices[: matrix.indptr[1]] = matrix.indices[: matrix.indptr[1]][::-1].copy()
    adata = ad.AnnData(matrix, obs=pd.DataFrame({"batch": "b"}, index=[f"c{i}" for i in range(len(counts))]))
    adata.layers["fortran"] = np.asfortranarray(counts)
    adata.raw = ad.AnnData(sparse.csc_matrix(matrix), obs=adata.obs)
    before = stored_bytes(adata)
    try:
        read(adata, use_raw=use_raw, obs_columns=["batch"])
    except ValueError:
        assert value != 3.0
    assert stored_bytes(adata) == before


def test_obs_columns_travel_as_values():
    obs = pd.DataFrame({"donor": pd.Categorical(["x", "y", "x"]), "age": [1.5, 2.5, np.nan]}, index=list("abc"))
    first, second = read(ad.AnnData(np.ones((3, N_GENES)), obs=obs), obs_columns=["donor", "age"])
    assert first.obs["donor"].tolist() == ["x", "y"]
    assert second.obs["donor"].tolist() == ["x"]
    np.testing.assert_array_equal(first.obs["age"], [1.5, 2.5])


@pytest.mark.parametrize("backing", ["h5ad", "zarr"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_lazily_read_data_give_the_same_chunks(backing, tmp_path):
    pytest.importorskip("xarray")
    counts = np.random.default_rng(0).poisson(1, (7, N_GENES))
    adata = ad.AnnData(sparse.csr_matrix(counts), obs=pd.DataFrame({"donor": list("xxyyxyx")}, index=list("abcdefg")))
    getattr(adata, f"write_{backing}")(tmp_path / f"cells.{backing}")
    lazy = ad.experimental.read_lazy(tmp_path / f"cells.{backing}")
    chunks = read(lazy, obs_columns=["donor"], chunk_size=3)
    for found, wanted in zip(together(chunks), together(read(adata)), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert "".join(np.concatenate([chunk.obs["donor"] for chunk in chunks])) == "xxyyxyx"


def with_value(value: float) -> ad.AnnData:
    counts = np.zeros((5, N_GENES), dtype=np.float32)
    counts[:, 0] = 2
    counts[3, 5] = value
    adata = ad.AnnData(sparse.csr_matrix(counts))
    adata.obs_names, adata.var_names = list("abcde"), [f"gene{i}" for i in range(N_GENES)]
    return adata


@pytest.mark.parametrize(
    ("value", "wrong"),
    [
        (1.386, r"holds 1.386 \(cell 'd', gene 'gene5'\), not a raw count. 'scgpt' needs raw counts"),
        (-1, r"holds -1 \(cell 'd', gene 'gene5'\), which is negative"),
        (np.nan, r"holds nan \(cell 'd', gene 'gene5'\), which is no number to compute with.*drop those cells"),
        (np.inf, r"holds inf \(cell 'd', gene 'gene5'\)"),
    ],
)
def test_a_value_that_is_no_count_is_named(value, wrong):
    with pytest.raises(ValueError, match=rf"`\.X` {wrong}"):
        read(with_value(value), consumer="'scgpt'")


def test_any_finite_value_passes_where_counts_are_not_needed():
    assert together(read(with_value(1.386), check="any"))[1][3] == pytest.approx(3.386)
    with pytest.raises(ValueError, match="needs values that are finite and not negative"):
        read(with_value(-0.5), check="any")


def test_the_error_names_the_place_that_holds_counts():
    adata = with_value(1.386)
    adata.layers["counts"] = np.ones(adata.shape)
    with pytest.raises(ValueError, match=r"`.layers\['counts'\]` holds them: pass `layer='counts'`$"):
        read(adata)
    del adata.layers["counts"]
    adata.raw = ad.AnnData(np.ones(adata.shape), obs=adata.obs)
    with pytest.raises(ValueError, match=r"`.raw.X` holds them: pass `use_raw=True`$"):
        read(adata)
    adata.layers["logs"], adata.X = adata.X.copy(), np.ones(adata.shape)
    with pytest.raises(ValueError, match=r"`.X` holds them: pass neither `layer` nor `use_raw`"):
        read(adata, layer="logs")


def test_places_that_hold_no_numbers_do_not_hide_the_error():
    adata = with_value(1.386)
    adata.layers["a_complex"] = np.ones(adata.shape, dtype=complex)
    adata.layers["counts"] = np.ones(adata.shape)
    for data in (adata, adata[:4]):
        with pytest.raises(ValueError, match=r"`.layers\['counts'\]` holds them: pass `layer='counts'`$"):
            read(data)


def test_the_error_offers_the_inverse_of_a_logarithm():
    counts = np.random.default_rng(0).poisson(2, (40, N_GENES)) + np.eye(40, N_GENES, dtype=int)
    adata = ad.AnnData(np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4).astype(np.float32))
    with pytest.raises(ValueError, match=r"can be recovered exactly: `sclcm.pp.recover_counts\(adata\)`"):
        read(adata)
    with pytest.raises(ValueError, match=r"`sclcm.pp.check_counts\(adata\)` says what is there"):
        read(ad.AnnData(np.random.default_rng(0).gamma(2, 2, (40, N_GENES))))


def test_arguments_that_do_not_fit_are_refused():
    adata = ad.AnnData(np.ones((3, N_GENES)))
    with pytest.raises(ValueError, match="`chunk_size` is 0; expected 1 or more"):
        read(adata, chunk_size=0)
    with pytest.raises(KeyError, match=r"`obs` has no column 'donor'; its columns are \[\]"):
        read(adata, obs_columns=["donor"])
    with pytest.raises(ValueError, match="the gene alignment was made for 6 genes"):
        read(ad.AnnData(np.ones((3, 2))))


# ---- logarithms, and the median total ----


def test_logarithms_of_counts_per_ten_thousand_are_small():
    logs = with_value(9.2)
    assert together(read(logs, check="log1p"))[0].shape[0] == logs.n_obs
    with pytest.raises(ValueError, match=r"holds 9\.3 .*more than log1p of 10,000\. .* `sc\.pp\.normalize_total"):
        read(with_value(9.3), check="log1p")


def test_counts_are_no_logarithms():
    counts = choose_matrix(ad.AnnData(np.ones((3, N_GENES)) * 2))
    with pytest.raises(ValueError, match=r"`\.X` holds raw counts, but 'm' reads log1p .* here; do else\."):
        refuse_counts(counts, consumer="'m'", instead="do else")
    refuse_counts(choose_matrix(with_value(1.5)), consumer="'m'", instead="do else")


@pytest.mark.parametrize("chunk_size", [1, 3, 10])
def test_chunks_know_the_median_total_over_known_genes_of_cells_that_have_any(chunk_size):
    x = np.zeros((5, N_GENES))
    x[0, 0], x[1, [1, 4]], x[3, 3], x[4, [2, 5]] = 3, [2, 5], 20, [100, 100]
    adata = ad.AnnData(x)
    reader = ChunkReader(choose_matrix(adata), SUMMING, adata.obs, chunk_size=chunk_size, finds_median=True)
    assert {reader.make(block).typical_total for block in reader.blocks()} == {7.0}
    assert {chunk.typical_total for chunk in read(adata)} == {None}


def test_median_of_cells_without_known_genes_is_zero():
    adata = ad.AnnData(np.zeros((2, N_GENES)))
    reader = ChunkReader(choose_matrix(adata), SUMMING, adata.obs, chunk_size=2, finds_median=True)
    assert [reader.make(block).typical_total for block in reader.blocks()] == [0.0]
