"""Devices to run the components on."""

from __future__ import annotations

import pytest
import torch


def _accelerator() -> str:
    return "cuda" if torch.cuda.is_available() else "mps"


@pytest.fixture(params=["cpu", pytest.param("accelerator", marks=pytest.mark.gpu)])
def device(request):
    """The CPU, and the accelerator where there is one."""
    return torch.device("cpu" if request.param == "cpu" else _accelerator())


@pytest.fixture(autouse=True)
def _seed():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield
