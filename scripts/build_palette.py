"""Print the colours of categories in `sclcm.pl`: apart for all eyes where they are few, for most where they are many.

    python scripts/build_palette.py

The first six are those of Okabe and Ito (https://jfly.uni-koeln.de/color/), which are apart for people with any colour
vision deficiency. Each further one is the colour that is farthest from all before it, from the grey of undecided cells
and from white; the distance is that in OKLab, for normal vision or, counted twice, as people without red or without
green cones see it (Machado, Oliveira and Fernandes 2009), whichever is smallest.
"""

from __future__ import annotations

import itertools

import numpy as np

FIRST = ("#0072b2", "#e69f00", "#009e73", "#d55e00", "#56b4e9", "#cc79a7")
BACKGROUND = ("#d0d0d0", "#ffffff")
N_COLORS = 30
STEP = 15
LIGHTNESS = (0.3, 0.85)
CHROMA = 0.22  # no glaring colours
VISIONS = {
    "normal": np.eye(3),
    "no red cones": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "no green cones": [
        [0.367322, 0.860646, -0.227968],
        [0.280085, 0.672501, 0.047413],
        [-0.011820, 0.042940, 0.968881],
    ],
}
_TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
_TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def to_rgb(colors: tuple[str, ...]) -> np.ndarray:
    """Return colours such as `"#0072b2"` as numbers from 0 to 1, shape `(colours, 3)`."""
    return np.array([[int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)] for color in colors])


def oklab(rgb: np.ndarray, vision: str) -> np.ndarray:
    """Return where colours lie in OKLab as a kind of vision sees them, shape `(colours, 3)`."""
    linear = np.where(rgb <= 0.04045, rgb / 12.92, ((rgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(linear @ np.asarray(VISIONS[vision]).T, 0, 1)
    return np.cbrt(seen @ _TO_CONES.T) @ _TO_LAB.T


def distances(one: np.ndarray, others: np.ndarray) -> np.ndarray:
    """Return how far colours are from others for whoever tells them apart least, shape `(colours, others)`."""
    found = []
    for vision in VISIONS:
        a, b = oklab(one, vision), oklab(others, vision)
        found.append(np.linalg.norm(a[:, None] - b[None], axis=-1) * (1 if vision == "normal" else 2))
    return np.min(found, axis=0)


def palette() -> list[str]:
    """Return the colours in order."""
    grid = np.array(list(itertools.product(range(0, 256, STEP), repeat=3))) / 255
    lightness, a, b = oklab(grid, "normal").T
    grid = grid[(lightness >= LIGHTNESS[0]) & (lightness <= LIGHTNESS[1]) & (np.hypot(a, b) <= CHROMA)]
    chosen = list(FIRST)
    nearest = distances(grid, to_rgb((*FIRST, *BACKGROUND))).min(1)
    while len(chosen) < N_COLORS:
        best = int(nearest.argmax())
        chosen.append("#" + "".join(f"{round(255 * part):02x}" for part in grid[best]))
        nearest = np.minimum(nearest, distances(grid, grid[best : best + 1])[:, 0])
    return chosen


if __name__ == "__main__":
    colors = palette()
    for start in range(0, N_COLORS, 10):
        print("    " + " ".join(f'"{color}",' for color in colors[start : start + 10]))
