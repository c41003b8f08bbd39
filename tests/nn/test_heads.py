"""Heads on values, genes and cells, against the formula."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from sclcm.nn import configs, readouts
from sclcm.nn.heads import HeadInput, build_heads, read

WIDTH, N_CELLS, LENGTH = 6, 3, 4
NORM = configs.LayerNorm(eps=1e-3)
HEADS = {
    "value": readouts.ValueHead(d_in=WIDTH, d_hidden=5),
    "cell_gene": readouts.CellGeneHead(d_cell=WIDTH),
    "expressed": readouts.CellGeneHead(d_cell=WIDTH, bias=True, query_of="cell_gene"),
    "cell_class": readouts.CellClassHead(n_hidden=2, n_classes=4, layer_norm=NORM),
}


def make(heads=HEADS, device="cpu"):
    built = build_heads(heads, WIDTH, nn.Embedding(9, WIDTH))
    for parameter in built.parameters():
        nn.init.normal_(parameter)
    return built.eval().to(device)


def make_input(device="cpu", *, condition=False):
    shapes = {"x_bld": (N_CELLS, LENGTH, WIDTH), "cell_bd": (N_CELLS, WIDTH), "gene_bld": (N_CELLS, LENGTH, WIDTH)}
    given = {name: torch.randn(shape, device=device) for name, shape in shapes.items()}
    return HeadInput(**given, condition_bd=torch.randn(N_CELLS, WIDTH, device=device) if condition else None)


def affine(layer, x):
    return x @ layer.weight.t() + (0 if layer.bias is None else layer.bias)


@torch.inference_mode()
def test_value_head_is_linear_layers_with_leaks_between(device):
    head, given = make(device=device)["value"], make_input(device)
    hidden = functional.leaky_relu(affine(head.layers[0], given.x_bld), 0.01)
    hidden = functional.leaky_relu(affine(head.layers[2], hidden), 0.01)
    torch.testing.assert_close(read(head, given), affine(head.layers[4], hidden)[..., 0], rtol=1e-4, atol=1e-5)
    assert read(head, given).shape == (N_CELLS, LENGTH)


@pytest.mark.parametrize("n_layers", [1, 2, 4])
def test_value_head_has_as_many_layers_as_it_says(n_layers):
    head = make({"value": readouts.ValueHead(d_in=WIDTH, d_hidden=5, n_layers=n_layers)})["value"]
    assert [name for name in head.state_dict() if "weight" in name] == [
        f"layers.{2 * i}.weight" for i in range(n_layers)
    ]
    assert read(head, make_input()).shape == (N_CELLS, LENGTH)


@torch.inference_mode()
def test_number_of_a_gene_is_cell_times_matrix_times_query(device):
    heads, given = make(device=device), make_input(device)
    head, further = heads["cell_gene"], heads["expressed"]
    query = torch.sigmoid(affine(head.query, given.gene_bld))
    wanted = torch.einsum("cd,cld->cl", given.cell_bd, affine(head.matrix, query))
    torch.testing.assert_close(read(head, given), wanted, rtol=1e-4, atol=1e-5)
    wanted = torch.einsum("cd,cld->cl", given.cell_bd, affine(further.matrix, query))
    torch.testing.assert_close(read(further, given), wanted, rtol=1e-4, atol=1e-5)
    assert head.matrix.bias is None
    assert further.matrix.bias is not None


@pytest.mark.parametrize("activation", ["relu", "leaky_relu"])
@torch.inference_mode()
def test_class_head_is_blocks_of_layer_activation_and_norm(device, activation):
    config = readouts.CellClassHead(n_hidden=2, n_classes=4, activation=activation, layer_norm=NORM)
    head, given = make({"cell_class": config}, device)["cell_class"], make_input(device)
    x = given.cell_bd
    for block in range(2):
        layer, norm = head.layers[3 * block], head.layers[3 * block + 2]
        x = getattr(functional, activation)(affine(layer, x))
        x = functional.layer_norm(x, (WIDTH,), norm.weight, norm.bias, 1e-3)
    torch.testing.assert_close(read(head, given), affine(head.out, x), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_condition_stands_beside_tokens_and_cells_but_not_before_classes(device):
    heads = {
        **HEADS,
        "value": readouts.ValueHead(d_in=2 * WIDTH, d_hidden=5),
        "cell_gene": readouts.CellGeneHead(d_cell=2 * WIDTH),
        "expressed": readouts.CellGeneHead(d_cell=2 * WIDTH, bias=True, query_of="cell_gene"),
    }
    heads, given = make(heads, device), make_input(device, condition=True)
    beside = torch.cat([given.x_bld, given.condition_bd[:, None].repeat(1, LENGTH, 1)], dim=-1)
    torch.testing.assert_close(read(heads["value"], given), heads["value"](beside))
    cells = torch.cat([given.cell_bd, given.condition_bd], dim=-1)
    for name in ("cell_gene", "expressed"):
        torch.testing.assert_close(read(heads[name], given), heads[name](given.gene_bld, cells))
    torch.testing.assert_close(read(heads["cell_class"], given), heads["cell_class"](given.cell_bd))


def test_shared_query_is_stored_once():
    names = list(make().state_dict())
    assert [name for name in names if "query" in name] == ["cell_gene.query.weight", "cell_gene.query.bias"]
    assert [name for name in names if name.startswith("expressed")] == [
        "expressed.matrix.weight",
        "expressed.matrix.bias",
    ]


@pytest.mark.parametrize("change", [lambda heads: heads, copy.deepcopy, lambda heads: copy.deepcopy(heads).double()])
def test_shared_query_stays_shared_by_copies(change):
    original, given = make(), make_input()
    heads = change(original)
    dtype = heads["cell_gene"].query.weight.dtype
    gene, cell = given.gene_bld.to(dtype), given.cell_bd.to(dtype)
    before = heads["expressed"](gene, cell)
    with torch.no_grad():
        heads["cell_gene"].query.weight.mul_(3)
    after = heads["expressed"](gene, cell)
    assert not torch.allclose(after, before)
    if heads is not original:
        kept = original["expressed"](given.gene_bld, given.cell_bd)
        torch.testing.assert_close(kept, before.to(kept.dtype), rtol=1e-4, atol=1e-5)


def test_shared_query_learns_from_both_heads():
    heads, given = make(), make_input()
    read(heads["expressed"], given).sum().backward()
    assert heads["cell_gene"].query.weight.grad.abs().sum() > 0
    assert heads["cell_gene"].matrix.weight.grad is None


@torch.inference_mode()
def test_table_head_scores_by_products_with_the_table(device):
    table = nn.Embedding(9, WIDTH).to(device)
    head = build_heads({"token": readouts.TableHead()}, WIDTH, table)["token"]
    x_bld = make_input(device).x_bld
    wanted = x_bld.double() @ table.weight.double().t()
    torch.testing.assert_close(head(x_bld).double(), wanted, rtol=1e-4, atol=1e-5)
    assert not list(head.parameters())  # the table is the embedder's
    with torch.autocast(device.type, dtype=torch.bfloat16):
        torch.testing.assert_close(head(x_bld).double(), wanted, rtol=0.1, atol=0.1)
    torch.testing.assert_close(torch.compile(head, backend="eager")(x_bld), head(x_bld))
    table.bfloat16()
    half = table.weight.float() @ x_bld[0, 0]
    torch.testing.assert_close(head(x_bld[0, 0]), half, rtol=1e-4, atol=1e-5)  # scores in float32


@torch.inference_mode()
def test_token_head_norms_what_the_nonlinearity_gives(device):
    config = readouts.TokenHead(activation="gelu", layer_norm=NORM, n_tokens=9)
    head = make({"token": config}, device)["token"]
    x_bld = make_input(device).x_bld
    hidden = functional.gelu(x_bld.double())
    centred = hidden - hidden.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + 1e-3).sqrt()
    wanted = affine(copy.deepcopy(head.out).double(), normed * head.norm.weight.double() + head.norm.bias.double())
    torch.testing.assert_close(head(x_bld).double(), wanted, rtol=1e-4, atol=1e-5)
    with torch.autocast(device.type, dtype=torch.bfloat16):
        torch.testing.assert_close(head(x_bld).double(), wanted, rtol=0.1, atol=0.3)
