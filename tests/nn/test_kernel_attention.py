"""Attention by random features against its formula, written out query by query in float64."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from sclcm.nn import configs, kernel_attention
from sclcm.nn.backbone import Backbone
from sclcm.nn.kernel_attention import EPS, KernelAttention

WIDTH, N_HEADS, D_HEAD, N_FEATURES = 10, 3, 4, 7
MASK = torch.tensor([[True] * 6, [True, True, True, True, False, False], [True] + [False] * 5])


def attention(**given):
    return configs.KernelAttention(n_heads=N_HEADS, d_head=D_HEAD, n_features=N_FEATURES, **given)


def make(**given):
    module = KernelAttention(attention(**given), WIDTH).requires_grad_(False).eval()
    for tensor in (module.qkv.weight, module.out.weight):
        torch.nn.init.normal_(tensor, std=0.6)
    return module


def project(module, x_bld, part):
    """Queries, keys or values, shape `(cells, tokens, heads, head width)`."""
    inner = N_HEADS * D_HEAD
    rows = slice(part * inner, (part + 1) * inner)
    bias = 0 if module.qkv.bias is None else module.qkv.bias[rows].double()
    return (x_bld.double() @ module.qkv.weight[rows].double().T + bias).unflatten(-1, (N_HEADS, D_HEAD))


def formula(module, x_bld, mask_bl):
    """The mixed values before the output projection and the weights, one number at a time."""
    n_cells, length, _ = x_bld.shape
    real = torch.ones(n_cells, length, dtype=torch.bool) if mask_bl is None else mask_bl
    keys_of = [[j for j in range(length) if real[b, j] or module.padding == "counted"] for b in range(n_cells)]
    q, k = (project(module, x_bld, part) * D_HEAD**-0.25 for part in (0, 1))
    v = project(module, x_bld, 2)
    p = module.projection.double()
    largest = {(b, h): max(float(p[r] @ k[b, j, h]) for j in keys_of[b] for r in range(N_FEATURES))
               for b, h in itertools.product(range(n_cells), range(N_HEADS))}  # fmt: skip
    if module.stabilizer == "cell":
        largest = {(b, h): max(largest[b, other] for other in range(N_HEADS)) for b, h in largest}
    if module.stabilizer == "batch":
        largest = dict.fromkeys(largest, max(largest.values()))

    def features(x, most):
        return torch.tensor([math.exp(float(p[r] @ x) - float(x @ x) / 2 - most) + EPS for r in range(N_FEATURES)],
                            dtype=torch.float64)  # fmt: skip

    weights = torch.zeros(n_cells, N_HEADS, length, length, dtype=torch.float64)
    mixed = torch.zeros(n_cells, length, N_HEADS, D_HEAD, dtype=torch.float64)
    for b, h, i in itertools.product(range(n_cells), range(N_HEADS), range(length)):
        query = features(q[b, i, h], max(float(p[r] @ q[b, i, h]) for r in range(N_FEATURES)))
        products = {j: float(query @ features(k[b, j, h], largest[b, h])) for j in keys_of[b]}
        for j in keys_of[b]:
            if real[b, j]:
                weights[b, h, i, j] = products[j] / sum(products.values())
                mixed[b, i, h] += weights[b, h, i, j] * v[b, j, h]
    return mixed.flatten(2), weights


@pytest.mark.parametrize("stabilizer", ["cell", "head", "batch"])
@pytest.mark.parametrize("padding", ["excluded", "counted"])
@pytest.mark.parametrize("mask", [None, MASK])
@pytest.mark.parametrize("qkv_bias", [False, True])
def test_attention_equals_the_formula(device, monkeypatch, stabilizer, padding, mask, qkv_bias):
    monkeypatch.setattr(kernel_attention, "CPU_FEATURES", 3 * N_HEADS * N_FEATURES * 2)  # two tokens at a time
    module, x = make(stabilizer=stabilizer, padding=padding, qkv_bias=qkv_bias), torch.randn(3, 6, WIDTH)
    if qkv_bias:
        torch.nn.init.normal_(module.qkv.bias)
    mixed, weights = formula(module, x, mask)
    wanted = mixed @ module.out.weight.double().T + module.out.bias.double()
    module, mask = module.to(device), None if mask is None else mask.to(device)
    found = module(x.to(device), mask)
    torch.testing.assert_close(found.cpu().double(), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(module.weights(x.to(device), mask).cpu().double(), weights, rtol=1e-4, atol=1e-5)
    real = torch.ones(3, 6) if mask is None else mask.cpu()
    received = (weights * real[:, None, :, None]).sum(2) / real.sum(1)[:, None, None]
    torch.testing.assert_close(module.received(x.to(device), mask).cpu().double(), received, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("stabilizer", ["cell", "head"])
def test_a_cell_in_a_padded_batch_is_what_it_is_alone(stabilizer):
    module, x = make(stabilizer=stabilizer), torch.randn(3, 6, WIDTH) * torch.tensor([1.0, 3.0, 9.0])[:, None, None]
    x = x.masked_fill(~MASK[..., None], 1e4)  # whatever stands at padding
    together = module(x, MASK)
    for cell, length in enumerate(MASK.sum(1).tolist()):
        alone = module(x[cell : cell + 1, :length], None)
        torch.testing.assert_close(together[cell, :length], alone[0], rtol=1e-4, atol=1e-5)


def test_a_stabiliser_of_the_batch_depends_on_the_cells_beside():
    module, x = make(stabilizer="batch"), torch.randn(2, 6, WIDTH) * torch.tensor([1.0, 5.0])[:, None, None]
    assert not torch.allclose(module(x, None)[0], module(x[:1], None)[0], rtol=1e-3)


@pytest.mark.parametrize("padding", ["excluded", "counted"])
def test_order_of_tokens_does_not_matter(padding):
    module, x, order = make(padding=padding), torch.randn(3, 6, WIDTH), torch.randperm(6)
    found = module(x[:, order], MASK[:, order])
    torch.testing.assert_close(found, module(x, MASK)[:, order], rtol=1e-4, atol=1e-5)


def test_gradients_are_those_of_the_same_computation_in_one_piece(monkeypatch):
    module, x = make().requires_grad_(True), torch.randn(3, 6, WIDTH, requires_grad=True)
    (whole,) = torch.autograd.grad(module(x, MASK).square().sum(), x)
    monkeypatch.setattr(kernel_attention, "CPU_FEATURES", 1)
    (pieces,) = torch.autograd.grad(module(x, MASK).square().sum(), x)
    torch.testing.assert_close(pieces, whole, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("scale", [1e-6, 1e2, 1e6, 1e12])
def test_very_small_and_large_inputs_equal_the_formula_and_have_finite_gradients(scale):
    module, x = make(), (torch.randn(3, 6, WIDTH) * scale).requires_grad_()
    found = module(x, MASK)
    wanted = formula(module, x.detach(), MASK)[0] @ module.out.weight.double().T + module.out.bias.double()
    torch.testing.assert_close((found / scale).double(), wanted / scale, rtol=1e-4, atol=1e-5)
    (gradient,) = torch.autograd.grad(found[MASK].sum(), x)
    assert gradient.isfinite().all()


@pytest.mark.parametrize("padding", ["excluded", "counted"])
@pytest.mark.parametrize("stabilizer", ["cell", "head", "batch"])
def test_a_cell_without_tokens_is_zero_and_disturbs_no_other(stabilizer, padding):
    module = make(stabilizer=stabilizer, padding=padding).requires_grad_(True)
    x = torch.randn(3, 6, WIDTH, requires_grad=True)
    mask = MASK & torch.tensor([[True], [True], [False]])
    found = module(x, mask)
    torch.testing.assert_close(found[2], module.out.bias.expand(6, -1))
    assert not module.weights(x, mask)[2].any()
    assert not module.received(x, mask)[2].any()
    gradients = torch.autograd.grad(found.square().sum(), [x, module.qkv.weight, module.out.weight])
    assert all(gradient.isfinite().all() for gradient in gradients)
    if padding == "excluded":
        torch.testing.assert_close(found[:2], module(x[:2], mask[:2]))


def test_attention_is_near_in_bfloat16(device):
    module, x = make().to(device), torch.randn(3, 6, WIDTH, device=device)
    wanted = module(x, MASK.to(device))
    with torch.autocast(device.type, dtype=torch.bfloat16):
        torch.testing.assert_close(module(x, MASK.to(device)).float(), wanted, rtol=0.05, atol=0.1)
    half = module.to(torch.bfloat16)(x.bfloat16(), MASK.to(device))
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.float(), wanted, rtol=0.05, atol=0.2)


def test_attention_is_traced_whole():
    module, x = make(), torch.randn(3, 6, WIDTH)
    traced = torch.compile(module, backend="eager", fullgraph=True)
    torch.testing.assert_close(traced(x, MASK), module(x, MASK))


def test_drawn_vectors_are_orthogonal_in_blocks_and_as_long_as_gaussians():
    projection = KernelAttention(configs.KernelAttention(n_heads=1, d_head=64, n_features=266), 8).projection
    unit = projection / projection.norm(dim=1, keepdim=True)
    for block in unit.split(64):
        torch.testing.assert_close(block @ block.T, torch.eye(len(block)), rtol=0, atol=1e-5)
    assert float(projection.norm(dim=1).mean()) == pytest.approx(8, abs=0.3)
    assert float(projection.norm(dim=1).std()) > 0.3


def test_with_many_features_the_weights_near_those_of_softmax():
    module = KernelAttention(configs.KernelAttention(n_heads=1, d_head=4, n_features=20_000), WIDTH).eval()
    x = torch.randn(1, 5, WIDTH)
    with torch.no_grad():
        q, k, _ = module._project(x)
        wanted = torch.softmax(q @ k.transpose(-1, -2) / 2, dim=-1)
        torch.testing.assert_close(module.weights(x, None), wanted, rtol=0, atol=0.02)


@pytest.mark.parametrize("norm", ["pre", "post"])
def test_blocks_take_it_in_place_of_softmax(norm):
    config = configs.BackboneConfig(
        n_blocks=2, attention=attention(), feed_forward=configs.FeedForward(d_hidden=5), norm=norm,
        final_norm=configs.LayerNorm(),
    )  # fmt: skip
    backbone, x = Backbone(config, WIDTH).eval(), torch.randn(3, 6, WIDTH)
    with torch.no_grad():
        together = backbone(x, MASK)
        alone = backbone(x[1:2, :4], None)
    torch.testing.assert_close(together[1, :4], alone[0], rtol=1e-4, atol=1e-5)
    with pytest.raises(TypeError, match="KernelAttention reads whole sentences only"):
        backbone.with_targets(x, x, None)


def test_attention_of_a_stack_is_the_mean_of_its_blocks_before_or_after_their_own_sum():
    config = configs.BackboneConfig(
        n_blocks=2, attention=attention(), feed_forward=configs.FeedForward(d_hidden=5), norm="pre"
    )
    backbone, x = Backbone(config, WIDTH).eval(), torch.randn(3, 6, WIDTH)
    with torch.no_grad():
        for halfway in (False, True):
            y, maps = x, []
            for block in backbone.blocks:
                asked = y + block.attn(block.norm1(y), MASK) if halfway else y
                maps.append(block.attn.weights(block.norm1(asked), MASK))
                y = block(y, MASK)
            wanted = (torch.stack(maps).mean((0, 2)) * MASK[:, :, None]).sum(1) / MASK.sum(1, keepdim=True)
            found = backbone.attention_received(x, MASK, halfway=halfway)
            torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-5)


def test_memory_is_linear_in_length():
    module, x = make(), torch.randn(1, 17_000, WIDTH)
    largest = 0

    class Watch(torch.overrides.TorchFunctionMode):
        def __torch_function__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            found = func(*args, **(kwargs or {}))
            largest = max(largest, found.numel() if isinstance(found, torch.Tensor) else 0)
            return found

    with torch.no_grad(), Watch():
        module(x, None)
        module.received(x, None)
    assert largest <= max(kernel_attention.CPU_FEATURES, 17_000 * 3 * N_HEADS * D_HEAD)
