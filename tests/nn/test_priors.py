"""Prior vectors beside those of genes, and a vector of the species before all, against the formula in float64."""

from __future__ import annotations

import dataclasses
import math

import pytest
import torch
from torch.nn import functional

from sclcm._sizes import ReleaseFacts, Shape, WherePresent, resolve_sizes
from sclcm.models._build import build_lcm
from sclcm.nn import configs, readouts
from sclcm.nn import prior_configs as priors
from sclcm.nn.heads import HeadInput, build_heads, read
from sclcm.nn.lcm import LCM
from sclcm.nn.pooling import pool
from sclcm.nn.priors import JoinedInputs, SpeciesPrefix
from sclcm.nn.tokens import TokenTensors

WIDTH, N_TOKENS, EPS = 6, 9, 1e-3
INDEX = torch.tensor([0, 1, 2, 3, 4, 5, 2, 4, 8])  # 6 and 7 have a partner
FUSION = priors.JoinedInputs(
    priors=(
        priors.PriorVectors(name="one", n_tokens=N_TOKENS, d_prior=4),
        priors.PriorVectors(name="other", n_tokens=N_TOKENS, d_prior=3),
    ),
    partners=priors.Partners(n_tokens=N_TOKENS, species=1),
    has_value=True,
    activation="gelu_sigmoid",
    layer_norm=configs.LayerNorm(eps=EPS),
)
CONFIG = configs.LCMConfig(
    d_model=WIDTH,
    gene=configs.TableEncoder(n_tokens=N_TOKENS),
    fusion=FUSION,
    position=configs.LearnedPositions(n_positions=4),
    embedding_norm=configs.LayerNorm(eps=EPS),
    prefix=priors.SpeciesPrefix(n_species=2),
    backbone=configs.BackboneConfig(
        n_blocks=2,
        attention=configs.SoftmaxAttention(n_heads=2),
        feed_forward=configs.FeedForward(d_hidden=8),
        norm="post",
    ),
)


def randomized(module, device="cpu"):
    for tensor in module.parameters():
        torch.nn.init.normal_(tensor, std=0.5)
    for name, tensor in module.named_buffers():
        if name.endswith("table.weight"):
            tensor.normal_()
        if name.endswith("index"):
            tensor.copy_(INDEX)
    return module.requires_grad_(False).eval().to(device)


def make_tokens(device="cpu", **given):
    """Two cells of one species and one of another; places are as many as there are values."""
    ids = torch.tensor([[6, 7, 3], [6, 7, 3], [2, 0, 0]])
    facts = {
        "token_ids_bl": ids,
        "mask_bl": torch.tensor([[True, True, True], [True, True, True], [True, False, False]]),
        "gene_mask_bl": ids > 1,
        "value_bl": torch.tensor([[1.5, 0.25, -1.0], [1.5, 0.25, -1.0], [2.0, 0.0, 0.0]]),
        "species_b": torch.tensor([0, 1, 1]),
    }
    return TokenTensors(**{name: None if x is None else x.to(device) for name, x in {**facts, **given}.items()})


def with_place(device="cpu", **given):
    """The same tokens after a place that is kept free."""
    tokens = make_tokens(device, **given)
    free = torch.zeros(3, 1, device=device)

    def shift(x, fill):
        return torch.cat([(free + fill).to(x.dtype), x], dim=1)

    return dataclasses.replace(
        tokens,
        token_ids_bl=shift(tokens.token_ids_bl, 0),
        mask_bl=shift(tokens.mask_bl, 1),
        gene_mask_bl=shift(tokens.gene_mask_bl, 0),
        value_bl=shift(tokens.value_bl, 0),
    )


def joined_by_hand(module, gene_d, *, token, value, species):
    """One token, number by number, in float64."""
    state = {name: tensor.double() for name, tensor in module.state_dict().items()}
    known = int(INDEX[token]) if species == 1 else token
    parts = [gene_d.double(), torch.tensor([value], dtype=torch.float64)]
    for name in ("one", "other"):
        table, weight = state[f"priors.{name}.table.weight"], state[f"priors.{name}.project.weight"]
        parts.append(weight @ table[known] + state[f"priors.{name}.project.bias"])
    x = state["up.weight"] @ torch.cat(parts) + state["up.bias"]
    x = (x - x.mean()) / (x.var(unbiased=False) + EPS).sqrt() * state["norm.weight"] + state["norm.bias"]
    x = torch.tensor([y / (1 + math.exp(-1.702 * y)) for y in x.tolist()], dtype=torch.float64)
    return state["down.weight"] @ x + state["down.bias"]


