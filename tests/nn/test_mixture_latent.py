"""The mixture latent against its formulas in float64."""

from __future__ import annotations

import math

import pytest
import torch
from torch.distributions import Normal

from sclcm.nn import set_configs
from sclcm.nn.heads import build_heads
from sclcm.nn.mixture_latent import categorical_term, floored, gaussian_term, gumbel, one_hot, sample


@pytest.fixture
def heads(device):
    config = {"latent": set_configs.MixtureLatent(n_clusters=4, d_hidden=16, d_latent=3)}
    for clusters in ("most_probable", "weighted", "drawn"):
        config[clusters] = set_configs.MixtureReadout(latent="latent", clusters=clusters)
    return build_heads(config, 6, torch.nn.Embedding(1, 6)).requires_grad_(False).to(device)


@pytest.fixture
def x(device):
    return torch.randn(5, 6, device=device)


def plain(latent, x, share):
    """Mean and variance by the formulas."""

    def linear(module, x):
        return x @ module.weight.double().t() + module.bias.double()

    hidden = linear(latent.hidden, torch.cat([x.double(), share.double()], dim=1)).relu()
    return linear(latent.mean, hidden), (1 + linear(latent.variance, hidden).exp()).log()


def test_mean_and_variance_follow_from_the_cluster(heads, x):
    latent = heads["latent"]
    share = torch.rand(5, 4, device=x.device).softmax(-1)
    for found, wanted in zip(latent.posterior(x, share), plain(latent, x, share), strict=True):
        torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)


def test_means_are_those_given_each_cluster(heads, x):
    latent = heads["latent"]
    found = latent.means(x)
    for cluster in range(4):
        share = torch.eye(4, device=x.device)[[cluster] * 5]
        torch.testing.assert_close(found[:, cluster].double(), plain(latent, x, share)[0], rtol=1e-5, atol=1e-6)


def test_readouts_choose_clusters_each_in_its_way(heads, x):
    latent, logits = heads["latent"], heads["latent"].clusters(x)
    means = latent.means(x)
    best = means[torch.arange(5), logits.argmax(-1)]
    torch.testing.assert_close(heads["most_probable"](x), best, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(heads["weighted"](x), (means * logits.softmax(-1)[..., None]).sum(1))
    uniform = torch.rand(5, 4, device=x.device)
    drawn = means[torch.arange(5), (logits + gumbel(uniform)).argmax(-1)]
    torch.testing.assert_close(heads["drawn"](x, uniform), drawn, rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match="uniform numbers are needed"):
        heads["drawn"](x)


def test_readouts_have_no_weights_of_their_own(heads):
    assert not list(heads["weighted"].parameters())


def test_draws_follow_the_shares_of_clusters():
    logits = torch.tensor([0.2, 0.5, 0.3]).log().expand(20_000, 3)
    share = one_hot(logits + gumbel(torch.rand(20_000, 3))).mean(0)
    torch.testing.assert_close(share, torch.tensor([0.2, 0.5, 0.3]), rtol=0, atol=0.02)


def test_noise_is_finite_at_the_ends():
    assert torch.isfinite(gumbel(torch.tensor([0.0, 1 - 2**-24, 1.0]))).all()


def test_gaussian_term_is_a_difference_of_log_densities():
    z, (m1, m2), (v1, v2) = torch.randn(7, 3), torch.randn(2, 7, 3), torch.rand(2, 7, 3) + 0.1
    wanted = (Normal(m1, v1.sqrt()).log_prob(z) - Normal(m2, v2.sqrt()).log_prob(z)).sum(-1).mean()
    torch.testing.assert_close(gaussian_term(z, (m1, v1), (m2, v2)), wanted, rtol=1e-5, atol=1e-5)
    assert gaussian_term(z, (m1, v1), (m1, v1)) == 0


def test_categorical_term_is_zero_for_equal_shares_and_largest_for_one():
    assert categorical_term(torch.full((3, 4), 2.5)) == pytest.approx(0, abs=1e-6)
    assert categorical_term(torch.tensor([[900.0, 0, 0, 0]])) == pytest.approx(math.log(4))


def test_terms_below_the_floor_count_as_it():
    terms = [torch.tensor(1.0), torch.tensor(7.0)]
    assert floored(terms, weights=[2, 3], floor=5) == 2 * 5 + 3 * 7


def test_samples_have_their_mean_and_variance():
    mean, variance = torch.tensor([[2.0, -1.0]]), torch.tensor([[0.25, 4.0]])
    z = sample(mean, variance, torch.randn(50_000, 2))
    torch.testing.assert_close(z.mean(0), mean[0], rtol=0, atol=0.05)
    torch.testing.assert_close(z.var(0), variance[0], rtol=0.05, atol=0)
