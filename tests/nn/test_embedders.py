"""Encoders at the entrance: values by a network or a table, norms by corpus and by batch."""

from __future__ import annotations

import dataclasses

import pytest
import torch
from torch.nn import functional

from sclcm.nn import configs, table_configs
from sclcm.nn.embedders import AddedRow, BatchNorm, DomainNorm, Embedder, ScalarMLP
from sclcm.nn.tokens import TokenTensors

WIDTH = 6
NORM = configs.LayerNorm(eps=1e-3)


def randomized(module, device="cpu"):
    for tensor in module.parameters():
        torch.nn.init.normal_(tensor)
    for name, tensor in module.named_buffers():
        if "var" in name:
            tensor.uniform_(0.5, 2)
        elif "mean" in name:
            tensor.normal_()
    return module.requires_grad_(False).eval().to(device)


def embedder(device="cpu", **given):
    """The parts that are asked for; the backbone plays no part."""
    backbone = configs.BackboneConfig(
        n_blocks=1,
        attention=configs.SoftmaxAttention(n_heads=1),
        feed_forward=configs.FeedForward(d_hidden=4),
        norm="post",
    )
    plain = configs.LCMConfig(d_model=WIDTH, gene=configs.TableEncoder(n_tokens=9), backbone=backbone)
    return randomized(Embedder(dataclasses.replace(plain, **given)), device)


def make_tokens(device="cpu", **given):
    ids = torch.tensor([[0, 3, 5], [0, 4, 1]], device=device)
    every = torch.ones_like(ids, dtype=torch.bool)
    return TokenTensors(token_ids_bl=ids, mask_bl=None, gene_mask_bl=every, **given)


def domain_norm(n_domains=3, device="cpu"):
    return randomized(DomainNorm(configs.DomainNorm(n_domains=n_domains, eps=1e-2), WIDTH), device)


# ---- values ----


@torch.inference_mode()
def test_network_of_a_value_cuts_large_ones_and_norms_its_vectors(device):
    module = randomized(ScalarMLP(configs.ScalarMLP(d_hidden=5, largest=4.0, norm=NORM), WIDTH), device)
    values = torch.tensor([[-2.0, 0.0, 4.0, 4.5, 900.0]], device=device)
    hidden = torch.relu(values.clamp(max=4)[..., None] * module.up.weight[:, 0] + module.up.bias)
    wanted = hidden @ module.down.weight.t() + module.down.bias
    wanted = functional.layer_norm(wanted, (WIDTH,), module.norm.weight, module.norm.bias, 1e-3)
    torch.testing.assert_close(module(values), wanted, rtol=1e-4, atol=1e-5)
    assert torch.equal(module(values)[0, 2], module(values)[0, 4])
    plain = randomized(ScalarMLP(configs.ScalarMLP(d_hidden=5), WIDTH), device)
    assert plain.norm is None
    assert not torch.equal(plain(values)[0, 2], plain(values)[0, 4])


@pytest.mark.parametrize("norm", [None, NORM])
@torch.inference_mode()
def test_table_of_values_adds_the_row_of_a_value(device, norm):
    module = randomized(AddedRow(configs.ValueTable(n_values=7, norm=norm), WIDTH), device)
    gene = torch.randn(2, 3, WIDTH, device=device)
    values = torch.tensor([[0.0, 6.0, 2.0], [1.0, 1.0, 5.0]], device=device)
    rows = module.rows.table.weight[values.long()]
    if norm is not None:
        rows = functional.layer_norm(rows, (WIDTH,), module.rows.norm.weight, module.rows.norm.bias, 1e-3)
    torch.testing.assert_close(module(gene, values, torch.ones(2, 3, dtype=torch.bool)), gene + rows)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_rows_are_found_in_half_precision_too(dtype):
    """Beyond 256, bfloat16 has no odd numbers; float16 has none beyond 2048."""
    embed = embedder(value=configs.ValueTable(n_values=2060)).to(dtype)
    tokens = make_tokens(value_bl=torch.tensor([[0.0, 257.0, 2051.0], [255.0, 511.0, 2049.0]]))
    wanted = embed.gene.weight[tokens.token_ids_bl] + embed.value.rows.table.weight[tokens.value_bl.long()]
    assert torch.equal(embed(tokens), wanted)


