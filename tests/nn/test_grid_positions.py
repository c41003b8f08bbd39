"""Positions on a grid and heads of cells, against formulas."""

from __future__ import annotations

import math

import pytest
import torch

from sclcm.nn import set_configs
from sclcm.nn.cell_heads import ActivatedHead, ClosedFeedForward, ExpressionDecoder
from sclcm.nn.configs import FeedForward
from sclcm.nn.grid_positions import GridPositions, grid_waves

CONFIG = set_configs.GridPositions(n_rows=110, n_columns=100, squares=100)


def test_table_has_waves_of_the_column_then_of_the_row():
    table = grid_waves(3, 4, 8)
    assert table.shape == (12, 8)
    for row in range(3):
        for column in range(4):
            wanted = [
                wave(place * math.exp(-2 * k * math.log(10_000) / 4))
                for place in (column, row)
                for k in range(2)
                for wave in (math.sin, math.cos)
            ]
            assert table[row * 4 + column].tolist() == pytest.approx(wanted, abs=1e-6)


def test_width_needs_four_equal_parts():
    with pytest.raises(ValueError, match="width of 6 has no four equal parts"):
        grid_waves(3, 4, 6)


def test_square_is_cut_and_kept_within_the_grid(device):
    module = GridPositions(CONFIG, 8).to(device)
    xy = torch.tensor(
        [[0, 0], [0.019, 0.999], [1, 1], [1.099, 0.5], [2, 0], [-0.5, -0.5], [0.5, 7], [-0.004, 0.021]], device=device
    )
    wanted = [0, 1 * 100 + 99, 100 * 100 + 99, 109 * 100 + 50, 109 * 100, 0, 50 * 100 + 99, 2]
    assert module.places(xy).tolist() == wanted
    assert module(xy).equal(module.weight[torch.tensor(wanted, device=device)])


def test_table_is_no_weight_that_is_trained():
    module = GridPositions(CONFIG, 8)
    assert list(module.state_dict()) == ["weight"]
    assert not list(module.parameters())


def linear(x, module):
    return x @ module.weight.double().t() + module.bias.double()


def gelu(x):
    return x * 0.5 * (1 + torch.erf(x / math.sqrt(2)))


@torch.inference_mode()
def test_feed_forward_ends_in_a_non_linearity(device):
    module, x = ClosedFeedForward(FeedForward(d_hidden=12, activation="gelu"), 6), torch.randn(2, 5, 6)
    wanted = gelu(linear(gelu(linear(x.double(), module.up)), module.down))
    torch.testing.assert_close(module.to(device)(x.to(device)).cpu().double(), wanted, rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_latent_vector_and_expression_equal_the_formulas(device):
    head = ActivatedHead(set_configs.ActivatedHead(d_in=6, d_latent=3, activation="gelu"))
    decoder = ExpressionDecoder(set_configs.ExpressionDecoder(d_latent=3, d_inner=5, n_tokens=7))
    decoder.activation.weight.fill_(0.3)
    x = torch.randn(4, 6)
    z = gelu(linear(x.double(), head.out))
    hidden = linear(z, decoder.up)
    wanted = linear(torch.where(hidden > 0, hidden, 0.3 * hidden), decoder.out).clamp(min=0)
    found = head.to(device)(x.to(device))
    torch.testing.assert_close(found.cpu().double(), z, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(decoder.to(device)(found).cpu().double(), wanted, rtol=1e-5, atol=1e-6)
