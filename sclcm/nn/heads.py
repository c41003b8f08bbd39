"""Heads: token vectors become tokens, values, classes or projections."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from sclcm._sizes import as_int
from sclcm.nn import cell_configs, gated_configs, readouts, set_configs
from sclcm.nn.cell_heads import ActivatedHead, BareLayers, DroppedLayers, ExpressionDecoder
from sclcm.nn.count_decoder import CountDecoder
from sclcm.nn.layered_heads import CellVectorHead, LayeredHead
from sclcm.nn.layers import Activation, Linear, activation, layer_norm, linear
from sclcm.nn.mixture_latent import MixtureLatent, MixtureReadout
from sclcm.nn.sentence_heads import SentenceClassHead

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sclcm.nn.fixed_vectors import GeneTable


@dataclass(frozen=True, kw_only=True)
class HeadInput:
    """What a head may read of a batch.

    Parameters
    ----------
    x_bld
        Token vectors, shape `(cells, tokens, width)`.
    cell_bd
        Cell vectors, shape `(cells, width)`.
    gene_bld
        Vectors of the tokens' genes, as the gene encoder gives them, shape `(cells, tokens, width)`.
    condition_bd
        Vectors of the cells' conditions, shape `(cells, width)`, or `None`.
    table
        The table of the gene encoder, and the rows of the tokens in it, shape `(cells, tokens)`, for heads that read
        vectors as they are stored; or `None`.
    """

    x_bld: Tensor
    cell_bd: Tensor
    gene_bld: Tensor
    condition_bd: Tensor | None = None
    table: tuple[nn.Module, Tensor] | None = None

    def stored(self) -> Tensor:
        """Return the stored vectors of the tokens' genes, shape `(cells, tokens, d_vector)`."""
        if self.table is None:
            msg = "This head reads the vectors of genes as they are stored, and was given none."
            raise ValueError(msg)
        table, rows_bl = self.table
        return table(rows_bl)

    def tokens(self) -> Tensor:
        """Return token vectors, the condition's vector beside each."""
        if self.condition_bd is None:
            return self.x_bld
        return torch.cat([self.x_bld, self.condition_bd[:, None].expand_as(self.x_bld)], dim=-1)

    def cells(self) -> Tensor:
        """Return cell vectors, the condition's vector beside each."""
        return self.cell_bd if self.condition_bd is None else torch.cat([self.cell_bd, self.condition_bd], dim=-1)


class TiedTokenHead(nn.Module):
    """Scores for every token of the vocabulary, by the gene table itself."""

    def __init__(self, config: readouts.TiedTokenHead, d_model: int, table: GeneTable) -> None:
        super().__init__()
        self.dense = Linear(d_model, d_model)
        self.norm = layer_norm(config.layer_norm, d_model)
        self.bias = nn.Parameter(torch.zeros(table.num_embeddings))
        self.activation = activation(config.activation)
        self._table = (table,)  # in a tuple: the table is the embedder's parameter, not one of the head

    def forward(self, x_nd: Tensor) -> Tensor:
        """Score token vectors of shape `(..., width)`; the result has shape `(..., tokens of the vocabulary)`."""
        hidden = self.norm(self.activation(self.dense(x_nd)))
        return linear(hidden, self._table[0].weight, self.bias)


class TableHead(nn.Module):
    """Scores for every token of the vocabulary: products with the rows of the gene table."""

    def __init__(self, table: GeneTable) -> None:
        super().__init__()
        self._table = (table,)  # in a tuple: the table is the embedder's parameter, not one of the head

    def forward(self, x_nd: Tensor) -> Tensor:
        """Score token vectors of shape `(..., width)`; the result has shape `(..., tokens of the vocabulary)`."""
        return linear(x_nd, self._table[0].weight.to(x_nd.dtype), None)  # decoding scores in float32


class TokenHead(nn.Module):
    """Scores for every token of the vocabulary, by a layer of its own."""

    def __init__(self, config: readouts.TokenHead, d_model: int) -> None:
        super().__init__()
        self.activation = activation(config.activation)
        self.norm = layer_norm(config.layer_norm, d_model)
        self.out = Linear(d_model, as_int(config.n_tokens))

    def forward(self, x_nd: Tensor) -> Tensor:
        """Score token vectors of shape `(..., width)`; the result has shape `(..., tokens of the vocabulary)`."""
        return self.out(self.norm(self.activation(x_nd)))