# ---- genes, roles ----


@torch.inference_mode()
def test_gene_vectors_are_normed_before_the_value_comes_in(device):
    embed = embedder(device, gene=configs.TableEncoder(n_tokens=9, norm=NORM), value=configs.ValueTable(n_values=3))
    tokens = make_tokens(device, value_bl=torch.ones(2, 3, device=device))
    rows = embed.gene.weight[tokens.token_ids_bl]
    genes = functional.layer_norm(rows, (WIDTH,), embed.gene_norm.weight, embed.gene_norm.bias, 1e-3)
    torch.testing.assert_close(embed.genes(tokens.token_ids_bl), genes)
    torch.testing.assert_close(embed(tokens), genes + embed.value.rows.table.weight[1])
    torch.testing.assert_close(embed.without_values(tokens.token_ids_bl, None), genes)


@torch.inference_mode()
def test_targets_are_marked_by_the_second_row_of_roles(device):
    embed = embedder(device, role=configs.RoleTable(n_roles=2), embedding_norm=configs.BatchNorm(eps=0.1))
    ids = torch.tensor([[1, 8], [2, 2]], device=device)
    marked = embed.gene.weight[ids] + embed.role.weight[1]
    torch.testing.assert_close(embed.targets(ids, None), embed.norm(marked, None))
    embed.role.weight[0] += 1
    torch.testing.assert_close(embed.targets(ids, None), embed.norm(marked, None))


def test_targets_need_a_role():
    with pytest.raises(ValueError, match="was not trained to generate values"):
        embedder().targets(torch.zeros(1, 1, dtype=torch.long), None)


# ---- norms of the sum ----


@torch.inference_mode()
def test_batch_norm_shifts_and_scales_each_channel_by_what_the_corpus_had(device):
    module = randomized(BatchNorm(configs.BatchNorm(eps=1e-2), WIDTH), device)
    x, norm = torch.randn(4, 3, WIDTH, device=device), module.norm
    wanted = (x - norm.running_mean) / (norm.running_var + 1e-2).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(module(x, None), wanted)
    torch.testing.assert_close(module(x[1:2], None), wanted[1:2])


@torch.inference_mode()
def test_each_cell_is_normed_by_its_own_batch(device):
    module, x = domain_norm(device=device), torch.randn(5, 3, WIDTH, device=device)
    batches = [2, 0, 2, 1, 0]
    wanted = torch.stack(
        [
            (cell - module.norms[batch].running_mean) / (module.norms[batch].running_var + 1e-2).sqrt()
            for cell, batch in zip(x, batches, strict=True)
        ]
    )
    found = module(x, torch.tensor(batches, device=device))
    torch.testing.assert_close(found, wanted)
    order = torch.tensor([4, 2, 0, 1, 3], device=device)
    torch.testing.assert_close(module(x[order], torch.tensor(batches, device=device)[order]), wanted[order])
    assert found.is_contiguous()


