"""The README's main job: real cells, embedded, labelled and drawn by the model that comes with the package."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from typer.testing import CliRunner

import sclcm
from sclcm.cli import app


def test_the_main_job_writes_vectors_labels_and_a_picture(tmp_path):
    output, picture = tmp_path / "pbmc68k.h5ad", tmp_path / "umap.png"
    command = ["embed", "pbmc68k-reduced", "--annotate", "--umap", str(picture), "-o", str(output)]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    adata = ad.read_h5ad(output)
    vectors = adata.obsm["X_sclcm_mini"]
    assert vectors.shape[0] == 700
    assert np.isfinite(vectors).all()
    assert (vectors != 0).any(axis=1).all()
    assert adata.obs["sclcm_mini_label"].nunique() > 3
    assert adata.obs["sclcm_mini_label_score"].between(0, 1).all()
    assert adata.obsm["X_umap_sclcm_mini"].shape == (700, 2)
    assert picture.stat().st_size > 20_000


def test_the_default_model_separates_the_authors_types_better_than_chance():
    from sklearn.metrics import silhouette_score

    adata = sclcm.datasets.pbmc68k_reduced()
    sclcm.tl.embed(adata, dtype="float32")
    score = silhouette_score(adata.obsm["X_sclcm_mini"], adata.obs["bulk_labels"], metric="cosine")
    shuffled = np.random.default_rng(0).permutation(adata.obs["bulk_labels"])
    assert score > 0.05
    assert score > silhouette_score(adata.obsm["X_sclcm_mini"], shuffled, metric="cosine") + 0.1


def test_the_default_model_reads_the_true_library_size():
    adata = sclcm.datasets.pbmc68k_reduced()[:20].copy()
    with_totals = sclcm.get.embedding(sclcm.tl.embed(adata, copy=True, dtype="float32"))
    del adata.obs["n_counts"]
    without = sclcm.get.embedding(sclcm.tl.embed(adata, copy=True, dtype="float32"))
    assert not np.allclose(with_totals, without, rtol=1e-3)


def test_the_default_model_reads_symbols_and_ensembl_ids_alike():
    adata = sclcm.datasets.pbmc68k_reduced()[:20].copy()
    ensembl = sclcm.pp.unify_genes(adata, to="ensembl")
    by_symbol = sclcm.tl.embed(adata, copy=True, dtype="float32").obsm["X_sclcm_mini"]
    by_id = sclcm.tl.embed(ensembl, copy=True, dtype="float32").obsm["X_sclcm_mini"]
    np.testing.assert_allclose(by_id, by_symbol, rtol=1e-4, atol=1e-5)


def test_the_default_model_is_small_enough_for_a_wheel():
    from importlib.resources import files

    folder = files("sclcm.weights") / "sclcm-mini"
    assert sum(len(file.read_bytes()) for file in folder.iterdir()) < 16e6


def test_mouse_cells_are_refused_by_name():
    genes = ["Cd3d", "Cd79a", "Lyz2", "Nkg7", "Actb", "Gapdh", "Cd19", "Ms4a1", "Foxp3", "Il7r", "Tyrobp", "S100a8"] * 3
    genes = [gene if i < 12 else f"{gene}{i}" for i, gene in enumerate(genes)]
    adata = ad.AnnData(np.ones((3, len(genes)), dtype=np.float32))
    adata.var_names = genes
    with pytest.raises(ValueError, match="mouse"):
        sclcm.tl.embed(adata)
