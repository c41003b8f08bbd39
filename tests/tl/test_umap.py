"""Layout of an embedding."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest

from sclcm.tl._umap import umap


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    centres = np.repeat(np.eye(8)[:2] * 20, 15, axis=0)
    embedding = (centres + rng.normal(size=(30, 8))).astype(np.float32)
    return ad.AnnData(rng.poisson(1.0, size=(30, 5)).astype(np.float32), obsm={"X_sclcm_mini": embedding})


def test_layout_graph_and_parameters_are_written_to_slots_of_their_own(adata, tmp_path):
    assert umap(adata, n_neighbors=5) is None
    assert adata.obsm["X_umap_sclcm_mini"].shape == (30, 2)
    assert adata.obsm["X_umap_sclcm_mini"].dtype == np.float32
    graph = adata.uns["sclcm_mini_neighbors"]
    assert {graph["distances_key"], graph["connectivities_key"]} == set(adata.obsp)
    params = adata.uns["X_umap_sclcm_mini"]["params"]
    assert params["key"] == "X_sclcm_mini"
    assert params["n_neighbors"] == 5
    assert params["neighbors_key"] == "sclcm_mini_neighbors"
    adata.write_h5ad(tmp_path / "written.h5ad")
    assert ad.read_h5ad(tmp_path / "written.h5ad").uns["X_umap_sclcm_mini"]["params"]["metric"] == "euclidean"


def test_groups_that_are_apart_stay_apart_in_the_layout(adata):
    umap(adata, n_neighbors=5)
    first, second = adata.obsm["X_umap_sclcm_mini"][:15], adata.obsm["X_umap_sclcm_mini"][15:]
    spread = max(np.linalg.norm(group - group.mean(0), axis=1).max() for group in (first, second))
    assert np.linalg.norm(first.mean(0) - second.mean(0)) > spread


def test_same_seed_gives_the_same_layout_and_another_seed_another(adata):
    layouts = [umap(adata, n_neighbors=5, random_state=seed, copy=True).obsm["X_umap_sclcm_mini"] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(layouts[0], layouts[1])
    assert not np.array_equal(layouts[0], layouts[2])


def test_copy_leaves_the_original_alone(adata):
    changed = umap(adata, n_neighbors=5, copy=True, key_added="mine")
    assert "mine" in changed.obsm
    assert "mine_neighbors" in changed.uns
    assert list(adata.obsm) == ["X_sclcm_mini"]
    assert not adata.uns


def test_view_is_made_actual(adata):
    view = adata[:20]
    umap(view, n_neighbors=5)
    assert not view.is_view
    assert "X_umap_sclcm_mini" not in adata.obsm


def test_backed_object_is_written_in_memory_but_not_copied(adata, tmp_path):
    adata.write_h5ad(tmp_path / "backed.h5ad")
    backed = ad.read_h5ad(tmp_path / "backed.h5ad", backed="r")
    umap(backed, n_neighbors=5)
    assert "X_umap_sclcm_mini" in backed.obsm
    with pytest.raises(ValueError, match=r"backed.*to_memory"):
        umap(backed, n_neighbors=5, copy=True)
    backed.file.close()


def test_number_of_neighbours_follows_the_number_of_cells(adata):
    few = adata[:6].copy()
    umap(few)
    assert few.uns["X_umap_sclcm_mini"]["params"]["n_neighbors"] == 5


def test_missing_embedding_is_an_error_that_lists_what_is_there(adata):
    with pytest.raises(KeyError, match=r"no 'X_other', only \['X_sclcm_mini'\].*tl\.embed"):
        umap(adata, "X_other")


def test_too_few_cells_are_refused(adata):
    with pytest.raises(ValueError, match="at least 4 cells, but `adata` has 3"):
        umap(adata[:3].copy())


def test_embedding_that_is_not_finite_is_refused_and_nothing_is_written(adata):
    adata.obsm["X_sclcm_mini"][7, 2] = np.nan
    with pytest.raises(ValueError, match=r"not finite for 1 of 30 cells, first '7'"):
        umap(adata)
    assert list(adata.obsm) == ["X_sclcm_mini"]


def test_what_is_no_anndata_and_views_of_files_are_refused(tmp_path):
    with pytest.raises(TypeError, match="`adata` is a list; expected an AnnData"):
        umap([])
    adata = ad.AnnData(np.ones((6, 2), dtype=np.float32), obsm={"X_a": np.eye(6, 3, dtype=np.float32)})
    adata.write_h5ad(tmp_path / "a.h5ad")
    with pytest.raises(ValueError, match="a view of a backed AnnData"):
        umap(ad.read_h5ad(tmp_path / "a.h5ad", backed="r")[:5], "X_a")


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"n_neighbors": 1}, ValueError, "`n_neighbors` is 1; expected a number of cells, 2 or more"),
        ({"n_neighbors": 2.5}, ValueError, "`n_neighbors` is 2.5"),
        ({"min_dist": -1}, ValueError, "`min_dist` is -1; expected a distance between 0 and 1"),
        ({"min_dist": float("nan")}, ValueError, "`min_dist` is nan"),
        ({"metric": "l2"}, ValueError, "`metric` is 'l2'; expected 'euclidean' or 'cosine'"),
        ({"random_state": "a"}, TypeError, "`random_state` is 'a'; expected an integer"),
    ],
)
def test_numbers_that_no_layout_is_made_with_are_refused(adata, given, kind, message, unchanged):
    with unchanged(adata), pytest.raises(kind, match=message):
        umap(adata, **given)
