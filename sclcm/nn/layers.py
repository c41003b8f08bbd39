"""Linear layers, non-linearities, norms and feed-forwards."""

from __future__ import annotations

from functools import cache, partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from sclcm._sizes import as_int

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sclcm.nn import configs


def _gelu_sigmoid(x_nd: Tensor) -> Tensor:
    """GELU with a sigmoid in place of the normal distribution."""
    return x_nd * torch.sigmoid(1.702 * x_nd)


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,
    "gelu_tanh": partial(functional.gelu, approximate="tanh"),
    "gelu_new": partial(functional.gelu, approximate="tanh"),  # as GPT-2's files call it
    "leaky_relu": functional.leaky_relu,
    "leaky_relu_0.2": partial(functional.leaky_relu, negative_slope=0.2),
    "silu": functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
    "identity": torch.positive,
    "gelu_sigmoid": _gelu_sigmoid,
}


def activation(name: object) -> Callable[[Tensor], Tensor]:
    """Return a non-linearity by name; `ValueError` lists those that exist."""
    if not isinstance(name, str) or name not in ACTIVATIONS:
        msg = f"The activation {name!r} is unknown; known are {', '.join(map(repr, ACTIVATIONS))}."
        raise ValueError(msg)
    return ACTIVATIONS[name]


class Activation(nn.Module):
    """A non-linearity as a layer of its own, for stacks of layers that are numbered with it."""

    def __init__(self, name: object) -> None:
        super().__init__()
        self.function = activation(name)

    def forward(self, x_nd: Tensor) -> Tensor:
        """Apply it to a tensor of any shape."""
        return self.function(x_nd)


def layer_norm(config: configs.LayerNorm, width: int) -> nn.LayerNorm:
    """Build a normalisation of token vectors of this width."""
    return nn.LayerNorm(width, eps=float(config.eps), bias=bool(config.bias))  # type: ignore[arg-type]


@cache
def has_onednn_linear(dtype: torch.dtype) -> bool:
    """Whether oneDNN's product works here and agrees with PyTorch's own, tried once on a small matrix."""
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    x_bd = torch.linspace(-1, 1, 48, dtype=dtype).reshape(4, 12)
    weight = torch.linspace(-1, 1, 96, dtype=dtype).reshape(8, 12)
    try:
        product = torch.ops.mkldnn._linear_pointwise(x_bd, weight, None, "none", [], "")
    except RuntimeError:
        return False
    return torch.allclose(product.float(), functional.linear(x_bd, weight).float(), rtol=1e-2, atol=1e-2)


@cache
def processor() -> Mapping[str, object]:
    """What PyTorch says of the processor; nothing, in versions that do not tell."""
    return getattr(torch.cpu, "get_capabilities", dict)()


def _suits_blas(x_bld: Tensor) -> bool:
    """Whether BLAS, made by the maker of the processor, is faster than oneDNN: by a tenth for many rows in float32."""
    own = torch.backends.mkl.is_available() and "Intel" in str(processor().get("cpu_name"))
    return own and x_bld.dtype == torch.float32 and x_bld.numel() >= MANY_ROWS * x_bld.shape[-1]


MANY_ROWS = 1_024
"""Token vectors from which on one product of float32 may be faster than another."""

_FUSED = {"relu": ("relu", ""), "gelu": ("gelu", "none"), "gelu_tanh": ("gelu", "tanh"), "gelu_new": ("gelu", "tanh")}
"""Non-linearities that oneDNN applies to a product while it is at hand, as it names them."""


def linear(x_bld: Tensor, weight: Tensor, bias: Tensor | None, *, then: str = "identity") -> Tensor:
    """Apply a linear layer and a non-linearity, by oneDNN where it is the faster exact product.

    On a CPU, PyTorch's float32 product goes through BLAS, which oneDNN beats about twofold at equal precision, but for
    processors of BLAS's own maker. The operator has no gradient and knows neither autocast nor compilation, so those
    take PyTorch's way.
    """
    plain = (
        x_bld.device.type != "cpu"
        or torch.is_grad_enabled()
        or torch.compiler.is_compiling()
        or torch.is_autocast_enabled("cpu")
        or x_bld.dtype not in (torch.float32, torch.bfloat16)
        or not x_bld.is_contiguous()
        or not has_onednn_linear(x_bld.dtype)
        or (then not in _FUSED and _suits_blas(x_bld))
    )
    if plain:
        return activation(then)(functional.linear(x_bld, weight, bias))
    fused = _FUSED.get(then, ("none", ""))
    out = torch.ops.mkldnn._linear_pointwise(x_bld, weight, bias, fused[0], [], fused[1])
    return out if then in _FUSED else activation(then)(out)


class Linear(nn.Linear):
    """A linear layer that takes the fastest exact product for its device."""

    def forward(self, x_bld: Tensor) -> Tensor:
        """Apply the layer to vectors of shape `(..., in)`; the result has shape `(..., out)`."""
        return linear(x_bld, self.weight, self.bias)


class FeedForward(nn.Module):
    """Linear, non-linearity, linear."""

    def __init__(self, config: configs.FeedForward, d_model: int) -> None:
        super().__init__()
        self.up = Linear(d_model, as_int(config.d_hidden), bias=bool(config.bias))
        self.down = Linear(as_int(config.d_hidden), d_model, bias=bool(config.bias))
        activation(config.activation)  # known by name
        self.activation = str(config.activation)

    def forward(self, x_bld: Tensor) -> Tensor:
        """Transform each token on its own; shapes `(cells, tokens, width)` in and out."""
        return self.down(linear(x_bld, self.up.weight, self.up.bias, then=self.activation))
