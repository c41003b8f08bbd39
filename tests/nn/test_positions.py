"""Position encoders without a table of their own."""

from __future__ import annotations

import math

import pytest
import torch

from sclcm.nn.configs import BackboneConfig, FeedForward, LCMConfig, SoftmaxAttention, TableEncoder
from sclcm.nn.fixed_configs import SinusoidalPositions as Config
from sclcm.nn.lcm import LCM
from sclcm.nn.positions import SinusoidalPositions
from sclcm.nn.tokens import TokenTensors


def by_formula(place, channel, width, base=1e4):
    angle = place / base ** (2 * (channel // 2) / width)
    return math.sin(angle) if channel % 2 == 0 else math.cos(angle)


@pytest.mark.parametrize("width", [2, 7, 32])
def test_waves_are_those_of_the_formula(width, device):
    places = torch.tensor([[0, 1, 5], [1499, 70, 3]], device=device)
    found = SinusoidalPositions(Config(n_positions=1500), width)(places)
    wanted = [[[by_formula(place, d, width) for d in range(width)] for place in row] for row in places.tolist()]
    torch.testing.assert_close(found.cpu(), torch.tensor(wanted), rtol=1e-4, atol=2e-4)


def test_positions_have_no_weights():
    assert SinusoidalPositions(Config(n_positions=1500), 8).state_dict() == {}


def model():
    return LCM(
        LCMConfig(
            d_model=8,
            gene=TableEncoder(n_tokens=5),
            position=Config(n_positions=1500),
            backbone=BackboneConfig(
                n_blocks=1, attention=SoftmaxAttention(n_heads=2), feed_forward=FeedForward(d_hidden=8), norm="post"
            ),
        )
    ).eval()


def batch():
    ids = torch.tensor([[1, 2, 3], [4, 1, 0]])
    return TokenTensors(token_ids_bl=ids, mask_bl=ids > 0, gene_mask_bl=ids > 0)


def test_model_computes_in_half_precision():
    lcm, tokens = model(), batch()
    half = LCM(lcm.config).eval()
    half.load_state_dict(lcm.state_dict())
    out = half.to(torch.bfloat16)(tokens)
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out.float(), lcm(tokens), rtol=0.1, atol=0.1)
    with torch.autocast("cpu", torch.bfloat16):
        torch.testing.assert_close(lcm(tokens).float(), lcm(tokens).float())


@pytest.mark.filterwarnings("ignore")  # the compiler's own
def test_compiled_model_gives_the_same_numbers():
    lcm, tokens = model(), batch()
    compiled = torch.compile(lcm, backend="eager", fullgraph=True)
    torch.testing.assert_close(compiled(tokens), lcm(tokens), rtol=1e-5, atol=1e-5)
