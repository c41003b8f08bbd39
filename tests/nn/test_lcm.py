"""The model as a whole, assembled from one configuration."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from sclcm._sizes import Config
from sclcm.nn import configs, readouts
from sclcm.nn.embedders import Embedder, ScalarMLP
from sclcm.nn.lcm import LCM
from sclcm.nn.tokens import TokenTensors

HEADS = {
    "token": readouts.TiedTokenHead(activation="relu", layer_norm=configs.LayerNorm(eps=1e-12)),
    "cell": readouts.PooledClassHead(n_classes=3),
    "gene": readouts.TokenClassHead(n_classes=2),
    "project": readouts.LinearHead(d_in=8, d_out=5),
}


def make_config(**changes):
    plain = configs.LCMConfig(
        d_model=8,
        gene=configs.TableEncoder(n_tokens=20),
        value=configs.ScalarMLP(d_hidden=6),
        position=configs.LearnedPositions(n_positions=7),
        segment=configs.ConstantSegment(n_segments=2),
        embedding_norm=configs.LayerNorm(eps=1e-12),
        backbone=configs.BackboneConfig(
            n_blocks=2,
            attention=configs.SoftmaxAttention(n_heads=2),
            feed_forward=configs.FeedForward(d_hidden=16, activation="relu"),
            norm="post",
        ),
        heads=HEADS,
    )
    return dataclasses.replace(plain, **changes)


def make_model(device="cpu", **changes):
    model = LCM(make_config(**changes))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model.requires_grad_(False).eval().to(device)


def make_tokens(device="cpu"):
    mask = torch.tensor([[True] * 5, [True, True, True, False, False]], device=device)
    ids = torch.tensor([[3, 4, 5, 6, 7], [8, 9, 10, 0, 0]], device=device)
    values = torch.tensor([[0.5, 1, 2, 3, 4], [1, 2, 3, 0, 0]], device=device)
    return TokenTensors(token_ids_bl=ids, mask_bl=mask, gene_mask_bl=mask, value_bl=values)


def real(x_bld, tokens):
    return x_bld[tokens.mask_bl]


@torch.inference_mode()
def test_embedder_sums_gene_value_position_and_segment_and_norms_the_sum():
    embed, tokens = make_model().embed, make_tokens()
    x = embed.gene.weight[tokens.token_ids_bl] + embed.position.weight[:5] + embed.segment.weight[0]
    x = x + embed.value.mlp.down(torch.relu(embed.value.mlp.up(tokens.value_bl[..., None])))
    wanted = torch.nn.functional.layer_norm(x, (8,), embed.norm.weight, embed.norm.bias, 1e-12)
    torch.testing.assert_close(embed(tokens), wanted, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_embedder_has_only_what_its_configuration_names():
    embed = make_model(value=None, position=None, segment=None, embedding_norm=None).embed
    assert list(embed.state_dict()) == ["gene.weight"]
    tokens = dataclasses.replace(make_tokens(), value_bl=None)
    assert torch.equal(embed(tokens), embed.gene.weight[tokens.token_ids_bl])


def test_model_with_values_refuses_tokens_without():
    with pytest.raises(ValueError, match="needs tokens with values"):
        make_model()(dataclasses.replace(make_tokens(), value_bl=None))


@torch.inference_mode()
def test_values_are_taken_in_the_number_type_of_the_model():
    tokens = make_tokens()
    tokens = dataclasses.replace(tokens, value_bl=tokens.value_bl.double())
    assert make_model()(tokens).dtype == torch.float32
    assert make_model().bfloat16()(tokens).dtype == torch.bfloat16


@pytest.mark.parametrize("n_blocks", [0, 1, 2, None])
@torch.inference_mode()
def test_padding_and_neighbours_do_not_matter(device, n_blocks):
    model, tokens = make_model(device), make_tokens(device)
    together = model(tokens, n_blocks=n_blocks)
    alone = TokenTensors(
        token_ids_bl=tokens.token_ids_bl[1:, :3],
        mask_bl=None,
        gene_mask_bl=tokens.gene_mask_bl[1:, :3],
        value_bl=tokens.value_bl[1:, :3],
    )
    torch.testing.assert_close(together[1, :3], model(alone, n_blocks=n_blocks)[0], rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_heads_by_the_formula():
    model, tokens = make_model(), make_tokens()
    x = model(tokens)
    token, cell, gene, project = (model.heads[name] for name in HEADS)
    hidden = torch.relu(x @ token.dense.weight.t() + token.dense.bias)
    hidden = torch.nn.functional.layer_norm(hidden, (8,), token.norm.weight, token.norm.bias, 1e-12)
    wanted = hidden @ model.embed.gene.weight.t() + token.bias
    torch.testing.assert_close(token(x), wanted, rtol=1e-4, atol=1e-5)
    pooled = torch.tanh(x[:, 0] @ cell.dense.weight.t() + cell.dense.bias)
    torch.testing.assert_close(cell(x), pooled @ cell.out.weight.t() + cell.out.bias, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(gene(x), x @ gene.out.weight.t() + gene.out.bias, rtol=1e-4, atol=1e-5)
    assert gene(x).shape == (2, 5, 2)
    assert project(x[:, 0]).shape == (2, 5)
    torch.testing.assert_close(project(x)[:, 0], project(x[:, 0].contiguous()), rtol=1e-5, atol=1e-6)


@torch.inference_mode()
def test_heads_take_no_cells():
    model = make_model()
    assert model.heads["token"](torch.zeros(0, 8)).shape == (0, 20)
    assert model.heads["cell"](torch.zeros(0, 5, 8)).shape == (0, 3)


def test_token_head_is_tied_to_the_gene_table_and_stores_no_second_one():
    model = LCM(make_config())
    assert [name for name, tensor in model.state_dict().items() if 20 in tensor.shape] == [
        "embed.gene.weight",
        "heads.token.bias",
    ]
    for clone in (model, copy.deepcopy(model), copy.deepcopy(model).double()):
        x = torch.randn(3, 8, dtype=clone.embed.gene.weight.dtype)
        before = clone.heads["token"](x)
        with torch.no_grad():
            clone.embed.gene.weight.mul_(2)
        assert not torch.allclose(clone.heads["token"](x), before)
    model.heads["token"](torch.randn(3, 8)).sum().backward()
    assert model.embed.gene.weight.grad.abs().sum() > 0


@torch.inference_mode()
def test_attention_weights_of_a_block_are_for_what_enters_it(device):
    model, tokens = make_model(device), make_tokens(device)
    for block in (0, 1):
        entering = model(tokens, n_blocks=block)
        wanted = model.backbone.blocks[block].attn.weights(entering, tokens.mask_bl)
        torch.testing.assert_close(model.attention_weights(tokens, block), wanted)


def test_gradients_reach_every_weight(device):
    model, tokens = make_model(device), make_tokens(device)
    model.requires_grad_()
    x = model(tokens)
    sum(head(x).square().sum() for head in model.heads.values()).backward()
    without = [name for name, parameter in model.named_parameters() if parameter.grad is None]
    assert without == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_autocast_is_within_half_precision(device, dtype):
    model, tokens = make_model(device), make_tokens(device)
    wanted = real(model(tokens), tokens)
    with torch.autocast(device.type, dtype=dtype):
        found = real(model(tokens), tokens).float()
        assert model.heads["token"](model(tokens)).dtype == dtype
    assert torch.cosine_similarity(found.flatten(), wanted.flatten(), dim=0) > 0.999


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_weights_in_half_precision_give_nearly_the_same(device, dtype):
    model, tokens = make_model(device), make_tokens(device)
    wanted = real(model(tokens), tokens)
    found = real(model.to(dtype)(tokens), tokens).float()
    assert torch.cosine_similarity(found.flatten(), wanted.flatten(), dim=0) > 0.999


@pytest.mark.parametrize("backend", ["aot_eager", pytest.param("inductor", marks=pytest.mark.slow)])
@pytest.mark.filterwarnings("ignore")  # the compiler's own
@torch.inference_mode()
def test_compiled_model_gives_the_same_numbers(backend):
    model, tokens = make_model(), make_tokens()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    torch.testing.assert_close(real(compiled(tokens), tokens), real(model(tokens), tokens), rtol=1e-5, atol=1e-5)


def test_model_is_built_on_meta_without_memory():
    with torch.device("meta"):
        model = LCM(make_config(d_model=1 << 14, gene=configs.TableEncoder(n_tokens=1 << 20)))
    assert {parameter.device.type for parameter in model.parameters()} == {"meta"}


def test_new_model_starts_with_small_normal_weights_and_no_bias():
    model = LCM(make_config(d_model=128, heads={}))
    assert model.embed.gene.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.backbone.blocks[1].ff.up.weight.std().item() == pytest.approx(0.02, rel=0.1)
    assert model.backbone.blocks[0].attn.qkv.bias.abs().max() == 0
    assert model.embed.norm.weight.min() == 1


def test_depth_is_the_number_of_blocks():
    assert make_model().n_blocks == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"d_model": 0},
        {"d_model": Config("hidden_size")},
        {"gene": configs.TableEncoder(n_tokens=-3)},
        {"position": configs.LearnedPositions(n_positions=Config("max"))},
        {"segment": configs.ConstantSegment(n_segments=0)},
        {"value": configs.ScalarMLP(d_hidden=0)},
        {"heads": {"a": readouts.PooledClassHead(n_classes=0)}},
        {"heads": {"a": readouts.TokenClassHead(n_classes=0)}},
        {"heads": {"a": readouts.LinearHead(d_in=8, d_out=0)}},
    ],
)
def test_size_that_is_no_positive_number_is_refused(changes):
    with pytest.raises(ValueError, match="positive integer"):
        LCM(make_config(**changes))


def test_unknown_activations_are_refused_wherever_they_stand():
    with pytest.raises(ValueError, match="'mish' is unknown"):
        ScalarMLP(configs.ScalarMLP(d_hidden=3, activation="mish"), 8)
    head = readouts.TiedTokenHead(activation="mish", layer_norm=configs.LayerNorm())
    with pytest.raises(ValueError, match="'mish' is unknown"):
        LCM(make_config(heads={"token": head}))


def test_embedder_needs_no_backbone():
    tokens = make_tokens()
    assert Embedder(make_config())(tokens).shape == (2, 5, 8)


@torch.inference_mode()
def test_vector_of_a_gene_may_be_scaled_by_its_value_while_special_tokens_keep_theirs():
    embed = make_model(value=configs.ScaledGene(), position=None, segment=None, embedding_norm=None).embed
    tokens = make_tokens()
    genes = tokens.gene_mask_bl.clone()
    genes[:, 0] = False
    table = embed.gene.weight[tokens.token_ids_bl]
    wanted = torch.where(genes[..., None], table * tokens.value_bl[..., None], table)
    torch.testing.assert_close(embed(dataclasses.replace(tokens, gene_mask_bl=genes)), wanted, rtol=1e-5, atol=1e-6)


# ---- values to be generated, conditions ----


def make_generator(device="cpu", *, condition=False, **given):
    """A model with every part that generation, cells and batches need."""
    d_in = 16 if condition else 8
    heads = {
        "value": readouts.ValueHead(d_in=d_in, d_hidden=8),
        "cell_gene": readouts.CellGeneHead(d_cell=d_in),
        "expressed": readouts.CellGeneHead(d_cell=d_in, bias=True, query_of="cell_gene"),
        "cell_class": readouts.CellClassHead(n_hidden=1, n_classes=3),
    }
    parts = {
        "gene": configs.TableEncoder(n_tokens=20, norm=configs.LayerNorm()),
        "value": configs.ScalarMLP(d_hidden=6, largest=3.0, norm=configs.LayerNorm()),
        "position": None,
        "segment": None,
        "role": configs.RoleTable(n_roles=2),
        "embedding_norm": configs.DomainNorm(n_domains=3) if condition else configs.BatchNorm(),
        "condition": configs.ConditionTable(n_conditions=3, norm=configs.LayerNorm()) if condition else None,
    }
    return make_model(device, **parts, heads=heads, **given)


def conditioned(tokens):
    return dataclasses.replace(tokens, condition_b=torch.tensor([2, 0], device=tokens.token_ids_bl.device))


TARGETS = torch.tensor([[11, 12, 13], [14, 15, 0]])


@torch.inference_mode()
def test_visible_tokens_do_not_see_targets_and_targets_not_each_other(device):
    model, tokens, targets = make_generator(device), make_tokens(device), TARGETS.to(device)
    seen, found = model.with_targets(tokens, targets)
    assert (seen.shape, found.shape) == ((2, 5, 8), (2, 3, 8))
    torch.testing.assert_close(real(seen, tokens), real(model(tokens), tokens), rtol=1e-5, atol=1e-5)
    changed = targets.clone()
    changed[:, 0] = 1
    seen_again, found_again = model.with_targets(tokens, changed)
    torch.testing.assert_close(seen_again, seen)
    torch.testing.assert_close(found_again[:, 1:], found[:, 1:])
    assert not torch.allclose(found_again[:, 0], found[:, 0])


@torch.inference_mode()
def test_padding_of_visible_tokens_does_not_reach_targets(device):
    model, tokens, targets = make_generator(device), make_tokens(device), TARGETS.to(device)
    _, found = model.with_targets(tokens, targets)
    alone = dataclasses.replace(
        tokens,
        token_ids_bl=tokens.token_ids_bl[1:, :3],
        mask_bl=None,
        gene_mask_bl=tokens.gene_mask_bl[1:, :3],
        value_bl=tokens.value_bl[1:, :3],
    )
    torch.testing.assert_close(model.with_targets(alone, targets[1:])[1][0], found[1], rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_cell_vector_takes_the_place_of_the_first_token(device):
    model, tokens, targets = make_generator(device), make_tokens(device), TARGETS.to(device)
    first = model.embed(tokens)[:, 0]
    same = model.with_targets(tokens, targets, first)
    for found, wanted in zip(same, model.with_targets(tokens, targets), strict=True):
        torch.testing.assert_close(found, wanted)
    other = model.with_targets(tokens, targets, first + torch.randn_like(first))[1]
    assert not torch.allclose(other, same[1], atol=1e-3)


@torch.inference_mode()
def test_from_the_cell_values_are_not_read(device):
    model, tokens = make_generator(device), make_tokens(device)
    cells = torch.randn(2, 8, device=device)
    found = model.from_cell(tokens, cells)
    torch.testing.assert_close(model.from_cell(dataclasses.replace(tokens, value_bl=None), cells), found)
    x = model.embed.without_values(tokens.token_ids_bl, None)
    x[:, 0] = cells
    torch.testing.assert_close(found, model.backbone(x, tokens.mask_bl))


@torch.inference_mode()
def test_heads_are_read_with_genes_cells_and_conditions(device):
    model, tokens = make_generator(device, condition=True), conditioned(make_tokens(device))
    x = model(tokens)
    genes, condition = model.embed.genes(tokens.token_ids_bl), model.embed.condition(tokens.condition_b)
    beside = torch.cat([x, condition[:, None].expand_as(x)], dim=-1)
    torch.testing.assert_close(model.read("value", x, tokens, x[:, 0]), model.heads["value"](beside))
    cells = torch.cat([x[:, 0], condition], dim=-1)
    torch.testing.assert_close(model.read("expressed", x, tokens, x[:, 0]), model.heads["expressed"](genes, cells))
    assert model.read("cell_class", x, tokens, x[:, 0]).shape == (2, 3)
    with pytest.raises(ValueError, match="needs to know the batch of each cell"):
        model.read("value", x, dataclasses.replace(tokens, condition_b=None), x[:, 0])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_float32_cell_vectors_go_into_models_of_half_precision(dtype):
    """Poolings give float32."""
    model, tokens = make_generator().to(dtype), make_tokens()
    x = model(tokens)
    cells = x[:, 0].float()
    assert model.from_cell(tokens, cells).dtype == dtype
    assert model.with_targets(tokens, TARGETS, cells)[1].dtype == dtype
    for head in model.heads:
        assert model.read(head, x, tokens, cells).dtype == dtype


@torch.inference_mode()
def test_autocast_of_targets_and_heads_is_within_half_precision(device):
    model, tokens, targets = (
        make_generator(device, condition=True),
        conditioned(make_tokens(device)),
        TARGETS.to(device),
    )

    def outputs():
        seen, found = model.with_targets(tokens, targets)
        return [found, *(model.read(head, seen, tokens, seen[:, 0])[0] for head in model.heads)]

    wanted = outputs()
    with torch.autocast(device.type, dtype=torch.bfloat16):
        found = outputs()
    for a, b in zip(found, wanted, strict=True):
        assert torch.cosine_similarity(a.float().flatten(), b.flatten(), dim=0) > 0.99


@pytest.mark.filterwarnings("ignore")  # the compiler's own
@torch.inference_mode()
def test_compiled_targets_and_norms_by_batch_give_the_same_numbers():
    model, tokens = make_generator(condition=True), conditioned(make_tokens())

    def outputs(ids):
        seen, found = model.with_targets(tokens, ids)
        return found, model.read("expressed", seen, tokens, seen[:, 0])[0]

    compiled = torch.compile(outputs, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(TARGETS), outputs(TARGETS), rtol=1e-5, atol=1e-5)


def test_gradients_reach_targets_roles_and_conditions(device):
    model, tokens = make_generator(device, condition=True), conditioned(make_tokens(device))
    model.requires_grad_()
    seen, found = model.with_targets(tokens, TARGETS.to(device))
    heads = sum(model.read(head, seen, tokens, seen[:, 0])[0].square().sum() for head in model.heads)
    (heads + found.square().sum()).backward()
    assert [name for name, parameter in model.named_parameters() if parameter.grad is None] == []
    assert model.embed.role.weight.grad[0].abs().sum() == 0
    assert model.embed.role.weight.grad[1].abs().sum() > 0
