"""Gated blocks: attention by sums of keys times values, and feed-forward by products."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from sclcm._sizes import as_int
from sclcm.nn.layers import Linear, activation

if TYPE_CHECKING:
    from sclcm.nn import gated_configs

SMALLEST = 1e-12
"""Least root mean square that what a head reads is divided by."""

SCALE = 2.0**-6
"""Of the values: no effect on what is normalised after, and sums over long sentences stay within half precision."""


class GatedLinearAttention(nn.Module):
    """Attention without a softmax: each query reads one sum over the cell, and a gate lets through what it reads."""

    def __init__(self, config: gated_configs.GatedLinearAttention, d_model: int) -> None:
        super().__init__()
        self.n_heads = as_int(config.n_heads)
        if d_model % self.n_heads:
            msg = f"{self.n_heads} heads do not divide a width of {d_model}."
            raise ValueError(msg)
        self.qkvu = Linear(d_model, 4 * d_model, bias=False)
        self.out = Linear(d_model, d_model, bias=False)

    def forward(self, x_bld: Tensor, mask_bl: Tensor | None) -> Tensor:
        """Mix token vectors.

        Parameters
        ----------
        x_bld
            Token vectors, shape `(cells, tokens, width)`.
        mask_bl
            Which tokens inform others, shape `(cells, tokens)`, or `None` if all do.

        Returns
        -------
        Shape `(cells, tokens, width)`.
        """
        q_bhlk, k_bhlk, v_bhlk, gate_bhlk = (
            self.qkvu(x_bld).unflatten(-1, (4, self.n_heads, -1)).permute(2, 0, 3, 1, 4).unbind()
        )
        q_bhlk, k_bhlk = functional.relu(q_bhlk), functional.relu(k_bhlk)
        if mask_bl is not None:
            k_bhlk = k_bhlk * mask_bl[:, None, :, None]
        state_bhkk = k_bhlk.transpose(-1, -2) @ (v_bhlk * SCALE)
        read_bhlk = _to_unit_size(q_bhlk @ state_bhkk)
        return self.out((read_bhlk * functional.silu(gate_bhlk)).transpose(1, 2).flatten(2))

    def scores(self, x_bld: Tensor) -> Tensor:
        """Return the products of queries and keys after their ReLU, shape `(cells, heads, queries, keys)`.

        Quadratic in length, for looking at; the attention itself never makes them.
        """
        q_bhlk, k_bhlk = self.qkvu(x_bld).unflatten(-1, (4, self.n_heads, -1)).permute(2, 0, 3, 1, 4)[:2]
        return functional.relu(q_bhlk) @ functional.relu(k_bhlk).transpose(-1, -2)

    def weights(self, x_bld: Tensor, mask_bl: Tensor | None) -> Tensor:
        """Return each token's shares of the keys it reads, shape `(cells, heads, queries, keys)`; rows sum to one.

        A query that reads nothing has zeros.
        """
        scores = self.scores(x_bld)
        if mask_bl is not None:
            scores = scores * mask_bl[:, None, None]
        return scores / scores.sum(-1, keepdim=True).clamp(min=SMALLEST)


def _to_unit_size(x_nk: Tensor) -> Tensor:
    """Scale vectors to a root mean square of one, in float32; a vector of zeros stays one."""
    wide_nk = x_nk.float()
    size_n1 = torch.linalg.vector_norm(wide_nk, dim=-1, keepdim=True) * wide_nk.shape[-1] ** -0.5
    return (wide_nk / size_n1.clamp(min=SMALLEST)).to(x_nk.dtype)


class GatedFeedForward(nn.Module):
    """The product of two linear layers, of which the first passes a non-linearity, then a third."""

    def __init__(self, config: gated_configs.GatedFeedForward, d_model: int) -> None:
        super().__init__()
        hidden = as_int(config.d_hidden)
        self.up = Linear(d_model, 2 * hidden, bias=False)
        self.down = Linear(hidden, d_model, bias=False)
        self.activation = activation(config.activation)

    def forward(self, x_bld: Tensor) -> Tensor:
        """Transform each token on its own; shapes `(cells, tokens, width)` in and out."""
        one_blk, other_blk = self.up(x_bld).chunk(2, dim=-1)
        return self.down(self.activation(one_blk) * other_blk)
