"""Draw the UMAP of an embedding."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

from sclcm._keys import annotate_keys, umap_keys
from sclcm.data.matrix import check_adata
from sclcm.pl._panels import close, fit_panels, new_panels, save_panels, show_figures

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData
    from matplotlib.axes import Axes

# Thirty colours, made by `scripts/build_palette.py`: the first six are those of Okabe and Ito, and all of them differ
# for people without red or without green cones, too.
# fmt: off
PALETTE = (
    "#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7", "#5a0f00", "#000096", "#a50f69", "#2d5a00",
    "#5af078", "#8769ff", "#5a2dc3", "#5a0069", "#78694b", "#003c3c", "#78c396", "#d2d200", "#b40000", "#694b87",
    "#5ae1ff", "#b43cb4", "#ff4b78", "#ff78e1", "#a55a78", "#2d3c87", "#c378ff", "#2d5a5a", "#e1a5c3", "#3c5ae1",
)
# fmt: on
_GREY = "#d0d0d0"
_UNDECIDED = frozenset({"unknown", "unassigned", "na", "nan"})
_LEGEND_ROWS = 20


def umap(
    adata: AnnData,
    key: str = "X_sclcm_mini",
    *,
    color: str | Sequence[str] | None = None,
    size: float | None = None,
    title: str | Sequence[str] | None = None,
    ncols: int = 2,
    ax: Axes | None = None,
    show: bool = False,
    save: str | Path | None = None,
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
    show
        Whether to show the figure now, as :func:`matplotlib.pyplot.show` does. Notebooks show it anyway.
    save
        File to save the figure to, such as `"umap.pdf"`; its ending says in which format.
    **kwargs
        Passed on to :func:`scanpy.pl.embedding`.

    Returns
    -------
    The axes, one per colour; the figure is `axes[0].figure`. As in scanpy, the colours of categories are stored in
    `adata.uns['<color>_colors']`.

    Raises
    ------
    KeyError
        There is no such layout, column or gene; the message names those that come closest.
    ValueError
        The number of titles or axes is not that of the colours.
    """
    check_adata(adata)
    basis = _layout_key(adata, key)
    colors = _colors(adata, key, color)
    titles = [title] if isinstance(title, str) else list(title or [name or "" for name in colors])
    if len(titles) != len(colors):
        msg = f"`title` names {len(titles)} panels, `color` {len(colors)}; give one title per colour."
        raise ValueError(msg)
    if ax is not None and len(colors) != 1:
        msg = f"`ax` takes a single colour, `color` names {len(colors)}; leave `ax` out or choose one."
        raise ValueError(msg)
    if "gene_symbols" not in kwargs:
        _check_colors(adata, colors)
    axes = new_panels(len(colors), ncols) if ax is None else [ax]
    try:
        for panel, name, heading in zip(axes, colors, titles, strict=True):
            options = {"color": name, "title": heading, "size": size or _point_size(adata.n_obs)}
            _draw(adata, basis, panel, options=options | kwargs)
    except Exception:
        if ax is None:
            close(axes)
        raise
    if ax is None:
        fit_panels(axes, ncols)
    if save is not None:
        save_panels(axes, save)
    if show:
        show_figures()
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


def _check_colors(adata: AnnData, colors: Sequence[str | None]) -> None:
    """Refuse, before anything is drawn, what is neither a column of obs nor a gene."""
    genes = adata.var_names if adata.raw is None else adata.raw.var_names.union(adata.var_names)
    for name in colors:
        if name is None or name in adata.obs or name in genes:
            continue
        close_names = get_close_matches(str(name), [*map(str, adata.obs.columns), *map(str, genes)], n=3)
        hint = f"; did you mean {' or '.join(map(repr, close_names))}?" if close_names else "."
        msg = f"`color` is {name!r}, which is neither a column of `adata.obs` nor a gene{hint}"
        raise KeyError(msg)


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
    """Return a colour for each category, grey for undecided cells; `None` where not even scanpy has enough."""
    from scanpy.plotting.palettes import default_102

    categories = [str(label) for label in labels.astype("category").cat.categories]
    named = [label for label in categories if label.lower() not in _UNDECIDED]
    palette = PALETTE if len(named) <= len(PALETTE) else default_102
    if len(named) > len(palette):
        return None
    colors = dict(zip(named, palette, strict=False))
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
        labelspacing=0.35,
        columnspacing=0.8,
    )
    for handle in legend.legend_handles:
        if isinstance(handle, PathCollection):
            handle.set_sizes([36])