@torch.inference_mode()
def test_inputs_are_joined_and_mixed(device):
    module, tokens = randomized(JoinedInputs(FUSION, WIDTH), device), make_tokens(device)
    gene_bld = torch.randn(3, 3, WIDTH, device=device)
    found = module(gene_bld, tokens).cpu().double()
    for cell, species in enumerate((0, 1, 1)):
        for place in range(3):
            token, value = int(tokens.token_ids_bl[cell, place]), float(tokens.value_bl[cell, place])
            wanted = joined_by_hand(
                module.cpu(), gene_bld[cell, place].cpu(), token=token, value=value, species=species
            )
            torch.testing.assert_close(found[cell, place], wanted, rtol=1e-5, atol=1e-5)
            module.to(device)


@torch.inference_mode()
def test_partners_matter_in_cells_of_their_species_only():
    module = randomized(JoinedInputs(FUSION, WIDTH))
    gene_bld = torch.randn(1, 3, WIDTH).expand(3, 3, WIDTH)
    tokens = make_tokens()
    known = module.partners(tokens.token_ids_bl, tokens.species_b)
    assert known.tolist() == [[6, 7, 3], [2, 4, 3], [2, 0, 0]]
    found = module(gene_bld, tokens)
    assert not torch.allclose(found[0, 0], found[1, 0])
    torch.testing.assert_close(found[0, 2], found[1, 2])  # without a partner


@torch.inference_mode()
def test_all_cells_may_be_taken_for_one_species():
    module, tokens = randomized(LCM(CONFIG)).embed, with_place()
    taken = LCM(dataclasses.replace(CONFIG, species=0)).eval().embed
    taken.load_state_dict(module.state_dict())
    human = dataclasses.replace(tokens, species_b=torch.zeros(3, dtype=torch.int64))
    torch.testing.assert_close(taken(tokens), module(human))
    assert not torch.allclose(taken(tokens), module(tokens))
    compiled = torch.compile(taken, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(tokens), taken(tokens))


@torch.inference_mode()
def test_value_may_be_left_out():
    module = randomized(JoinedInputs(dataclasses.replace(FUSION, has_value=False), WIDTH))
    assert module.up.in_features == 3 * WIDTH
    gene_bld = torch.randn(3, 3, WIDTH)
    found = module(gene_bld, make_tokens(value_bl=None))
    torch.testing.assert_close(found, module(gene_bld, make_tokens()))


def test_missing_species_or_values_are_refused():
    model = randomized(LCM(CONFIG))
    with pytest.raises(ValueError, match="species of each cell"):
        model(dataclasses.replace(with_place(), species_b=None))
    with pytest.raises(ValueError, match="tokens with values"):
        model(dataclasses.replace(with_place(), value_bl=None))


@torch.inference_mode()
def test_prefix_gets_neither_position_nor_norm_and_takes_no_place_from_others(device):
    model = randomized(LCM(CONFIG), device)
    embed, tokens = model.embed, make_tokens(device)
    found = embed(with_place(device))
    torch.testing.assert_close(found[:, 0], embed.prefix.table.weight[tokens.species_b])
    x_bld = embed.fusion(embed.gene(tokens.token_ids_bl), tokens) + embed.position.weight[:3]
    wanted = functional.layer_norm(x_bld, (WIDTH,), embed.norm.weight, embed.norm.bias, EPS)
    torch.testing.assert_close(found[:, 1:], wanted)


@torch.inference_mode()
def test_what_stands_at_the_free_place_does_not_matter():
    model, tokens = randomized(LCM(CONFIG)), with_place()
    ids, values = tokens.token_ids_bl.clone(), tokens.value_bl.clone()
    ids[:, 0], values[:, 0] = 5, 99
    torch.testing.assert_close(model(dataclasses.replace(tokens, token_ids_bl=ids, value_bl=values)), model(tokens))


@torch.inference_mode()
def test_padding_does_not_matter():
    model, tokens = randomized(LCM(CONFIG)), with_place()
    alone = TokenTensors(
        token_ids_bl=tokens.token_ids_bl[2:, :2],
        mask_bl=None,
        gene_mask_bl=tokens.gene_mask_bl[2:, :2],
        value_bl=tokens.value_bl[2:, :2],
        species_b=tokens.species_b[2:],
    )
    torch.testing.assert_close(model(tokens)[2:, :2], model(alone), rtol=1e-4, atol=1e-5)


