"""From a latent vector to counts: mean and dispersion of a negative binomial for each gene."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

from sclcm._sizes import as_int
from sclcm.nn.cell_embedder import group_norm
from sclcm.nn.layers import Linear

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sclcm.nn import set_configs

MEANS = (1e-5, 1e6)
DISPERSIONS = (1e-4, 1e4)
"""Smallest and largest mean and dispersion."""


class CovariateTable(nn.Module):
    """What a label, such as a cell's batch, adds to a hidden layer."""

    def __init__(self, config: set_configs.CountDecoder, n_labels: int) -> None:
        super().__init__()
        width = as_int(config.d_hidden)
        self.table = nn.Embedding(n_labels, width)
        self.activation = nn.PReLU()
        self.norm = group_norm(config.norm, width)

    def forward(self, label_n: Tensor | None) -> Tensor:
        """Return what labels add, shape `(cells, hidden)`; without a label it is the sum of all rows that is read."""
        rows = self.table.weight.sum(0, keepdim=True) if label_n is None else self.table(label_n)
        return self.norm(self.activation(rows))


class CountBlock(nn.Module):
    """A hidden layer: linear, non-linearity, norm, then what is known of the cell."""

    def __init__(self, config: set_configs.CountDecoder, d_in: int) -> None:
        super().__init__()
        width = as_int(config.d_hidden)
        self.linear = Linear(d_in, width)
        self.activation = nn.PReLU()
        self.norm = group_norm(config.norm, width)
        sizes = {name: size for name, size in config.covariates.items() if size != 0}
        self.covariates = nn.ModuleDict({name: CovariateTable(config, as_int(n)) for name, n in sizes.items()})

    def forward(self, x_nd: Tensor, labels: Mapping[str, Tensor]) -> Tensor:
        """Transform vectors, shape `(cells, hidden)`."""
        x_nd = self.norm(self.activation(self.linear(x_nd)))
        for name, table in self.covariates.items():
            x_nd = x_nd + table(labels.get(name))
        return x_nd


class CountDecoder(nn.Module):
    """Mean and dispersion of the counts of each gene from the latent vector of a cell."""

    def __init__(self, config: set_configs.CountDecoder) -> None:
        super().__init__()
        latent, hidden, genes = as_int(config.d_latent), as_int(config.d_hidden), as_int(config.n_genes)
        self.blocks = nn.ModuleList(
            CountBlock(config, latent if i == 0 else hidden) for i in range(as_int(config.n_blocks))
        )
        self.up = Linear(hidden, as_int(config.d_out))
        self.mean = Linear(as_int(config.d_out), genes)
        self.log_dispersion = nn.Parameter(torch.zeros(genes))

    def forward(self, z_nz: Tensor, labels: Mapping[str, Tensor] | None = None) -> Tensor:
        """Return the mean of the counts of each gene.

        Parameters
        ----------
        z_nz
            Latent vectors, shape `(cells, latent)`.
        labels
            Numbers of covariates by name, each of shape `(cells,)`; those that lack are unknown.

        Returns
        -------
        Shape `(cells, genes)`, float32, in the order of the vocabulary.
        """
        x_nd = z_nz.to(self.up.weight.dtype)
        for block in self.blocks:
            x_nd = block(x_nd, labels or {})
        return self.mean(functional.relu(self.up(x_nd))).float().exp().clamp(*MEANS)

    def n_labels(self, covariate: str) -> int:
        """Return how many labels of a covariate are known; 0 of one that the decoder does not have."""
        first = cast("CountBlock", self.blocks[0])
        if covariate not in first.covariates:
            return 0
        return cast("CovariateTable", first.covariates[covariate]).table.num_embeddings

    def dispersion(self) -> Tensor:
        """Return the dispersion of each gene, shape `(genes,)`, float32."""
        return self.log_dispersion.float().exp().clamp(*DISPERSIONS)


def rescale(mean_ng: Tensor, count_ng: Tensor) -> Tensor:
    """Scale the means of each cell so that they add up to its counts."""
    return mean_ng / mean_ng.sum(-1, keepdim=True) * count_ng.sum(-1, keepdim=True)


def negative_binomial(count_ng: Tensor, mean_ng: Tensor, dispersion_g: Tensor) -> Tensor:
    """Return the negative log-likelihood of counts, sum of genes, mean of cells.

    Parameters
    ----------
    count_ng
        Counts, shape `(cells, genes)`.
    mean_ng
        Their means, same shape.
    dispersion_g
        Dispersion of each gene, shape `(genes,)`: variance is mean plus the square of the mean over it.
    """
    least = 1e-10
    shape_g = dispersion_g + least
    constant_ng = torch.lgamma(shape_g) + torch.lgamma(count_ng + 1) - torch.lgamma(count_ng + shape_g)
    spread_ng = (dispersion_g + count_ng) * torch.log1p(mean_ng / shape_g)
    tilt_ng = count_ng * (torch.log(shape_g) - torch.log(mean_ng + least))
    return (constant_ng + spread_ng + tilt_ng).sum(-1).mean()


def masked_counts_loss(count_ng: Tensor, mean_ng: Tensor, dispersion_g: Tensor, mask_ng: Tensor) -> Tensor:
    """Return the loss of pre-training: likelihood of hidden counts plus that of all counts of cells that have some.

    Parameters
    ----------
    count_ng
        True counts, shape `(cells, genes)`.
    mean_ng
        Means, same shape; scaled here to the total of what is compared.
    dispersion_g
        Dispersion of each gene, shape `(genes,)`.
    mask_ng
        Which were hidden at the entrance, same shape as the counts.
    """
    whole = whole_counts_loss(count_ng, mean_ng, dispersion_g, mask_ng)
    some_n = mask_ng.any(-1)
    count_ng, mean_ng, mask_ng = count_ng[some_n], mean_ng[some_n], mask_ng[some_n]
    hidden_ng = count_ng * mask_ng
    return whole + negative_binomial(hidden_ng, rescale(mean_ng * mask_ng, hidden_ng), dispersion_g)


def whole_counts_loss(count_ng: Tensor, mean_ng: Tensor, dispersion_g: Tensor, mask_ng: Tensor) -> Tensor:
    """Return the second of the two alone: of all counts of cells of which some are hidden."""
    some_n = mask_ng.any(-1)
    count_ng, mean_ng = count_ng[some_n], mean_ng[some_n]
    return negative_binomial(count_ng, rescale(mean_ng, count_ng), dispersion_g)
