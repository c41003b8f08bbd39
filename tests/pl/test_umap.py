"""Pictures of a layout: what is drawn, in which colours, and that nothing runs out of the figure."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
from matplotlib import pyplot as plt
from matplotlib.colors import to_hex

from sclcm.pl._umap import PALETTE, umap


@pytest.fixture(autouse=True)
def _close_figures():
    yield
    plt.close("all")


@pytest.fixture
def adata():
    rng = np.random.default_rng(0)
    labels = pd.Categorical([("B cell", "T cell", "unknown")[number % 3] for number in range(60)])
    obs = pd.DataFrame({"sclcm_mini_label": labels, "sclcm_mini_label_score": rng.random(60)})
    obs.index = obs.index.astype(str)
    counts = rng.poisson(1.0, size=(60, 4)).astype(np.float32)
    return ad.AnnData(counts, obs=obs, obsm={"X_umap_sclcm_mini": rng.normal(size=(60, 2))})


def _legend_texts(ax):
    return [text.get_text() for text in ax.get_legend().get_texts()]


def test_labels_and_scores_of_the_embedding_are_drawn_by_default(adata):
    axes = umap(adata)
    assert [ax.get_title() for ax in axes] == ["sclcm_mini_label", "sclcm_mini_label_score"]
    assert _legend_texts(axes[0]) == ["B cell", "T cell", "unknown"]


def test_undecided_cells_are_grey(adata):
    umap(adata)
    assert list(adata.uns["sclcm_mini_label_colors"]) == [PALETTE[0], PALETTE[1], "#d0d0d0"]


def test_colours_that_are_already_there_are_kept(adata):
    adata.uns["sclcm_mini_label_colors"] = ["#111111", "#222222", "#333333"]
    umap(adata, color="sclcm_mini_label")
    assert list(adata.uns["sclcm_mini_label_colors"]) == ["#111111", "#222222", "#333333"]


def test_every_cell_is_one_point_in_the_colour_of_its_label(adata):
    (ax,) = umap(adata, color="sclcm_mini_label")
    drawn = {tuple(point): to_hex(color) for c in ax.collections for point, color in _points(c)}
    layout = adata.obsm["X_umap_sclcm_mini"]
    colors = dict(zip(adata.obs["sclcm_mini_label"].cat.categories, adata.uns["sclcm_mini_label_colors"], strict=True))
    expected = {tuple(layout[i]): colors[label] for i, label in enumerate(adata.obs["sclcm_mini_label"])}
    assert drawn == expected


def _points(collection):
    offsets = np.asarray(collection.get_offsets())
    colors = np.broadcast_to(collection.get_facecolors(), (len(offsets), 4))
    return zip(offsets, colors, strict=True)


def test_without_labels_points_are_grey(adata):
    del adata.obs["sclcm_mini_label"], adata.obs["sclcm_mini_label_score"]
    (ax,) = umap(adata)
    assert ax.get_legend() is None


def test_genes_and_plain_layouts_can_be_drawn(adata):
    adata.obsm["X_umap"] = adata.obsm["X_umap_sclcm_mini"]
    assert len(umap(adata, "X_umap", color=["0", "1", "2"])) == 3


@pytest.mark.parametrize("n_categories", [1, 16, 30, 60])
def test_nothing_is_cut_off_however_many_labels_there_are(adata, n_categories):
    names = [f"a rather long cell type name {number % n_categories}" for number in range(adata.n_obs)]
    adata.obs["many"] = pd.Categorical(names)
    axes = umap(adata, color=["many", "sclcm_mini_label_score", "many"])
    figure = axes[0].get_figure(root=True)
    box = figure.get_tightbbox()
    assert box.x0 >= 0
    assert box.y0 >= 0
    assert box.x1 <= figure.get_figwidth()
    assert box.y1 <= figure.get_figheight()
    boxes = [ax.get_tightbbox() for ax in axes]
    assert boxes[0].x1 < boxes[1].x0
    assert boxes[2].y1 < boxes[0].y0


def test_palette_has_thirty_different_colours():
    assert len(set(PALETTE)) == 30


def test_colours_are_those_that_the_script_makes():
    file = Path(__file__).parents[2] / "scripts" / "build_palette.py"
    spec = importlib.util.spec_from_file_location("build_palette", file)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    assert tuple(script.palette()) == PALETTE
    apart = script.distances(script.to_rgb(PALETTE[:8]), script.to_rgb(PALETTE[:8]))
    assert apart[~np.eye(8, dtype=bool)].min() > 0.15


def test_undecided_cells_are_grey_among_more_categories_than_the_palette_has_colours(adata):
    names = [f"type {number}" for number in range(40)] + ["unknown"] * 20
    adata.obs["many"] = pd.Categorical(names)
    umap(adata, color="many")
    colors = dict(zip(adata.obs["many"].cat.categories, adata.uns["many_colors"], strict=True))
    assert len(set(colors.values())) == 41
    assert colors["unknown"] == "#d0d0d0"


def test_figure_is_saved_with_everything_beside_the_panels(adata, tmp_path):
    axes = umap(adata, save=tmp_path / "umap.png")
    height, width, _ = plt.imread(tmp_path / "umap.png").shape
    figure = axes[0].figure
    assert abs(width / height - figure.get_figwidth() / figure.get_figheight()) < 0.1
    umap(adata, save=str(tmp_path / "umap.svg"))
    assert (tmp_path / "umap.svg").read_text().startswith("<?xml")


def test_figure_is_shown_only_if_asked_for(adata, monkeypatch):
    shown = []
    monkeypatch.setattr(plt, "show", lambda: shown.append(True))
    umap(adata)
    assert not shown
    umap(adata, show=True)
    assert shown == [True]


def test_unknown_colour_is_refused_with_the_closest_names_and_leaves_no_figure(adata):
    with pytest.raises(KeyError, match=r"'sclcm_mini_labels', which is neither .* did you mean 'sclcm_mini_label'"):
        umap(adata, color="sclcm_mini_labels")
    assert not plt.get_fignums()


def test_figure_of_a_call_that_fails_is_closed(adata):
    with pytest.raises(AttributeError):
        umap(adata, no_such_option=True)
    assert not plt.get_fignums()


def test_given_axes_are_used(adata):
    _, ax = plt.subplots()
    assert umap(adata, color="sclcm_mini_label", ax=ax) == [ax]


def test_one_pair_of_axes_cannot_take_two_colours(adata):
    _, ax = plt.subplots()
    with pytest.raises(ValueError, match="`ax` takes a single colour, `color` names 2"):
        umap(adata, ax=ax)


def test_titles_have_to_match_the_panels(adata):
    with pytest.raises(ValueError, match="`title` names 1 panels, `color` 2"):
        umap(adata, title="one")


def test_missing_layout_is_an_error_that_says_what_to_call(adata):
    with pytest.raises(KeyError, match=r"no 'X_umap_scgpt'.*sclcm\.tl\.umap\(adata, 'X_scgpt'\)"):
        umap(adata, "X_scgpt")


def test_what_is_no_anndata_is_refused_and_no_colour_is_grey():
    with pytest.raises(TypeError, match="`adata` is a NoneType; expected an AnnData"):
        umap(None)
    adata = ad.AnnData(np.ones((5, 1)), obsm={"X_umap": np.eye(5, 2)})
    assert len(umap(adata, "X_umap", color=[])) == 1


def test_color_that_is_no_name_is_refused(adata):
    with pytest.raises(TypeError, match="`color` is 3; expected the name of a column"):
        umap(adata, color=3)
