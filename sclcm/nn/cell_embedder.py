"""Entrance of models whose tokens are cells: the counts of a cell become one vector."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from sclcm._sizes import as_int
from sclcm.nn import configs, set_configs
from sclcm.nn.grid_positions import GridPositions
from sclcm.nn.layers import Linear, activation, layer_norm

if TYPE_CHECKING:
    from sclcm.nn.tokens import CellTensors


class CellProjection(nn.Module):
    """Linear layer, non-linearity and norm on the summed vector of a cell."""

    def __init__(self, config: set_configs.CellProjection, d_model: int) -> None:
        super().__init__()
        self.linear = Linear(d_model, d_model)
        self.activation = activation(config.activation)
        self.norm = group_norm(config.norm, d_model)

    def forward(self, x_nd: Tensor) -> Tensor:
        """Transform vectors of cells, shape `(cells, width)`."""
        return self.norm(self.activation(self.linear(x_nd)))


class CellEmbedder(nn.Module):
    """Sum of the vectors of a cell's genes, each times its value, then what the model makes of it."""

    def __init__(self, config: configs.LCMConfig) -> None:
        super().__init__()
        bag = _bag(config)
        width = as_int(config.d_model)
        self.gene = nn.Embedding(as_int(bag.n_tokens), width)
        self.bias = nn.Parameter(torch.zeros(width)) if bag.bias else None
        self.projection = None if bag.projection is None else CellProjection(bag.projection, width)
        self.position = _position(config, width)
        self.norm = None if config.embedding_norm is None else _norm(config.embedding_norm, width)

    def forward(self, cells: CellTensors) -> Tensor:
        """Turn cells into vectors, shape `(cells, width)`."""
        x_nd = self.sums(cells)
        x_nd = x_nd if self.projection is None else self.projection(x_nd)
        if self.position is not None:
            if cells.position_n2 is None:
                msg = "This model needs to know where cells lie, but they have no coordinates."
                raise ValueError(msg)
            x_nd = x_nd + self.position(cells.position_n2)
        return x_nd if self.norm is None else self.norm(x_nd)

    def sums(self, cells: CellTensors) -> Tensor:
        """Return the sum of the vectors of each cell's genes, times their values, shape `(cells, width)`.

        Of a cell without a gene that is zero, or the bias. What is stored alone is read; nothing is made dense.
        """
        table = self.gene.weight
        sums_nd = functional.embedding_bag(
            cells.token_ids_v,
            table,
            cells.start_n,
            mode="sum",
            per_sample_weights=cells.value_v.to(table.dtype),
        )
        return sums_nd if self.bias is None else sums_nd + self.bias

    def genes(self, token_ids: Tensor) -> Tensor:
        """Return the vectors of genes alone; ids of any shape, vectors with one axis more."""
        return self.gene(token_ids)


def _position(config: configs.LCMConfig, width: int) -> GridPositions | None:
    """Build the encoder of positions in space."""
    match config.position:
        case None:
            return None
        case set_configs.GridPositions():
            return GridPositions(config.position, width)
    msg = f"Cells of a set have no order, so that `{type(config.position).__name__}` says nothing of them."
    raise TypeError(msg)


def _norm(config: configs.LayerNorm | configs.BatchNorm | configs.DomainNorm, width: int) -> nn.LayerNorm:
    """Build the normalisation of a cell's vector."""
    if not isinstance(config, configs.LayerNorm):
        msg = f"The vector of a cell is normalised on its own, not by a {type(config).__name__}."
        raise TypeError(msg)
    return layer_norm(config, width)


def group_norm(config: set_configs.GroupNorm, width: int) -> nn.GroupNorm:
    """Build a normalisation, by groups of channels, of vectors of this width."""
    return nn.GroupNorm(as_int(config.n_groups), width, eps=float(config.eps))  # type: ignore[arg-type]


def _bag(config: configs.LCMConfig) -> set_configs.BagOfGenes:
    """Return how genes are summed; parts that describe tokens which are genes are refused."""
    for name in ("value", "segment", "role", "condition"):
        if getattr(config, name) is not None:
            msg = f"`{name}` describes tokens that are genes, but the tokens of this model are cells; leave it out."
            raise ValueError(msg)
    if not isinstance(config.gene, set_configs.BagOfGenes):
        msg = f"Cells that are tokens are sums of genes, not made by a {type(config.gene).__name__}."
        raise TypeError(msg)
    return config.gene
