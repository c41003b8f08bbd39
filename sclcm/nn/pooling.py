"""From token vectors to one vector per cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sclcm._sizes import as_int
from sclcm.nn import cell_configs, readouts, set_configs, table_configs
from sclcm.nn.attention import gather_places

if TYPE_CHECKING:
    from torch import Tensor

    from sclcm.nn.tokens import TokenTensors


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


def max_pool(x_bld: Tensor, mask_bl: Tensor) -> Tensor:
    """Take the largest entry of each channel over tokens.

    Parameters
    ----------
    x_bld
        Token vectors, shape `(cells, tokens, width)`.
    mask_bl
        Which tokens count, shape `(cells, tokens)`.

    Returns
    -------
    Cell vectors, shape `(cells, width)`, float32; NaN for a cell without tokens that count.
    """
    largest_bd = x_bld.float().masked_fill(~mask_bl.unsqueeze(-1), float("-inf")).amax(1)
    return largest_bd.masked_fill(~mask_bl.any(1, keepdim=True), float("nan"))


def place_mean(x_bld: Tensor, n_places: int, skip: int) -> Tensor:
    """Average all places but the first `skip`, padding included; shape `(cells, width)`, float32."""
    if x_bld.shape[1] != n_places:
        msg = f"The sentences were padded to {x_bld.shape[1]} places; an average that counts padding needs {n_places}."
        raise ValueError(msg)
    return x_bld[:, skip:].float().mean(1)


def value_weighted_mean(x_bld: Tensor, value_bl: Tensor, mask_bl: Tensor) -> Tensor:
    """Average token vectors weighted by value, over the sum of absolute values; shape `(cells, width)`, float32."""
    weight_bl1 = (value_bl.float() * mask_bl).unsqueeze(-1)
    return (x_bld.float() * weight_bl1).sum(1) / weight_bl1.abs().sum(1).clamp(min=1e-3)


def value_weighted_sum(x_bld: Tensor, value_bl: Tensor, mask_bl: Tensor) -> Tensor:
    """Sum token vectors, each times its value; shape `(cells, width)`, float32."""
    return (x_bld.float() * (value_bl.float() * mask_bl).unsqueeze(-1)).sum(1)


def pool(config: readouts.Pooling, x_bld: Tensor, tokens: TokenTensors) -> Tensor:  # noqa: PLR0911, PLR0912
    """Pool token vectors as a recipe says.

    Parameters
    ----------
    config
        Which pooling.
    x_bld
        Token vectors, shape `(cells, tokens, width)`.
    tokens
        The tokens they are of.

    Returns
    -------
    Cell vectors, shape `(cells, width)`, float32.
    """
    match config:
        case table_configs.ExpressionSum():
            msg = f"`pooling` is {config!r}, which reads the matrix itself; tokens are not pooled by it."
            raise ValueError(msg)
        case readouts.MeanPooling():
            return mean_pool(x_bld, tokens.gene_mask_bl)
        case readouts.GeneSum():
            return (x_bld.float() * tokens.gene_mask_bl.unsqueeze(-1)).sum(1)
        case readouts.FirstToken():
            return x_bld[:, 0].float()
        case readouts.FromEnd(places=places):
            place_b1 = (tokens.lengths() - 1 - places).clamp(min=0).unsqueeze(1)
            return gather_places(x_bld, place_b1)[:, 0].float()
        case readouts.TokenMean(before_last=n_last):
            return mean_pool(x_bld, _real(tokens, n_last))
        case readouts.TokenMax(before_last=n_last):
            return max_pool(x_bld, _real(tokens, n_last))
        case readouts.RestMean():
            return mean_pool(x_bld[:, 1:], _real(tokens)[:, 1:])
        case cell_configs.PlaceMean(n_places=n_places, skip=skip):
            return place_mean(x_bld, as_int(n_places), skip)
        case readouts.ValueWeightedSum():
            return value_weighted_sum(x_bld, _values(tokens), _real(tokens))
        case readouts.ValueWeightedMean():
            return value_weighted_mean(x_bld, _values(tokens), tokens.gene_mask_bl)
        case set_configs.TokenItself():
            msg = "`TokenItself` pools nothing: it is for models whose tokens are cells, and this model's are genes."
            raise ValueError(msg)
        case readouts.Concatenated(parts=parts):
            return torch.cat([pool(part, x_bld, tokens) for part in parts], dim=-1)


def _real(tokens: TokenTensors, n_last: int = 0) -> Tensor:
    """Return which tokens are real, but for so many at the end of each sentence."""
    real_bl = torch.ones_like(tokens.gene_mask_bl) if tokens.mask_bl is None else tokens.mask_bl
    if not n_last:
        return real_bl
    place_l = torch.arange(real_bl.shape[1], device=real_bl.device)
    return real_bl & (place_l < tokens.lengths().unsqueeze(1) - n_last)


def _values(tokens: TokenTensors) -> Tensor:
    if tokens.value_bl is None:
        msg = "Pooling by value needs tokens with values; this model's tokens have none."
        raise ValueError(msg)
    return tokens.value_bl
