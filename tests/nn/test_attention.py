"""Attention against the textbook formula."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from sclcm.nn import attention, configs
from sclcm.nn.attention import SoftmaxAttention, attend


def textbook(module, x_bld, mask_bl=None, *, causal=False):
    """Attention query by query in float64, and its weights."""
    n_heads, width = module.n_heads, x_bld.shape[-1]
    weight, bias = module.qkv.weight.double(), module.qkv.bias.double()
    q, k, v = ((x_bld.double() @ weight.t() + bias)[..., part * width : (part + 1) * width] for part in range(3))
    mixed = torch.zeros_like(q)
    size = width // n_heads
    n_cells, length = x_bld.shape[:2]
    weights = torch.zeros(n_cells, n_heads, length, length, dtype=torch.float64)
    for cell, head, query in itertools.product(range(n_cells), range(n_heads), range(length)):
        part = slice(head * size, (head + 1) * size)
        seen = [
            key for key in range(length) if (mask_bl is None or mask_bl[cell, key]) and not (causal and key > query)
        ]
        scores = [math.exp(float(q[cell, query, part] @ k[cell, key, part]) / math.sqrt(size)) for key in seen]
        for key, score in zip(seen, scores, strict=True):
            weights[cell, head, query, key] = score / sum(scores)
            mixed[cell, query, part] += score / sum(scores) * v[cell, key, part]
    return mixed @ module.out.weight.double().t() + module.out.bias.double(), weights


def make(*, causal=False, width=12, n_heads=3):
    return (
        SoftmaxAttention(configs.SoftmaxAttention(n_heads=n_heads, causal=causal), width).requires_grad_(False).eval()
    )


MASK = torch.tensor([[True] * 5, [True, True, True, False, False]])


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("has_grad", [False, True])
def test_attention_equals_the_formula(device, causal, mask, has_grad):
    module, x = make(causal=causal), torch.randn(2, 5, 12)
    wanted, weights = textbook(module, x, mask, causal=causal)
    module = module.to(device)
    mask = None if mask is None else mask.to(device)
    with torch.set_grad_enabled(has_grad):
        found, found_weights = module(x.to(device), mask), module.weights(x.to(device), mask)
    torch.testing.assert_close(found.cpu().double(), wanted, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found_weights.cpu().double(), weights, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found_weights.sum(-1).cpu(), torch.ones(2, 3, 5))


@pytest.mark.parametrize("causal", [False, True])
@torch.inference_mode()
def test_padding_does_not_matter(device, causal):
    module, x = make(causal=causal).to(device), torch.randn(2, 5, 12, device=device)
    padded = module(x, MASK.to(device))[1, :3]
    alone = module(x[1:, :3].contiguous(), None)[0]
    torch.testing.assert_close(padded, alone, rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_causal_attention_does_not_look_ahead(device):
    module, x = make(causal=True).to(device), torch.randn(1, 6, 12, device=device)
    changed = x.clone()
    changed[:, 4:] += 1
    before, after = module(x, None), module(changed, None)
    torch.testing.assert_close(before[:, :4], after[:, :4], rtol=0, atol=1e-6)
    assert not torch.allclose(before[:, 4:], after[:, 4:])


LONG = attention.LONG


def long_mask(length, kind):
    """Cells of full length, of a third, of one token; or with gaps, which no sentence has but the formula allows."""
    if kind == "none":
        return None
    mask = torch.ones(3, length, dtype=torch.bool)
    mask[1, length // 3 :] = False
    mask[2, 1:] = False
    if kind == "gaps":
        mask[0, 5:50] = False
    return mask


@pytest.fixture(params=[False, True], ids=["without matrix units", "with"])
def units(request, monkeypatch):
    """A processor that has matrix units, and one that has none."""
    monkeypatch.setattr(attention, "_has_matrix_units", lambda: request.param)


@pytest.mark.usefixtures("units")
@pytest.mark.parametrize(("dtype", "rtol", "atol"), [(torch.float32, 1e-4, 1e-5), (torch.bfloat16, 0.03, 0.01)])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("kind", ["none", "padding", "gaps"])
@pytest.mark.parametrize("length", [LONG - 1, LONG, LONG + 77])
@torch.inference_mode()
def test_long_sentences_take_a_faster_way_to_the_same_result(device, length, kind, causal, dtype, rtol, atol):
    # Bounds in bfloat16: 8 bits of a value near 1 are 0.004, averaged over the keys.
    mask = long_mask(length, kind)
    q, k, v = (torch.randn(3, 2, length, 16, dtype=torch.float64) for _ in range(3))
    allowed = attention.allowed_keys(mask, length, causal=causal, device=torch.device("cpu"))
    scores = q @ k.transpose(-1, -2) / 4
    wanted = torch.softmax(scores if allowed is None else scores.masked_fill(~allowed, -torch.inf), dim=-1) @ v
    moved = (x.to(dtype).to(device) for x in (q, k, v))
    found = attend(*moved, None if mask is None else mask.to(device), causal=causal)
    assert (found.shape, found.dtype) == (q.shape, dtype)
    real = torch.ones(3, length, dtype=torch.bool) if mask is None else mask
    found, wanted = found.cpu().double().transpose(1, 2)[real], wanted.transpose(1, 2)[real]
    torch.testing.assert_close(found, wanted, rtol=rtol, atol=atol)


@pytest.mark.usefixtures("units")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("length", [LONG - 1, LONG])
@torch.inference_mode()
def test_padding_looks_at_real_tokens_whatever_the_way(length, dtype):
    """Some models average it in."""
    mask = long_mask(length, "padding")
    q, k, v = (torch.randn(3, 2, length, 16) for _ in range(3))
    weights = torch.softmax((q @ k.transpose(-1, -2) / 4).masked_fill(~mask[:, None, None], -torch.inf), dim=-1)
    found = attend(*(x.to(dtype) for x in (q, k, v)), mask, causal=False).float()
    bound = 1e-5 if dtype == torch.float32 else 0.03
    torch.testing.assert_close(found, weights @ v, rtol=bound, atol=bound)


@pytest.mark.parametrize("kind", ["none", "padding"])
def test_long_sentences_have_gradients(kind):
    module, x = SoftmaxAttention(configs.SoftmaxAttention(n_heads=2), 8), torch.randn(3, LONG, 8)
    mask = long_mask(LONG, kind)
    x.requires_grad_()
    module(x, mask)[:, 0].sum().backward()
    assert x.grad[0].abs().sum() > 0


@pytest.mark.parametrize("causal", [False, True])
@torch.inference_mode()
def test_whole_layer_in_long_bfloat16_agrees_with_float32(causal):
    module, x = make(causal=causal, width=32, n_heads=2), torch.randn(1, attention.LONG + 3, 32)
    mask = torch.ones(1, attention.LONG + 3, dtype=torch.bool)
    mask[:, -9:] = False
    found = module.bfloat16()(x.bfloat16(), mask).float()
    wanted = module.float()(x, mask)
    assert torch.cosine_similarity(found.flatten(), wanted.flatten(), dim=0) > 0.999


def in_two_groups(module, x_bld, target_bmd, mask_bl):
    """Attention of both groups in one rectangle, by a dense mask, in float64."""
    both = torch.cat([x_bld, target_bmd], dim=1).double()
    n_seen, length = x_bld.shape[1], both.shape[1]
    weight, bias = module.qkv.weight.double(), module.qkv.bias.double()
    q, k, v = (both @ weight.t() + bias).unflatten(-1, (3, module.n_heads, -1)).permute(2, 0, 3, 1, 4)
    allowed = torch.zeros(len(both), length, length, dtype=torch.bool)
    allowed[:, :, :n_seen] = True if mask_bl is None else mask_bl[:, None]
    allowed |= torch.eye(length, dtype=torch.bool) & (torch.arange(length) >= n_seen)
    scores = (q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])).masked_fill(~allowed[:, None], -torch.inf)
    mixed = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2)
    seen, targets = mixed[:, :n_seen], mixed[:, n_seen:]
    out = module.out.weight.double(), module.out.bias.double()
    project = lambda x: x @ out[0].t() + out[1]  # noqa: E731
    return project(seen), project(targets) if module.projects_targets else targets


@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("projects_targets", [True, False])
def test_targets_see_the_visible_tokens_and_themselves(device, mask, projects_targets):
    config = configs.SoftmaxAttention(n_heads=3, projects_targets=projects_targets)
    module = SoftmaxAttention(config, 12).requires_grad_(False).eval()
    x, targets = torch.randn(2, 5, 12), torch.randn(2, 4, 12)
    wanted = in_two_groups(module, x, targets, mask)
    module, mask = module.to(device), None if mask is None else mask.to(device)
    found = module.with_targets(x.to(device), targets.to(device), mask)
    real = torch.ones(2, 5, dtype=torch.bool) if mask is None else mask.cpu()
    torch.testing.assert_close(found[0].cpu().double()[real], wanted[0][real], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[1].cpu().double(), wanted[1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[0][real.to(device)], module(x.to(device), mask)[real.to(device)])


@torch.inference_mode()
def test_targets_do_not_see_each_other(device):
    module, x = make().to(device), torch.randn(1, 5, 12, device=device)
    targets = torch.randn(1, 4, 12, device=device)
    _, together = module.with_targets(x, targets, None)
    for target in range(4):
        _, alone = module.with_targets(x, targets[:, [target]], None)
        torch.testing.assert_close(alone[:, 0], together[:, target], rtol=1e-5, atol=1e-6)


def test_heads_that_do_not_divide_the_width_are_refused():
    with pytest.raises(ValueError, match="5 heads do not divide a width of 12"):
        make(n_heads=5)


def test_attention_without_heads_is_refused():
    with pytest.raises(ValueError, match="positive integer"):
        make(n_heads=0)


def test_gradients_flow_through_attention(device):
    module = SoftmaxAttention(configs.SoftmaxAttention(n_heads=2), 8).to(device)
    x = torch.randn(2, 5, 8, device=device, requires_grad=True)
    module(x, MASK.to(device))[MASK.to(device)].square().sum().backward()
    assert x.grad[1, 3:].abs().sum() == 0  # padding has no influence
    assert x.grad[0].abs().min() > 0
    assert all(parameter.grad is not None for parameter in module.parameters())