def test_batches_are_normed_apart_in_training_and_their_statistics_follow():
    module, x = domain_norm().train(), torch.randn(6, 4, WIDTH) * 3 + 1
    batches = torch.tensor([0, 2, 0, 2, 2, 0])
    before = [norm.running_mean.clone() for norm in module.norms]
    found = module(x, batches)
    for batch in (0, 2):
        mine = x[batches == batch]
        wanted = (mine - mine.mean((0, 1))) / (mine.var((0, 1), unbiased=False) + 1e-2).sqrt()
        torch.testing.assert_close(found[batches == batch], wanted, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(module.norms[batch].running_mean, before[batch] * 0.9 + mine.mean((0, 1)) * 0.1)
    assert torch.equal(module.norms[1].running_mean, before[1])


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@torch.inference_mode()
def test_norms_by_batch_keep_half_precision(dtype):
    module, x = domain_norm(), torch.randn(3, 4, WIDTH)
    wanted = module(x, torch.tensor([0, 1, 2]))
    found = module.to(dtype)(x.to(dtype), torch.tensor([0, 1, 2]))
    assert found.dtype == dtype
    torch.testing.assert_close(found.float(), wanted, rtol=0.05, atol=0.05)


@pytest.mark.parametrize("training", [False, True])
def test_norm_by_batch_asks_for_the_batch(training):
    with pytest.raises(ValueError, match=r"needs to know the batch of each cell; name the column of `\.obs`"):
        domain_norm().train(training)(torch.randn(2, 3, WIDTH), None)


def test_batch_that_the_model_does_not_have_is_no_silent_number():
    with pytest.raises(IndexError):
        domain_norm()(torch.randn(2, 3, WIDTH), torch.tensor([0, 3]))


@torch.inference_mode()
def test_embedder_norms_the_sum_by_batch():
    embed = embedder(embedding_norm=configs.DomainNorm(n_domains=2), value=configs.ValueTable(n_values=3))
    values, condition = torch.ones(2, 3), torch.tensor([1, 0])
    tokens = make_tokens(value_bl=values, condition_b=condition)
    rows = embed.gene.weight[tokens.token_ids_bl] + embed.value.rows.table.weight[1]
    torch.testing.assert_close(embed(tokens), embed.norm(rows, condition))
    torch.testing.assert_close(
        embed.without_values(tokens.token_ids_bl, condition),
        embed.norm(embed.gene.weight[tokens.token_ids_bl], condition),
    )


# ---- a segment that lies in the gene table ----


@torch.inference_mode()
def test_shared_segment_is_a_row_of_the_gene_table_at_every_token(device):
    module = embedder(
        device, segment=table_configs.SharedSegment(row=2), position=configs.LearnedPositions(n_positions=5)
    )
    tokens = make_tokens(device)
    table, places = module.gene.weight.double(), module.position.weight.double()
    wanted = table[tokens.token_ids_bl] + places[:3] + table[2]
    torch.testing.assert_close(module(tokens).double(), wanted, rtol=1e-6, atol=1e-6)
    assert sorted(module.state_dict()) == ["gene.weight", "position.weight"]  # it has no weights of its own


@torch.inference_mode()
def test_shared_segment_is_sane_in_half_precision_and_compiled(device):
    module = embedder(device, segment=table_configs.SharedSegment(row=2))
    wanted = module(make_tokens(device))
    with torch.autocast(device.type, dtype=torch.bfloat16):
        torch.testing.assert_close(module(make_tokens(device)).float(), wanted, rtol=0.05, atol=0.05)
    torch.testing.assert_close(torch.compile(module, backend="eager")(make_tokens(device)), wanted)


@pytest.mark.parametrize("row", [9, -1])
def test_shared_segment_must_be_in_the_table(row):
    with pytest.raises(ValueError, match=f"row {row} is to be added to all tokens; the table has 9"):
        embedder(segment=table_configs.SharedSegment(row=row))


# ---- rows for pairs of a gene and a bin ----


def bin_embedder(device="cpu", n_bins=3):
    return embedder(device, gene=table_configs.GeneBinTable(n_tokens=3 * n_bins + 1, n_bins=n_bins))


def make_binned(device="cpu"):
    """Three genes, the last of the second cell hidden by the special token 9; bins beyond the last count as it."""
    ids = torch.tensor([[0, 3, 6], [0, 3, 9]], device=device)
    value_bl = torch.tensor([[0.0, 2, 7], [1, 0, 5]], device=device)
    return TokenTensors(token_ids_bl=ids, mask_bl=None, gene_mask_bl=ids < 9, value_bl=value_bl)


@torch.inference_mode()
def test_token_is_the_row_of_its_gene_and_bin(device):
    module = bin_embedder(device)
    rows = torch.tensor([[0, 5, 8], [1, 3, 9]], device=device)
    assert module(make_binned(device)).equal(module.gene.weight[rows])
    assert torch.compile(module, backend="eager")(make_binned(device)).equal(module.gene.weight[rows])


@torch.inference_mode()
def test_gene_without_a_bin_is_the_mean_of_its_rows(device):
    module = bin_embedder(device)
    table = module.gene.weight.double()
    wanted = torch.stack([table[0:3].mean(0), table[6:9].mean(0), table[9]])
    found = module.genes(torch.tensor([0, 6, 9], device=device))
    torch.testing.assert_close(found.double(), wanted, rtol=1e-5, atol=1e-6)


def test_bins_need_values():
    module, tokens = bin_embedder(), make_binned()
    with pytest.raises(ValueError, match="needs tokens with values"):
        module(dataclasses.replace(tokens, value_bl=None))
