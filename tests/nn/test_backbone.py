"""Blocks and the stack, against PyTorch's own encoder layer with the same weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sclcm.nn import configs
from sclcm.nn.backbone import Backbone, Block

WIDTH, N_HEADS, D_HIDDEN = 12, 3, 20
MASK = torch.tensor([[True] * 6, [True, True, True, True, False, False]])


def config(norm="post", *, n_blocks=2, activation="relu", causal=False, **given):
    return configs.BackboneConfig(
        n_blocks=n_blocks,
        attention=configs.SoftmaxAttention(n_heads=N_HEADS, causal=causal),
        feed_forward=configs.FeedForward(d_hidden=D_HIDDEN, activation=activation),
        norm=norm,
        **given,
    )


def randomized(module):
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.5)
    return module.eval()


def encoder_layer(block, *, is_pre_norm, activation, eps):
    """PyTorch's layer with the weights of a block."""
    layer = nn.TransformerEncoderLayer(
        WIDTH, N_HEADS, D_HIDDEN, dropout=0.0, activation=activation, layer_norm_eps=eps, batch_first=True,
        norm_first=is_pre_norm,
    )  # fmt: skip
    state = {
        "self_attn.in_proj_weight": block.attn.qkv.weight,
        "self_attn.in_proj_bias": block.attn.qkv.bias,
        "self_attn.out_proj.weight": block.attn.out.weight,
        "self_attn.out_proj.bias": block.attn.out.bias,
    }
    for theirs, ours in (
        ("linear1", block.ff.up),
        ("linear2", block.ff.down),
        ("norm1", block.norm1),
        ("norm2", block.norm2),
    ):
        state |= {f"{theirs}.weight": ours.weight, f"{theirs}.bias": ours.bias}
    layer.load_state_dict(state)
    return layer.train()  # without the fused path for evaluation; there is no dropout


@pytest.mark.parametrize("norm", ["post", "pre"])
@pytest.mark.parametrize("activation", ["relu", "gelu"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("has_grad", [False, True])
def test_block_equals_the_encoder_layer_of_torch(norm, activation, causal, has_grad):
    layer_norm = configs.LayerNorm(eps=1e-3)
    block = randomized(Block(config(norm, activation=activation, causal=causal, layer_norm=layer_norm), WIDTH))
    layer = encoder_layer(block, is_pre_norm=norm == "pre", activation=activation, eps=1e-3)
    ahead = torch.ones(6, 6, dtype=torch.bool).triu(1) if causal else None
    x = torch.randn(2, 6, WIDTH)
    with torch.set_grad_enabled(has_grad):
        found, wanted = block(x, MASK), layer(x, src_mask=ahead, src_key_padding_mask=~MASK)
    torch.testing.assert_close(found[MASK], wanted[MASK], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("norm", ["post", "pre"])
@torch.inference_mode()
def test_attention_weights_are_those_of_the_blocks_input(norm):
    block = randomized(Block(config(norm), WIDTH))
    x = torch.randn(2, 6, WIDTH)
    entering = x if norm == "post" else block.norm1(x)
    q, k, _ = (block.attn.qkv(entering).unflatten(-1, (3, N_HEADS, -1)).transpose(1, 3)).unbind(2)
    scores = (q @ k.transpose(-1, -2) / 2).masked_fill(~MASK[:, None, None], -torch.inf)
    torch.testing.assert_close(block.attention_weights(x, MASK), scores.softmax(-1), rtol=1e-4, atol=1e-6)


def test_backbone_stops_where_it_is_told_and_norms_only_at_the_end(device):
    backbone = randomized(Backbone(config("pre", n_blocks=3, final_norm=configs.LayerNorm()), WIDTH)).to(device)
    x, mask = torch.randn(2, 6, WIDTH, device=device), MASK.to(device)
    steps = [x]
    for block in backbone.blocks:
        steps.append(block(steps[-1], mask))
    assert torch.equal(backbone(x, mask, 0), x)
    for depth in (1, 2):
        torch.testing.assert_close(backbone(x, mask, depth), steps[depth])
    for depth in (3, None):
        torch.testing.assert_close(backbone(x, mask, depth), backbone.norm(steps[3]))


def test_dropout_acts_in_training_only():
    backbone, x = Backbone(config(dropout=0.5), WIDTH), torch.randn(2, 6, WIDTH)
    assert not torch.equal(backbone.train()(x, MASK), backbone(x, MASK))
    assert torch.equal(backbone.eval()(x, MASK), backbone(x, MASK))


def test_gradients_flow_through_every_block(device):
    for norm in ("post", "pre"):
        backbone = randomized(Backbone(config(norm, final_norm=configs.LayerNorm()), WIDTH)).to(device)
        backbone(torch.randn(2, 6, WIDTH, device=device), MASK.to(device)).square().sum().backward()
        assert all(parameter.grad is not None for parameter in backbone.parameters())


def test_backbone_without_blocks_is_refused():
    with pytest.raises(ValueError, match="positive integer"):
        Backbone(config(n_blocks=0), WIDTH)
