"""Fixed vectors and what leads them to the width of a model, and heads of several layers, against the formula."""

from __future__ import annotations

import copy
import dataclasses

import pytest
import torch

from sclcm.nn import configs, fixed_configs, readouts
from sclcm.nn.embedders import Embedder
from sclcm.nn.fixed_vectors import FixedTable
from sclcm.nn.heads import HeadInput, build_heads, read
from sclcm.nn.lcm import LCM
from sclcm.nn.tokens import TokenTensors

WIDTH, VECTOR, N_TOKENS, LENGTH = 6, 5, 9, 4
NORM = configs.LayerNorm(eps=1e-3)
PAIR = readouts.LayeredHead(d_in=WIDTH + 7, d_hidden=(8, 3), d_out=1, layer_norm=NORM)
HEADS = {
    "cell": readouts.LayeredHead(d_in=WIDTH, d_hidden=(7, 5), d_out=4, layer_norm=NORM),
    "pair": readouts.CellVectorHead(d_vector=VECTOR, d_gene=7, layers=PAIR, layer_norm=NORM),
}
CONFIG = configs.LCMConfig(
    d_model=WIDTH,
    gene=fixed_configs.ProjectedVectors(n_tokens=N_TOKENS, d_vector=VECTOR, norm=NORM),
    position=fixed_configs.FixedPositions(n_positions=LENGTH),
    backbone=configs.BackboneConfig(
        n_blocks=1,
        attention=configs.SoftmaxAttention(n_heads=2),
        feed_forward=configs.FeedForward(d_hidden=4),
        norm="post",
    ),
    heads=HEADS,
)
IDS = torch.tensor([[3, 8, 3, 1], [0, 2, 5, 7]])


def make(device="cpu"):
    model = LCM(CONFIG)
    for tensor in model.state_dict().values():
        tensor.normal_()
    return model.eval().to(device)


def make_tokens(device="cpu"):
    ids = IDS.to(device)
    return TokenTensors(token_ids_bl=ids, mask_bl=None, gene_mask_bl=torch.ones_like(ids, dtype=torch.bool))


def affine(layer, x):
    return x @ layer.weight.double().t() + layer.bias.double()


def norm(layer, x):
    shift = (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-3).sqrt()
    return shift * layer.weight.double() + layer.bias.double()


def gelu(x):
    return 0.5 * x * (1 + torch.erf(x / 2**0.5))


def projected(module, vectors):
    return norm(module.norm, gelu(affine(module.linear, vectors.double())))


def unit(vectors):
    return vectors.double() / vectors.double().norm(dim=-1, keepdim=True)


def layered(head, x):
    for i in range(0, len(head.layers), 3):
        x = gelu(norm(head.layers[i + 1], affine(head.layers[i], x)))
    return affine(head.out, x)


