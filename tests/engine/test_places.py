"""Averages of token vectors by their place."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from sclcm.engine.infer import Step
from sclcm.engine.places import PlaceMeans
from sclcm.nn.tokens import TokenTensors


def make_step(x, ids, rows, mask=None):
    ids = torch.tensor(ids)
    tokens = TokenTensors(token_ids_bl=ids, mask_bl=None if mask is None else torch.tensor(mask), gene_mask_bl=ids > 1)
    return Step(lcm=None, x_bld=torch.tensor(x)[..., None].expand(*ids.shape, 2), tokens=tokens, rows=np.array(rows))


def test_cells_without_a_token_at_a_place_do_not_count_there():
    found = PlaceMeans(device=torch.device("cpu"))
    found.update(make_step([[1.0, 2.0], [3.0, 50.0]], [[1, 5], [1, 0]], [2, 1], [[True, True], [True, False]]))
    found.update(make_step([[5.0, 6.0, 7.0]], [[1, 4, 3]], [0]))
    assert found.means()[:, 1].tolist() == [3.0, 4.0, 7.0]
    places, tokens = found.first_genes()
    assert (places.tolist(), tokens.tolist()) == ([1, 2], [4, 3])


def test_order_of_batches_does_not_matter():
    steps = [make_step([[1.0, 2.0, 4.0]], [[2, 3, 4]], [0]), make_step([[3.0]], [[2]], [1])]
    one, other = PlaceMeans(device=torch.device("cpu")), PlaceMeans(device=torch.device("cpu"))
    for step in steps:
        one.update(step)
    for step in reversed(steps):
        other.update(step)
    assert one.means().tolist() == other.means().tolist() == pytest.approx(np.array([[2, 2], [2, 2], [4, 4]]))
