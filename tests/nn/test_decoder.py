"""A decoder over all tokens of a vocabulary, and the bridge that leads to it."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional

from sclcm.nn import configs, decoder_configs, readouts
from sclcm.nn.lcm import LCM
from sclcm.nn.tokens import TokenTensors

N_PLACES, D, E = 11, 8, 6
PAD = N_PLACES

CONFIG = configs.LCMConfig(
    d_model=D,
    gene=configs.TableEncoder(n_tokens=N_PLACES + 1),
    value=configs.SoftBins(n_bins=5, slope=0.1, direct=0.7, marked=(102.0, 103.0)),
    backbone=configs.BackboneConfig(
        n_blocks=1,
        attention=configs.SoftmaxAttention(n_heads=2),
        feed_forward=configs.FeedForward(d_hidden=12, activation="relu"),
        norm="post",
        final_norm=configs.LayerNorm(),
    ),
    decoder=decoder_configs.DecoderConfig(
        d_model=E,
        bridge=decoder_configs.ScatterBridge(n_places=N_PLACES),
        backbone=configs.BackboneConfig(
            n_blocks=2,
            attention=configs.KernelAttention(n_heads=2, d_head=4, n_features=7, qkv_bias=True),
            feed_forward=configs.FeedForward(d_hidden=10),
            norm="pre",
            final_norm=configs.LayerNorm(),
        ),
        norm=configs.LayerNorm(),
        heads={"value": readouts.LinearHead(d_in=E, d_out=1)},
    ),
)


def make_model(config=CONFIG, device="cpu"):
    model = LCM(config)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return model.requires_grad_(False).eval().to(device)


def make_tokens(device="cpu", **given):
    ids = torch.tensor([[0, 2, 5, 9, 10], [3, 9, 10, PAD, PAD]])
    plain = {
        "token_ids_bl": ids,
        "mask_bl": ids != PAD,
        "gene_mask_bl": ids < 9,
        "value_bl": torch.tensor([[0.5, 1.0, 3.0, 4.0, 1.5], [2.0, 4.0, 0.7, 0.0, 0.0]]),
    }
    return TokenTensors(**{key: tensor.to(device) for key, tensor in {**plain, **given}.items()})


def decoded(model, tokens):
    return model.decode(model(tokens), tokens)


@torch.inference_mode()
def test_bridge_replaces_what_is_in_the_sentence_and_adds_genes_to_all(device):
    model, tokens = make_model(device=device), make_tokens(device)
    x = model(tokens)
    genes, bins = model.embed.gene.weight[:N_PLACES], model.embed.value.bins
    wanted = torch.stack([bins(torch.zeros(N_PLACES, device=device)) for _ in range(2)])
    for cell, ids in enumerate([[0, 2, 5, 9, 10], [3, 9, 10]]):
        for place, token in enumerate(ids):
            wanted[cell, token] = x[cell, place]
    project = model.decoder.bridge.project
    wanted = (wanted + genes) @ project.weight.t() + project.bias
    torch.testing.assert_close(model.decoder.bridge(x, tokens, model.embed), wanted, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_unread_tokens_come_with_their_values_unless_the_sentence_has_them(device):
    model = make_model(device=device)
    unread = {
        "unread_ids_bm": torch.tensor([[9, 4], [4, 1]]),
        "unread_value_bm": torch.tensor([[77.0, -0.5], [102.0, 0.2]]),
    }
    tokens = make_tokens(device, **unread)
    x = model(tokens)
    found = model.decoder.bridge(x, tokens, model.embed)
    plain = model.decoder.bridge(x, make_tokens(device), model.embed)
    changed = (found - plain).abs().sum(-1) > 1e-6
    assert changed.nonzero().tolist() == [[0, 4], [1, 1], [1, 4]]
    wanted = model.embed.value.bins.marks.weight[0] + model.embed.gene.weight[4]
    torch.testing.assert_close(found[1, 4], model.decoder.bridge.project(wanted), rtol=1e-4, atol=1e-5)


def norm(x, layer):
    return functional.layer_norm(x, x.shape[-1:], layer.weight, layer.bias, layer.eps)


def plain_kernel(attn, x):
    """Attention by random features of one cell, written out."""
    q, k, v = functional.linear(x, attn.qkv.weight, attn.qkv.bias).chunk(3, dim=-1)
    q, k, v = (part.unflatten(-1, (2, 4)).transpose(0, 1) for part in (q, k, v))
    up_q, up_k = (4**-0.25 * part @ attn.projection.T for part in (q, k))
    half_q, half_k = (part.square().sum(-1, keepdim=True) / (2 * 4**0.5) for part in (q, k))
    q = torch.exp(up_q - half_q - up_q.amax(-1, keepdim=True)) + 1e-4
    k = torch.exp(up_k - half_k - up_k.amax()) + 1e-4
    weights = q @ k.transpose(-1, -2)
    mixed = weights @ v / weights.sum(-1, keepdim=True)
    return functional.linear(mixed.transpose(0, 1).flatten(1), attn.out.weight, attn.out.bias)


@torch.inference_mode()
def test_decoder_by_the_formula():
    model, tokens = make_model().double(), make_tokens()
    x = model(tokens)
    found = model.decode(x, tokens)
    for cell in range(2):
        y = model.decoder.bridge(x, tokens, model.embed)[cell]
        for block in model.decoder.backbone.blocks:
            y = y + plain_kernel(block.attn, norm(y, block.norm1))
            y = y + block.ff.down(functional.gelu(block.ff.up(norm(y, block.norm2))))
        wanted = norm(norm(y, model.decoder.backbone.norm), model.decoder.norm)
        torch.testing.assert_close(found[cell], wanted, rtol=1e-4, atol=1e-4)
    assert model.decoder.heads["value"](found).shape == (2, N_PLACES, 1)


@torch.inference_mode()
def test_padding_and_neighbours_do_not_matter_to_places(device):
    model, tokens = make_model(device=device), make_tokens(device)
    alone = TokenTensors(
        **{name: getattr(tokens, name)[1:, :3] for name in ("token_ids_bl", "mask_bl", "gene_mask_bl", "value_bl")}
    )
    torch.testing.assert_close(decoded(model, tokens)[1], decoded(model, alone)[0], rtol=1e-4, atol=1e-5)
    unmasked = dataclasses.replace(alone, mask_bl=None)
    torch.testing.assert_close(decoded(model, unmasked), decoded(model, alone), rtol=1e-4, atol=1e-5)


def test_gradients_reach_every_weight_but_marks():
    model, tokens = make_model().requires_grad_(), make_tokens()
    model.decoder.heads["value"](decoded(model, tokens)).square().sum().backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert [name for name in without if "marks" not in name] == []


@torch.inference_mode()
def test_half_precision_is_near():
    model, tokens = make_model(), make_tokens()
    wanted = decoded(model, tokens)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = decoded(model, tokens)
    for found in (mixed, decoded(model.bfloat16(), tokens)):
        assert torch.cosine_similarity(found.float().flatten(), wanted.flatten(), dim=0) > 0.99


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@torch.inference_mode()
def test_compiled_decoder_gives_the_same_numbers():
    model, tokens = make_model(), make_tokens()
    compiled = torch.compile(lambda given: decoded(model, given), backend="aot_eager")
    torch.testing.assert_close(compiled(tokens), decoded(model, tokens), rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_a_cell_of_published_length_is_decoded():
    n_places = 19_266
    decoder = dataclasses.replace(CONFIG.decoder, bridge=decoder_configs.ScatterBridge(n_places=n_places))
    gene = configs.TableEncoder(n_tokens=n_places + 1)
    model = make_model(dataclasses.replace(CONFIG, gene=gene, decoder=decoder))
    ids = torch.arange(0, n_places, 4).unsqueeze(0)
    tokens = TokenTensors(
        token_ids_bl=ids, mask_bl=None, gene_mask_bl=ids < n_places - 2, value_bl=torch.rand(ids.shape) * 5
    )
    found = decoded(model, tokens)
    assert found.shape == (1, n_places, E)
    assert found.isfinite().all()


def test_model_without_a_decoder_says_so():
    model = make_model(dataclasses.replace(CONFIG, decoder=None))
    with pytest.raises(ValueError, match="has no decoder"):
        decoded(model, make_tokens())
