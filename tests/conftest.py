"""Shared set-up of the tests: a device check for the `gpu` mark, pictures without a screen, one thread a test."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# A loaded machine is slow; what takes how long is not what these tests are about.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

os.environ.setdefault("MPLBACKEND", "Agg")
# Tests run side by side, one a processor, on tensors too small for threads: more of those would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def _has_device() -> bool:
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not _has_device():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA or MPS device"))
