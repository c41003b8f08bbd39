"""Positions of cells in space: a vector for each square of a grid."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sclcm._sizes import as_int

if TYPE_CHECKING:
    from sclcm.nn import set_configs

LONGEST = 1e4
"""The longest wave, over that of the first channel."""


class GridPositions(nn.Module):
    """A vector for each square of a grid over coordinates from 0 to 1."""

    weight: Tensor

    def __init__(self, config: set_configs.GridPositions, d_model: int) -> None:
        super().__init__()
        self.n_rows, self.n_columns = as_int(config.n_rows), as_int(config.n_columns)
        self.squares = as_int(config.squares)
        self.register_buffer("weight", grid_waves(self.n_rows, self.n_columns, d_model))

    def forward(self, position_n2: Tensor) -> Tensor:
        """Return the vectors of cells, shape `(cells, width)`, at coordinates of shape `(cells, 2)`."""
        return self.weight[self.places(position_n2)]

    def places(self, position_n2: Tensor) -> Tensor:
        """Return the number of each cell's square, row by row, shape `(cells,)`."""
        whole_n2 = (position_n2.float() * self.squares).trunc().long()
        row_n, column_n = whole_n2[:, 0].clamp(0, self.n_rows - 1), whole_n2[:, 1].clamp(0, self.n_columns - 1)
        return row_n * self.n_columns + column_n


def grid_waves(n_rows: int, n_columns: int, d_model: int) -> Tensor:
    """Return sines and cosines of the column in the first half of the channels, of the row in the second.

    Shape `(rows * columns, width)`, row by row.
    """
    if d_model % 4:
        msg = f"A width of {d_model} has no four equal parts, for sines and cosines of rows and of columns."
        raise ValueError(msg)
    columns_cd, rows_rd = _waves(n_columns, d_model // 2), _waves(n_rows, d_model // 2)
    both = (columns_cd.expand(n_rows, -1, -1), rows_rd.unsqueeze(1).expand(-1, n_columns, -1))
    return torch.cat(both, dim=-1).flatten(0, 1)


def _waves(n_places: int, width: int) -> Tensor:
    """Return sines at even channels and cosines at odd ones, shape `(places, width)`."""
    frequency_k = LONGEST ** (-torch.arange(0, width, 2, dtype=torch.float64) / width)
    angle_pk = torch.arange(n_places, dtype=torch.float64).unsqueeze(1) * frequency_k
    return torch.stack([angle_pk.sin(), angle_pk.cos()], dim=-1).flatten(1).float()
