"""`tl.embed`: one vector per cell, whatever the matrix looks like and however it is cut into batches."""

from __future__ import annotations

import logging
import warnings

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from scipy import sparse

from sclcm._settings import settings as sclcm_settings
from sclcm.models import _pass, load
from sclcm.nn.readouts import FirstToken
from sclcm.tl import embed
from sclcm.zoo._spec import Recipe

KEY = "X_geneformer"
fast = settings(deadline=None, max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])


def vectors(adata, model, **given):
    """Embed a copy and return the vectors."""
    return embed(adata, model, copy=True, **given).obsm[KEY]


def difference(found, wanted):
    """Largest relative difference of rows, by their norms."""
    size = np.linalg.norm(wanted, axis=1)
    return (np.linalg.norm(found - wanted, axis=1) / np.where(size > 0, size, 1)).max(initial=0)


@pytest.fixture
def reference_vectors(cells, model):
    return vectors(cells, model)


# ---- where results go ----


def test_vectors_are_written_in_order_of_obs(adata, model):
    assert embed(adata, model) is None
    assert adata.obsm[KEY].shape == (12, model.d_model)
    assert adata.obsm[KEY].dtype == np.float32
    assert isinstance(adata.obsm[KEY], np.ndarray)
    assert np.isfinite(adata.obsm[KEY]).all()
    assert list(adata.obsm) == [KEY]
    assert list(adata.uns) == ["geneformer"]
    for row, name in enumerate(adata.obs_names):
        assert difference(vectors(adata[[name]], model), adata.obsm[KEY][[row]]) <= 1e-6


def test_nothing_else_changes(adata, model, unchanged):
    with unchanged(adata, but=("obsm", "uns")):
        embed(adata, model)


def test_parameters_say_what_was_done(adata, v1):
    adata.layers["counts"] = adata.X
    embed(adata, v1, layer="counts", recipe="mean_last", random_state=7)
    params = adata.uns["geneformer"]["params"]
    assert params["model"] == params["family"] == "geneformer"
    assert params["checkpoint_sha256"] == v1.sha256
    assert params["recipe"] == "mean_last"
    assert params["random_state"] == 7
    assert (params["device"], params["dtype"]) == ("cpu", "float32")
    assert params["source"] == ".layers['counts']"
    assert params["gene_key"] == "var_names"
    known = adata.var_names.isin(v1.vocabulary.features)
    assert params["matched_genes"] == known.sum()
    assert params["matched_gene_share"] == pytest.approx(known.mean())
    assert params["matched_count_share"] == pytest.approx(adata.X[:, known].sum() / adata.X.sum())
    assert params["n_empty_cells"] == 0
    assert {"sclcm_version", "torch_version"} <= set(params)


def test_key_added_replaces_both_names(adata, v1):
    embed(adata, v1, key_added="my_key")
    assert (list(adata.obsm), list(adata.uns)) == (["my_key"], ["my_key"])


def test_second_call_replaces_the_first(adata, v1):
    embed(adata, v1)
    embed(adata, v1, recipe="mean_last")
    assert adata.uns["geneformer"]["params"]["recipe"] == "mean_last"
    assert np.array_equal(adata.obsm[KEY], vectors(adata, v1, recipe="mean_last"))


def test_copy_is_returned_and_the_original_left_alone(adata, v1, unchanged):
    with unchanged(adata):
        changed = embed(adata, v1, copy=True)
    assert KEY in changed.obsm
    assert changed is not adata


def test_view_becomes_an_object_of_its_own_and_its_parent_is_left_alone(adata, model, unchanged):
    wanted = vectors(adata, model)
    view = adata[[3, 1, 7]]
    assert view.is_view
    with unchanged(adata):
        embed(view, model)
    assert not view.is_view
    assert difference(view.obsm[KEY], wanted[[3, 1, 7]]) <= 1e-6


def test_view_of_some_genes_counts_only_those(adata, v1):
    genes = v1.vocabulary.features[:150]
    assert difference(vectors(adata[:, genes], v1), vectors(adata[:, genes].copy(), v1)) == 0


