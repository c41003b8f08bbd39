"""Cells as sums of their genes."""

from __future__ import annotations

import pytest
import torch

from sclcm.nn.cell_embedder import CellEmbedder
from sclcm.nn.configs import BackboneConfig, FeedForward, LCMConfig, ScaledGene, TableEncoder
from sclcm.nn.lcm import LCM
from sclcm.nn.set_configs import BagOfGenes, CellProjection, FlowAttention, GroupNorm
from sclcm.nn.tokens import CellTensors, TokenTensors

PROJECTION = CellProjection(activation="relu", norm=GroupNorm(n_groups=2))


def make_config(gene, **more):
    return LCMConfig(
        d_model=8,
        gene=gene,
        backbone=BackboneConfig(
            n_blocks=1, attention=FlowAttention(n_heads=2), feed_forward=FeedForward(d_hidden=8), norm="pre"
        ),
        **more,
    )


def make_cells(dense):
    """Cells of a dense matrix, of which zeros are not stored."""
    ids = [row.nonzero().flatten() for row in dense]
    lengths = torch.tensor([0, *map(len, ids[:-1])], device=dense.device)
    return CellTensors(
        token_ids_v=torch.cat(ids).to(torch.int32),
        value_v=dense[dense != 0],
        start_n=lengths.cumsum(0).to(torch.int32),
    )


DENSE = torch.tensor([[1.0, 0, 0.5, 0], [0, 0, 0, 0], [0, 2, 3, 4], [0, 0, 0, 0]])


@pytest.mark.parametrize("bias", [False, True])
@torch.inference_mode()
def test_sum_is_a_product_with_the_table(device, bias):
    embedder = CellEmbedder(make_config(BagOfGenes(n_tokens=4, bias=bias))).to(device)
    if bias:
        embedder.bias.add_(torch.randn(8, device=device))
    cells = make_cells(DENSE.to(device))
    wanted = DENSE.double() @ embedder.gene.weight.cpu().double() + (embedder.bias.cpu().double() if bias else 0)
    torch.testing.assert_close(embedder(cells).cpu().double(), wanted, rtol=1e-5, atol=1e-6)
    assert embedder.projection is None


@torch.inference_mode()
def test_projection_normalises_groups_of_each_cell(device):
    embedder = CellEmbedder(make_config(BagOfGenes(n_tokens=4, projection=PROJECTION))).to(device)
    cells = make_cells(DENSE.to(device))
    hidden = embedder.projection.linear(embedder.sums(cells)).relu().cpu().double().unflatten(-1, (2, 4))
    centred = hidden - hidden.mean(-1, keepdim=True)
    wanted = centred / (hidden.var(-1, keepdim=True, correction=0) + 1e-5).sqrt()
    torch.testing.assert_close(embedder(cells).cpu().double(), wanted.flatten(1), rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_cell_does_not_depend_on_its_neighbours():
    embedder = CellEmbedder(make_config(BagOfGenes(n_tokens=4, projection=PROJECTION)))
    together = embedder(make_cells(DENSE))
    for row in range(len(DENSE)):
        torch.testing.assert_close(embedder(make_cells(DENSE[[row]]))[0], together[row], rtol=1e-6, atol=1e-6)


@torch.inference_mode()
def test_half_precision_keeps_its_type():
    embedder = CellEmbedder(make_config(BagOfGenes(n_tokens=4))).to(torch.bfloat16)
    assert embedder(make_cells(DENSE)).dtype == torch.bfloat16


def test_parts_of_gene_tokens_are_refused():
    with pytest.raises(ValueError, match="`value` describes tokens that are genes"):
        LCM(make_config(BagOfGenes(n_tokens=4), value=ScaledGene()))
    with pytest.raises(TypeError, match="not made by a TableEncoder"):
        CellEmbedder(make_config(TableEncoder(n_tokens=4)))


def test_model_reads_either_sentences_of_genes_or_cells():
    of_cells, of_genes = LCM(make_config(BagOfGenes(n_tokens=4))), LCM(make_config(TableEncoder(n_tokens=4)))
    ids = torch.zeros(1, 2, dtype=torch.int64)
    with pytest.raises(TypeError, match="tokens of this model are cells"):
        of_cells(TokenTensors(token_ids_bl=ids, mask_bl=None, gene_mask_bl=ids == 0))
    with pytest.raises(TypeError, match="tokens of this model are genes"):
        of_genes.cells(make_cells(DENSE))
    assert of_cells.cells(make_cells(DENSE)).shape == (4, 8)
