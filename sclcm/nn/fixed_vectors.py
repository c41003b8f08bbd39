"""Vectors that come with a model and are never trained, and what leads them to its width."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn
from torch.nn import functional

from sclcm._sizes import as_int
from sclcm.nn.layers import Linear, activation, layer_norm

if TYPE_CHECKING:
    from sclcm.nn import fixed_configs
    from sclcm.nn.configs import LayerNorm


class FixedTable(nn.Module):
    """A table of vectors that no optimiser sees."""

    weight: Tensor

    def __init__(self, n_rows: int, width: int) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = n_rows, width
        self.register_buffer("weight", torch.zeros(n_rows, width))

    def forward(self, rows: Tensor) -> Tensor:
        """Look up rows of any shape; the vectors have one axis more."""
        return functional.embedding(rows, self.weight)


class NoVectors(nn.Module):
    """Zero for every token. It is one row that no file holds, and moves and changes its type as weights do."""

    weight: Tensor

    def __init__(self, n_rows: int, width: int) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = n_rows, width
        self.register_buffer("weight", torch.zeros(1, width), persistent=False)

    def forward(self, rows: Tensor) -> Tensor:
        """Return zeros for rows of any shape, with one axis more."""
        return self.weight[0].expand(*rows.shape, self.embedding_dim)

    def fill(self) -> None:
        """Make the row, of a module that was built without memory."""
        self.weight = torch.zeros(1, self.embedding_dim)


GeneTable: TypeAlias = nn.Embedding | FixedTable | NoVectors
"""What vectors of genes are looked up in."""


class VectorProjection(nn.Module):
    """Linear layer, non-linearity and norm: from the width of fixed vectors to that of a model."""

    def __init__(self, d_vector: int, d_model: int, *, activation_name: object, norm: LayerNorm) -> None:
        super().__init__()
        self.linear = Linear(d_vector, d_model)
        self.activation = activation(activation_name)
        self.norm = layer_norm(norm, d_model)

    def forward(self, vectors: Tensor) -> Tensor:
        """Project vectors of shape `(..., d_vector)` to shape `(..., width)`."""
        return self.norm(self.activation(self.linear(vectors)))


class ProjectedVectors(nn.Module):
    """Gene encoder: vectors of length one, projected and multiplied by the square root of the width."""

    def __init__(self, config: fixed_configs.ProjectedVectors, d_model: int) -> None:
        super().__init__()
        self.project = VectorProjection(
            as_int(config.d_vector), d_model, activation_name=config.activation, norm=config.norm
        )
        self.scale = d_model**0.5

    def forward(self, vectors: Tensor) -> Tensor:
        """Turn fixed vectors of shape `(..., d_vector)` into vectors of shape `(..., width)`."""
        return self.project(functional.normalize(vectors, dim=-1)) * self.scale


class VectorMLP(nn.Module):
    """Gene encoder: linear layer, non-linearity, linear layer; special tokens have a learned vector each."""

    def __init__(self, config: fixed_configs.VectorMLP, d_model: int) -> None:
        super().__init__()
        self.n_specials = as_int(config.n_specials)
        self.up = Linear(as_int(config.d_vector), as_int(config.d_between))
        self.down = Linear(as_int(config.d_between), d_model)
        self.activation = activation(config.activation)
        self.special = nn.Embedding(self.n_specials, d_model)

    def forward(self, vectors: Tensor, token_ids: Tensor) -> Tensor:
        """Turn fixed vectors of shape `(..., d_vector)`, and the ids they are of, into shape `(..., width)`."""
        mapped = self.down(self.activation(self.up(vectors)))
        special = self.special(token_ids.clamp(max=self.n_specials - 1)).to(mapped.dtype)
        return torch.where((token_ids < self.n_specials).unsqueeze(-1), special, mapped)
