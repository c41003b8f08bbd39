"""Shared set-up of the tests: a device check for the `gpu` mark, pictures drawn without a screen."""

from __future__ import annotations

import os

import pytest
from hypothesis import settings

# A loaded machine is slow; what takes how long is not what these tests are about.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

os.environ.setdefault("MPLBACKEND", "Agg")


def _has_device() -> bool:
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not _has_device():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA or MPS device"))
