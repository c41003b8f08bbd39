"""Prefilling, packed and in a rectangle, and single steps."""

from __future__ import annotations

import pytest
import torch

from sclcm.nn import attention, configs
from sclcm.nn.cache import spans
from sclcm.nn.lcm import LCM
from sclcm.nn.tokens import TokenTensors

LENGTHS = (7, 1, 4)


@pytest.fixture
def lcm():
    config = configs.LCMConfig(
        d_model=8,
        gene=configs.TableEncoder(n_tokens=9),
        position=configs.LearnedPositions(n_positions=12),
        backbone=configs.BackboneConfig(
            n_blocks=2,
            attention=configs.SoftmaxAttention(n_heads=2, causal=True),
            feed_forward=configs.FeedForward(d_hidden=16),
            norm="pre",
            final_norm=configs.LayerNorm(),
        ),
    )
    lcm = LCM(config)
    for parameter in lcm.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return lcm.eval()


def make_tokens(ids_bl, lengths, device):
    real = torch.arange(ids_bl.shape[1]) < torch.tensor(lengths).unsqueeze(1)
    ids_bl = ids_bl.to(device)
    return TokenTensors(token_ids_bl=ids_bl, mask_bl=real.to(device), gene_mask_bl=real.to(device))


@pytest.mark.parametrize("packs", [True, False])
def test_prefilling_and_steps_are_one_pass_over_all(lcm, device, packs):
    """Without gradients sentences are packed on a CPU; with them they are not, as nowhere else."""
    lcm, ids_bl = lcm.to(device), torch.randint(0, 9, (3, 9))
    with torch.set_grad_enabled(not packs):
        last_bmd, cache = lcm.prefill(make_tokens(ids_bl, LENGTHS, device), n_last=2, n_more=2)
        more = torch.tensor([[3, 5], [1, 1], [8, 0]])
        steps = []
        for column in range(2):
            one = more[:, column : column + 1].to(device)
            none = torch.zeros_like(one, dtype=torch.bool)
            x_bd, cache = lcm.step(TokenTensors(token_ids_bl=one, mask_bl=None, gene_mask_bl=none), cache)
            steps.append(x_bd)
    for cell, length in enumerate(LENGTHS):
        whole = torch.cat([ids_bl[cell, :length], more[cell]]).unsqueeze(0)
        wanted = lcm(make_tokens(whole, (length + 2,), device))[0]
        if length > 1:
            torch.testing.assert_close(last_bmd[cell], wanted[length - 2 : length], rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(torch.stack([x[cell] for x in steps]), wanted[length:], rtol=1e-4, atol=1e-5)
    assert cache.length_b.tolist() == [length + 2 for length in LENGTHS]


@torch.inference_mode()
def test_part_of_a_cache_goes_on_alone(lcm, device):
    lcm, ids_bl = lcm.to(device), torch.randint(0, 9, (3, 7))
    found = []
    for cells in (None, torch.tensor([2, 0], device=device)):
        _, cache = lcm.prefill(make_tokens(ids_bl, LENGTHS, device), n_last=1, n_more=1)
        cache = cache if cells is None else cache.take(cells)
        one = torch.full((len(cache.length_b), 1), 4, device=device)
        x_bd, _ = lcm.step(TokenTensors(token_ids_bl=one, mask_bl=None, gene_mask_bl=one < 0), cache)
        found.append(x_bd)
    torch.testing.assert_close(found[1], found[0][[2, 0]], rtol=1e-5, atol=1e-6)


def test_packed_cells_stand_one_after_the_other():
    assert spans([3, 1, 2]) == [slice(0, 3), slice(3, 4), slice(4, 6)]


@pytest.mark.parametrize("length", [1, attention.BLOCK, 2 * attention.BLOCK + 5])
@torch.inference_mode()
def test_causal_attention_in_blocks_is_the_fused_one(length):
    q, k, v = (torch.randn(1, 2, length, 16) for _ in range(3))
    wanted = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
    torch.testing.assert_close(attention._attend_back_in_blocks(q, k, v), wanted, rtol=1e-4, atol=1e-5)
