"""`tl.embed_genes`: vectors of genes, from the table or averaged over the cells that express them."""

from __future__ import annotations

import warnings

import anndata
import numpy as np
import pytest
import torch
from scipy import sparse

from sclcm.encoding.batches import iter_batches
from sclcm.engine.infer import to_tensors
from sclcm.models import _pass
from sclcm.models._pass import open_input
from sclcm.tl import embed_genes

KEY = "geneformer_genes"


def vectors(adata, model, **given):
    return embed_genes(adata, model, copy=True, **given).varm[KEY]


def naive_means(adata, model, *, n_blocks):
    """Mean of the token vectors of each var, cell by cell."""
    data = open_input(adata, model)
    (chunk,) = data.chunks(model)
    sums, counts = np.zeros((adata.n_vars, model.d_model)), np.zeros(adata.n_vars)
    var_of = {
        int(feature): int(var)
        for var, feature in zip(data.alignment.var_index, data.alignment.feature_index, strict=True)
    }
    for batch in iter_batches(model.encode(chunk), pad=0, max_tokens=1):
        with torch.inference_mode():
            x = model.lcm(to_tensors(batch, model.device), n_blocks=n_blocks)[0].numpy()
        for vector, feature in zip(x, batch.features[0], strict=True):
            if feature >= 0:
                sums[var_of[feature]] += vector
                counts[var_of[feature]] += 1
    return np.where(counts[:, None] > 0, sums / np.maximum(counts, 1)[:, None], np.nan)


def test_table_is_spread_over_var(adata, model):
    assert embed_genes(adata, model) is None
    found = adata.varm[KEY]
    assert found.shape == (adata.n_vars, model.d_model)
    assert found.dtype == np.float32
    table = dict(zip(model.vocabulary.features, model.gene_vectors(), strict=True))
    for gene, vector in zip(adata.var_names, found, strict=True):
        wanted = table.get(gene)
        assert np.isnan(vector).all() if wanted is None else np.array_equal(vector, wanted)
    params = adata.uns[KEY]["params"]
    assert (params["how"], params["gene_key"], params["checkpoint_sha256"]) == ("vocabulary", "var_names", model.sha256)
    assert (list(adata.varm), list(adata.uns)) == ([KEY], [KEY])


@pytest.mark.parametrize("model_layer", [-1, -2])
def test_contextual_means_are_over_the_cells_in_which_the_gene_is_a_token(adata, model, model_layer):
    embed_genes(adata, model, how="contextual", model_layer=model_layer)
    wanted = naive_means(adata, model, n_blocks=model.lcm.n_blocks + 1 + model_layer)
    np.testing.assert_allclose(adata.varm[KEY], wanted, rtol=1e-4, atol=1e-5)
    params = adata.uns[KEY]["params"]
    assert (params["how"], params["model_layer"], params["source"]) == ("contextual", model_layer, ".X")
    assert 0 < params["matched_count_share"] < 1


@pytest.mark.parametrize("size", [1, 3, None])
def test_sizes_of_chunks_and_batches_do_not_matter(cells, model, size, monkeypatch):
    wanted = vectors(cells, model, how="contextual")
    monkeypatch.setattr(_pass.Input.batches, "__kwdefaults__", {"chunk_size": size or 5})
    found = vectors(cells, model, how="contextual", batch_size=size)
    assert np.array_equal(np.isnan(found), np.isnan(wanted))
    error = np.linalg.norm(found - wanted, axis=1) / np.linalg.norm(wanted, axis=1)
    assert np.nanmax(error) <= 1e-6


def test_order_of_cells_and_genes_does_not_matter(cells, v1):
    wanted = vectors(cells, v1, how="contextual")
    rows, columns = np.random.default_rng(0).permutation(12), np.random.default_rng(1).permutation(cells.n_vars)
    found = vectors(cells[rows, columns].copy(), v1, how="contextual")
    np.testing.assert_allclose(found, wanted[columns], rtol=1e-4, atol=1e-5)
    assert np.array_equal(vectors(cells[:, columns], v1), vectors(cells, v1)[columns], equal_nan=True)


def test_layer_is_read_for_contextual_means_only(cells, v1):
    adata = cells.copy()
    adata.layers["counts"] = adata.X.copy()
    adata.X = np.log1p(adata.X)
    assert np.array_equal(
        vectors(adata, v1, how="contextual", layer="counts"), vectors(cells, v1, how="contextual"), equal_nan=True
    )
    assert np.array_equal(vectors(adata, v1), vectors(cells, v1), equal_nan=True)


