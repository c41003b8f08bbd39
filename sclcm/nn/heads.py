"""Heads: token vectors become tokens, classes or projections."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sclcm._sizes import as_int
from sclcm.nn import configs
from sclcm.nn.layers import Linear, activation, layer_norm, linear


class TiedTokenHead(nn.Module):
    """Scores for every token of the vocabulary, by the gene table itself."""

    def __init__(self, config: configs.TiedTokenHead, d_model: int, table: nn.Embedding) -> None:
        super().__init__()
        self.dense = Linear(d_model, d_model)
        self.norm = layer_norm(config.layer_norm, d_model)
        self.bias = nn.Parameter(torch.zeros(table.num_embeddings))
        self.activation = activation(config.activation)
        self._table = (table,)  # in a tuple: the table is the embedder's parameter, not one of the head

    def forward(self, x_nd: Tensor) -> Tensor:
        """Score token vectors of shape `(..., width)`; the result has shape `(..., tokens of the vocabulary)`."""
        hidden = self.norm(self.activation(self.dense(x_nd)))
        return linear(hidden, self._table[0].weight, self.bias)


class PooledClassHead(nn.Module):
    """Classes of a cell from its first token."""

    def __init__(self, config: configs.PooledClassHead, d_model: int) -> None:
        super().__init__()
        self.dense = Linear(d_model, d_model)
        self.out = Linear(d_model, as_int(config.n_classes))

    def forward(self, x_bld: Tensor) -> Tensor:
        """Return logits of shape `(cells, classes)` from token vectors of shape `(cells, tokens, width)`."""
        return self.out(torch.tanh(self.dense(x_bld[:, 0].contiguous())))


class TokenClassHead(nn.Module):
    """Classes of each token."""

    def __init__(self, config: configs.TokenClassHead, d_model: int) -> None:
        super().__init__()
        self.out = Linear(d_model, as_int(config.n_classes))

    def forward(self, x_bld: Tensor) -> Tensor:
        """Return logits of shape `(cells, tokens, classes)`."""
        return self.out(x_bld)


class LinearHead(nn.Module):
    """A linear projection."""

    def __init__(self, config: configs.LinearHead) -> None:
        super().__init__()
        self.out = Linear(as_int(config.d_in), as_int(config.d_out), bias=config.bias)

    def forward(self, x_nd: Tensor) -> Tensor:
        """Project vectors of shape `(..., width)` to shape `(..., out)`."""
        return self.out(x_nd)


def build_head(config: configs.HeadConfig, d_model: int, table: nn.Embedding) -> nn.Module:
    """Build the head that a configuration's type selects."""
    match config:
        case configs.TiedTokenHead():
            return TiedTokenHead(config, d_model, table)
        case configs.PooledClassHead():
            return PooledClassHead(config, d_model)
        case configs.TokenClassHead():
            return TokenClassHead(config, d_model)
        case configs.LinearHead():
            return LinearHead(config)
