"""Encoders at the entrance: genes, values and positions become token vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sclcm._sizes import as_int
from sclcm.nn import configs
from sclcm.nn.layers import Linear, activation, layer_norm


class ScalarMLP(nn.Module):
    """Value encoder: linear, non-linearity, linear."""

    def __init__(self, config: configs.ScalarMLP, d_model: int) -> None:
        super().__init__()
        self.up = Linear(1, as_int(config.d_hidden))
        self.down = Linear(as_int(config.d_hidden), d_model)
        self.activation = activation(config.activation)

    def forward(self, value_bl: Tensor) -> Tensor:
        """Turn values of shape `(cells, tokens)` into vectors of shape `(cells, tokens, width)`."""
        return self.down(self.activation(self.up(value_bl.unsqueeze(-1))))


class ScaledGene(nn.Module):
    """Value encoder: the gene's vector times its value."""

    def forward(self, gene_bld: Tensor, value_bl: Tensor, gene_mask_bl: Tensor) -> Tensor:
        """Return token vectors, shape `(cells, tokens, width)`; those that are no genes keep their vector."""
        return gene_bld * torch.where(gene_mask_bl, value_bl, torch.ones_like(value_bl)).unsqueeze(-1)


class AddedValue(nn.Module):
    """Value encoder: the gene's vector plus a small network of its value."""

    def __init__(self, config: configs.ScalarMLP, d_model: int) -> None:
        super().__init__()
        self.mlp = ScalarMLP(config, d_model)

    def forward(self, gene_bld: Tensor, value_bl: Tensor, gene_mask_bl: Tensor) -> Tensor:
        """Return token vectors, shape `(cells, tokens, width)`."""
        return gene_bld + self.mlp(value_bl)


class Embedder(nn.Module):
    """Sum of the vectors of gene, value, position and segment, normalised where the model says so."""

    def __init__(self, config: configs.LCMConfig) -> None:
        super().__init__()
        width = as_int(config.d_model)
        self.gene = nn.Embedding(as_int(config.gene.n_tokens), width)
        self.value = None if config.value is None else _value_encoder(config.value, width)
        self.position = None if config.position is None else nn.Embedding(as_int(config.position.n_positions), width)
        self.segment = None if config.segment is None else nn.Embedding(as_int(config.segment.n_segments), width)
        self.norm = None if config.embedding_norm is None else layer_norm(config.embedding_norm, width)

    def forward(self, token_ids_bl: Tensor, value_bl: Tensor | None, gene_mask_bl: Tensor) -> Tensor:
        """Turn tokens into vectors.

        Parameters
        ----------
        token_ids_bl
            Token ids, shape `(cells, tokens)`.
        value_bl
            Values, shape `(cells, tokens)`; `None` for models without a value encoder.
        gene_mask_bl
            Which tokens are genes, neither special nor padding, shape `(cells, tokens)`.

        Returns
        -------
        Token vectors, shape `(cells, tokens, width)`.
        """
        x_bld = self.gene(token_ids_bl)
        if self.value is not None:
            if value_bl is None:
                msg = "This model needs tokens with values, but they have none; its encoding must set `value`."
                raise ValueError(msg)
            x_bld = self.value(x_bld, value_bl.to(x_bld.dtype), gene_mask_bl)
        if self.position is not None:
            x_bld = x_bld + self.position(torch.arange(token_ids_bl.shape[1], device=token_ids_bl.device))
        if self.segment is not None:
            x_bld = x_bld + self.segment.weight[0]
        return x_bld if self.norm is None else self.norm(x_bld)


def _value_encoder(config: configs.ScalarMLP | configs.ScaledGene, d_model: int) -> nn.Module:
    """Build the value encoder that a configuration's type selects."""
    match config:
        case configs.ScalarMLP():
            return AddedValue(config, d_model)
        case configs.ScaledGene():
            return ScaledGene()
