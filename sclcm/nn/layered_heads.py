"""Heads of several layers with norms: a projection of cells, and a number for a cell and a gene's fixed vector."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from sclcm._sizes import as_int
from sclcm.nn.fixed_vectors import VectorProjection
from sclcm.nn.layers import Activation, Linear, layer_norm

if TYPE_CHECKING:
    from sclcm.nn import readouts


class LayeredHead(nn.Module):
    """Blocks of linear layer, norm and non-linearity, then a linear layer."""

    def __init__(self, config: readouts.LayeredHead) -> None:
        super().__init__()
        widths = [as_int(config.d_in), *map(as_int, config.d_hidden)]
        blocks = [
            (Linear(d_in, d_out), layer_norm(config.layer_norm, d_out), Activation(config.activation))
            for d_in, d_out in itertools.pairwise(widths)
        ]
        self.layers = nn.Sequential(*itertools.chain(*blocks))
        self.out = Linear(widths[-1], as_int(config.d_out))

    def forward(self, x_nd: Tensor) -> Tensor:
        """Project vectors of shape `(..., width)` to shape `(..., out)`."""
        return self.out(self.layers(x_nd))


class CellVectorHead(nn.Module):
    """One number for each gene of a cell, from the cell's vector and the gene's fixed vector."""

    def __init__(self, config: readouts.CellVectorHead) -> None:
        super().__init__()
        self.gene = VectorProjection(
            as_int(config.d_vector),
            as_int(config.d_gene),
            activation_name=config.activation,
            norm=config.layer_norm,
        )
        self.pair = LayeredHead(config.layers)

    def forward(self, vector_bld: Tensor, cell_bd: Tensor) -> Tensor:
        """Return numbers of shape `(cells, tokens)` from fixed vectors of shape `(cells, tokens, d_vector)`."""
        return self.compare(self.gene(functional.normalize(vector_bld, dim=-1)), cell_bd)

    def compare(self, gene_bld: Tensor, cell_bd: Tensor) -> Tensor:
        """Return numbers of shape `(cells, tokens)` from projected vectors of shape `(cells, tokens, width)`."""
        cell_bld = cell_bd.unsqueeze(1).expand(-1, gene_bld.shape[1], -1)
        return self.pair(torch.cat([cell_bld, gene_bld], dim=-1)).squeeze(-1)