def test_table_needs_no_counts(cells, v1):
    adata = anndata.AnnData(obs=cells.obs, var=cells.var)
    assert adata.X is None
    embed_genes(adata, v1)
    assert np.array_equal(adata.varm[KEY], vectors(cells, v1), equal_nan=True)


def test_var_that_share_a_gene_share_its_vector(cells, v2):
    names = cells.var_names.to_numpy().copy()
    names[:2] = next(iter(v2.vocabulary.features))
    adata = cells.copy()
    adata.var["ensembl_id"] = names
    found = vectors(adata, v2)
    assert np.array_equal(found[0], found[1])
    assert np.isfinite(found[0]).all()


def test_copy_keys_and_views(adata, v1, unchanged):
    view = adata[:5, :200]
    with unchanged(adata):
        changed = embed_genes(adata, v1, key_added="k", copy=True)
        embed_genes(view, v1)
    assert (list(changed.varm), list(changed.uns)) == (["k"], ["k"])
    assert view.varm[KEY].shape == (200, 32)


@pytest.mark.parametrize("how", ["vocabulary", "contextual"])
def test_result_can_be_written_and_read_back(adata, v1, tmp_path, how):
    embed_genes(adata, v1, how=how)
    adata.write_h5ad(tmp_path / "cells.h5ad")
    found = anndata.read_h5ad(tmp_path / "cells.h5ad")
    assert np.array_equal(found.varm[KEY], adata.varm[KEY], equal_nan=True)
    assert found.uns[KEY]["params"] == adata.uns[KEY]["params"]


def test_file_is_read_by_chunks(cells, v1, tmp_path):
    cells.write_h5ad(tmp_path / "cells.h5ad")
    adata = anndata.read_h5ad(tmp_path / "cells.h5ad", backed="r")
    embed_genes(adata, v1, how="contextual")
    assert np.array_equal(adata.varm[KEY], vectors(cells, v1, how="contextual"), equal_nan=True)
    with pytest.raises(ValueError, match="cannot copy a backed AnnData"):
        embed_genes(adata, v1, copy=True)
    adata.file.close()


def test_gene_of_no_cell_has_no_contextual_vector_and_no_warning(cells, v1):
    adata = cells.copy()
    counts = adata.X.toarray()
    gene = int(np.flatnonzero(np.isin(adata.var_names, v1.vocabulary.features))[5])
    counts[:, gene] = 0
    adata.X = sparse.csr_matrix(counts)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = vectors(adata, v1, how="contextual")
    assert np.isnan(found[gene]).all()


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"how": "mean"}, ValueError, "'fixed', 'contextual', 'measured', 'by_place' or 'decoder'"),
        (
            {"how": "contextual", "model_layer": 0},
            ValueError,
            r"`model_layer` is 0; expected -1 \(the last block\) to -3",
        ),
        ({"how": "contextual", "model_layer": -4}, ValueError, "`model_layer` is -4"),
        ({"how": "contextual", "layer": "umi"}, KeyError, "no layer 'umi'"),
        ({"gene_key": "symbols"}, ValueError, "no column 'symbols'"),
        ({"batch_size": 0}, ValueError, "`batch_size` is 0"),
        ({"dtype": "int8"}, ValueError, "`dtype` is 'int8'"),
    ],
)
def test_wrong_arguments_are_refused_and_leave_everything_as_it_was(adata, v1, given, error, match, unchanged):
    with unchanged(adata), pytest.raises(error, match=match):
        embed_genes(adata, v1, **given)


@pytest.mark.parametrize("how", ["vocabulary", "contextual"])
def test_unknown_genes_and_other_species_are_refused(adata, v1, how):
    adata.var_names = [f"peak{i}" for i in range(adata.n_vars)]
    with pytest.raises(ValueError, match="'geneformer' knows 0 of the"):
        embed_genes(adata, v1, how=how)
    adata.var_names = [f"ENSMUSG{i:011d}" for i in range(adata.n_vars)]
    with pytest.raises(ValueError, match="mouse genes"):
        embed_genes(adata, v1, how=how)
    assert not adata.varm


def test_normalized_counts_are_refused_for_contextual_means(adata, v1):
    adata.X = np.log1p(adata.X)
    with pytest.raises(ValueError, match="needs raw counts"):
        embed_genes(adata, v1, how="contextual")
    assert not adata.varm


@pytest.mark.parametrize("wrong", [None, np.ones((2, 2))])
@pytest.mark.parametrize("how", ["vocabulary", "contextual"])
def test_what_is_no_anndata_is_refused(v1, wrong, how):
    with pytest.raises(TypeError, match=r"`adata` is a .*; expected an AnnData"):
        embed_genes(wrong, v1, how=how)
