"""The packaged scFoundation: submodels, forms of input, depths, short cells, and the decoder of all genes."""

from __future__ import annotations

import dataclasses
import shutil
import warnings

import anndata
import numpy as np
import pytest
import scipy.sparse as sp
import torch

import sclcm
from sclcm._settings import settings
from sclcm.data.matrix import layer_names
from sclcm.encoding.depth import FixedDepth, Log10Total, StoredTotal
from sclcm.engine.decode import cells_at_once
from sclcm.models import decode_genes, load, verify
from sclcm.models._pretrained import Pretrained

KEY = "X_scfoundation"


@pytest.fixture(autouse=True)
def _quiet():
    before = settings.progress
    settings.progress = False
    yield
    settings.progress = before


@pytest.fixture(scope="module")
def folder(reference):
    return reference / "scfoundation"


@pytest.fixture(scope="module")
def cell(folder):
    return load(folder / "checkpoint", device="cpu", dtype="float32")


@pytest.fixture(scope="module")
def gene(folder):
    return load(folder / "checkpoint", submodel="gene", device="cpu", dtype="float32")


@pytest.fixture
def adata(folder):
    return anndata.read_h5ad(folder / "input.h5ad")


def in_logs(adata, model, *, total="total_counts"):
    """The same cells as log1p of counts per 10,000 of the known genes, with the counts' total in obs."""
    known = adata[:, np.isin(adata.var_names, model.vocabulary.features)].copy()
    counts = known.X.toarray().astype(np.float64)
    known.obs[total] = counts.sum(1)
    known.X = sp.csr_matrix(np.log1p(counts / counts.sum(1, keepdims=True) * 1e4))
    return known


def embedded(adata, model, **given):
    return sclcm.tl.embed(adata, model, copy=True, key_added="x", **given).obsm["x"]


# ---- submodels ----


