"""What training minimises, against numbers made by hand."""

from __future__ import annotations

import math

import pytest
import torch

from sclcm.nn import losses

PREDICTED = torch.tensor([[1.0, 2.0, 7.0], [4.0, 0.0, 9.0]])
TARGET = torch.tensor([[2.0, 4.0, 0.0], [4.0, 1.0, 0.0]])
MASK = torch.tensor([[True, True, False], [False, True, False]])


def test_squared_error_is_the_mean_over_named_tokens():
    assert losses.masked_mse(PREDICTED, TARGET, MASK).item() == pytest.approx((1 + 4 + 1) / 3)


def test_relative_error_is_over_the_target():
    assert losses.masked_relative_error(PREDICTED, TARGET, MASK).item() == pytest.approx(
        (1 / 2 + 2 / 4 + 1) / 3, rel=1e-5
    )
    zero = losses.masked_relative_error(torch.tensor([[3e-6]]), torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool))
    assert zero.item() == pytest.approx(3)


def test_expressed_is_the_cross_entropy_of_targets_above_zero():
    logits = torch.tensor([[0.0, math.log(3), 50.0]])
    target = torch.tensor([[5.0, 0.0, 0.0]])
    mask = torch.tensor([[True, True, False]])
    assert losses.masked_expressed(logits, target, mask).item() == pytest.approx((math.log(2) + math.log(4)) / 2)


def test_elastic_similarity_by_hand():
    cells = torch.tensor([[2.0, 0.0], [3.0, 4.0], [-1.0, 0.0]])  # cosines 0.6, -1 and -0.6; those below zero are none
    wanted = (2 * (1 - 0.1**2) + 7 * (1 - 0.5**2)) / 9
    assert losses.elastic_similarity(cells, 0.5).item() == pytest.approx(wanted, rel=1e-6)


def test_contrast_is_the_cross_entropy_of_the_cell_itself():
    one, other = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[5.0, 0.0], [1.0, 0.0]])
    same, tie = -math.log(math.exp(2) / (2 * math.exp(2))), math.log(2)
    assert losses.cell_contrast(one, other, 0.5).item() == pytest.approx((same + tie) / 2)
    sharp = losses.cell_contrast(one, one, 0.5).item()
    assert sharp == pytest.approx(-math.log(math.exp(2) / (math.exp(2) + 1)))


@pytest.mark.parametrize(
    "loss", [losses.masked_mse, losses.masked_relative_error, losses.masked_expressed], ids=lambda loss: loss.__name__
)
def test_tokens_that_are_not_named_have_no_part_and_no_gradient(loss):
    predicted = PREDICTED.clone().requires_grad_()
    loss(predicted, TARGET, MASK).backward()
    assert (predicted.grad[~MASK] == 0).all()
    assert (predicted.grad[MASK] != 0).all()
    assert torch.equal(loss(PREDICTED + 9.0 * ~MASK, TARGET - 3.0 * ~MASK, MASK), loss(PREDICTED, TARGET, MASK))


def test_losses_of_cells_have_gradients():
    cells = torch.randn(4, 3, requires_grad=True)
    (losses.elastic_similarity(cells, 0.3) + losses.cell_contrast(cells, cells.detach() + 0.1, 0.5)).backward()
    assert cells.grad.isfinite().all()
    assert cells.grad.abs().sum() > 0
