"""Rotary positions, shared keys, norm by root mean square and gated feed-forward: alone, and as a whole decoder."""

from __future__ import annotations

import copy
import itertools
import math

import pytest
import torch
from torch.nn import functional

from sclcm.nn import configs
from sclcm.nn.attention import SoftmaxAttention
from sclcm.nn.attention_configs import RotaryPositions
from sclcm.nn.backbone import Backbone
from sclcm.nn.gated import GatedFeedForward
from sclcm.nn.gated_configs import GatedFeedForward as GatedFeedForwardConfig
from sclcm.nn.lcm import LCM
from sclcm.nn.norms import RMSNorm
from sclcm.nn.rotary import places, rotate
from sclcm.nn.tokens import TokenTensors

WIDTH, N_HEADS, HIDDEN, BASE = 16, 4, 20, 50.0
MASK = torch.tensor([[True] * 6, [True] * 4 + [False] * 2, [True] + [False] * 5])


def attention_config(*, group=1, causal=True):
    return configs.SoftmaxAttention(
        n_heads=N_HEADS, causal=causal, bias=False, rotary=RotaryPositions(base=BASE), heads_per_key=group
    )


def stack_config(*, group=1, n_blocks=2):
    return configs.BackboneConfig(
        n_blocks=n_blocks,
        attention=attention_config(group=group),
        feed_forward=GatedFeedForwardConfig(d_hidden=HIDDEN, activation="silu"),
        norm="pre",
        layer_norm=configs.RMSNorm(eps=1e-5),
        final_norm=configs.RMSNorm(eps=1e-5),
    )


def drawn(module):
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.4)
    return module.requires_grad_(False).eval()


def make(*, group=1, causal=True):
    return drawn(SoftmaxAttention(attention_config(group=group, causal=causal), WIDTH))


def turned(vector, place):
    """Each plane of a head's vector as a complex number, times one of length one."""
    half = len(vector) // 2
    planes = torch.complex(vector[:half], vector[half:])
    angles = torch.tensor([place * BASE ** (-2 * i / len(vector)) for i in range(half)], dtype=torch.float64)
    after = planes * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([after.real, after.imag])


