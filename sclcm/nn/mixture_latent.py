"""A latent space that is a mixture: a cell is of one of some clusters, and of each it has a distribution."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from sclcm._sizes import as_int
from sclcm.nn.layers import Linear

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sclcm.nn import set_configs

TINY = 1e-20
"""Added within the logarithms of Gumbel noise."""

LEAST_VARIANCE = 1e-8
"""Added to variances in the loss."""


class MixtureLatent(nn.Module):
    """Clusters of a cell, and the distribution of its latent vector given a cluster."""

    def __init__(self, config: set_configs.MixtureLatent, d_model: int) -> None:
        super().__init__()
        n_clusters, hidden, width = as_int(config.n_clusters), as_int(config.d_hidden), as_int(config.d_latent)
        self.logits = Linear(d_model, n_clusters)
        self.hidden = Linear(d_model + n_clusters, hidden)
        self.mean = Linear(hidden, width)
        self.variance = Linear(hidden, width)
        self.prior_mean = Linear(n_clusters, width)
        self.prior_variance = Linear(n_clusters, width)

    @property
    def n_clusters(self) -> int:
        """Number of clusters."""
        return self.logits.out_features

    def clusters(self, x_nd: Tensor) -> Tensor:
        """Return the logits of a cell's clusters, shape `(cells, clusters)`, float32."""
        return self.logits(x_nd).float()

    def posterior(self, x_nd: Tensor, share_nk: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance of the latent vector given shares of clusters, each of shape `(cells, latent)`."""
        hidden = functional.relu(self.hidden(torch.cat([x_nd, share_nk.to(x_nd.dtype)], dim=-1)))
        return self.mean(hidden).float(), functional.softplus(self.variance(hidden).float())

    def prior(self, share_nk: Tensor) -> tuple[Tensor, Tensor]:
        """Return mean and variance that the mixture itself gives to shares of clusters."""
        share_nk = share_nk.to(self.prior_mean.weight.dtype)
        return self.prior_mean(share_nk).float(), functional.softplus(self.prior_variance(share_nk).float())

    def means(self, x_nd: Tensor) -> Tensor:
        """Return the mean of the latent vector given each cluster, shape `(cells, clusters, latent)`, float32."""
        width = x_nd.shape[-1]
        weight, bias = self.hidden.weight, self.hidden.bias
        shared_nh = functional.linear(x_nd, weight[:, :width], bias)
        hidden_nkh = functional.relu(shared_nh.unsqueeze(1) + weight[:, width:].t())
        return self.mean(hidden_nkh).float()


class MixtureReadout(nn.Module):
    """Mean of the latent vector, by one way of choosing the cluster."""

    def __init__(self, config: set_configs.MixtureReadout, latent: MixtureLatent) -> None:
        super().__init__()
        self.clusters = config.clusters
        self._latent = (latent,)  # in a tuple: its parameters are those of another head

    def forward(self, x_nd: Tensor, uniform_nk: Tensor | None = None) -> Tensor:
        """Return latent vectors, shape `(cells, latent)`, float32.

        Parameters
        ----------
        x_nd
            Vectors of cells, shape `(cells, width)`.
        uniform_nk
            Uniform numbers of [0, 1), shape `(cells, clusters)`; where clusters are drawn.
        """
        latent = self._latent[0]
        logits_nk = latent.clusters(x_nd)
        if self.clusters == "weighted":
            return (latent.means(x_nd) * logits_nk.softmax(-1).unsqueeze(-1)).sum(1)
        if self.clusters == "drawn":
            if uniform_nk is None:
                msg = "Clusters are drawn, for which uniform numbers are needed, one for each cell and cluster."
                raise ValueError(msg)
            logits_nk = logits_nk + gumbel(uniform_nk)
        return latent.posterior(x_nd, one_hot(logits_nk))[0]


def one_hot(logits_nk: Tensor) -> Tensor:
    """Return one at the largest of each row, the first of equal ones, and zero elsewhere."""
    return functional.one_hot(logits_nk.argmax(-1), logits_nk.shape[-1]).to(logits_nk.dtype)


def gumbel(uniform_nk: Tensor) -> Tensor:
    """Turn uniform numbers into Gumbel noise: the largest of logits with noise is a draw by their softmax."""
    return -torch.log(-torch.log(uniform_nk.float() + TINY) + TINY)


def sample(mean_nz: Tensor, variance_nz: Tensor, noise_nz: Tensor) -> Tensor:
    """Return latent vectors that lie by standard normal noise from their mean."""
    return mean_nz + (variance_nz + 1e-10).sqrt() * noise_nz


def gaussian_term(z_nz: Tensor, posterior: tuple[Tensor, Tensor], prior: tuple[Tensor, Tensor]) -> Tensor:
    """Return how much more probable samples are by their own distribution than by the mixture's, mean of cells."""
    return (_log_normal(z_nz, *posterior) - _log_normal(z_nz, *prior)).mean()


def categorical_term(logits_nk: Tensor) -> Tensor:
    """Return how far the shares of clusters are from equal ones, mean of cells; zero where they are equal."""
    log_nk = logits_nk.log_softmax(-1)
    return (log_nk.exp() * log_nk).sum(-1).mean() + float(np.log(logits_nk.shape[-1]))


def floored(terms: Sequence[Tensor], *, weights: Sequence[float], floor: float) -> Tensor:
    """Return the weighted sum of terms of which none counts less than a floor: below it they exert no pull."""
    pairs = zip(terms, weights, strict=True)
    return torch.stack([weight * term.clamp(min=floor) for term, weight in pairs]).sum()


def _log_normal(x_nz: Tensor, mean_nz: Tensor, variance_nz: Tensor) -> Tensor:
    variance_nz = variance_nz + LEAST_VARIANCE
    exponent_nz = float(np.log(2 * np.pi)) + variance_nz.log() + (x_nz - mean_nz).square() / variance_nz
    return -0.5 * exponent_nz.sum(-1)
