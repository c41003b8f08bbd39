"""Learned bins: values as mixtures of the rows of a table."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from sclcm.nn import configs, gated_configs
from sclcm.nn.embedders import Embedder
from sclcm.nn.soft_bins import GeneAndDepthBins, GeneBins, SoftBins
from sclcm.nn.tokens import TokenTensors

WIDTH = 6
VALUES = [[-0.5, 0.0, 0.3, 4.0], [9.2, 102.0, 103.0, 102.4]]
CONSTANT = configs.SoftBins(n_bins=5, slope=0.1, direct=0.7, marked=(102.0, 103.0))
LEARNED = configs.SoftBins(n_bins=7, slope=0.2, direct=None, bias=False)


def soft_bins(config, device="cpu"):
    module = SoftBins(config, WIDTH)
    for tensor in module.parameters():
        torch.nn.init.normal_(tensor)
    return module.requires_grad_(False).eval().to(device)


def written_out(module, config, values):
    """The formula, in float64."""
    weight = {name: tensor.double().cpu().numpy() for name, tensor in module.state_dict().items()}
    values = np.asarray(values)[..., None]
    hidden = values * weight["up.weight"][:, 0] + weight.get("up.bias", 0)
    hidden = np.where(hidden > 0, hidden, config.slope * hidden)
    direct = weight["direct"] if config.direct is None else config.direct
    scores = direct * hidden + hidden @ weight["scores.weight"].T + weight.get("scores.bias", 0)
    shares = np.exp(scores - scores.max(-1, keepdims=True))
    shares /= shares.sum(-1, keepdims=True)
    vectors = shares @ weight["table.weight"]
    for row, mark in enumerate(config.marked):
        vectors = np.where(values == mark, weight["marks.weight"][row], vectors)
    return shares, vectors


@pytest.mark.parametrize("config", [CONSTANT, LEARNED], ids=["constant", "learned"])
@torch.inference_mode()
def test_values_are_mixtures_of_rows(device, config):
    module = soft_bins(config, device)
    values = torch.tensor(VALUES, device=device)
    shares, vectors = written_out(module, config, values.double().cpu())
    np.testing.assert_allclose(module.weights(values).cpu(), shares, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(module(values).cpu(), vectors, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_marked_values_have_vectors_of_their_own():
    module = soft_bins(CONSTANT)
    found = module(torch.tensor(VALUES))[1]
    assert torch.equal(found[1:3], module.marks.weight)
    assert not torch.equal(found[3], module.marks.weight[0])


@torch.inference_mode()
def test_in_half_precision_no_other_value_becomes_a_mark():
    """In bfloat16, 102.2 is 102."""
    module = soft_bins(CONSTANT).bfloat16()
    found = module(torch.tensor([102.0, 102.2]))
    assert torch.equal(found[0], module.marks.weight[0])
    assert not torch.equal(found[1], module.marks.weight[0])


@pytest.mark.parametrize("config", [CONSTANT, LEARNED], ids=["constant", "learned"])
@torch.inference_mode()
def test_half_precision_is_near(config):
    module, values = soft_bins(config), torch.tensor([[0.0, 0.7, 1.5, 3.25]])
    wanted = module(values)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = module(values)
    for found in (mixed, module.bfloat16()(values)):
        assert (found.float() - wanted).abs().max() < 0.1 * wanted.abs().max()


@torch.inference_mode()
@pytest.mark.parametrize("config", [CONSTANT, LEARNED])
def test_shares_of_bins_are_computed_in_single_precision_whatever_the_weights_are(config):
    module, values = soft_bins(config).bfloat16(), torch.tensor(VALUES)
    exact = soft_bins(config)
    exact.load_state_dict({name: tensor.float() for name, tensor in module.state_dict().items()})
    assert module.weights(values).equal(exact.weights(values))
    with torch.autocast("cpu", torch.bfloat16):
        assert exact.weights(values).equal(module.weights(values))


def test_gradients_reach_every_weight():
    module = SoftBins(dataclasses.replace(CONSTANT, direct=None), WIDTH)
    module(torch.tensor(VALUES)).square().sum().backward()
    assert all(tensor.grad is not None and tensor.grad.abs().sum() > 0 for tensor in module.parameters())


@torch.inference_mode()
def test_the_entrance_adds_mixtures_to_genes_and_to_special_tokens():
    backbone = configs.BackboneConfig(
        n_blocks=1,
        attention=configs.SoftmaxAttention(n_heads=1),
        feed_forward=configs.FeedForward(d_hidden=4),
        norm="post",
    )
    gene = configs.TableEncoder(n_tokens=9)
    embed = Embedder(configs.LCMConfig(d_model=WIDTH, gene=gene, value=CONSTANT, backbone=backbone))
    tokens = TokenTensors(
        token_ids_bl=torch.tensor([[0, 3, 5, 8]]),
        mask_bl=None,
        gene_mask_bl=torch.tensor([[True, True, True, False]]),
        value_bl=torch.tensor([[0.5, 2.0, 103.0, 4.0]]),
    )
    wanted = embed.gene.weight[tokens.token_ids_bl] + embed.value.bins(tokens.value_bl)
    torch.testing.assert_close(embed(tokens), wanted)


# ---- bins for some tokens only ----


MARKED = configs.SoftBins(n_bins=5, slope=0.2, direct=None, bias=False, marked=(-1.0,))


def test_only_genes_have_a_value():
    module = GeneBins(gated_configs.GeneBins(genes=MARKED), WIDTH)
    gene_mask = torch.tensor([[False, True, True, False]])
    value = torch.tensor([[3.0, 2.0, -1.0, 0.0]])
    gene = torch.randn(1, 4, 6)
    found = module(gene, value, gene_mask) - gene
    torch.testing.assert_close(found[0, 1], module.genes(torch.tensor(2.0)))
    torch.testing.assert_close(found[0, 2], module.genes.marks.weight[0])
    assert not found[0, [0, 3]].any()
    assert module.hidden(value, gene_mask).tolist() == [[False, False, True, False]]
    assert not module.hidden(torch.full((1, 4), -1.0), torch.zeros_like(gene_mask)).any()


def test_depth_tokens_have_bins_of_their_own_and_tokens_without_a_value_none():
    module = GeneAndDepthBins(gated_configs.GeneAndDepthBins(genes=MARKED, depths=LEARNED), WIDTH)
    gene_mask = torch.tensor([[False, True, False, False]])
    value = torch.tensor([[0.0, 2.0, 0.7, 0.0]])
    gene = torch.randn(1, 4, 6)
    found = module(gene, value, gene_mask) - gene
    torch.testing.assert_close(found[0, 1], module.genes(torch.tensor(2.0)))
    torch.testing.assert_close(found[0, 2], module.depths(torch.tensor(0.7)))
    assert not found[0, [0, 3]].any()
