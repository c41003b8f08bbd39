"""Position encoders: the place of a token in its sentence becomes a vector."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from sclcm.nn import fixed_configs


class SinusoidalPositions(nn.Module):
    """Sines and cosines of the place, side by side, in waves of growing length.

    They are computed where they are needed: a table would be a tensor that no file holds.
    """

    def __init__(self, config: fixed_configs.SinusoidalPositions, d_model: int) -> None:
        super().__init__()
        self.d_model, self.base = d_model, float(config.base)  # type: ignore[arg-type]

    def forward(self, places: Tensor) -> Tensor:
        """Return vectors for places of any shape, with one axis more, float32."""
        exponents = torch.arange(0, self.d_model, 2, device=places.device, dtype=torch.float32) / self.d_model
        angles = places.unsqueeze(-1).float() * torch.exp(exponents * -math.log(self.base))
        return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(-2)[..., : self.d_model]