@pytest.mark.parametrize("key_added", [None, "k"])
def test_result_can_be_written_and_read_back(adata, model, tmp_path, key_added):
    embed(adata, model, key_added=key_added, recipe=Recipe(layer=-1))
    for path, read in (("a.h5ad", anndata.read_h5ad), ("a.zarr", anndata.read_zarr)):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # zarr's own
            (adata.write_h5ad if path.endswith("h5ad") else adata.write_zarr)(tmp_path / path)
            found = read(tmp_path / path)
        key, uns = (KEY, "geneformer") if key_added is None else ("k", "k")
        assert np.array_equal(found.obsm[key], adata.obsm[key])
        assert found.uns[uns]["params"] == adata.uns[uns]["params"]


def test_next_call_is_logged(adata, v1, caplog):
    with caplog.at_level(logging.INFO, "sclcm"):
        embed(adata, v1)
    assert caplog.messages[-1] == "Next: `sc.pp.neighbors(adata, use_rep='X_geneformer')`"
    assert f"knows {v1.vocabulary.n_features} of the {adata.n_vars} genes of .X (named by var_names)" in caplog.text


# ---- what is read ----

FORMATS = {
    "csr": sparse.csr_matrix,
    "csc": sparse.csc_matrix,
    "csr array": sparse.csr_array,
    "csc array": sparse.csc_array,
    "dense": lambda x: x.toarray(),
    "fortran": lambda x: np.asfortranarray(x.toarray()),
    "float64": lambda x: x.astype(np.float64),
    "int32": lambda x: x.astype(np.int32),
    "uint8 dense": lambda x: x.toarray().astype(np.uint8),
}


@pytest.mark.parametrize("kind", FORMATS)
def test_storage_format_does_not_matter(cells, model, reference_vectors, kind):
    adata = anndata.AnnData(FORMATS[kind](cells.X.copy()), obs=cells.obs, var=cells.var)
    assert np.array_equal(vectors(adata, model), reference_vectors)
    assert type(adata.X) is type(FORMATS[kind](cells.X))


def test_unsorted_indices_duplicates_and_explicit_zeros_do_not_matter(cells, v1, unchanged):
    wanted = vectors(cells, v1)
    coo = cells.X.tocoo()
    rows, columns, data = coo.row, coo.col, coo.data
    halves = [np.floor(data / 2), np.ceil(data / 2)]  # duplicates that sum to the counts, some of them zero
    order = np.random.default_rng(0).permutation(2 * len(data))
    entries = (np.concatenate(halves)[order], (np.tile(rows, 2)[order], np.tile(columns, 2)[order]))
    indptr = np.concatenate([[0], np.cumsum(np.bincount(entries[1][0], minlength=12))])
    by_row = np.argsort(entries[1][0], kind="stable")
    messy = sparse.csr_matrix((entries[0][by_row], entries[1][1][by_row], indptr), shape=cells.shape)
    assert messy.nnz == 2 * len(data)
    adata = anndata.AnnData(messy, obs=cells.obs, var=cells.var)
    with unchanged(adata):
        assert np.array_equal(vectors(adata, v1), wanted)


@pytest.mark.parametrize("layout", [sparse.csr_matrix, sparse.csc_matrix, lambda x: x.toarray()])
def test_file_is_read_by_chunks_and_is_not_changed(cells, model, reference_vectors, tmp_path, layout, monkeypatch):
    monkeypatch.setattr(_pass.Input.batches, "__kwdefaults__", {"chunk_size": 5})
    path = tmp_path / "cells.h5ad"
    anndata.AnnData(layout(cells.X), obs=cells.obs, var=cells.var).write_h5ad(path)
    content = path.read_bytes()
    adata = anndata.read_h5ad(path, backed="r")
    embed(adata, model)
    assert adata.isbacked
    assert difference(adata.obsm[KEY], reference_vectors) <= 1e-6
    with pytest.raises(ValueError, match=r"`copy=True` cannot copy a backed AnnData.*`adata.to_memory\(\)`"):
        embed(adata, model, copy=True)
    adata.file.close()
    assert path.read_bytes() == content