def test_prefix_starts_a_sentence_without_tokens():
    module = randomized(SpeciesPrefix(priors.SpeciesPrefix(n_species=3), WIDTH))
    found = module(torch.zeros(2, 0, WIDTH), torch.tensor([2, 0]))
    assert found.tolist() == module.table.weight[[2, 0]].unsqueeze(1).tolist()


def test_explicit_places_count_from_the_first_gene():
    tokens = dataclasses.replace(with_place(), place_bl=torch.arange(4).expand(3, 4))
    assert tokens.without_first().place_bl.tolist() == [[0, 1, 2]] * 3


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_half_precision_gives_nearly_the_same(device, dtype):
    model, tokens = randomized(LCM(CONFIG), device), with_place(device)
    wanted = model(tokens)[tokens.mask_bl]
    with torch.autocast(device.type, dtype=dtype):
        mixed = model(tokens)[tokens.mask_bl].float()
    for found in (mixed, model.to(dtype)(tokens)[tokens.mask_bl].float()):
        assert torch.cosine_similarity(found.flatten(), wanted.flatten(), dim=0) > 0.995
    assert model.embed.fusion.partners.index.dtype == torch.int64


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@torch.inference_mode()
def test_compiled_model_gives_the_same_numbers():
    model, tokens = randomized(LCM(CONFIG)), with_place()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    found, wanted = compiled(tokens), model(tokens)
    torch.testing.assert_close(found[tokens.mask_bl], wanted[tokens.mask_bl], rtol=1e-5, atol=1e-5)


def test_gradients_reach_every_weight_and_no_prior():
    model = randomized(LCM(CONFIG)).requires_grad_()
    model(with_place()).square().sum().backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    fixed = [name for name, _ in model.named_buffers()]
    assert fixed == [
        "embed.fusion.priors.one.table.weight",
        "embed.fusion.priors.other.table.weight",
        "embed.fusion.partners.index",
    ]


@pytest.mark.parametrize(
    "index", [INDEX - 1, INDEX + 1, INDEX.float(), torch.full((N_TOKENS,), 2**40), INDEX > 3], ids=str
)
def test_index_that_points_outside_of_the_vocabulary_is_refused(index):
    state = randomized(LCM(CONFIG)).state_dict()
    with pytest.raises(ValueError, match="token ids, whole numbers from 0 to 8"):
        build_lcm(CONFIG, {**state, "embed.fusion.partners.index": index})


def test_priors_are_those_that_a_checkpoint_has():
    declared = dataclasses.replace(
        FUSION,
        priors=(
            WherePresent("one", priors.PriorVectors(name="one", n_tokens=Shape("one"), d_prior=Shape("one", 1))),
            WherePresent("two", priors.PriorVectors(name="two", n_tokens=Shape("two"), d_prior=Shape("two", 1))),
        ),
    )
    found = resolve_sizes(declared, ReleaseFacts(shapes={"two": (9, 3)}))
    assert found.priors == (priors.PriorVectors(name="two", n_tokens=9, d_prior=3),)
    assert resolve_sizes(declared, ReleaseFacts()).priors == ()


# ---- what reads such models ----


@torch.inference_mode()
def test_normed_value_head_is_linear_norm_linear(device):
    config = readouts.NormedValueHead(activation="gelu", layer_norm=configs.LayerNorm(eps=EPS))
    heads = randomized(build_heads({"value": config}, WIDTH, torch.nn.Embedding(9, WIDTH)), device)
    x_bld = torch.randn(2, 4, WIDTH, device=device)
    found = read(heads["value"], HeadInput(x_bld=x_bld, cell_bd=x_bld[:, 0], gene_bld=x_bld))
    head = heads["value"].double()
    x = functional.gelu(x_bld.double() @ head.dense.weight.t() + head.dense.bias)
    x = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + EPS).sqrt()
    wanted = (x * head.norm.weight + head.norm.bias) @ head.out.weight[0] + head.out.bias
    assert found.shape == (2, 4)
    torch.testing.assert_close(found, wanted.float(), rtol=1e-4, atol=1e-5)


def test_mean_of_the_rest_leaves_out_the_first_token_and_padding():
    x_bld = torch.arange(12.0).reshape(2, 3, 2)
    mask = torch.tensor([[True, True, False], [True, True, True]])
    tokens = TokenTensors(token_ids_bl=torch.zeros(2, 3), mask_bl=mask, gene_mask_bl=mask)
    assert pool(readouts.RestMean(), x_bld, tokens).tolist() == [[2.0, 3.0], [9.0, 10.0]]
    every = dataclasses.replace(tokens, mask_bl=None)
    assert pool(readouts.RestMean(), x_bld, every).tolist() == [[3.0, 4.0], [9.0, 10.0]]
