"""Shared set-up of the tests: a device check for the `gpu` mark, pictures without a screen, one thread a test."""

from __future__ import annotations

import os
import sys
from contextlib import contextmanager

import numpy as np
import pandas as pd
import pytest
from hypothesis import settings
from scipy import sparse

# A loaded machine is slow; what takes how long is not what these tests are about.
settings.register_profile("unhurried", deadline=None)
settings.load_profile("unhurried")

os.environ.setdefault("MPLBACKEND", "Agg")
# Tests run side by side, one a processor, on tensors too small for threads: more of those would wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")


def pytest_runtest_setup() -> None:
    """Go back to one thread: some libraries raise the number for the whole process, and waiting costs tenfold then."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.get_num_threads() > 1:
        torch.set_num_threads(1)


def _has_device() -> bool:
    import torch

    return torch.cuda.is_available() or torch.backends.mps.is_available()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if marked and not _has_device():
        for item in marked:
            item.add_marker(pytest.mark.skip(reason="needs a CUDA or MPS device"))


@pytest.fixture
def unchanged():
    """A context that checks, at its end, that an AnnData holds what it held; `but` names slots that may differ."""

    @contextmanager
    def check(adata, but=()):
        before = _snapshot(adata)
        yield
        after = _snapshot(adata)
        assert [name for name in before if name not in but and not _is_same(before[name], after[name])] == []

    return check


def _snapshot(adata):
    """Copy every slot, so that a later change of any shows."""
    return {
        "X": adata.X.copy(),
        "raw": None if adata.raw is None else (adata.raw.X.copy(), adata.raw.var.copy()),
        "obs": adata.obs.copy(),
        "var": adata.var.copy(),
        **{name: dict(getattr(adata, name).copy()) for name in ("layers", "obsm", "varm", "obsp", "varp", "uns")},
        "is_view": adata.is_view,
    }


def _is_same(a, b):
    """Whether two snapshots hold the same values in the same types."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        same = a.keys() == b.keys() and all(_is_same(a[key], b[key]) for key in a)
    elif isinstance(a, (list, tuple)):
        same = len(a) == len(b) and all(map(_is_same, a, b))
    elif isinstance(a, (pd.DataFrame, pd.Index)):
        same = a.equals(b)
    elif sparse.issparse(a):
        parts = ("format", "data", "indices", "indptr")
        same = all(_is_same(getattr(a, part), getattr(b, part)) for part in parts)
    elif isinstance(a, np.ndarray):
        same = a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    else:
        same = a == b
    return same
