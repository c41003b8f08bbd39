"""Which device and which number type a call uses."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

from sclcm._settings import settings

if TYPE_CHECKING:
    from sclcm.nn.lcm import LCM

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}


def choose_device(device: str | torch.device) -> torch.device:
    """Return a device; `"auto"` is CUDA, else MPS, else the CPU."""
    device = settings.device if str(device) == "auto" else device
    if str(device) != "auto":
        return _existing(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")


def _existing(device: str | torch.device) -> torch.device:
    try:
        chosen = torch.device(device)
    except (RuntimeError, TypeError) as error:
        msg = f"`device` is {device!r}; expected 'auto', 'cpu', 'cuda', 'cuda:1', 'mps', ..."
        raise ValueError(msg) from error
    try:
        torch.empty(0, device=chosen).tolist()  # which the device without memory, 'meta', cannot give
    except (AssertionError, NotImplementedError, RuntimeError) as error:
        msg = f"`device` is {str(device)!r}, but this PyTorch finds no such device; use 'auto' or 'cpu'."
        raise ValueError(msg) from error
    return chosen


def choose_dtype(dtype: str | torch.dtype, device: torch.device) -> torch.dtype:
    """Return a number type; `"auto"` is bfloat16 on a CUDA device that has it, float32 elsewhere."""
    if isinstance(dtype, torch.dtype) and dtype in DTYPES.values():
        return dtype
    if dtype == "auto":
        return torch.bfloat16 if device.type == "cuda" and torch.cuda.is_bf16_supported() else torch.float32
    if isinstance(dtype, str) and dtype in DTYPES:
        return DTYPES[dtype]
    msg = f"`dtype` is {dtype!r}; expected 'auto', {', '.join(map(repr, DTYPES))}."
    raise ValueError(msg)


def copy_to(lcm: LCM, *, device: torch.device, dtype: torch.dtype) -> LCM:
    """Return a copy of a network on a device and in a number type, each tensor copied once, straight to where it goes.

    A table that is still in its file is thus never read into memory as it is.
    """
    moved: dict[int, torch.Tensor] = {}
    for tensor in (*lcm.parameters(), *lcm.buffers()):
        data = tensor.detach().to(device=device, dtype=dtype if tensor.is_floating_point() else None, copy=True)
        is_parameter = isinstance(tensor, torch.nn.Parameter)
        moved[id(tensor)] = torch.nn.Parameter(data, tensor.requires_grad) if is_parameter else data
    return copy.deepcopy(lcm, moved)  # what is in the second argument counts as copied already