def textbook(module, x_bld, mask_bl, *, causal=True):
    """Attention token by token in float64."""
    size, n_keys = WIDTH // N_HEADS, N_HEADS // module.group
    rows = x_bld.double() @ module.qkv.weight.double().t()
    q, k, v = rows.split([WIDTH, n_keys * size, n_keys * size], dim=-1)
    mixed = torch.zeros_like(q)
    for cell, head, place in itertools.product(range(len(x_bld)), range(N_HEADS), range(x_bld.shape[1])):
        own = slice(head * size, (head + 1) * size)
        shared = slice(head // module.group * size, (head // module.group + 1) * size)
        seen = [j for j in range(x_bld.shape[1]) if mask_bl[cell, j] and (j <= place or not causal)]
        query = turned(q[cell, place, own], place)
        scores = [float(query @ turned(k[cell, j, shared], j)) / math.sqrt(size) for j in seen]
        for j, share in zip(seen, torch.tensor(scores).double().softmax(0), strict=True):
            mixed[cell, place, own] += share * v[cell, j, shared]
    return mixed @ module.out.weight.double().t()


# ---- alone ----


def test_a_plane_is_turned_by_its_place():
    x = torch.randn(2, 3, 5, 6, dtype=torch.float64)
    place = torch.tensor([[0, 1, 2, 3, 4], [7, 900, 2, 0, 4096]])
    found = rotate(x, place, BASE)
    for cell, head, token in itertools.product(range(2), range(3), range(5)):
        wanted = turned(x[cell, head, token], int(place[cell, token]))
        torch.testing.assert_close(found[cell, head, token], wanted)
    assert rotate(x, torch.arange(5), BASE)[:, :, 0].equal(x[:, :, 0])
    torch.testing.assert_close(found.norm(dim=-1), x.norm(dim=-1))


def test_single_and_half_precision_know_late_places():
    x, place = torch.randn(1, 2, 4, 8), torch.tensor([0, 255, 2047, 4095])
    wanted = rotate(x.double(), place, 1e4)
    torch.testing.assert_close(rotate(x, place, 1e4).double(), wanted, rtol=1e-3, atol=1e-3)
    half = rotate(x.bfloat16(), place, 1e4)
    assert half.dtype == torch.bfloat16
    torch.testing.assert_close(half.double(), wanted, rtol=2e-2, atol=2e-2)


def test_only_distances_matter_to_the_product_of_query_and_key():
    q, k = torch.randn(2, 1, 1, 1, 8, dtype=torch.float64)

    def product(i, j):
        return float((rotate(q, torch.tensor([i]), BASE) * rotate(k, torch.tensor([j]), BASE)).sum())

    assert product(12, 5) == pytest.approx(product(107, 100))
    assert product(12, 5) != pytest.approx(product(12, 6))


def test_places_start_anew_in_each_packed_cell():
    assert places(4, None, torch.device("cpu")).tolist() == [0, 1, 2, 3]
    assert places(6, [3, 1, 2], torch.device("cpu")).tolist() == [0, 1, 2, 0, 0, 1]


@pytest.mark.parametrize("causal", [True, False])
@pytest.mark.parametrize("group", [1, 2, 4])
@pytest.mark.parametrize("has_grad", [True, False])
def test_attention_is_its_formula(device, group, causal, has_grad):
    module, x = make(group=group, causal=causal), torch.randn(3, 6, WIDTH)
    wanted = textbook(module, x, MASK, causal=causal)
    module = module.to(device)
    with torch.set_grad_enabled(has_grad):
        found = module(x.to(device), MASK.to(device)).cpu()
    torch.testing.assert_close(found[MASK].double(), wanted[MASK], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("group", [1, 2])
def test_weights_are_those_of_the_attention(group):
    module, x = make(group=group), torch.randn(3, 6, WIDTH)
    weights = module.weights(x, MASK)
    *_, value = module._project(x)
    mixed = (weights @ value.repeat_interleave(group, dim=1)).transpose(1, 2).flatten(2) @ module.out.weight.t()
    torch.testing.assert_close(mixed[MASK], module(x, MASK)[MASK], rtol=1e-4, atol=1e-5)


def test_norm_divides_by_the_root_mean_square(device):
    norm, x = drawn(RMSNorm(configs.RMSNorm(eps=1e-2), WIDTH)), torch.randn(2, 3, WIDTH)
    wanted = x.double() / (x.double().square().mean(-1, keepdim=True) + 1e-2).sqrt() * norm.weight.double()
    norm = norm.to(device)
    torch.testing.assert_close(norm(x.to(device)).cpu().double(), wanted, rtol=1e-5, atol=1e-6)
    large = norm.half()(torch.full((1, WIDTH), 6e4, device=device, dtype=torch.float16))
    assert large.dtype == torch.float16
    torch.testing.assert_close(large.cpu().double()[0], norm.weight.cpu().double(), rtol=1e-3, atol=1e-3)
    assert not norm(torch.zeros(1, WIDTH, device=device)).any()


def test_gated_feed_forward_is_its_formula(device):
    module = drawn(GatedFeedForward(GatedFeedForwardConfig(d_hidden=HIDDEN, activation="silu"), WIDTH))
    x = torch.randn(2, 3, WIDTH)
    gate, up = (x.double() @ part.t() for part in module.up.weight.double().chunk(2))
    wanted = (gate / (1 + torch.exp(-gate)) * up) @ module.down.weight.double().t()
    torch.testing.assert_close(module.to(device)(x.to(device)).cpu().double(), wanted, rtol=1e-4, atol=1e-5)


def test_impossible_heads_are_refused():
    with pytest.raises(ValueError, match="4 heads cannot share keys 3 by 3"):
        make(group=3)
    with pytest.raises(ValueError, match="planes of two channels, but the heads have 3"):
        SoftmaxAttention(configs.SoftmaxAttention(n_heads=2, rotary=RotaryPositions()), 6)
    for base in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match="expected a number above zero"):
            SoftmaxAttention(configs.SoftmaxAttention(n_heads=2, rotary=RotaryPositions(base=base)), 8)
    with pytest.raises(ValueError, match="have no place"):
        make().with_targets(torch.zeros(1, 2, WIDTH), torch.zeros(1, 1, WIDTH), None)


def test_targets_read_keys_that_heads_share():
    plain = configs.SoftmaxAttention(n_heads=N_HEADS, bias=False, heads_per_key=2)
    module, x = drawn(SoftmaxAttention(plain, WIDTH)), torch.randn(1, 5, WIDTH)
    _, found = module.with_targets(x[:, :4], x[:, 4:], None)
    torch.testing.assert_close(found[:, 0], module(x, None)[:, 4], rtol=1e-4, atol=1e-5)


# ---- the whole stack ----


@pytest.mark.parametrize("group", [1, 2])
def test_later_and_padding_tokens_inform_nobody(group):
    backbone, x = drawn(Backbone(stack_config(group=group), WIDTH)), torch.randn(3, 6, WIDTH)
    wanted = backbone(x, MASK)
    for cell, length in enumerate(MASK.sum(1).tolist()):
        alone = backbone(x[cell : cell + 1, :length], None)
        torch.testing.assert_close(wanted[cell, :length], alone[0], rtol=1e-4, atol=1e-5)
    changed = x.clone()
    changed[:, 3:] += 1
    torch.testing.assert_close(backbone(changed, MASK)[:, :3], wanted[:, :3], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("group", [1, 2])
@pytest.mark.parametrize("packs", [True, False])
def test_prefilling_and_steps_are_one_pass_over_all(device, group, packs):
    config = configs.LCMConfig(
        d_model=WIDTH, gene=configs.TableEncoder(n_tokens=9), backbone=stack_config(group=group, n_blocks=3)
    )
    lcm, lengths = drawn(LCM(config)).to(device), [7, 1, 4]
    ids, more = torch.randint(0, 9, (3, 7), device=device), torch.randint(0, 9, (3, 2), device=device)
    real = torch.arange(7, device=device) < torch.tensor(lengths, device=device).unsqueeze(1)
    with torch.set_grad_enabled(not packs):
        given = TokenTensors(token_ids_bl=ids, mask_bl=real, gene_mask_bl=real)
        last, cache = lcm.prefill(given, n_last=1, n_more=2)
        found = [last[:, 0]]
        for one in more.split(1, dim=1):
            x_bd, cache = lcm.step(TokenTensors(token_ids_bl=one, mask_bl=None, gene_mask_bl=one < 0), cache)
            found.append(x_bd)
    assert cache.blocks[0].key_bhwk.shape == (3, N_HEADS // group, 9, WIDTH // N_HEADS)
    for cell, length in enumerate(lengths):
        whole = torch.cat([ids[cell, :length], more[cell]]).unsqueeze(0)
        wanted = lcm(TokenTensors(token_ids_bl=whole, mask_bl=None, gene_mask_bl=whole >= 0))[0, length - 1 :]
        torch.testing.assert_close(torch.stack([x[cell] for x in found]), wanted, rtol=1e-4, atol=1e-5)


def test_half_precision_is_close(device):
    backbone, x = drawn(Backbone(stack_config(group=2), WIDTH)).to(device), torch.randn(3, 6, WIDTH, device=device)
    wanted, mask = backbone(x, MASK.to(device)), MASK.to(device)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        mixed = backbone(x, mask)
    half = copy.deepcopy(backbone).to(torch.bfloat16)(x.bfloat16(), mask)
    for found in (mixed, half):
        cosine = functional.cosine_similarity(found.float(), wanted, dim=-1)
        assert cosine[mask].min() > 0.995


def test_compiled_stack_is_the_same():
    backbone, x = drawn(Backbone(stack_config(group=2), WIDTH)), torch.randn(3, 6, WIDTH)
    compiled = torch.compile(backbone, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(x, MASK), backbone(x, MASK), rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("group", [1, 2, 4])
def test_stack_is_the_llama_of_transformers(group):
    transformers = pytest.importorskip("transformers")
    settings = transformers.LlamaConfig(
        vocab_size=5,
        hidden_size=WIDTH,
        intermediate_size=HIDDEN,
        num_hidden_layers=3,
        num_attention_heads=N_HEADS,
        num_key_value_heads=N_HEADS // group,
        rms_norm_eps=1e-5,
        rope_theta=BASE,
    )
    theirs = drawn(transformers.LlamaModel(settings))
    ours = Backbone(stack_config(group=group, n_blocks=3), WIDTH)
    state, wanted_state = theirs.state_dict(), {"norm.weight": theirs.norm.weight}
    for i in range(3):
        parts = {name: state[f"layers.{i}.{name}.weight"] for name in _names(state, i)}
        wanted_state |= {
            f"blocks.{i}.norm1.weight": parts["input_layernorm"],
            f"blocks.{i}.norm2.weight": parts["post_attention_layernorm"],
            f"blocks.{i}.attn.qkv.weight": torch.cat([parts[f"self_attn.{kind}_proj"] for kind in "qkv"]),
            f"blocks.{i}.attn.out.weight": parts["self_attn.o_proj"],
            f"blocks.{i}.ff.up.weight": torch.cat([parts["mlp.gate_proj"], parts["mlp.up_proj"]]),
            f"blocks.{i}.ff.down.weight": parts["mlp.down_proj"],
        }
    ours.load_state_dict(wanted_state)
    x = torch.randn(3, 6, WIDTH)
    with torch.no_grad():
        wanted = theirs(inputs_embeds=x, attention_mask=MASK.long(), output_hidden_states=True)
        found = ours.eval()(x, MASK)
        torch.testing.assert_close(ours(x, MASK, 2)[MASK], wanted.hidden_states[2][MASK], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found[MASK], wanted.last_hidden_state[MASK], rtol=1e-5, atol=1e-5)


def _names(state, block):
    start = f"layers.{block}."
    return [name.removeprefix(start).removesuffix(".weight") for name in state if name.startswith(start)]
