"""What pre-training hides and minimises where tokens are cells."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import torch
from torch import Tensor
from torch.nn import functional

if TYPE_CHECKING:
    from sclcm.nn.tokens import CellTensors


def hide_values(
    cells: CellTensors, *, cell_share: float, value_share: float, generator: torch.Generator
) -> tuple[CellTensors, Tensor]:
    """Hide some values of some cells: first cells are chosen, then values in them.

    Values of the chosen cells that stay are scaled up, so that their sum is the same on average.

    Parameters
    ----------
    cells
        The cells of a set.
    cell_share
        Share of the cells that are chosen, rounded down.
    value_share
        Probability that a value in them is hidden, less than one.
    generator
        Where random numbers come from, on the device of the cells.

    Returns
    -------
    The cells with hidden values as zeros, and which cells were chosen, shape `(cells,)`.
    """
    n_cells, n_values = len(cells.start_n), len(cells.value_v)
    order = torch.randperm(n_cells, generator=generator, device=cells.start_n.device)
    chosen_n = torch.zeros(n_cells, dtype=torch.bool, device=cells.start_n.device)
    chosen_n[order[: int(cell_share * n_cells)]] = True
    stop_n = torch.cat([cells.start_n[1:], cells.start_n.new_tensor([n_values])])
    chosen_v = chosen_n.repeat_interleave((stop_n - cells.start_n).long())
    drawn_v = torch.rand(n_values, generator=generator, device=cells.value_v.device)
    hidden_v = chosen_v & (drawn_v < value_share)
    value_v = torch.where(chosen_v, cells.value_v / (1 - value_share), cells.value_v).masked_fill(hidden_v, 0)
    return replace(cells, value_v=value_v), chosen_n


def chosen_cells_mse(found_ng: Tensor, wanted_ng: Tensor, chosen_n: Tensor) -> Tensor:
    """Return the mean squared difference over all genes of the chosen cells; all of shape `(cells, genes)`."""
    return functional.mse_loss(found_ng[chosen_n], wanted_ng[chosen_n])
