"""From token vectors to one vector per cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sclcm.nn import configs

if TYPE_CHECKING:
    from torch import Tensor


def mean_pool(x_bld: Tensor, mask_bl: Tensor) -> Tensor:
    """Average token vectors into one vector per cell.

    Parameters
    ----------
    x_bld
        Token vectors, shape `(cells, tokens, width)`.
    mask_bl
        Which tokens count, shape `(cells, tokens)`.

    Returns
    -------
    Cell vectors, shape `(cells, width)`, float32; zeros for a cell without tokens that count.
    """
    weight_bl1 = mask_bl.unsqueeze(-1).float()
    return (x_bld.float() * weight_bl1).sum(1) / weight_bl1.sum(1).clamp(min=1)


def value_weighted_mean(x_bld: Tensor, value_bl: Tensor, mask_bl: Tensor) -> Tensor:
    """Average token vectors weighted by value, over the sum of absolute values; shape `(cells, width)`, float32."""
    weight_bl1 = (value_bl.float() * mask_bl).unsqueeze(-1)
    return (x_bld.float() * weight_bl1).sum(1) / weight_bl1.abs().sum(1).clamp(min=1e-3)


def pool(config: configs.Pooling, x_bld: Tensor, gene_mask_bl: Tensor, value_bl: Tensor | None) -> Tensor:
    """Pool token vectors as a recipe says.

    Parameters
    ----------
    config
        Which pooling.
    x_bld
        Token vectors, shape `(cells, tokens, width)`.
    gene_mask_bl
        Which tokens are genes, neither special nor padding, shape `(cells, tokens)`.
    value_bl
        Values of the tokens, for poolings that weigh by them.

    Returns
    -------
    Cell vectors, shape `(cells, width)`, float32.
    """
    match config:
        case configs.MeanPooling():
            return mean_pool(x_bld, gene_mask_bl)
        case configs.FirstToken():
            return x_bld[:, 0].float()
        case configs.ValueWeightedMean():
            if value_bl is None:
                msg = "Pooling by value needs tokens with values; this model's tokens have none."
                raise ValueError(msg)
            return value_weighted_mean(x_bld, value_bl, gene_mask_bl)
        case configs.Concatenated(parts=parts):
            return torch.cat([pool(part, x_bld, gene_mask_bl, value_bl) for part in parts], dim=-1)