def test_view_of_a_file_is_refused_before_anything_is_computed(cells, v1, tmp_path, monkeypatch):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    adata = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    monkeypatch.setattr(v1.lcm, "forward", None)
    for copy in (False, True):
        with pytest.raises(ValueError, match=r"view of a backed AnnData.*`adata.to_memory\(\)`"):
            embed(adata[2:5], v1, copy=copy)
    adata.file.close()


def test_layer_and_raw_are_read_where_asked(cells, v1):
    wanted = vectors(cells, v1)
    adata = cells.copy()
    adata.layers["counts"] = adata.X.copy()
    adata.raw = adata
    adata.X = np.log1p(adata.X)
    for place in ({"layer": "counts"}, {"use_raw": True}):
        assert np.array_equal(vectors(adata, v1, **place), wanted)
    few = adata[:, :3].copy()
    assert np.array_equal(vectors(few, v1, use_raw=True), wanted)


def test_gene_names_are_found_in_their_column(cells, v1):
    wanted = vectors(cells, v1)
    adata = cells.copy()
    adata.var["ensembl_id"] = adata.var_names
    adata.var["other"] = adata.var_names
    adata.var_names = [f"gene{i}" for i in range(adata.n_vars)]
    changed = embed(adata, v1, copy=True)
    assert np.array_equal(changed.obsm[KEY], wanted)
    assert changed.uns["geneformer"]["params"]["gene_key"] == "ensembl_id"
    changed = embed(adata, v1, gene_key="other", copy=True)
    assert np.array_equal(changed.obsm[KEY], wanted)
    assert changed.uns["geneformer"]["params"]["gene_key"] == "other"


def test_order_of_genes_does_not_matter(cells, model, reference_vectors):
    order = np.random.default_rng(1).permutation(cells.n_vars)
    assert np.array_equal(vectors(cells[:, order].copy(), model), reference_vectors)


def test_columns_of_one_gene_are_summed(cells, v2):
    wanted = vectors(cells, v2)
    half = sparse.csr_matrix(cells.X.copy())
    half.data = np.floor(half.data / 2)
    adata = anndata.AnnData(
        sparse.hstack([half, cells.X - half], format="csr"),
        obs=cells.obs,
        var=pd.DataFrame(
            {"ensembl_id": [*cells.var_names, *cells.var_names]}, index=[f"g{i}" for i in range(2 * cells.n_vars)]
        ),
    )
    assert np.array_equal(vectors(adata, v2), wanted)


# ---- properties ----


@fast
@given(order=st.permutations(range(12)))
def test_permuting_cells_permutes_rows(cells, v1, v2, order):
    for model in (v1, v2):
        wanted = vectors(cells, model)
        assert difference(vectors(cells[order], model), wanted[order]) <= 1e-6


@fast
@given(subset=st.sets(st.integers(0, 11), min_size=1))
def test_neighbours_do_not_matter(cells, v1, v2, subset):
    rows = sorted(subset)
    for model in (v1, v2):
        assert difference(vectors(cells[rows], model), vectors(cells, model)[rows]) <= 1e-6


@fast
@given(
    chunk_size=st.integers(1, 13), batch_size=st.none() | st.integers(1, 13), budget=st.sampled_from([1, 80, 300, 5000])
)
def test_sizes_of_chunks_and_batches_do_not_matter(cells, v1, v2, chunk_size, batch_size, budget):
    with pytest.MonkeyPatch.context() as patch:
        for model in (v1, v2):
            wanted = vectors(cells, model)
            patch.setattr(_pass, "token_budget", lambda *args, **given: budget)
            defaults = {**_pass.Input.batches.__kwdefaults__, "chunk_size": chunk_size}
            patch.setattr(_pass.Input.batches, "__kwdefaults__", defaults)
            assert difference(vectors(cells, model, batch_size=batch_size), wanted) <= 1e-6
            patch.undo()


