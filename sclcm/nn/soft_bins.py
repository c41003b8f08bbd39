"""Value encoder with learned bins: a number belongs to all of them, by weights that a small network gives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from sclcm._sizes import as_int
from sclcm.nn import gated_configs
from sclcm.nn.layers import linear

if TYPE_CHECKING:
    from sclcm.nn import configs


class SoftBins(nn.Module):
    """A number becomes a mixture of the rows of a table.

    Names of the weights: `up` (number to hidden units), `scores` (hidden units to scores of the bins), `direct` (the
    learned weight of the direct way, if it is one), `table` (one row a bin) and `marks` (one row a marked value).
    """

    def __init__(self, config: configs.SoftBins, d_model: int) -> None:
        super().__init__()
        n_bins = as_int(config.n_bins)
        self.up = nn.Linear(1, n_bins, bias=bool(config.bias))
        self.scores = nn.Linear(n_bins, n_bins, bias=bool(config.bias))
        self.table = nn.Embedding(n_bins, d_model)
        self.slope = float(config.slope)  # type: ignore[arg-type]
        self.direct: nn.Parameter | float
        if config.direct is None:
            self.direct = nn.Parameter(torch.ones(()))
        else:
            self.direct = float(config.direct)  # type: ignore[arg-type]
        self._marked = tuple(float(value) for value in config.marked)  # type: ignore[arg-type]
        self.marks = nn.Embedding(len(self._marked), d_model) if self._marked else None

    def marked(self, values: Tensor) -> Tensor:
        """Return which values are marks, a boolean tensor of their shape."""
        marks = torch.tensor(self._marked, dtype=values.dtype, device=values.device)
        return (values.unsqueeze(-1) == marks).any(-1)

    def weights(self, values: Tensor) -> Tensor:
        """Return how much a number belongs to each bin; any shape in, an axis of bins more out, float32, sums of 1.

        All of it is computed in float32: of a number in half precision two or three digits are left, and the softmax
        would make much of what is lost. The layers are narrow, so that it costs little.
        """
        with torch.autocast(values.device.type, enabled=False):
            hidden = functional.leaky_relu(_in_float32(values.float().unsqueeze(-1), self.up), self.slope)
            return torch.softmax(self.direct * hidden + _in_float32(hidden, self.scores), dim=-1)

    def forward(self, values: Tensor) -> Tensor:
        """Turn numbers of any shape into vectors, with an axis more."""
        x_nd = self.weights(values).to(self.table.weight.dtype) @ self.table.weight
        if self.marks is None:
            return x_nd
        # The numbers are compared as they came: in half precision, another number may round to a marked one.
        for vector_d, value in zip(self.marks.weight, self._marked, strict=True):
            x_nd = torch.where((values == value).unsqueeze(-1), vector_d.to(x_nd.dtype), x_nd)
        return x_nd


def _in_float32(x_nd: Tensor, layer: nn.Linear) -> Tensor:
    """Apply a linear layer of any type to numbers in float32."""
    return linear(x_nd, layer.weight.float(), None if layer.bias is None else layer.bias.float())


class AddedBins(nn.Module):
    """Value encoder: the gene's vector plus the mixture of rows for its value, special tokens included."""

    def __init__(self, config: configs.SoftBins, d_model: int) -> None:
        super().__init__()
        self.bins = SoftBins(config, d_model)

    def forward(self, gene_bld: Tensor, value_bl: Tensor, gene_mask_bl: Tensor) -> Tensor:
        """Return token vectors, shape `(cells, tokens, width)`."""
        return gene_bld + self.bins(value_bl)


class GeneBins(nn.Module):
    """Value encoder: the gene's vector plus the mixture of rows for its value; other tokens keep their vector."""

    def __init__(self, config: gated_configs.GeneBins, d_model: int) -> None:
        super().__init__()
        self.genes = SoftBins(config.genes, d_model)

    def forward(self, gene_bld: Tensor, value_bl: Tensor, gene_mask_bl: Tensor) -> Tensor:
        """Return token vectors, shape `(cells, tokens, width)`."""
        return gene_bld + self.genes(value_bl) * gene_mask_bl.unsqueeze(-1)

    def hidden(self, value_bl: Tensor, gene_mask_bl: Tensor) -> Tensor:
        """Return the tokens whose value is hidden, shape `(cells, tokens)`."""
        return self.genes.marked(value_bl) & gene_mask_bl


class GeneAndDepthBins(GeneBins):
    """Value encoder: as `GeneBins`, and depth tokens, which are no genes and have a value, by bins of their own."""

    def __init__(self, config: gated_configs.GeneAndDepthBins, d_model: int) -> None:
        super().__init__(gated_configs.GeneBins(genes=config.genes), d_model)
        self.depths = SoftBins(config.depths, d_model)

    def forward(self, gene_bld: Tensor, value_bl: Tensor, gene_mask_bl: Tensor) -> Tensor:
        """Return token vectors, shape `(cells, tokens, width)`."""
        depth_bl1 = (~gene_mask_bl & (value_bl > 0)).unsqueeze(-1)
        return super().forward(gene_bld, value_bl, gene_mask_bl) + self.depths(value_bl) * depth_bl1
