"""Which device and which number type a call uses."""

from __future__ import annotations

import torch

from sclcm._settings import settings

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
    except RuntimeError as error:
        msg = f"`device` is {device!r}; expected 'auto', 'cpu', 'cuda', 'cuda:1', 'mps', ..."
        raise ValueError(msg) from error
    try:
        torch.empty(0, device=chosen)
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
