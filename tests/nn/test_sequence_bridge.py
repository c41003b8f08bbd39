"""A decoder behind layers along the sentence, asked for tokens of its own."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch import nn

from sclcm.nn import configs, decoder_configs, readouts
from sclcm.nn.lcm import LCM
from sclcm.nn.tokens import TokenTensors

WIDTH, N_PLACES, N_ASKED = 6, 7, 4


def backbone():
    attention = configs.KernelAttention(
        n_heads=2, d_head=3, n_features=5, qkv_bias=True, stabilizer="head", padding="counted"
    )
    return configs.BackboneConfig(
        n_blocks=1, attention=attention, feed_forward=configs.FeedForward(d_hidden=8), norm="pre"
    )


def make(**given):
    decoder = decoder_configs.DecoderConfig(
        d_model=WIDTH,
        bridge=decoder_configs.SequenceBridge(n_places=N_PLACES, widths=(5, N_ASKED), n_tokens=9),
        backbone=backbone(),
        heads={"value": readouts.LinearHead(d_in=WIDTH, d_out=1)},
    )
    config = configs.LCMConfig(
        d_model=WIDTH, gene=configs.TableEncoder(n_tokens=9), value=configs.ScalarLinear(), backbone=backbone(),
        decoder=dataclasses.replace(decoder, **given),
    )  # fmt: skip
    lcm = LCM(config).requires_grad_(False).eval()
    for parameter in lcm.parameters():
        nn.init.normal_(parameter, std=0.4)
    return lcm


def tokens(n_cells=2, n_places=N_PLACES):
    real = torch.arange(n_places) < 5
    return TokenTensors(
        token_ids_bl=torch.randint(1, 9, (n_cells, n_places)) * real,
        mask_bl=real.expand(n_cells, -1),
        gene_mask_bl=real.expand(n_cells, -1),
        value_bl=torch.rand(n_cells, n_places) * real,
        asked_ids_bm=torch.tensor([3, 8, 1, 0]).expand(n_cells, -1),
        asked_mask_bm=torch.tensor([True, True, True, False]).expand(n_cells, -1),
    )


def test_values_are_a_linear_function_added_to_the_gene():
    lcm, given = make(), tokens()
    linear, table = lcm.embed.value.linear, lcm.embed.gene.weight
    wanted = table[given.token_ids_bl] + given.value_bl[..., None] * linear.weight[:, 0] + linear.bias
    torch.testing.assert_close(lcm.embed(given), wanted)


def test_places_are_mixed_channel_by_channel():
    lcm, x = make(), torch.randn(2, N_PLACES, WIDTH)
    bridge = lcm.decoder.bridge
    first, second = bridge.layers
    for cell in range(2):
        for channel in range(WIDTH):
            y = torch.relu(first.weight @ x[cell, :, channel] + first.bias)
            torch.testing.assert_close(bridge.mix(x)[cell, :, channel], second.weight @ y + second.bias)


def test_decoder_reads_what_is_mixed_and_what_is_asked_for():
    lcm, given = make(), tokens()
    x = lcm(given)
    asked = lcm.decoder.bridge.mix(x) + lcm.decoder.bridge.asked.weight[given.asked_ids_bm]
    wanted = lcm.decoder.backbone(asked, given.asked_mask_bm)
    torch.testing.assert_close(lcm.decode(x, given), wanted)
    value = lcm.decoder.heads["value"]
    torch.testing.assert_close(lcm.read_decoder("value", x, given), value(wanted)[..., 0])


def test_order_of_the_sentence_matters_to_the_decoder_alone():
    lcm, given = make(), tokens()
    order = torch.tensor([2, 0, 1, 4, 3, 5, 6])
    other = dataclasses.replace(given, token_ids_bl=given.token_ids_bl[:, order], value_bl=given.value_bl[:, order])
    torch.testing.assert_close(lcm(other), lcm(given)[:, order], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(lcm.decode(lcm(other), other), lcm.decode(lcm(given), given), rtol=1e-2)


def test_a_cell_does_not_depend_on_those_beside_it():
    lcm, given = make(), tokens()
    alone = dataclasses.replace(
        given, **{name: getattr(given, name)[:1] for name in ("token_ids_bl", "mask_bl", "gene_mask_bl", "value_bl",
                                                              "asked_ids_bm", "asked_mask_bm")}
    )  # fmt: skip
    torch.testing.assert_close(lcm.decode(lcm(alone), alone)[0], lcm.decode(lcm(given), given)[0], rtol=1e-4, atol=1e-5)


def test_sentences_of_another_length_are_refused():
    lcm, given = make(), tokens(n_places=5)
    with pytest.raises(ValueError, match="reads sentences of 7 tokens, padding included; found 5"):
        lcm.decode(lcm(given), given)


def test_without_a_question_there_is_no_answer():
    lcm, given = make(), dataclasses.replace(tokens(), asked_ids_bm=None)
    with pytest.raises(ValueError, match="which tokens are asked for"):
        lcm.decode(lcm(given), given)


def test_another_width_of_the_decoder_is_refused():
    with pytest.raises(ValueError, match="keeps the width of 6; the decoder's is 4"):
        make(d_model=4)