class PooledClassHead(nn.Module):
    """Classes of a cell from its first token."""

    def __init__(self, config: readouts.PooledClassHead, d_model: int) -> None:
        super().__init__()
        self.dense = Linear(d_model, d_model)
        self.out = Linear(d_model, as_int(config.n_classes))

    def forward(self, x_bld: Tensor) -> Tensor:
        """Return logits of shape `(cells, classes)` from token vectors of shape `(cells, tokens, width)`."""
        return self.out(torch.tanh(self.dense(x_bld[:, 0].contiguous())))


class TokenClassHead(nn.Module):
    """Classes of each token."""

    def __init__(self, config: readouts.TokenClassHead, d_model: int) -> None:
        super().__init__()
        self.out = Linear(d_model, as_int(config.n_classes))

    def forward(self, x_bld: Tensor) -> Tensor:
        """Return logits of shape `(cells, tokens, classes)`."""
        return self.out(x_bld)


class LinearHead(nn.Module):
    """A linear projection."""

    def __init__(self, config: readouts.LinearHead) -> None:
        super().__init__()
        self.out = Linear(as_int(config.d_in), as_int(config.d_out), bias=config.bias)

    def forward(self, x_nd: Tensor) -> Tensor:
        """Project vectors of shape `(..., width)` to shape `(..., out)`."""
        return self.out(x_nd)


class ValueHead(nn.Module):
    """One number for each token."""

    def __init__(self, config: readouts.ValueHead) -> None:
        super().__init__()
        n_layers, hidden = as_int(config.n_layers), as_int(config.d_hidden)
        widths = [as_int(config.d_in), *[hidden] * (n_layers - 1)]
        bias = bool(config.bias)
        blocks = [
            (Linear(d_in, d_out, bias=bias), Activation(config.activation))
            for d_in, d_out in itertools.pairwise(widths)
        ]
        self.layers = nn.Sequential(*itertools.chain(*blocks), Linear(widths[-1], 1, bias=bias))

    def forward(self, x_nd: Tensor) -> Tensor:
        """Turn vectors of shape `(..., width)` into numbers of shape `(...)`."""
        return self.layers(x_nd).squeeze(-1)


class NormedValueHead(nn.Module):
    """One number for each token, from a normed layer."""

    def __init__(self, config: readouts.NormedValueHead, d_model: int) -> None:
        super().__init__()
        self.dense = Linear(d_model, d_model)
        self.norm = layer_norm(config.layer_norm, d_model)
        self.activation = activation(config.activation)
        self.out = Linear(d_model, 1)

    def forward(self, x_nd: Tensor) -> Tensor:
        """Turn vectors of shape `(..., width)` into numbers of shape `(...)`."""
        return self.out(self.norm(self.activation(self.dense(x_nd)))).squeeze(-1)


class GeneProductHead(nn.Module):
    """One number for each gene of a cell: the product of the cell's vector and a query made of the gene's."""

    def __init__(self, config: gated_configs.GeneProductHead, d_model: int) -> None:
        super().__init__()
        self.query = Linear(d_model, d_model, bias=bool(config.bias))
        self.activation = activation(config.activation)

    def forward(self, gene_bld: Tensor, cell_bd: Tensor) -> Tensor:
        """Return numbers of shape `(cells, tokens)`."""
        return (self.activation(self.query(gene_bld)) @ cell_bd.unsqueeze(-1)).squeeze(-1)


class CellGeneHead(nn.Module):
    """One number for each gene of a cell, from the cell's vector and the gene's."""

    def __init__(self, config: readouts.CellGeneHead, d_model: int) -> None:
        super().__init__()
        self.query = Linear(d_model, d_model)
        self.matrix = Linear(d_model, as_int(config.d_cell), bias=config.bias)

    def forward(self, gene_bld: Tensor, cell_bd: Tensor) -> Tensor:
        """Return numbers of shape `(cells, tokens)`."""
        query_bld = torch.sigmoid(self.query(gene_bld))
        return (self.matrix(query_bld) @ cell_bd.unsqueeze(-1)).squeeze(-1)


class SharedCellGeneHead(nn.Module):
    """A further number for each gene of a cell, from the query that another head has made."""

    def __init__(self, config: readouts.CellGeneHead, d_model: int, other: CellGeneHead) -> None:
        super().__init__()
        self.matrix = Linear(d_model, as_int(config.d_cell), bias=config.bias)
        self._other = (other,)  # in a tuple: the query is the other head's parameter

    def forward(self, gene_bld: Tensor, cell_bd: Tensor) -> Tensor:
        """Return numbers of shape `(cells, tokens)`."""
        query_bld = torch.sigmoid(self._other[0].query(gene_bld))
        return (self.matrix(query_bld) @ cell_bd.unsqueeze(-1)).squeeze(-1)


