"""`tl.embed` by a model that bins values at random, samples genes and may be bound to batches."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

import sclcm
from sclcm.models._pass import open_input
from sclcm.models._verify import _packaged

ROOT = _packaged("scgpt")


@pytest.fixture(scope="module")
def model():
    return sclcm.models.load(ROOT / "checkpoint", device="cpu")


@pytest.fixture(scope="module")
def integration():
    return sclcm.models.load(
        ROOT / "checkpoint_integration", family="scgpt", vocabulary=ROOT / "checkpoint", device="cpu"
    )


@pytest.fixture
def adata():
    return ad.read_h5ad(ROOT / "input.h5ad")


def vectors(adata, model, **given):
    return sclcm.tl.embed(adata, model, key_added="x", copy=True, **given).obsm["x"]


def test_vectors_have_length_one_and_the_call_is_remembered(adata, model):
    sclcm.tl.embed(adata, model, random_state=7)
    np.testing.assert_allclose(np.linalg.norm(adata.obsm["X_scgpt"], axis=1), 1, rtol=1e-6)
    params = adata.uns["scgpt"]["params"]
    assert (params["random_state"], params["batch_key"], params["recipe"]) == (7, "", "embed")


@pytest.mark.parametrize("store", [np.asarray, sparse.csr_matrix, sparse.csc_matrix, np.asfortranarray])
def test_storage_does_not_matter(adata, model, store):
    wanted = vectors(adata, model)
    adata.X = store(adata.X.toarray())
    np.testing.assert_allclose(vectors(adata, model), wanted, rtol=1e-5, atol=1e-6)


def test_neither_order_nor_neighbours_nor_batches_matter_although_bins_are_drawn(adata, model):
    wanted = vectors(adata, model)
    order = np.random.default_rng(0).permutation(adata.n_obs)
    genes = np.random.default_rng(1).permutation(adata.n_vars)
    np.testing.assert_allclose(vectors(adata[order, genes].copy(), model), wanted[order], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(vectors(adata[3:5].copy(), model), wanted[3:5], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(vectors(adata, model, batch_size=1), wanted, rtol=1e-5, atol=1e-6)


def test_seed_changes_what_is_drawn_and_nothing_else(adata, model):
    same, other = vectors(adata, model, random_state=0), vectors(adata, model, random_state=1)
    np.testing.assert_array_equal(vectors(adata, model), same)
    assert np.abs(same - other).max() > 1e-4
    assert (same * other).sum(1).min() > 0.9


def test_seed_that_is_no_integer_is_refused(adata, model):
    with pytest.raises(TypeError, match=r"`random_state` is 0\.5; expected an integer"):
        vectors(adata, model, random_state=0.5)


@pytest.mark.parametrize("recipe", ["cls", "avg_pool", "w_pool"])
def test_every_official_recipe_gives_a_vector_a_cell(adata, model, recipe):
    found = vectors(adata, model, recipe=recipe)
    assert found.shape == (adata.n_obs, model.d_model)
    assert np.isfinite(found).all()


def test_cell_without_a_known_gene_has_zeros_and_one_warning(adata, model):
    counts = adata.X.toarray()
    counts[4] = 0
    adata.X = sparse.csr_matrix(counts)
    with pytest.warns(UserWarning, match="1 of .* cells express no gene that 'scgpt' knows"):
        found = vectors(adata, model)
    assert not found[4].any()
    assert found[3].any()


def test_model_bound_to_batches_takes_them_by_name_or_number(adata, integration):
    adata.obs["number"] = adata.obs["batch"].cat.codes.astype(int)
    by_name = vectors(adata, integration, batch_key="batch")
    np.testing.assert_array_equal(vectors(adata, integration, batch_key="number"), by_name)
    adata.obs["other"] = (adata.obs["number"] + 1) % 3
    assert np.abs(vectors(adata, integration, batch_key="other") - by_name).max() > 1e-3


def test_batch_of_a_cell_does_not_touch_its_neighbours(adata, integration):
    wanted = vectors(adata, integration, batch_key="batch")
    one_batch = adata[adata.obs["batch"] == "b1"].copy()
    one_batch.obs["number"] = 1
    found = vectors(one_batch, integration, batch_key="number")
    np.testing.assert_allclose(found, wanted[adata.obs["batch"] == "b1"], rtol=1e-5, atol=1e-6)


def test_model_bound_to_batches_asks_for_them_and_leaves_the_data_alone(adata, integration):
    for call in (sclcm.tl.embed, lambda *given: sclcm.tl.embed_genes(*given, how="contextual")):
        with pytest.raises(ValueError, match="was fine-tuned on 3 batches and needs the batch of each cell"):
            call(adata, integration)
    assert not adata.obsm
    assert not adata.uns


def test_model_without_batches_refuses_them(adata, model):
    with pytest.raises(ValueError, match="embeds each cell on its own; leave it out"):
        sclcm.tl.embed(adata, model, batch_key="batch")


def test_vectors_of_genes_are_those_that_enter_the_sum(adata, model):
    sclcm.tl.embed_genes(adata, model)
    norm = model.lcm.embed.gene_norm
    position = model.vocabulary.feature_positions["CCNI"]
    wanted = norm(model.lcm.embed.gene.weight[model.vocabulary.token_ids[position]]).detach().numpy()
    np.testing.assert_allclose(adata[:, "CCNI"].varm["scgpt_genes"][0], wanted, rtol=1e-5, atol=1e-6)


def test_columns_of_one_gene_stay_tokens_of_their_own(adata, model):
    again = adata[:, ["CCNI"]].copy()
    again.var_names = ["another id"]
    twice = ad.concat([adata, again], axis=1, merge="same")
    assert twice.var["feature_name"].tolist().count("CCNI") == 2
    data = open_input(twice, model)
    chunk = next(data.chunks(model))
    once, both = model.encode(next(open_input(adata, model).chunks(model))), model.encode(chunk)
    ccni = model.vocabulary.token("CCNI")
    for cell in np.flatnonzero(adata[:, "CCNI"].X.toarray().ravel() > 0):
        tokens = both.token_ids[both.indptr[cell] : both.indptr[cell + 1]]
        assert (tokens == ccni).sum() == 2 or len(tokens) == model.encoding.max_tokens
        assert (once.token_ids[once.indptr[cell] : once.indptr[cell + 1]] == ccni).sum() <= 1
    order = np.random.default_rng(0).permutation(twice.n_vars)
    np.testing.assert_allclose(vectors(twice[:, order].copy(), model), vectors(twice, model), rtol=1e-5, atol=1e-6)
