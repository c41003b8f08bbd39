"""How far vectors move when a token is deleted."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sclcm.engine.shifts import deletion_cosines


def test_cosines_are_of_the_same_token_before_and_after():
    rng = np.random.default_rng(0)
    before, after, place = rng.normal(size=(4, 6, 3)), rng.normal(size=(4, 5, 3)), np.array([0, 5, 2, 4])
    kept = np.stack([np.delete(cell, i, axis=0) for cell, i in zip(before, place, strict=True)])
    wanted = (kept * after).sum(-1) / np.linalg.norm(kept, axis=-1) / np.linalg.norm(after, axis=-1)
    found = deletion_cosines(*map(torch.as_tensor, (before, after, place)))
    assert found.dtype == torch.float64
    assert found.numpy() == pytest.approx(wanted, abs=1e-12)


def test_vectors_that_stay_have_the_cosine_one_in_half_precision_too():
    before = torch.randn(2, 5, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    after = torch.stack([before[0, [0, 1, 3, 4]], before[1, 1:]])
    found = deletion_cosines(before, after, torch.tensor([2, 0]))
    assert found.dtype == torch.float32
    assert found.numpy() == pytest.approx(np.ones((2, 4)), abs=1e-6)


def test_one_token_leaves_nothing_to_compare():
    assert deletion_cosines(torch.ones(3, 1, 2), torch.ones(3, 0, 2), torch.zeros(3).long()).shape == (3, 0)