def test_cell_in_a_batch_of_its_own_equals_the_cell_alone_bit_by_bit(cells, model):
    together = vectors(cells, model, batch_size=1)
    for row in range(cells.n_obs):
        assert np.array_equal(vectors(cells[[row]], model), together[[row]])


def test_same_call_gives_the_same_bits(cells, model):
    assert np.array_equal(vectors(cells, model), vectors(cells, model))
    assert np.array_equal(vectors(cells, model, random_state=1), vectors(cells, model, random_state=2))


def test_depth_of_sequencing_does_not_change_the_order_of_genes(cells, v1):
    doubled = cells.copy()
    doubled.X = doubled.X * 2
    assert np.array_equal(vectors(doubled, v1), vectors(cells, v1))


# ---- recipes, number types ----


def test_recipes_differ_as_they_say(cells, v2):
    found = {name: vectors(cells, v2, recipe=name) for name in v2.recipes}
    assert np.array_equal(found["embed"], found["cls"])
    assert difference(found["mean"], found["cls"]) > 0.01
    assert difference(found["cls_last"], found["cls"]) > 0.01
    own = Recipe(pooling=FirstToken(), layer=-1, l2_normalize=True)
    unit = found["cls_last"] / np.linalg.norm(found["cls_last"], axis=1, keepdims=True)
    assert difference(vectors(cells, v2, recipe=own), unit) <= 1e-6


@pytest.mark.parametrize(("dtype", "bound"), [("bfloat16", 0.05), ("float16", 0.01)])
def test_half_precision_is_near(cells, model, reference_vectors, dtype, bound):
    changed = embed(cells, model, dtype=dtype, copy=True)
    assert changed.obsm[KEY].dtype == np.float32
    assert changed.uns["geneformer"]["params"]["dtype"] == dtype
    assert difference(changed.obsm[KEY], reference_vectors) < bound
    assert model.dtype == torch.float32


def test_model_loaded_in_half_precision_stays_so(cells, v1):
    changed = embed(cells, v1.to("cpu", "bfloat16"), copy=True)
    assert changed.uns["geneformer"]["params"]["dtype"] == "bfloat16"


@pytest.mark.gpu
def test_accelerator_agrees_with_the_cpu(cells, model, reference_vectors):
    device = "cuda" if torch.cuda.is_available() else "mps"
    found = vectors(cells, model, device=device, dtype="float32")
    assert difference(found, reference_vectors) < 1e-4


# ---- cells without genes ----


def test_cells_without_a_known_gene_are_zero_with_one_warning(cells, model):
    adata = cells.copy()
    counts = adata.X.toarray()
    counts[[2, 5, 9]] = 0
    counts[5, cells.var_names.get_loc("ENSG00000999991")] = 4  # a gene that the models do not know
    adata.X = sparse.csr_matrix(counts)
    with pytest.warns(
        UserWarning, match=r"3 of 12 cells express no gene that 'geneformer' knows \('cell2', 'cell5', 'cell9'"
    ) as caught:
        embed(adata, model)
    assert len(caught) == 1
    assert caught[0].filename == __file__
    assert (adata.obsm[KEY][[2, 5, 9]] == 0).all()
    others = np.setdiff1d(np.arange(12), [2, 5, 9])
    assert difference(adata.obsm[KEY][others], vectors(cells, model)[others]) <= 1e-6
    assert adata.uns["geneformer"]["params"]["n_empty_cells"] == 3


def test_data_of_empty_cells_only_gives_zeros(cells, model):
    adata = cells.copy()
    adata.X = sparse.csr_matrix(adata.shape, dtype=np.float32)
    with pytest.warns(UserWarning, match="12 of 12 cells express no gene"):
        embed(adata, model)
    assert (adata.obsm[KEY] == 0).all()
    assert adata.uns["geneformer"]["params"]["matched_count_share"] == 0


