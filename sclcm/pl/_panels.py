"""Figures of square panels whose legends stand beside them, each as wide as it needs to be."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_SIDE = 3.8  # of a panel, in inches
_DPI = 150  # of a saved figure, where nobody has set another
_GAP = 0.2  # between what belongs to one panel and to the next


def new_panels(n_panels: int, ncols: int) -> list[Axes]:
    """Make a figure with that many panels; `fit_panels` gives them their places once they are drawn."""
    from matplotlib import pyplot as plt

    figure = plt.figure(figsize=(_SIDE * min(ncols, n_panels), _SIDE * -(-n_panels // ncols)))
    return [figure.add_axes((0, 0, 1, 1), label=f"panel {number}") for number in range(n_panels)]


def close(panels: Sequence[Axes]) -> None:
    """Forget the figure of panels, which nobody will see."""
    from matplotlib import pyplot as plt

    plt.close(panels[0].get_figure(root=True))


def save_panels(panels: Sequence[Axes], file: str | Path) -> None:
    """Save the figure of panels with all that stands beside them, at the resolution that matplotlib is set to."""
    from matplotlib import rcParams

    figure, dpi = cast("Figure", panels[0].get_figure(root=True)), rcParams["savefig.dpi"]
    figure.savefig(file, dpi=_DPI if dpi == "figure" else dpi, bbox_inches="tight")


def show_figures() -> None:
    """Show the figures that are open."""
    from matplotlib import pyplot as plt

    plt.show()


def fit_panels(panels: Sequence[Axes], ncols: int) -> None:
    """Place drawn panels in rows, with room for the labels, legend or colour bar that each of them has."""
    figure = cast("Figure", panels[0].get_figure(root=True))
    n_columns = min(ncols, len(panels))
    n_rows = -(-len(panels) // n_columns)
    margins = np.zeros((n_rows * n_columns, 4))
    margins[: len(panels)] = [_margins(panel, figure.dpi) for panel in panels]
    left, right, bottom, top = margins.reshape(n_rows, n_columns, 4).transpose(2, 0, 1) + _GAP / 2
    left, right, bottom, top = left.max(axis=0), right.max(axis=0), bottom.max(axis=1), top.max(axis=1)
    width, height = (left + _SIDE + right).sum(), (bottom + _SIDE + top).sum()
    figure.set_size_inches(width, height)
    for number, panel in enumerate(panels):
        row, column = divmod(number, n_columns)
        x = (left + _SIDE + right)[:column].sum() + left[column]
        y = height - (bottom + _SIDE + top)[:row].sum() - top[row] - _SIDE
        panel.set_position((x / width, y / height, _SIDE / width, _SIDE / height))


def _margins(panel: Axes, dpi: float) -> tuple[float, float, float, float]:
    """What of a panel lies outside its frame: left, right, bottom, top, in inches."""
    inner, outer = panel.get_window_extent(), panel.get_tightbbox()
    if outer is None:
        return 0.0, 0.0, 0.0, 0.0
    sides = (inner.x0 - outer.x0, outer.x1 - inner.x1, inner.y0 - outer.y0, outer.y1 - inner.y1)
    left, right, bottom, top = (max(side, 0.0) / dpi for side in sides)
    return left, right, bottom, top
