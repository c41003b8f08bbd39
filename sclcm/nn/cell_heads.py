"""Heads on the vectors of cells that are tokens, and a feed-forward that ends in a non-linearity."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn import functional

from sclcm._sizes import as_int
from sclcm.nn.layers import FeedForward, Linear, activation

if TYPE_CHECKING:
    from sclcm.nn import set_configs


class ClosedFeedForward(FeedForward):
    """Linear, non-linearity, linear, non-linearity."""

    def forward(self, x_bld: Tensor) -> Tensor:
        """Transform each token on its own; shapes `(sentences, tokens, width)` in and out."""
        return activation(self.activation)(super().forward(x_bld))


class ActivatedHead(nn.Module):
    """A linear layer and a non-linearity."""

    def __init__(self, config: set_configs.ActivatedHead) -> None:
        super().__init__()
        self.out = Linear(as_int(config.d_in), as_int(config.d_latent))
        self.activation = activation(config.activation)

    def forward(self, x_nd: Tensor) -> Tensor:
        """Return latent vectors, shape `(cells, latent)`."""
        return self.activation(self.out(x_nd))


class DroppedLayers(nn.Module):
    """Linear layers, each behind a dropout, with ReLU between them."""

    def __init__(self, config: set_configs.DroppedLayers) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for d_in, d_out in itertools.pairwise(_widths(config)):
            layers += [nn.Dropout(float(config.dropout)), Linear(d_in, d_out), nn.ReLU()]  # type: ignore[arg-type]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x_nd: Tensor) -> Tensor:
        """Return logits, shape `(cells, classes)`."""
        return self.layers(x_nd)


class BareLayers(nn.Module):
    """Linear layers with ReLU between them."""

    def __init__(self, config: set_configs.BareLayers) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for d_in, d_out in itertools.pairwise(_widths(config)):
            layers += [Linear(d_in, d_out), nn.ReLU()]
        self.layers = nn.Sequential(*layers[:-1])

    def forward(self, x_nd: Tensor) -> Tensor:
        """Return logits, shape `(cells, classes)`."""
        return self.layers(x_nd)


def _widths(config: set_configs.DroppedLayers | set_configs.BareLayers) -> list[int]:
    """Return the widths of the input and of the output of each layer."""
    if not isinstance(config.widths, tuple):
        msg = f"The widths of the layers are still to be read by {config.widths!r}."
        raise TypeError(msg)
    return [as_int(config.d_in), *map(as_int, config.widths)]


class ExpressionDecoder(nn.Module):
    """Value of each gene from a latent vector."""

    def __init__(self, config: set_configs.ExpressionDecoder) -> None:
        super().__init__()
        self.up = Linear(as_int(config.d_latent), as_int(config.d_inner))
        self.activation = nn.PReLU()
        self.out = Linear(as_int(config.d_inner), as_int(config.n_tokens))

    def forward(self, z_nz: Tensor) -> Tensor:
        """Return values that are not negative, shape `(cells, genes)`, in the order of the vocabulary."""
        return functional.relu(self.out(self.activation(self.up(z_nz))))
