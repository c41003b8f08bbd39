"""Attention that adds a number to the scores of padding instead of hiding it."""

from __future__ import annotations

import pytest
import torch

from sclcm.nn import configs
from sclcm.nn.attention import SoftmaxAttention

MASK = torch.tensor([[True] * 5, [True, True, True, False, False]])


def make(bias, **given):
    torch.manual_seed(3)
    return SoftmaxAttention(configs.SoftmaxAttention(n_heads=3, padding_bias=bias, **given), 12).eval()


@pytest.mark.parametrize("grad", [False, True])
def test_scores_of_padding_are_raised_and_padding_is_attended_to(device, grad):
    module, x = make(1.0).to(device), torch.randn(2, 5, 12, device=device)
    q, k, v = (part.unflatten(-1, (3, 4)).transpose(1, 2).double() for part in module.qkv(x).chunk(3, dim=-1))
    scores = q @ k.transpose(-1, -2) / 2 + (~MASK).double().to(device)[:, None, None]
    weights = scores.exp() / scores.exp().sum(-1, keepdim=True)
    mixed = (weights @ v).transpose(1, 2).flatten(2)
    wanted = mixed @ module.out.weight.double().t() + module.out.bias.double()
    with torch.set_grad_enabled(grad):
        torch.testing.assert_close(module(x, MASK.to(device)).double(), wanted, rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(module.weights(x, MASK.to(device)).double(), weights, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_long_sentences_are_no_exception():
    x, mask = torch.randn(2, 600, 12), torch.ones(2, 600, dtype=torch.bool)
    mask[1, 500:] = False
    module = make(1.0)
    wanted = module.weights(x, mask)[1] @ module.qkv(x[1]).chunk(3, dim=-1)[2].unflatten(-1, (3, 4)).transpose(0, 1)
    torch.testing.assert_close(module(x, mask)[1], module.out(wanted.transpose(0, 1).flatten(1)), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_without_padding_nothing_is_added():
    x = torch.randn(2, 5, 12)
    torch.testing.assert_close(make(1.0)(x, None), make(None)(x, None))
    torch.testing.assert_close(make(1.0)(x, torch.ones_like(MASK)), make(None)(x, None))
    assert not torch.allclose(make(1.0)(x, MASK)[1], make(None)(x, MASK)[1])


@torch.inference_mode()
def test_a_large_negative_number_hides_padding():
    x = torch.randn(2, 5, 12)
    found, wanted = make(-1e4)(x, MASK), make(None)(x, MASK)
    torch.testing.assert_close(found, wanted)


def test_causal_attention_takes_no_bias():
    with pytest.raises(ValueError, match="leave out `padding_bias`"):
        make(1.0, causal=True)
