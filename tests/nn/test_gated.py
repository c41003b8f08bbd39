"""Gated blocks against their formulas, written out in float64."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from sclcm.nn.backbone import Backbone, Block
from sclcm.nn.configs import BackboneConfig, LayerNorm
from sclcm.nn.gated import GatedFeedForward, GatedLinearAttention
from sclcm.nn.gated_configs import GatedFeedForward as GatedFeedForwardConfig
from sclcm.nn.gated_configs import GatedLinearAttention as GatedLinearAttentionConfig
from sclcm.nn.gated_configs import MaskSchedule, ScaledResidual

WIDTH, HEADS, HIDDEN = 12, 3, 20


def seeded(build):
    torch.manual_seed(0)
    return build().eval().requires_grad_(False)


@pytest.fixture
def attention():
    return seeded(lambda: GatedLinearAttention(GatedLinearAttentionConfig(n_heads=HEADS), WIDTH))


@pytest.fixture
def feed_forward():
    return seeded(lambda: GatedFeedForward(GatedFeedForwardConfig(d_hidden=HIDDEN), WIDTH))


@pytest.fixture
def x():
    return torch.randn(4, 7, WIDTH, generator=torch.Generator().manual_seed(1))


MASK = torch.tensor([[1] * 7, [1] * 4 + [0] * 3, [1] + [0] * 6, [0] * 7], dtype=torch.bool)


def plain_attention(module, x, mask):
    """Head by head and query by query, from products with single keys."""
    query, key, value, gate = module.qkvu.weight.double().chunk(4)
    out = torch.zeros(x.shape, dtype=torch.float64)
    head = WIDTH // HEADS
    for cell, (tokens, real) in enumerate(zip(x.double(), mask, strict=True)):
        for first in range(0, WIDTH, head):
            rows = slice(first, first + head)
            q, k = (tokens @ query[rows].T).relu(), (tokens @ key[rows].T).relu()
            v, u = tokens @ value[rows].T, tokens @ gate[rows].T
            for place in range(len(tokens)):
                read = sum(
                    (torch.dot(q[place], k[other]) * v[other] for other in range(len(tokens)) if real[other]),
                    start=torch.zeros(head, dtype=torch.float64),
                )
                size = read.square().mean().sqrt().clamp(min=1e-12)
                out[cell, place, rows] = read / size * u[place] * torch.sigmoid(u[place])
    return out @ module.out.weight.double().T


def test_attention_is_its_formula(attention, x, device):
    wanted = plain_attention(attention, x, MASK)
    found = attention.to(device)(x.to(device), MASK.to(device)).cpu()
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)
    assert not found[3].any()  # nothing to read


def test_no_mask_is_a_mask_that_is_true_everywhere(attention, x):
    assert attention(x, None).equal(attention(x, torch.ones_like(MASK)))


def test_padding_informs_nobody(attention, x):
    noisy = x.masked_fill(~MASK.unsqueeze(-1), 1e3)
    found, wanted = attention(noisy, MASK), attention(x, MASK)
    assert found[MASK].equal(wanted[MASK])
    torch.testing.assert_close(attention(x[1:2, :4], None), wanted[1:2, :4], rtol=1e-5, atol=1e-6)


def test_order_of_tokens_does_not_matter(attention, x):
    order = torch.tensor([3, 0, 6, 5, 1, 2, 4])
    torch.testing.assert_close(attention(x[:, order], None), attention(x, None)[:, order], rtol=1e-4, atol=1e-6)


def test_weights_are_shares_of_what_is_read(attention, x):
    weights = attention.weights(x, MASK)
    sums = weights.sum(-1)
    assert ((sums - 1).abs() < 1e-5).logical_or(sums == 0).all()
    assert not weights[1, :, :, 4:].any()
    assert not weights[3].any()
    assert attention.scores(x).shape == (4, HEADS, 7, 7)


def test_long_sentences_stay_within_half_precision(device):
    module = seeded(lambda: GatedLinearAttention(GatedLinearAttentionConfig(n_heads=2), 64))
    x = torch.randn(1, 2048, 64, generator=torch.Generator().manual_seed(2)) * 3
    wanted = module(x, None)
    for dtype in (torch.float16, torch.bfloat16):
        found = module.to(device, dtype)(x.to(device, dtype), None).float().cpu()
        module.float()
        assert torch.nn.functional.cosine_similarity(found, wanted, dim=-1).min() > 0.98


def test_autocast_and_compilation_give_the_same(attention, x):
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = attention(x, MASK).float()
    torch.testing.assert_close(found, attention(x, MASK), rtol=0.1, atol=0.05)
    compiled = torch.compile(attention, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, MASK), attention(x, MASK), rtol=1e-5, atol=1e-6)


def test_cost_is_linear_in_length(attention):
    def operations(length):
        with FlopCounterMode(display=False) as counter, torch.enable_grad():  # which takes products that are counted
            attention(torch.zeros(1, length, WIDTH), torch.ones(1, length, dtype=torch.bool))
        return counter.get_total_flops()

    assert operations(1000) == 10 * operations(100) > 0


def test_nothing_of_length_times_length_is_made(attention, x):
    sizes = []

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            sizes.extend([out.numel()] if isinstance(out, torch.Tensor) else [])
            return out

    length = 500
    with Watch():
        attention(torch.zeros(1, length, WIDTH), None)
    assert max(sizes) <= 4 * length * WIDTH < length * length


def test_heads_must_divide_the_width():
    with pytest.raises(ValueError, match="5 heads do not divide a width of 12"):
        GatedLinearAttention(GatedLinearAttentionConfig(n_heads=5), WIDTH)


def test_feed_forward_is_its_formula(feed_forward, x):
    one, other = feed_forward.up.weight.double().chunk(2)
    wanted = ((x.double() @ one.T) * (x.double() @ other.T)) @ feed_forward.down.weight.double().T
    torch.testing.assert_close(feed_forward(x).double(), wanted, rtol=1e-4, atol=1e-5)


def config(**changes):
    parts = {
        "n_blocks": 5,
        "attention": GatedLinearAttentionConfig(n_heads=HEADS),
        "feed_forward": GatedFeedForwardConfig(d_hidden=HIDDEN),
        "norm": "post",
        "layer_norm": LayerNorm(eps=1e-7),
        "residual": ScaledResidual(factor=2.0, power=0.25),
    }
    return BackboneConfig(**{**parts, **changes})


@pytest.mark.parametrize("norm", ["post", "pre"])
def test_residual_is_scaled_by_depth(norm, x):
    block = seeded(lambda: Block(config(norm=norm), WIDTH))
    scale = (2 * 5) ** 0.25
    if norm == "post":
        middle = block.norm1(scale * x + block.attn(x, MASK))
        wanted = block.norm2(scale * middle + block.ff(middle))
    else:
        middle = scale * x + block.attn(block.norm1(x), MASK)
        wanted = scale * middle + block.ff(block.norm2(middle))
    torch.testing.assert_close(block(x, MASK), wanted, rtol=1e-5, atol=1e-5)


def test_hidden_tokens_inform_others_in_later_blocks_only(x):
    backbone = seeded(lambda: Backbone(config(mask_schedule=MaskSchedule(blind_share=0.5)), WIDTH))
    hidden = torch.zeros_like(MASK)
    hidden[0, 2:4] = hidden[1, 0] = True
    wanted = x
    for number, block in enumerate(backbone.blocks):
        wanted = block(wanted, MASK & ~hidden if number < 2 else MASK)
    torch.testing.assert_close(backbone(x, MASK, None, hidden), wanted)
    whole = torch.ones_like(MASK)
    torch.testing.assert_close(backbone(x, None, None, hidden), backbone(x, whole, None, hidden))
    torch.testing.assert_close(backbone(x, MASK), backbone(x, MASK, None, torch.zeros_like(hidden)))
    changed = x.masked_fill(hidden.unsqueeze(-1), 5.0)
    see = [~hidden & MASK, MASK]
    assert backbone(x, MASK, 2, hidden)[see[0]].equal(backbone(changed, MASK, 2, hidden)[see[0]])
    assert not backbone(x, MASK, 3, hidden)[0].equal(backbone(changed, MASK, 3, hidden)[0])
