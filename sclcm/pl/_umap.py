"""Draw the UMAP of an embedding."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sclcm._keys import annotate_keys, umap_keys
from sclcm.data.matrix import check_adata
from sclcm.pl._panels import fit_panels, new_panels

if TYPE_CHECKING:
    from anndata import AnnData
    from matplotlib.axes import Axes

# Thirty colours that stay apart from each other and from the grey of missing labels: the nine of matplotlib's cycle
# that are no grey, then each the farthest from all before it (OKLab, moderate chroma).
# fmt: off
PALETTE = (
    "#1f77b4", "#ff7f0e", "#2ca02c", "#d62728", "#9467bd", "#8c564b", "#e377c2", "#17becf", "#bcbd22", "#005a2d",
    "#780069", "#1e2da5", "#00e196", "#87a5ff", "#1e4b69", "#870000", "#96870f", "#b43c78", "#ffa5a5", "#5a3c00",
    "#0f8769", "#87b487", "#692da5", "#ff6978", "#c3785a", "#694b78", "#c387ff", "#c3a5d2", "#5a5ad2", "#ffb40f",
)
# fmt: on
_GREY = "#d0d0d0"
_UNDECIDED = frozenset({"unknown", "unassigned", "na", "nan"})
_LEGEND_ROWS = 16


def umap(
    adata: AnnData,
    key: str = "X_sclcm_mini",
    *,
    color: str | Sequence[str] | None = None,
    size: float | None = None,
    title: str | Sequence[str] | None = None,
    ncols: int = 2,
    ax: Axes | None = None,
    **kwargs: Any,
) -> list[Axes]:
    """Draw the UMAP that :func:`sclcm.tl.umap` made, one panel per colour.

    Parameters
    ----------
    adata
        Annotated data with a layout.
    key
        Name of the embedding in `adata.obsm` whose layout is drawn, as in :func:`sclcm.tl.umap`; or the name of a
        layout itself, such as `"X_umap"`.
    color
        Columns of `adata.obs`, or genes. `None` takes the label and score that :func:`sclcm.tl.annotate` wrote for
        this embedding, and grey points where there are none.
    size
        Size of a point; `None` lets it shrink as the number of cells grows.
    title
        Title of each panel; `None` takes `color`.
    ncols
        Panels in a row.
    ax
        Axes to draw into, for a single colour; `None` makes a figure.
    **kwargs
        Passed on to :func:`scanpy.pl.embedding`.

    Returns
    -------
    The axes, one per colour. As in scanpy, the colours of categories are kept in `adata.uns['<color>_colors']`.
    """
    check_adata(adata)
    basis = _layout_key(adata, key)
    colors = _colors(adata, key, color)
    titles = [title] if isinstance(title, str) else list(title or [name or "" for name in colors])
    if len(titles) != len(colors):
        msg = f"`title` names {len(titles)} panels, `color` {len(colors)}; give one title per colour."
        raise ValueError(msg)
    axes = new_panels(len(colors), ncols) if ax is None else [ax]
    if len(axes) != len(colors):
        msg = f"`ax` takes a single colour, `color` names {len(colors)}; leave `ax` out or choose one."
        raise ValueError(msg)
    for panel, name, heading in zip(axes, colors, titles, strict=True):
        options = {"color": name, "title": heading, "size": size or _point_size(adata.n_obs)}
        _draw(adata, basis, panel, options=options | kwargs)
    if ax is None:
        fit_panels(axes, ncols)
    return axes


def _layout_key(adata: AnnData, key: str) -> str:
    made = umap_keys(key).obsm
    if made in adata.obsm:
        return made
    if key in adata.obsm and np.shape(adata.obsm[key])[1] == 2:
        return key
    msg = f"`.obsm` holds no {made!r}, only {sorted(adata.obsm)}; call `sclcm.tl.umap(adata, {key!r})` first."
    raise KeyError(msg)


def _colors(adata: AnnData, key: str, color: str | Sequence[str] | None) -> list[str | None]:
    if color is None:
        keys = annotate_keys(key.removeprefix("X_"))
        return [name for name in (keys.label, keys.score) if name in adata.obs] or [None]
    if not isinstance(color, str | Sequence):
        msg = f"`color` is {color!r}; expected the name of a column of `.obs` or of a gene, or a list of such names."
        raise TypeError(msg)
    return [color] if isinstance(color, str) else list(color) or [None]


def _point_size(n_cells: int) -> float:
    """Area of a point: scanpy's 120,000 / n, kept between points one can see and points one can tell apart."""
    return float(np.clip(120_000 / n_cells, 2, 60))


def _draw(adata: AnnData, basis: str, ax: Axes, *, options: dict[str, Any]) -> None:
    import scanpy as sc

    name = options["color"]
    is_labels = name in adata.obs and not pd.api.types.is_numeric_dtype(adata.obs[name])
    if is_labels and "palette" not in options and f"{name}_colors" not in adata.uns:
        options["palette"] = _palette(adata.obs[name])
    drawn = {"na_color": _GREY, "frameon": True, "linewidths": 0, "colorbar_loc": None} | options
    sc.pl.embedding(adata, basis, ax=ax, show=False, **drawn)
    ax.set(xlabel="UMAP 1", ylabel="UMAP 2", box_aspect=1)
    ax.spines[["top", "right"]].set_visible(False)
    if name is None:
        return
    if not is_labels and drawn["colorbar_loc"] is None:
        ax.figure.colorbar(ax.collections[-1], cax=ax.inset_axes((1.02, 0.15, 0.04, 0.7)))
    elif is_labels and drawn.get("legend_loc", "right margin") == "right margin":
        _legend_beside(ax)


def _palette(labels: pd.Series) -> list[str] | None:
    """Colours of the categories, grey for cells that were left undecided; `None` where there are too many."""
    categories = [str(label) for label in labels.astype("category").cat.categories]
    named = [label for label in categories if label.lower() not in _UNDECIDED]
    if len(named) > len(PALETTE):
        return None
    colors = dict(zip(named, PALETTE, strict=False))
    return [colors.get(label, _GREY) for label in categories]


def _legend_beside(ax: Axes) -> None:
    """Redraw scanpy's legend smaller, in as many columns as it takes to stay within the height of the panel."""
    from matplotlib.collections import PathCollection

    handles, labels = ax.get_legend_handles_labels()
    legend = ax.legend(
        handles,
        labels,
        loc="center left",
        bbox_to_anchor=(1.01, 0.5),
        frameon=False,
        fontsize=8,
        ncol=-(-len(labels) // _LEGEND_ROWS),
        handletextpad=0.2,
        columnspacing=0.8,
    )
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([36])