def test_progress_counts_every_cell(cells, model, monkeypatch):
    bars = []

    class Bar(_pass.tqdm):
        def close(self):
            bars.append((self.n, self.total))
            super().close()

    monkeypatch.setattr(_pass, "tqdm", Bar)
    sclcm_settings.progress = True
    adata = cells.copy()
    adata.X = sparse.csr_matrix(adata.X.toarray() * (np.arange(12) != 4)[:, None])
    with pytest.warns(UserWarning, match="1 of 12 cells"):
        embed(adata, model)
    assert bars[-1] == (12, 12)


# ---- failing calls leave adata as it was ----


@pytest.fixture
def fails_untouched(unchanged):
    def check(adata, error, match, *args, **given):
        with unchanged(adata), pytest.raises(error, match=match or None):
            embed(adata, *args, **given)

    return check


@pytest.fixture
def logged(adata):
    """Log-normalised `.X`; other slots filled, to see that they stay."""
    adata.obsm["X_pca"] = np.ones((12, 2))
    adata.obsm[KEY] = np.zeros((12, 3))
    adata.uns["geneformer"] = {"params": {"old": 1}}
    totals = np.asarray(adata.X.sum(1)).ravel()
    adata.X = sparse.csr_matrix(np.log1p(sparse.diags(1e4 / totals) @ adata.X))
    return adata


@pytest.mark.parametrize(("place", "remedy"), [("layer", "layer='umi'"), ("raw", "use_raw=True")])
def test_normalized_input_is_refused_with_the_place_that_holds_counts(
    logged, cells, v1, place, remedy, fails_untouched
):
    if place == "layer":
        logged.layers["umi"] = cells.X.copy()
    else:
        logged.raw = cells
    fails_untouched(
        logged, ValueError, rf"`\.X` holds [\d.]+ .*not a raw count.*'geneformer' needs raw counts.*{remedy}", v1
    )


def test_normalized_input_without_counts_is_refused(logged, v1, fails_untouched):
    fails_untouched(logged, ValueError, "'geneformer' needs raw counts", v1)


@pytest.mark.parametrize("value", [np.nan, np.inf, -1.0, 0.5])
@pytest.mark.parametrize("row", [0, 11])
def test_values_that_are_no_counts_are_refused_with_cell_and_gene(adata, v1, value, row, fails_untouched):
    adata.X[row, 0] = value
    fails_untouched(adata, ValueError, rf"cell 'cell{row}', gene '{adata.var_names[0]}'", v1)


def test_wrong_places_are_refused(adata, v1, fails_untouched):
    fails_untouched(adata, KeyError, "no layer 'umi'", v1, layer="umi")
    fails_untouched(adata, ValueError, r"adata\.raw", v1, use_raw=True)
    adata.layers["umi"] = adata.X.copy()
    fails_untouched(adata, ValueError, "exclude each other", v1, layer="umi", use_raw=True)
    fails_untouched(adata, TypeError, "`use_raw` is 1; expected `True` or `False`", v1, use_raw=1)
    fails_untouched(adata, ValueError, "no column 'symbols'", v1, gene_key="symbols")


def test_wrong_arguments_are_refused(adata, v1, fails_untouched):
    fails_untouched(adata, ValueError, "`recipe` is 'cls'; 'geneformer' has 'embed'", v1, recipe="cls")
    fails_untouched(
        adata, ValueError, "`batch_key` is 'batch', but 'geneformer' embeds each cell on its own", v1, batch_key="batch"
    )
    for wrong in (0, -3, 2.5, True, "8"):
        fails_untouched(adata, ValueError, "`batch_size` is .*; expected a number of cells", v1, batch_size=wrong)
    fails_untouched(adata, ValueError, "`dtype` is 'float8'", v1, dtype="float8")
    fails_untouched(adata, ValueError, "`device` is 'gpu'", v1, device="gpu")
    fails_untouched(adata, ValueError, "neither a path that exists nor a known model", "geneformr")


@pytest.mark.parametrize("wrong", [None, np.ones((2, 2)), "cells.h5ad"])
@pytest.mark.parametrize("copy", [False, True])
def test_what_is_no_anndata_is_refused(v1, wrong, copy):
    with pytest.raises(TypeError, match=r"`adata` is a .*; expected an AnnData"):
        embed(wrong, v1, copy=copy)


