"""Attention by conserved flows against its formulas, and a set gone over in pieces."""

from __future__ import annotations

import itertools

import pytest
import torch

from sclcm.nn.backbone import Block
from sclcm.nn.configs import BackboneConfig, FeedForward, SoftmaxAttention
from sclcm.nn.flow_attention import FlowAttention
from sclcm.nn.set_configs import FlowAttention as Config


def textbook(module, x_ld):
    """The formulas, head by head in float64, for one set of tokens."""
    eps, size = module.eps, x_ld.shape[-1] // module.n_heads
    projected = x_ld.double() @ module.qkv.weight.double().t() + module.qkv.bias.double()
    out = []
    for head in range(module.n_heads):
        q, k, v = (part[:, head * size : (head + 1) * size] for part in projected.chunk(3, dim=-1))
        q, k = q.sigmoid(), k.sigmoid()
        incoming = 1 / ((q + eps) * (k.sum(0) + eps)).sum(-1, keepdim=True)
        outgoing = 1 / ((k + eps) * (q.sum(0) + eps)).sum(-1, keepdim=True)
        sink = ((q + eps) * ((k * outgoing).sum(0) + eps)).sum(-1, keepdim=True)
        source = ((k + eps) * ((q * incoming).sum(0) + eps)).sum(-1, keepdim=True).clamp(-1, 1)
        competition = source.softmax(0) * len(x_ld)
        out.append(((q * incoming) @ (k.t() @ (v * competition))) * sink.sigmoid())
    return torch.cat(out, dim=-1) @ module.out.weight.double().t() + module.out.bias.double()


def make(*, n_heads=3, width=12, scale=1.0):
    module = FlowAttention(Config(n_heads=n_heads), width).requires_grad_(False).eval()
    module.qkv.weight *= scale  # large ones bring the clamp into play
    return module


@pytest.mark.parametrize("scale", [1.0, 20.0])
@pytest.mark.parametrize("length", [1, 2, 37])
@torch.inference_mode()
def test_attention_equals_the_formulas(device, length, scale):
    module, x = make(scale=scale), torch.randn(2, length, 12)
    wanted = torch.stack([textbook(module, x_ld) for x_ld in x])
    found = module.to(device)(x.to(device), None).cpu()
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_weights_times_values_are_what_is_mixed(device):
    module, x = make().to(device), torch.randn(2, 9, 12, device=device)
    value = module.qkv(x)[..., 24:].unflatten(-1, (3, 4)).transpose(1, 2)
    mixed = module.out((module.weights(x, None) @ value).transpose(1, 2).flatten(2))
    torch.testing.assert_close(mixed, module(x, None), rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_padding_does_not_matter(device):
    module, x = make().to(device), torch.randn(2, 6, 12, device=device)
    mask = torch.tensor([[True] * 6, [True, True, True, True, False, False]], device=device)
    alone = module(x[1:, :4].contiguous(), None)[0]
    torch.testing.assert_close(module(x, mask)[1, :4], alone, rtol=1e-5, atol=1e-6)
    weights = module.weights(x, mask)
    torch.testing.assert_close(weights[1, :, :4, :4], module.weights(x[1:, :4], None)[0], rtol=1e-5, atol=1e-6)
    assert not weights[1, :, :, 4:].any()


@torch.inference_mode()
def test_order_does_not_matter(device):
    module, x = make().to(device), torch.randn(1, 50, 12, device=device)
    order = torch.randperm(50)
    torch.testing.assert_close(module(x[:, order], None), module(x, None)[:, order], rtol=1e-5, atol=1e-6)


def in_pieces(block, x_bld, sizes):
    """A block over pieces of one set, which meet through sums alone."""
    stops = list(itertools.accumulate(sizes))
    pieces = [x_bld[:, stop - size : stop] for size, stop in zip(sizes, stops, strict=True)]
    known = ()
    for _ in range(block.n_rounds):
        sums = [block.gather(piece, known) for piece in pieces]
        known = (*known, tuple(sum(parts[1:], parts[0]) for parts in zip(*sums, strict=True)))
    return torch.cat([block.mix(piece, known) for piece in pieces], dim=1)


def make_block(attention):
    config = BackboneConfig(
        n_blocks=1, attention=attention, feed_forward=FeedForward(d_hidden=24), norm="pre", dropout=0.1
    )
    return Block(config, 12).requires_grad_(False).eval()


@pytest.mark.parametrize("sizes", [(30,), (1, 29), (10, 10, 10), (7, 1, 20, 2)])
@torch.inference_mode()
def test_set_in_pieces_is_the_set_at_once(device, sizes):
    block, x = make_block(Config(n_heads=3)).to(device), torch.randn(1, 30, 12, device=device)
    torch.testing.assert_close(in_pieces(block, x, sizes), block(x, None), rtol=1e-5, atol=1e-6)


def test_softmax_attention_mixes_no_pieces():
    block = make_block(SoftmaxAttention(n_heads=3))
    assert block.n_rounds is None
    with pytest.raises(TypeError, match="SoftmaxAttention mixes a set at once"):
        block.gather(torch.zeros(1, 2, 12), ())


def test_flow_attention_continues_no_sentence():
    with pytest.raises(TypeError, match="FlowAttention reads whole sentences only"):
        make_block(Config(n_heads=3)).step(torch.zeros(1, 1, 12), None, torch.zeros(1))


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="5 heads do not divide a width of 12"):
        FlowAttention(Config(n_heads=5), 12)


@torch.inference_mode()
def test_half_precision_stays_near(device):
    module, x = make().to(device), torch.randn(1, 200, 12, device=device)
    wanted = module(x, None)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        found = module(x, None)
    # 8 bits of a value near 1 are 0.004; the sums over all tokens are taken in full precision.
    assert (found.float() - wanted).abs().max() <= 0.03 * wanted.abs().max()
    lower = module.to(torch.bfloat16)(x.to(torch.bfloat16), None)
    assert lower.dtype == torch.bfloat16
    assert (lower.float() - wanted).abs().max() <= 0.03 * wanted.abs().max()


@torch.inference_mode()
def test_it_compiles_as_one_graph():
    module, x = make(), torch.randn(2, 7, 12)
    compiled = torch.compile(module, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, None), module(x, None), rtol=1e-5, atol=1e-6)


def test_gradients_flow():
    module = FlowAttention(Config(n_heads=3), 12)
    module(torch.randn(1, 5, 12), None).sum().backward()
    assert all(parameter.grad is not None and parameter.grad.abs().sum() > 0 for parameter in module.parameters())
