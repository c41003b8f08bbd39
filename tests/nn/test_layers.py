"""Linear layers, non-linearities, norms."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from sclcm._sizes import Config
from sclcm.nn import configs, layers
from sclcm.nn.layers import FeedForward, Linear, activation, has_onednn_linear, layer_norm, linear


def counted(monkeypatch):
    """Count how often PyTorch's own product is taken."""
    calls = []
    plain = functional.linear

    def spy(*args):
        calls.append(args)
        return plain(*args)

    monkeypatch.setattr(layers.functional, "linear", spy)
    return calls


@pytest.mark.parametrize("shape", [(1, 8), (5, 8), (2, 3, 8), (2, 1, 3, 8), (8,), (0, 8), (0, 3, 8)])
@pytest.mark.parametrize("has_bias", [True, False])
def test_linear_equals_that_of_torch(device, shape, has_bias):
    x, weight = torch.randn(shape, device=device), torch.randn(6, 8, device=device)
    bias = torch.randn(6, device=device) if has_bias else None
    wanted = functional.linear(x, weight, bias)
    with torch.inference_mode():
        found = linear(x, weight, bias)
    assert found.shape == wanted.shape
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_linear_in_half_precision_is_within_its_error(device, dtype):
    x, weight, bias = (
        torch.randn(7, 64, device=device),
        torch.randn(32, 64, device=device),
        torch.randn(32, device=device),
    )
    with torch.inference_mode():
        found = linear(x.to(dtype), weight.to(dtype), bias.to(dtype))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), functional.linear(x, weight, bias), rtol=0.05, atol=0.2)


@pytest.mark.skipif(not has_onednn_linear(torch.float32), reason="oneDNN is not built into this PyTorch")
def test_onednn_product_is_taken_only_where_nothing_needs_the_other(monkeypatch):
    calls = counted(monkeypatch)
    x, layer = torch.randn(3, 8), Linear(8, 8)
    with torch.no_grad():
        layer(x)
    assert not calls
    layer(x)
    assert len(calls) == 1
    with torch.inference_mode():
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer(x).dtype == torch.bfloat16
        layer(torch.randn(8, 3).t())
        linear(x.double(), layer.weight.double(), None)
    assert len(calls) == 4


@pytest.mark.parametrize(("maker", "calls_of_blas"), [("Intel Xeon", 1), ("AMD EPYC", 0), (None, 0)])
@pytest.mark.skipif(not has_onednn_linear(torch.float32), reason="oneDNN is not built into this PyTorch")
def test_many_rows_go_through_blas_on_processors_of_its_maker(monkeypatch, maker, calls_of_blas):
    monkeypatch.setattr(layers, "processor", lambda: {} if maker is None else {"cpu_name": maker})
    monkeypatch.setattr(torch.backends.mkl, "is_available", lambda: True)
    calls = counted(monkeypatch)
    x, layer = torch.randn(2, layers.MANY_ROWS // 2, 8), Linear(8, 8)
    with torch.inference_mode():
        many = layer(x)
        assert len(calls) == calls_of_blas
        few = layer(x[:1, :100].contiguous())
        linear(x, layer.weight, layer.bias, then="gelu")
        assert len(calls) == calls_of_blas
    torch.testing.assert_close(many[:1, :100], few, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", sorted(layers.ACTIVATIONS))
@pytest.mark.parametrize("bias", [True, False])
def test_activation_may_be_part_of_the_product(name, bias):
    layer, x = Linear(24, 40, bias=bias), 3 * torch.randn(5, 7, 24)
    wanted = activation(name)(
        functional.linear(x.double(), layer.weight.double(), layer.bias.double() if bias else None)
    )
    with torch.inference_mode():
        found = linear(x, layer.weight, layer.bias, then=name)
        half = linear(x.bfloat16(), layer.weight.bfloat16(), layer.bias.bfloat16() if bias else None, then=name)
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=2e-6)
    torch.testing.assert_close(half.double(), wanted, rtol=0.05, atol=0.05)
    with_gradient = linear(x, layer.weight, layer.bias, then=name)
    assert with_gradient.requires_grad
    torch.testing.assert_close(found, with_gradient.detach(), rtol=1e-4, atol=1e-5)


def test_missing_operator_falls_back_to_torch(monkeypatch):
    monkeypatch.setattr(layers, "has_onednn_linear", lambda dtype: False)
    calls = counted(monkeypatch)
    with torch.inference_mode():
        Linear(4, 2)(torch.randn(3, 4))
    assert len(calls) == 1


def test_feature_test_survives_an_operator_that_fails(monkeypatch):
    def broken(*args):
        raise RuntimeError

    has_onednn_linear.cache_clear()
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", broken, raising=False)
    assert has_onednn_linear(torch.float32) is False
    monkeypatch.setattr(torch.ops.mkldnn, "_linear_pointwise", lambda x, w, *rest: (x @ w.t()) + 1, raising=False)
    has_onednn_linear.cache_clear()
    assert has_onednn_linear(torch.float32) is False
    has_onednn_linear.cache_clear()


def test_gradients_flow_through_a_linear_layer(device):
    layer = Linear(4, 3).to(device)
    layer(torch.randn(2, 4, device=device)).square().sum().backward()
    assert layer.weight.grad.abs().sum() > 0
    assert layer.bias.grad.abs().sum() > 0


@pytest.mark.parametrize("name", ["swish", None, Config("hidden_act"), ["relu"]])
def test_unknown_activation_is_refused_with_those_that_exist(name):
    with pytest.raises(ValueError, match="unknown; known are 'relu', 'gelu', 'gelu_tanh', 'gelu_new', 'leaky_relu'"):
        activation(name)


def test_activation_by_name():
    x = torch.tensor([-1.0, 2.0])
    assert activation("relu")(x).tolist() == [0.0, 2.0]
    assert activation("gelu")(x).tolist() == pytest.approx([-0.15865526, 1.9544997], rel=1e-5)


def test_layer_norm_takes_its_eps():
    norm = layer_norm(configs.LayerNorm(eps=1e-12), 4)
    assert (norm.eps, norm.normalized_shape) == (1e-12, (4,))


def test_feed_forward_is_two_products_with_the_activation_between():
    feed_forward = FeedForward(configs.FeedForward(d_hidden=7, activation="relu"), 4)
    x = torch.randn(2, 3, 4)
    up, down = feed_forward.up, feed_forward.down
    wanted = (x @ up.weight.t() + up.bias).clamp(min=0) @ down.weight.t() + down.bias
    torch.testing.assert_close(feed_forward(x), wanted)


@pytest.mark.parametrize("config", [configs.FeedForward(d_hidden=0), configs.FeedForward(d_hidden=Config("ff"))])
def test_feed_forward_without_a_width_is_refused(config):
    with pytest.raises(ValueError, match="positive integer"):
        FeedForward(config, 4)