def test_data_without_cells_or_genes_is_refused(adata, v1):
    for empty, what in ((adata[[]], "cells"), (adata[:, []], "genes")):
        with pytest.raises(ValueError, match=f"has no {what}"):
            embed(empty.copy(), v1)


def test_missing_matrix_is_refused(adata, v1):
    adata.X = None
    with pytest.raises(ValueError, match=r"`\.X` is missing"):
        embed(adata, v1)


def test_genes_of_another_species_are_refused(adata, v1, fails_untouched):
    adata.var_names = [f"ENSMUSG{i:011d}" for i in range(adata.n_vars)]
    fails_untouched(adata, ValueError, "mouse genes, and 'geneformer' was trained on human", v1)


def test_unknown_genes_are_refused(adata, v1, fails_untouched):
    adata.var_names = [f"peak{i}" for i in range(adata.n_vars)]
    fails_untouched(adata, ValueError, r"'geneformer' knows 0 of the .* genes of the data, expected at least 100", v1)


def test_low_overlap_is_refused_and_the_floor_can_be_lowered(adata, v1, monkeypatch, fails_untouched):
    few = adata[:, v1.vocabulary.features[:20]].copy()
    fails_untouched(few, ValueError, r"knows 20 of the 20 genes .* `sclcm\.settings\.min_genes_matched`", v1)
    before = sclcm_settings.min_genes_matched
    sclcm_settings.min_genes_matched = 10
    try:
        embed(few, v1)
    finally:
        sclcm_settings.min_genes_matched = before
    assert KEY in few.obsm


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_interrupt_in_the_middle_leaves_everything_as_it_was(adata, v1, monkeypatch, error, fails_untouched):
    calls, forward = [], v1.lcm.forward

    def interrupted(*args, **given):
        calls.append(1)
        if len(calls) == 3:
            raise error
        return forward(*args, **given)

    monkeypatch.setattr(v1.lcm, "forward", interrupted)
    fails_untouched(adata, error, "", v1, batch_size=1)
    assert len(calls) == 3


def test_exhausted_memory_halves_the_budget_and_goes_on(cells, model, reference_vectors, monkeypatch, caplog):
    forward, sizes = model.lcm.forward, []

    def limited(tokens, n_blocks=None):
        sizes.append(tokens.token_ids_bl.numel())
        if sizes[-1] > 150:
            raise torch.OutOfMemoryError
        return forward(tokens, n_blocks=n_blocks)

    monkeypatch.setattr(model.lcm, "forward", limited)
    assert difference(vectors(cells, model), reference_vectors) <= 1e-6
    assert sizes[0] > 150
    assert "out of memory" in caplog.text


def test_exhausted_memory_for_a_single_cell_is_an_error(adata, v1, monkeypatch, fails_untouched):
    def full(tokens, n_blocks=None):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(v1.lcm, "forward", full)
    fails_untouched(adata, torch.OutOfMemoryError, "", v1)


def test_fractions_of_bulk_samples_are_refused_without_a_warning(fails_untouched):
    random = np.random.default_rng(0)
    genes = load("sclcm-mini").vocabulary.features[:3000]
    values = random.lognormal(2, 1.0, (20, 3000))
    tpm = anndata.AnnData((1e6 * values / values.sum(1, keepdims=True)).astype(np.float32))
    tpm.var_names = genes
    fails_untouched(tpm, ValueError, "not a raw count", "sclcm-mini")  # a warning would be an error, too


def test_bulk_samples_are_embedded_with_a_warning():
    random = np.random.default_rng(0)
    genes = load("sclcm-mini").vocabulary.features[:3000]
    bulk = anndata.AnnData(random.poisson(random.lognormal(9, 1.0, 3000), (6, 3000)).astype(np.float32))
    bulk.var_names = genes
    with pytest.warns(UserWarning, match="are those of bulk samples"):
        embed(bulk)