def test_file_holds_three_models(folder, cell, gene):
    rde = load(folder / "checkpoint", submodel="rde", device="cpu")
    assert [model.submodel for model in (cell, rde, gene)] == ["cell", "rde", "gene"]
    assert [model.name for model in (cell, rde, gene)] == ["scfoundation", "scfoundation.rde", "scfoundation.gene"]
    tables = [model.lcm.embed.gene.weight for model in (cell, rde, gene)]
    assert not any(torch.equal(tables[i], tables[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


def test_unknown_submodel_lists_those_there_are(folder):
    with pytest.raises(ValueError, match="`submodel` is 'cells'; the file holds 'cell', 'rde', 'gene'"):
        load(folder / "checkpoint", submodel="cells")


def test_recipe_of_another_submodel_says_how_to_load_it(adata, cell, gene):
    with pytest.raises(ValueError, match=r"for the submodel 'rde', but this is 'cell'; .*submodel='rde'"):
        sclcm.tl.embed(adata, cell, recipe="mapping")
    with pytest.raises(ValueError, match="for the submodel 'cell' or 'rde', but this is 'gene'"):
        sclcm.tl.embed(adata, gene)
    with pytest.raises(ValueError, match="for the submodel 'gene', but this is 'cell'"):
        sclcm.tl.impute(adata, cell)
    assert list(adata.obsm) == layer_names(adata) == []


def test_named_checkpoints_share_a_folder_of_files(folder, tmp_path, monkeypatch):
    monkeypatch.setattr(settings, "cache_dir", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"OS_scRNA_gene_index.19264.tsv") as error:
        load("scfoundation.rde")
    place = tmp_path / "scfoundation/models"
    assert str(place) in str(error.value)
    shutil.copytree(folder / "checkpoint", place)
    found = [load(name, device="cpu") for name in ("scfoundation", "scfoundation.rde", "scfoundation.gene")]
    assert [model.submodel for model in found] == ["cell", "rde", "gene"]
    with pytest.raises(TypeError, match="`submodel`, which says nothing here"):
        load("scfoundation.rde", submodel="cell")


def test_foreign_configuration_is_refused(folder, tmp_path):
    for file in (folder / "checkpoint").iterdir():
        shutil.copy(file, tmp_path)
    content = torch.load(tmp_path / "models.ckpt", weights_only=False)
    content["cell"]["config"]["model_config"]["mae_autobin"]["decoder"]["module_type"] = "transformer"
    torch.save(content, tmp_path / "models.ckpt")
    with pytest.raises(ValueError, match=r"'decoder\.module_type' is 'transformer', but only models with 'performer'"):
        load(tmp_path)
    del content["cell"]["config"]["dataset_config"]
    torch.save(content, tmp_path / "models.ckpt")
    with pytest.raises(ValueError, match=r"no part 'dataset_config\.rnaseq'"):
        load(tmp_path)
    del content["cell"]
    torch.save(content, tmp_path / "models.ckpt")
    with pytest.raises(ValueError, match="no entry 'cell'"):
        load(tmp_path)


@pytest.mark.parametrize(
    ("key", "found"),
    [
        ("seq_len", 162),
        ("bin_num", 20),
        ("encoder.hidden_dim", 20),
        ("encoder.depth", 2),
        ("decoder.hidden_dim", 16),
        ("decoder.depth", 2),
        ("decoder.dim_head", 16),
    ],
)
def test_size_that_the_tensors_contradict_is_refused(folder, tmp_path, key, found):
    for file in (folder / "checkpoint").iterdir():
        shutil.copy(file, tmp_path)
    content = torch.load(tmp_path / "models.ckpt", weights_only=False)
    config = content["cell"]["config"]
    *part, last = key.split(".")
    for settings_of in (config["model_config"]["mae_autobin"], config["dataset_config"]["rnaseq"]):
        sizes = settings_of.get(part[0], {}) if part else settings_of
        if last in sizes:
            assert sizes[last] == found
            sizes[last] += 1
    torch.save(content, tmp_path / "models.ckpt")
    with pytest.raises(ValueError, match=f"'{key}' is {found + 1}, but the weights say {found};"):
        load(tmp_path)


def test_saved_model_is_the_same(adata, gene, tmp_path):
    gene.save(tmp_path / "saved")
    found = load(tmp_path / "saved", device="cpu")
    assert isinstance(found, Pretrained)
    assert (found.submodel, found.gene_recipes, found.recipes) == ("gene", gene.gene_recipes, gene.recipes)
    assert found.architecture == gene.architecture
    ours, theirs = (sclcm.tl.impute(adata, model, copy=True, key_added="x").layers["x"] for model in (found, gene))
    np.testing.assert_array_equal(ours, theirs)


def test_description_says_what_it_takes():
    found = sclcm.models.describe("scfoundation")
    assert found["accepts_bulk"]
    assert found["n_parameters"] == 119_252_285
    assert found["gene_recipes"].keys() == {"genes", "genes_log1p", "genes_log1p_and_total", "expression"}
    assert found["heads"] == ["expression"]
    assert "non-commercial" in found["license"]


# ---- what a cell's vector depends on ----


def test_order_batch_size_and_neighbours_do_not_matter(adata, cell):
    wanted = embedded(adata, cell)
    order = np.random.default_rng(0).permutation(adata.n_obs)
    np.testing.assert_allclose(embedded(adata[order], cell), wanted[order], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(embedded(adata, cell, batch_size=1), wanted, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(embedded(adata[3:5], cell), wanted[3:5], rtol=1e-5, atol=1e-5)
    genes = np.random.default_rng(1).permutation(adata.n_vars)
    np.testing.assert_allclose(embedded(adata[:, genes], cell), wanted, rtol=1e-5, atol=1e-5)


def test_depth_may_be_replaced(adata, cell):
    plain = cell.recipes["embed"]
    asked = dataclasses.replace(plain, depth=Log10Total(times=2.0))
    same = dataclasses.replace(plain, depth=FixedDepth(value=4.0))
    assert np.abs(embedded(adata, cell, recipe=asked) - embedded(adata, cell)).max() > 1e-3
    np.testing.assert_array_equal(embedded(adata, cell, recipe=same), embedded(adata, cell))


def test_depth_of_a_recipe_without_target_is_refused(adata, cell):
    bulk = dataclasses.replace(cell.recipes["bulk"], depth=FixedDepth(value=4.0))
    with pytest.raises(ValueError, match="no token of 'scfoundation' says which depth is asked for"):
        sclcm.tl.embed(adata, cell, recipe=bulk)


# ---- forms of input ----


def test_logarithms_with_totals_are_read_as_counts_are(adata, cell):
    logs = in_logs(adata, cell)
    found = embedded(logs, cell, recipe="log1p_and_total")
    np.testing.assert_allclose(found, embedded(adata, cell), rtol=1e-4, atol=1e-5)
    renamed = logs.copy()
    renamed.obs = renamed.obs.rename(columns={"total_counts": "n_counts"})
    encoding = cell.recipes["log1p_and_total"].encoding
    depth = dataclasses.replace(encoding.depth, total=StoredTotal(column="n_counts"))
    recipe = dataclasses.replace(cell.recipes["log1p_and_total"], encoding=dataclasses.replace(encoding, depth=depth))
    np.testing.assert_array_equal(embedded(renamed, cell, recipe=recipe), found)
    with pytest.raises(ValueError, match="no column 'total_counts', from which this recipe takes the total"):
        sclcm.tl.embed(renamed, cell, recipe="log1p_and_total")
    assert "X_scfoundation" not in renamed.obsm


def test_logarithms_without_totals_are_another_input(adata, cell):
    logs = in_logs(adata, cell)
    found = embedded(logs, cell, recipe="log1p")
    assert np.isfinite(found).all()
    assert np.abs(found - embedded(adata, cell)).max() > 1e-3


def test_neither_form_is_taken_for_the_other(adata, cell):
    logs = in_logs(adata, cell)
    with pytest.raises(ValueError, match="not a raw count"):
        sclcm.tl.embed(logs, cell)
    for recipe in ("log1p", "log1p_and_total"):
        with pytest.raises(ValueError, match="holds raw counts, but 'scfoundation' reads log1p of counts per 10,000"):
            sclcm.tl.embed(adata, cell, recipe=recipe)
    logs.X = logs.X * 2
    with pytest.raises(ValueError, match="more than log1p of 10,000"):
        sclcm.tl.embed(logs, cell, recipe="log1p")


def test_bulk_samples_are_scaled_to_the_median_of_the_set(adata, cell):
    bulk = adata.copy()
    bulk.X = (bulk.X * 100_000).astype(np.float64)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = embedded(bulk, cell, recipe="bulk")
    assert np.abs(found[:4] - embedded(bulk[:4], cell, recipe="bulk")).max() > 1e-4
    np.testing.assert_allclose(embedded(bulk, cell, recipe="bulk", batch_size=2), found, rtol=1e-5, atol=1e-5)
    with pytest.warns(UserWarning, match="bulk samples"):
        embedded(bulk, cell)


def test_normalised_bulk_may_be_in_any_unit(adata, cell):
    bulk = adata.copy()
    bulk.X = bulk.X * 2.5
    assert np.isfinite(embedded(bulk, cell, recipe="bulk_normalized")).all()


# ---- short cells ----


def short_cells(adata, model):
    """Cell 0 without a known gene, cell 1 with one count, cell 2 with two of one gene."""
    known = np.flatnonzero(np.isin(adata.var_names, model.vocabulary.features))
    x = adata.X.toarray()
    x[:3] = 0
    x[1, known[3]], x[2, known[3]] = 1, 2
    short = adata.copy()
    short.X = sp.csr_matrix(x)
    return short


def test_cells_too_short_for_the_pooling_are_nan_and_named(adata, cell):
    short = short_cells(adata, cell)
    with (
        pytest.warns(UserWarning, match="1 of .* cells express no gene"),
        pytest.warns(UserWarning, match=rf"1 of .* cells have too few tokens .*{adata.obs_names[1]}.*rows are NaN"),
    ):
        found = embedded(short, cell)
    assert not found[0].any()
    assert np.isnan(found[1]).any()
    assert np.isfinite(found[2:]).all()
    with pytest.warns(UserWarning, match="1 of .* cells express no gene"):
        assert np.isfinite(embedded(short, cell, recipe="max")).all()


# ---- the decoder ----


def test_expression_is_predicted_for_every_known_gene(adata, gene):
    before = adata.X.copy()
    sclcm.tl.impute(adata, gene)
    found = adata.layers["scfoundation_gene_imputed"]
    known = np.isin(adata.var_names, gene.vocabulary.features)
    assert found.dtype == np.float32
    assert np.isfinite(found[:, known]).all()
    assert np.isnan(found[:, ~known]).all()
    assert (before != adata.X).nnz == 0
    assert adata.uns["scfoundation_gene_imputed"]["params"]["recipe"] == "expression"
    alone = sclcm.tl.impute(adata[4:5].copy(), gene, copy=True, key_added="k").layers["k"]
    np.testing.assert_allclose(alone[0, known], found[4, known], rtol=1e-4, atol=1e-5)


def test_genes_are_decoded_cell_by_cell_whatever_the_batch(adata, gene):
    kept = {}
    for size in (1, 4, None):
        rows, vectors = zip(*decode_genes(adata, gene, batch_size=size, device="cpu"), strict=True)
        order = np.argsort(np.concatenate(rows))
        kept[size] = np.concatenate(vectors)[order]
        assert max(map(len, rows)) == (size or min(adata.n_obs, 2048 // 162))
    assert kept[1].shape == (adata.n_obs, gene.vocabulary.n_features, 16)
    np.testing.assert_allclose(kept[4], kept[1], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(kept[None], kept[1], rtol=1e-4, atol=1e-5)


def test_mean_vectors_of_genes_are_those_of_the_cells(adata, gene):
    vectors = np.concatenate([out for _, out in decode_genes(adata, gene)]).mean(0)
    sclcm.tl.embed_genes(adata, gene, how="decoder")
    found = adata.varm["scfoundation_gene_genes"]
    for name, row in zip(adata.var_names, found, strict=True):
        if name in gene.vocabulary.feature_positions:
            wanted = vectors[gene.vocabulary.feature_positions[name]]
            np.testing.assert_allclose(row, wanted, rtol=1e-4, atol=1e-5)
        else:
            assert np.isnan(row).all()


def test_cells_without_known_genes_are_not_decoded(adata, gene):
    short = short_cells(adata, gene)
    rows = np.concatenate([rows for rows, _ in decode_genes(short, gene)])
    assert sorted(rows.tolist()) == list(range(1, adata.n_obs))
    with pytest.warns(UserWarning, match="rows are NaN"):
        found = sclcm.tl.impute(short, gene, copy=True, key_added="k").layers["k"]
    assert np.isnan(found[0]).all()
    assert np.isfinite(found[1:, np.isin(adata.var_names, gene.vocabulary.features)]).all()


def test_depth_changes_what_is_predicted(adata, gene):
    deeper = dataclasses.replace(gene.gene_recipes["expression"], depth=Log10Total(plus=1.0))
    ours, theirs = (
        sclcm.tl.impute(adata, gene, recipe=recipe, copy=True, key_added="k").layers["k"]
        for recipe in ("expression", deeper)
    )
    assert np.nanmax(np.abs(ours - theirs)) > 1e-3


def test_recipes_of_the_decoder_are_told_apart(adata, gene, cell):
    with pytest.raises(ValueError, match="gives vectors and no expression"):
        sclcm.tl.impute(adata, gene, recipe="genes")
    with pytest.raises(ValueError, match="gives numbers and no vectors"):
        sclcm.tl.embed_genes(adata, gene, how="decoder", recipe="expression")
    with pytest.raises(ValueError, match=r"`recipe` is 'embed'; 'scfoundation\.gene' has 'genes'"):
        decode_genes(adata, gene, recipe="embed")
    headless = dataclasses.replace(gene.gene_recipes["genes"], head="value")
    with pytest.raises(ValueError, match=r"`recipe` reads the head 'value'; the decoder of .* has \['expression'\]"):
        decode_genes(adata, gene, recipe=headless)
    with pytest.raises(ValueError, match="'sclcm-mini' has no decoder"):
        sclcm.tl.impute(adata, "sclcm-mini")
    assert layer_names(adata) == list(adata.varm) == []


def test_batches_for_the_decoder_count_its_places(gene):
    assert cells_at_once(19_266, gene.lcm, torch.device("cpu")) == 1
    assert cells_at_once(162, gene.lcm, torch.device("cpu")) == 12


# ---- damage is noticed ----


@pytest.fixture
def copied(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / "copy", ignore=shutil.ignore_patterns("*.py", "__pycache__"))


def failures(folder):
    return {check.array for check in verify("scfoundation", fixture=folder) if check.status not in ("OK", "DEFERRED")}


@pytest.mark.parametrize(
    ("submodel", "tensor", "array"),
    [
        ("cell", "pos_emb.weight", "encoder_input_cell0_t4"),
        ("rde", "encoder.transformer_encoder.1.linear2.weight", "cell_all_a5_F_rde"),
        ("gene", "token_emb.emb_mask.weight", "pretrain_prediction"),
        ("gene", "decoder.performer.net.layers.0.0.fn.fast_attention.projection_matrix", "gene_f1_F"),
        ("gene", "to_final.bias", "gene_expression_f1_F"),
    ],
)
def test_flipped_weight_is_noticed(copied, submodel, tensor, array):
    content = torch.load(copied / "checkpoint/models.ckpt", weights_only=False)
    content[submodel]["state_dict"][f"model.{tensor}"].neg_()
    torch.save(content, copied / "checkpoint/models.ckpt")
    assert array in failures(copied)


def test_swapped_genes_are_noticed(copied):
    file = copied / "checkpoint/OS_scRNA_gene_index.19264.tsv"
    file.write_text(file.read_text().replace("ANXA1\t", "?\t").replace("AHSA1\t", "ANXA1\t").replace("?\t", "AHSA1\t"))
    assert "gene_aligned_counts" in failures(copied)


@pytest.mark.parametrize("array", ["pretrain_mask", "bin_grid_values", "batch_encoder_padding", "absent_gene_mask"])
def test_changed_expected_value_is_noticed(copied, array):
    with np.load(copied / "expected.npz") as stored:
        arrays = dict(stored)
    changed = arrays[array].copy()
    changed.flat[0] = not changed.flat[0] if changed.dtype.kind == "b" else changed.flat[0] + 1
    np.savez(copied / "expected.npz", **{**arrays, array: changed})
    assert failures(copied)