@torch.inference_mode()
def test_vector_of_a_token_is_its_fixed_one_at_unit_length_projected_and_scaled(device):
    embed, tokens = make(device).embed, make_tokens(device)
    wanted = projected(embed.gene_norm.project, unit(embed.gene.weight[tokens.token_ids_bl])) * WIDTH**0.5
    torch.testing.assert_close(embed.genes(tokens.token_ids_bl).double(), wanted, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(embed(tokens).double(), wanted + embed.position.weight, rtol=1e-5, atol=1e-5)


def test_length_of_a_fixed_vector_does_not_matter():
    embed = make().embed
    wanted = embed.genes(IDS)
    embed.gene.weight.mul_(torch.rand(N_TOKENS, 1) + 0.1)
    torch.testing.assert_close(embed.genes(IDS), wanted)


def test_fixed_vectors_are_stored_and_not_trained():
    embed = Embedder(CONFIG)
    assert isinstance(embed.gene, FixedTable)
    assert {"gene.weight", "position.weight"} <= embed.state_dict().keys()
    assert not {"gene.weight", "position.weight"} & dict(embed.named_parameters()).keys()
    embed.genes(IDS).sum().backward()
    assert embed.gene.weight.grad is None
    assert embed.gene_norm.project.linear.weight.grad is not None


@torch.inference_mode()
def test_layered_head_is_linear_layers_with_norms_and_non_linearities_between(device):
    head, x = make(device).heads["cell"], torch.randn(2, LENGTH, WIDTH, device=device)
    torch.testing.assert_close(head(x).double(), layered(head, x.double()), rtol=1e-4, atol=1e-4)


@torch.inference_mode()
def test_cell_vector_head_reads_the_cell_and_the_stored_vector_side_by_side(device):
    model, tokens = make(device), make_tokens(device)
    head, cell = model.heads["pair"], torch.randn(2, WIDTH, device=device)
    gene = projected(head.gene, unit(model.embed.gene.weight[tokens.token_ids_bl]))
    both = torch.cat([cell.double()[:, None].expand(-1, LENGTH, -1), gene], dim=-1)
    found = model.read("pair", model(tokens), tokens, cell)
    assert found.shape == (2, LENGTH)
    torch.testing.assert_close(found.double(), layered(head.pair, both)[..., 0], rtol=1e-4, atol=1e-4)


def test_head_of_stored_vectors_says_what_it_lacks():
    given = HeadInput(x_bld=torch.zeros(1, 1, WIDTH), cell_bd=torch.zeros(1, WIDTH), gene_bld=torch.zeros(1, 1, WIDTH))
    head = build_heads(HEADS, WIDTH, FixedTable(N_TOKENS, VECTOR))["pair"]
    with pytest.raises(ValueError, match="vectors of genes as they are stored"):
        read(head, given)


@torch.inference_mode()
def test_half_precision_is_close():
    model, tokens = make(), make_tokens()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model.embed.genes(IDS).float(), model.heads["cell"](torch.ones(2, WIDTH)).float()
    wanted = model.embed.genes(IDS), model.heads["cell"](torch.ones(2, WIDTH))
    for near, exact in zip(found, wanted, strict=True):
        torch.testing.assert_close(near, exact, rtol=0.1, atol=0.2 * float(exact.abs().max()))
    half = copy.deepcopy(model).to(torch.bfloat16)
    assert half(tokens).isfinite().all()


@torch.inference_mode()
def test_compiled_model_is_the_same():
    model, tokens = make(), make_tokens()
    compiled = torch.compile(model.embed.genes, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(IDS), model.embed.genes(IDS), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        torch.compile(model.heads["cell"], backend="aot_eager", fullgraph=True)(model(tokens)),
        model.heads["cell"](model(tokens)),
    )


def test_activation_is_the_one_that_is_named():
    changed = dataclasses.replace(CONFIG, gene=dataclasses.replace(CONFIG.gene, activation="relu"))
    model = LCM(changed)
    model.load_state_dict(make().state_dict())
    module = model.embed.gene_norm.project
    wanted = norm(module.norm, affine(module.linear, unit(model.embed.gene.weight)).relu()) * WIDTH**0.5
    torch.testing.assert_close(model.embed.genes(torch.arange(N_TOKENS)).double(), wanted, rtol=1e-5, atol=1e-5)


MAPPED = dataclasses.replace(
    CONFIG, gene=fixed_configs.VectorMLP(n_tokens=N_TOKENS, n_specials=2, d_vector=VECTOR, d_between=7)
)


def make_mapped(device="cpu"):
    model = LCM(MAPPED)
    for tensor in model.state_dict().values():
        tensor.normal_()
    return model.eval().to(device)


@torch.inference_mode()
def test_vector_of_a_gene_goes_through_two_layers_and_a_special_token_has_its_own(device):
    embed = make_mapped(device).embed
    mlp, ids = embed.gene_norm, IDS.to(device)
    wanted = affine(mlp.down, gelu(affine(mlp.up, embed.gene.weight[ids].double())))
    wanted[ids < 2] = mlp.special.weight.double()[ids[ids < 2]]
    torch.testing.assert_close(embed.genes(ids).double(), wanted, rtol=1e-5, atol=1e-5)
    compiled = torch.compile(embed.genes, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(ids), embed.genes(ids), rtol=1e-5, atol=1e-5)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        torch.testing.assert_close(embed.genes(ids).double(), wanted, rtol=0.1, atol=0.1 * float(wanted.abs().max()))


def test_network_of_vectors_is_trained_and_the_vectors_are_not():
    embed = Embedder(MAPPED)
    embed.genes(IDS).sum().backward()
    assert embed.gene.weight.grad is None
    trained = {name for name, p in embed.gene_norm.named_parameters() if p.grad is not None}
    assert trained == {"up.weight", "up.bias", "down.weight", "down.bias", "special.weight"}


@torch.inference_mode()
def test_without_vectors_of_genes_a_token_is_its_value():
    config = dataclasses.replace(
        CONFIG, gene=fixed_configs.NoVectors(n_tokens=N_TOKENS), value=configs.ValueTable(n_values=5), heads={}
    )
    embedder = Embedder(config)
    assert "gene.weight" not in embedder.state_dict()
    value_bl = torch.tensor([[1.0, 4.0, 0.0, 2.0]])
    ids_bl, real_bl = torch.tensor([[3, 0, 8, 5]]), torch.ones(1, 4, dtype=torch.bool)
    tokens = TokenTensors(token_ids_bl=ids_bl, mask_bl=real_bl, gene_mask_bl=real_bl, value_bl=value_bl)
    for dtype in (torch.float32, torch.bfloat16):
        found = embedder.to(dtype)(tokens)
        assert found.dtype == dtype
        assert found.equal(embedder.value.rows.table.weight[value_bl.long()])
    compiled = torch.compile(embedder, backend="aot_eager", fullgraph=True)
    assert compiled(tokens).equal(embedder(tokens))
