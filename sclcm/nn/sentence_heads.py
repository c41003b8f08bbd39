"""Heads that read a whole sentence of a fixed length at once."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

from torch import Tensor, nn

from sclcm._sizes import as_int
from sclcm.nn.layers import Linear, activation

if TYPE_CHECKING:
    from sclcm.nn import readouts


class SentenceClassHead(nn.Module):
    """Classes of a cell from one number for each of its tokens, each token with a weight of its own."""

    def __init__(self, config: readouts.SentenceClassHead, d_model: int) -> None:
        super().__init__()
        widths = [as_int(config.n_places), *map(as_int, config.d_hidden), as_int(config.n_classes)]
        self.token = Linear(d_model, 1)
        self.layers = nn.ModuleList(Linear(n_in, n_out) for n_in, n_out in itertools.pairwise(widths))
        self.activation = activation(config.activation)

    def forward(self, x_bld: Tensor) -> Tensor:
        """Return logits of shape `(cells, classes)` from token vectors of shape `(cells, tokens, width)`."""
        n_places = self.layers[0].in_features
        if x_bld.shape[1] != n_places:
            msg = f"This head reads sentences of {n_places} tokens, in their order; found {x_bld.shape[1]}."
            raise ValueError(msg)
        y_bn = self.token(x_bld).squeeze(-1)
        for layer in self.layers:
            y_bn = layer(self.activation(y_bn))
        return y_bn