class TanhClassHead(nn.Module):
    """Classes of a cell from its vector, by a layer between."""

    def __init__(self, config: cell_configs.TanhClassHead, d_model: int) -> None:
        super().__init__()
        self.dense = Linear(d_model, d_model)
        self.out = Linear(d_model, as_int(config.n_classes), bias=False)

    def forward(self, cell_bd: Tensor) -> Tensor:
        """Return logits of shape `(cells, classes)` from cell vectors of shape `(cells, width)`."""
        return self.out(torch.tanh(self.dense(cell_bd)))


class CellClassHead(nn.Module):
    """Classes of a cell from its vector."""

    def __init__(self, config: readouts.CellClassHead, d_model: int) -> None:
        super().__init__()
        blocks = [
            (Linear(d_model, d_model), Activation(config.activation), layer_norm(config.layer_norm, d_model))
            for _ in range(as_int(config.n_hidden, least=0))
        ]
        self.layers = nn.Sequential(*itertools.chain(*blocks))
        self.out = Linear(d_model, as_int(config.n_classes))

    def forward(self, cell_bd: Tensor) -> Tensor:
        """Return logits of shape `(cells, classes)` from cell vectors of shape `(cells, width)`."""
        return self.out(self.layers(cell_bd))


def read(head: nn.Module, given: HeadInput) -> Tensor:
    """Apply a head to the part of a batch that heads of its type read."""
    match head:
        case CellClassHead() | TanhClassHead():
            return head(given.cell_bd)
        case CellGeneHead() | SharedCellGeneHead():
            return head(given.gene_bld, given.cells())
        case GeneProductHead():
            return head(given.gene_bld, given.cell_bd)
        case CellVectorHead():
            return head(given.stored(), given.cell_bd)
        case ValueHead():
            return head(given.tokens())
        case _:
            return head(given.x_bld)


def build_heads(heads: Mapping[str, readouts.HeadConfig], d_model: int, table: GeneTable) -> nn.ModuleDict:
    """Build the heads of a model; one may share parameters with the table, or with a head before it."""
    built: dict[str, nn.Module] = {}
    for name, config in heads.items():
        if isinstance(config, readouts.CellGeneHead) and config.query_of is not None:
            built[name] = SharedCellGeneHead(config, d_model, cast("CellGeneHead", built[config.query_of]))
        elif isinstance(config, set_configs.MixtureReadout):
            built[name] = MixtureReadout(config, cast("MixtureLatent", built[config.latent]))
        else:
            built[name] = build_head(config, d_model, table)
    return nn.ModuleDict(built)


def build_head(config: readouts.HeadConfig, d_model: int, table: GeneTable) -> nn.Module:  # noqa: PLR0911, PLR0912
    """Build the head that a configuration's type selects."""
    match config:
        case readouts.TiedTokenHead():
            return TiedTokenHead(config, d_model, table)
        case readouts.TableHead():
            return TableHead(table)
        case readouts.TokenHead():
            return TokenHead(config, d_model)
        case readouts.PooledClassHead():
            return PooledClassHead(config, d_model)
        case readouts.TokenClassHead():
            return TokenClassHead(config, d_model)
        case readouts.LinearHead():
            return LinearHead(config)
        case readouts.ValueHead():
            return ValueHead(config)
        case readouts.NormedValueHead():
            return NormedValueHead(config, d_model)
        case readouts.CellGeneHead():
            return CellGeneHead(config, d_model)
        case gated_configs.GeneProductHead():
            return GeneProductHead(config, d_model)
        case cell_configs.TanhClassHead():
            return TanhClassHead(config, d_model)
        case readouts.CellClassHead():
            return CellClassHead(config, d_model)
        case readouts.LayeredHead():
            return LayeredHead(config)
        case readouts.CellVectorHead():
            return CellVectorHead(config)
        case readouts.SentenceClassHead():
            return SentenceClassHead(config, d_model)
        case set_configs.MixtureLatent():
            return MixtureLatent(config, d_model)
        case set_configs.CountDecoder():
            return CountDecoder(config)
        case set_configs.ActivatedHead():
            return ActivatedHead(config)
        case set_configs.ExpressionDecoder():
            return ExpressionDecoder(config)
        case set_configs.DroppedLayers():
            return DroppedLayers(config)
        case set_configs.BareLayers():
            return BareLayers(config)
        case set_configs.MixtureReadout():
            msg = "A `MixtureReadout` reads another head and is built with it."
            raise ValueError(msg)
