"""Normalisations of token vectors."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from sclcm.nn import configs
from sclcm.nn.layers import layer_norm


class RMSNorm(nn.Module):
    """Division by the root mean square, then a scale.

    The square is taken in single precision, whatever comes in: half precision would lose it, or overflow.
    """

    def __init__(self, config: configs.RMSNorm, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = float(config.eps)  # type: ignore[arg-type]

    def forward(self, x_bld: Tensor) -> Tensor:
        """Normalise vectors of shape `(..., width)`; shape and number type as given."""
        wide_bld = x_bld.to(torch.promote_types(x_bld.dtype, torch.float32))
        scale_bl1 = torch.rsqrt(wide_bld.square().mean(-1, keepdim=True) + self.eps)
        return (wide_bld * scale_bl1).to(x_bld.dtype) * self.weight.to(x_bld.dtype)


def build_norm(config: configs.NormConfig, width: int) -> nn.LayerNorm | RMSNorm:
    """Build the normalisation that a configuration's type selects."""
    match config:
        case configs.LayerNorm():
            return layer_norm(config, width)
        case configs.RMSNorm():
            return RMSNorm(config, width)
