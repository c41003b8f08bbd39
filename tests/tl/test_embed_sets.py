"""`tl.embed` by models whose tokens are cells: a cell's vector depends on its set, and on nothing else."""

from __future__ import annotations

import logging
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from scipy import sparse

import sclcm.reference
from sclcm.data import stream
from sclcm.encoding.draws import CellRandom
from sclcm.models import _pass, _set_pass, load
from sclcm.nn.readouts import MeanPooling
from sclcm.nn.set_configs import TokenItself
from sclcm.tl import embed, embed_genes
from sclcm.zoo._spec import Recipe

REFERENCE = Path(sclcm.reference.__file__).parent / "cellplm"
KEY = "X_cellplm"
CLOSE = {"rtol": 1e-4, "atol": 2e-6}


@pytest.fixture(scope="session")
def model():
    return load(REFERENCE / "checkpoint", device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def expected():
    with np.load(REFERENCE / "expected.npz") as arrays:
        return dict(arrays)


@pytest.fixture
def cells():
    return anndata.read_h5ad(REFERENCE / "input.h5ad")


def vectors(adata, model, **given):
    return embed(adata, model, copy=True, **given).obsm[KEY]


# ---- the authors' numbers, along the public way ----


@pytest.mark.parametrize(("batch_key", "prefix"), [("batch", ""), (None, "nobatch_")])
@pytest.mark.parametrize("batch_size", [None, 1, 3])
def test_vectors_are_those_of_the_authors_however_many_cells_are_worked_on_at_a_time(
    cells, model, expected, batch_key, prefix, batch_size
):
    found = vectors(cells, model, recipe="backbone", batch_key=batch_key, batch_size=batch_size)
    np.testing.assert_allclose(found, expected[prefix + "pre_latent_norm"], rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("batch_key", "prefix"), [("batch", ""), (None, "nobatch_")])
def test_clusters_are_chosen_as_the_recipe_says(cells, model, expected, batch_key, prefix):
    logits, means = expected[prefix + "cluster_logits"], expected[prefix + "embedding_given_cluster"]
    share = np.exp(logits - logits.max(1, keepdims=True))
    share /= share.sum(1, keepdims=True)
    likely = means[np.arange(len(means)), logits.argmax(1)]
    np.testing.assert_allclose(vectors(cells, model, batch_key=batch_key), likely, rtol=1e-5, atol=1e-5)
    weighted = vectors(cells, model, batch_key=batch_key, recipe="weighted")
    np.testing.assert_allclose(weighted, (means * share[..., None]).sum(1), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(("batch_key", "prefix"), [("batch", ""), (None, "nobatch_")])
def test_stored_draws_give_the_embedding_of_the_authors(cells, model, expected, batch_key, prefix):
    data = _pass.open_input(cells, model, batch_key=batch_key)
    draws = {"clusters": expected[prefix + "gumbel_uniform"]}
    found = _set_pass.embed_by_sets(data, model, model.recipes["drawn"], batch_size=None, draws=draws)
    np.testing.assert_allclose(found, expected[prefix + "cell_embedding"], rtol=1e-5, atol=1e-5)


# ---- what a vector depends on ----


@pytest.mark.parametrize("recipe", ["embed", "weighted", "drawn", "backbone"])
@pytest.mark.parametrize("batch_key", ["batch", None])
def test_order_of_cells_does_not_matter(cells, model, recipe, batch_key):
    order = np.random.default_rng(1).permutation(cells.n_obs)
    wanted = vectors(cells, model, recipe=recipe, batch_key=batch_key)
    found = vectors(cells[order].copy(), model, recipe=recipe, batch_key=batch_key)
    np.testing.assert_allclose(found, wanted[order], **CLOSE)


@pytest.mark.parametrize("recipe", ["embed", "drawn", "backbone"])
def test_cells_outside_the_set_do_not_matter(cells, model, recipe):
    wanted = vectors(cells, model, recipe=recipe, batch_key="batch")
    for name in cells.obs["batch"].unique():
        inside = (cells.obs["batch"] == name).to_numpy()
        found = vectors(cells[inside].copy(), model, recipe=recipe, batch_key="batch")
        np.testing.assert_allclose(found, wanted[inside], **CLOSE)
        alone = vectors(cells[inside].copy(), model, recipe=recipe)
        np.testing.assert_allclose(alone, wanted[inside], **CLOSE)


def test_cells_of_the_set_do_matter(cells, model):
    assert np.abs(vectors(cells, model, batch_key="batch") - vectors(cells, model)).max() > 1e-3


@pytest.mark.parametrize("n_values", [1, 700])
@pytest.mark.parametrize("n_cells", [1, 5])
def test_chunks_in_which_the_matrix_is_read_do_not_matter(cells, model, monkeypatch, n_cells, n_values):
    wanted = vectors(cells, model, recipe="drawn", batch_key="batch")
    monkeypatch.setattr(stream, "PIECE_VALUES", n_values)
    defaults = {**_pass.Input.pieces.__kwdefaults__, "chunk_size": n_cells}
    monkeypatch.setattr(_pass.Input.pieces, "__kwdefaults__", defaults)
    np.testing.assert_allclose(vectors(cells, model, recipe="drawn", batch_key="batch"), wanted, **CLOSE)


def test_names_of_sets_do_not_matter(cells, model):
    wanted = vectors(cells, model, batch_key="batch")
    cells.obs["number"] = cells.obs["batch"].map({"b0": 7, "b1": -1, "b2": 3}).astype(int)
    cells.obs["mixed"] = cells.obs["batch"].map({"b0": "z", "b1": 4, "b2": (1, 2)}).astype(object)
    for key in ("number", "mixed"):
        np.testing.assert_allclose(vectors(cells, model, batch_key=key), wanted, rtol=1e-6, atol=1e-7)


def test_draws_depend_on_the_cell_and_the_seed_alone(cells, model):
    first = vectors(cells, model, recipe="drawn")
    assert np.array_equal(first, vectors(cells, model, recipe="drawn"))
    assert np.abs(first - vectors(cells, model, recipe="drawn", random_state=1)).max() > 1e-3
    twice = anndata.concat([cells, cells], index_unique="-")
    data = _pass.open_input(twice, model)
    _, uniform = _set_pass.read_cells(data, model, n_draws=6)
    assert np.array_equal(uniform[:13], uniform[13:])
    (chunk,) = data.chunks(model)
    wanted = CellRandom(counts=chunk.counts).numbers("clusters", 4, n=6)
    np.testing.assert_allclose(uniform[4], wanted, rtol=1e-6)


# ---- unusual sets ----


def test_set_of_one_cell_is_embedded(cells, model):
    cells.obs["batch"] = [f"b{i}" for i in range(cells.n_obs)]
    found = vectors(cells, model, batch_key="batch")
    assert np.isfinite(found).all()
    np.testing.assert_allclose(vectors(cells[[4]].copy(), model)[0], found[4], **CLOSE)


def test_cell_without_a_known_gene_is_a_token_like_others(cells, model):
    x = cells.X.tolil()
    x[5] = 0
    cells.X = x.tocsr()
    with pytest.warns(
        UserWarning, match=r"1 of .* cells express no gene .*\('cell5'\); they remain tokens of their sets"
    ):
        embed(cells, model, batch_key="batch")
    assert np.isfinite(cells.obsm[KEY]).all()
    assert np.abs(cells.obsm[KEY][5]).max() > 0
    assert cells.uns["cellplm"]["params"]["n_empty_cells"] == 1
    data = _pass.open_input(cells, model)
    before, _ = _set_pass.read_cells(data, model)
    hidden = model.lcm.embed.projection.linear.bias.relu()
    assert np.allclose(before[5], model.lcm.embed.projection.norm(hidden[None])[0], atol=1e-6)


# ---- as any other call ----


def test_without_sets_a_line_says_that_all_cells_are_one(cells, model, caplog):
    with caplog.at_level(logging.INFO, "sclcm"):
        embed(cells, model)
    assert "no `batch_key`, so that all 13 cells are one set and inform each other" in caplog.text
    caplog.clear()
    with caplog.at_level(logging.INFO, "sclcm"):
        embed(cells, model, batch_key="batch")
    assert "one set" not in caplog.text


def test_parameters_record_the_sets(cells, model):
    embed(cells, model, batch_key="batch")
    params = cells.uns["cellplm"]["params"]
    assert (params["batch_key"], params["n_sets"], params["recipe"]) == ("batch", 3, "embed")
    assert cells.obsm[KEY].shape == (13, 12)
    embed(cells, model)
    params = cells.uns["cellplm"]["params"]
    assert (params["batch_key"], params["n_sets"]) == ("", 1)


@pytest.mark.parametrize("kind", [np.asarray, sparse.csc_matrix])
def test_format_of_the_matrix_does_not_matter(cells, model, kind):
    wanted = vectors(cells, model, batch_key="batch")
    cells.X = kind(cells.X.toarray())
    np.testing.assert_allclose(vectors(cells, model, batch_key="batch"), wanted, rtol=1e-6, atol=1e-7)


def test_backed_data_is_read_in_a_stream(cells, model, tmp_path):
    wanted = vectors(cells, model, batch_key="batch")
    cells.write_h5ad(tmp_path / "a.h5ad")
    backed = anndata.read_h5ad(tmp_path / "a.h5ad", backed="r")
    embed(backed, model, batch_key="batch")
    np.testing.assert_allclose(backed.obsm[KEY], wanted, rtol=1e-6, atol=1e-7)
    backed.file.close()


def test_failing_calls_leave_the_data_alone(cells, model, unchanged):
    cells.obs["gap"] = [None, *["b"] * 12]
    broken = cells.copy()
    broken.X = broken.X * 0.5
    with unchanged(cells):
        with pytest.raises(KeyError, match="has no column 'donor'"):
            embed(cells, model, batch_key="donor")
        with pytest.raises(ValueError, match="missing for 1 cells; 'cellplm' needs the set of each cell"):
            embed(cells, model, batch_key="gap")
        with pytest.raises(ValueError, match="'cellplm' has 'embed', "):
            embed(cells, model, recipe="sampled")
    with unchanged(broken), pytest.raises(ValueError, match="needs raw counts"):
        embed(broken, model, batch_key="batch")


def test_memory_that_does_not_suffice_is_refused_with_what_fits(cells, model, unchanged, monkeypatch):
    def refuse(*shape, **kwargs):
        if shape == (13, 16):
            raise RuntimeError("DefaultCPUAllocator: can't allocate memory")
        return empty(*shape, **kwargs)

    empty = torch.empty
    monkeypatch.setattr("sclcm.engine.sets.torch.empty", refuse)
    with (
        unchanged(cells),
        pytest.raises(MemoryError, match="the vectors of all 13 cells are kept on cpu, but fewer fit"),
    ):
        embed(cells, model)


def test_pooling_belongs_to_tokens_that_are_genes(cells, model):
    with pytest.raises(ValueError, match=r"`recipe.pooling` is MeanPooling\(\), but the tokens of 'cellplm' are cells"):
        embed(cells, model, recipe=Recipe(pooling=MeanPooling()))
    with pytest.raises(
        ValueError, match=r"`recipe.pooling` is TokenItself\(\), but the tokens of 'sclcm-mini' are gen"
    ):
        embed(cells, "sclcm-mini", recipe=Recipe(pooling=TokenItself()))


def test_recipes_may_stop_at_a_block_and_be_scaled(cells, model, expected):
    first = Recipe(pooling=TokenItself(), layer=-2)
    np.testing.assert_allclose(
        vectors(cells, model, recipe=first, batch_key="batch"), expected["layer0"], rtol=1e-5, atol=1e-5
    )
    scaled = vectors(cells, model, recipe=Recipe(pooling=TokenItself(), l2_normalize=True))
    np.testing.assert_allclose(np.linalg.norm(scaled, axis=1), 1, rtol=1e-5)


def test_genes_have_vectors_but_no_context(cells, model, expected):
    embed_genes(cells, model)
    found = cells.varm["cellplm_genes"]
    places = {name: i for i, name in enumerate(model.vocabulary.features)}
    for name, vector in zip(cells.var_names, found, strict=True):
        if name in places:
            assert np.array_equal(vector, expected["gene_embedding"][places[name]])
        else:
            assert np.isnan(vector).all()
    with pytest.raises(ValueError, match="tokens of 'cellplm' are cells, so that genes have no context"):
        embed_genes(cells, model, how="contextual")
