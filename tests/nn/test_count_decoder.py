"""Decoded counts and their likelihood against formulas and scipy."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.stats import nbinom

from sclcm.nn import set_configs
from sclcm.nn.count_decoder import CountDecoder, masked_counts_loss, negative_binomial, rescale, whole_counts_loss
from sclcm.nn.set_configs import GroupNorm

CONFIG = set_configs.CountDecoder(
    d_latent=3,
    d_hidden=8,
    n_blocks=2,
    d_out=5,
    n_genes=6,
    covariates={"batch": 4, "platform": 0, "dataset": 2},
    norm=GroupNorm(n_groups=4),
)


def make(config=CONFIG):
    decoder = CountDecoder(config).requires_grad_(False).eval()
    for parameter in decoder.parameters():
        parameter.add_(torch.randn_like(parameter) * 0.1)
    return decoder


def grouped(x, norm):
    parts = x.unflatten(-1, (4, -1))
    centred = (parts - parts.mean(-1, keepdim=True)) / (parts.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    return centred.flatten(-2) * norm.weight.double() + norm.bias.double()


def linear(x, module):
    return x @ module.weight.double().t() + module.bias.double()


def prelu(x, module):
    return torch.where(x > 0, x, module.weight.double() * x)


def plain(decoder, z, labels):
    x = z.double()
    for block in decoder.blocks:
        x = grouped(prelu(linear(x, block.linear), block.activation), block.norm)
        for name in ("batch", "dataset"):
            layer = block.covariates[name]
            table = layer.table.weight.double()
            rows = table[labels[name]] if name in labels else table.sum(0, keepdim=True)
            x = x + grouped(prelu(rows, layer.activation), layer.norm)
    return linear(linear(x, decoder.up).relu(), decoder.mean).exp().clamp(1e-5, 1e6)


LABELS = {"batch": torch.tensor([3, 0, 1]), "dataset": torch.tensor([1, 1, 0])}


@pytest.mark.parametrize("known", [(), ("batch",), ("batch", "dataset")])
def test_means_equal_the_formula_with_labels_known_or_not(device, known):
    decoder, z = make(), torch.randn(3, 3)
    labels = {name: LABELS[name] for name in known}
    wanted = plain(decoder, z, labels)
    moved = {name: label.to(device) for name, label in labels.items()}
    found = decoder.to(device)(z.to(device), moved).cpu()
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-6)


def test_means_and_dispersions_stay_within_their_bounds():
    decoder = make()
    decoder.mean.bias.copy_(torch.tensor([-99.0, 99, 0, 0, 0, 0]))
    decoder.log_dispersion.copy_(torch.tensor([-99.0, 99, 0, 0, 0, 0]))
    mean = decoder(torch.randn(2, 3))
    assert mean[:, 0].eq(1e-5).all()
    assert mean[:, 1].eq(1e6).all()
    assert decoder.dispersion()[:3].tolist() == pytest.approx([1e-4, 1e4, 1])


def test_covariates_without_labels_do_not_exist():
    decoder = make()
    assert (decoder.n_labels("batch"), decoder.n_labels("platform"), decoder.n_labels("dataset")) == (4, 0, 2)
    bare = make(dataclasses.replace(CONFIG, covariates={}))
    assert not [name for name, _ in bare.named_parameters() if "covariates" in name]


def test_likelihood_is_that_of_scipy():
    rng = np.random.default_rng(0)
    count, mean, dispersion = rng.poisson(3, (4, 6)), rng.random((4, 6)) * 9 + 0.1, rng.random(6) * 5 + 0.2
    wanted = -nbinom.logpmf(count, dispersion, dispersion / (dispersion + mean)).sum(1).mean()
    found = negative_binomial(*(torch.tensor(array, dtype=torch.float64) for array in (count, mean, dispersion)))
    assert float(found) == pytest.approx(wanted, rel=1e-7)


def test_scaled_means_add_up_to_the_counts():
    count, mean = torch.tensor([[3.0, 0, 5], [0, 0, 1]]), torch.rand(2, 3)
    found = rescale(mean, count)
    assert found.sum(1).tolist() == pytest.approx([8, 1])
    torch.testing.assert_close(found / found.sum(1, keepdim=True), mean / mean.sum(1, keepdim=True))


def test_loss_counts_cells_with_hidden_counts_alone():
    count, mean, dispersion = torch.poisson(torch.full((3, 4), 2.0)) + 1, torch.rand(3, 4) + 0.1, torch.rand(4) + 0.5
    mask = torch.tensor([[True, False, True, False], [False] * 4, [False, True, True, True]])
    loss = masked_counts_loss(count, mean, dispersion, mask)
    some = [0, 2]
    hidden = count[some] * mask[some]
    wanted = negative_binomial(count[some], rescale(mean[some], count[some]), dispersion)
    torch.testing.assert_close(whole_counts_loss(count, mean, dispersion, mask), wanted)
    wanted = wanted + negative_binomial(hidden, rescale(mean[some] * mask[some], hidden), dispersion)
    torch.testing.assert_close(loss, wanted)
    count[1] = 9
    torch.testing.assert_close(masked_counts_loss(count, mean, dispersion, mask), wanted)
