"""Encoders at the entrance: genes, values, positions and conditions become token vectors."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from sclcm._sizes import as_int
from sclcm.nn import configs, fixed_configs, gated_configs, set_configs, table_configs
from sclcm.nn.fixed_vectors import FixedTable, GeneTable, NoVectors, ProjectedVectors, VectorMLP
from sclcm.nn.layers import Linear, activation, layer_norm
from sclcm.nn.positions import SinusoidalPositions
from sclcm.nn.priors import JoinedInputs, SpeciesPrefix, require_values
from sclcm.nn.soft_bins import AddedBins, GeneAndDepthBins, GeneBins

if TYPE_CHECKING:
    from sclcm.nn.tokens import TokenTensors

TARGET = 1
"""Row of the table of roles for tokens whose value is to be generated."""


class Table(nn.Module):
    """A table of vectors, normalised where the model says so."""

    def __init__(self, n_rows: int, d_model: int, norm: configs.LayerNorm | None) -> None:
        super().__init__()
        self.table = nn.Embedding(n_rows, d_model)
        self.norm = None if norm is None else layer_norm(norm, d_model)

    def forward(self, rows: Tensor) -> Tensor:
        """Look up rows of any shape; the vectors have one axis more."""
        vectors = self.table(rows)
        return vectors if self.norm is None else self.norm(vectors)


class ScalarMLP(nn.Module):
    """Value encoder: linear, non-linearity, linear."""

    def __init__(self, config: configs.ScalarMLP, d_model: int) -> None:
        super().__init__()
        self.up = Linear(1, as_int(config.d_hidden))
        self.down = Linear(as_int(config.d_hidden), d_model)
        self.activation = activation(config.activation)
        self.norm = None if config.norm is None else layer_norm(config.norm, d_model)
        self.largest = None if config.largest is None else float(config.largest)  # type: ignore[arg-type]

    def forward(self, value_bl: Tensor) -> Tensor:
        """Turn values of shape `(cells, tokens)` into vectors of shape `(cells, tokens, width)`."""
        if self.largest is not None:
            value_bl = value_bl.clamp(max=self.largest)
        x_bld = self.down(self.activation(self.up(value_bl.unsqueeze(-1))))
        return x_bld if self.norm is None else self.norm(x_bld)


class ScaledGene(nn.Module):
    """Value encoder: the gene's vector times its value."""

    def forward(self, gene_bld: Tensor, value_bl: Tensor, gene_mask_bl: Tensor) -> Tensor:
        """Return token vectors, shape `(cells, tokens, width)`; those that are no genes keep their vector."""
        value_bl = value_bl.to(gene_bld.dtype)
        return gene_bld * torch.where(gene_mask_bl, value_bl, torch.ones_like(value_bl)).unsqueeze(-1)


class AddedValue(nn.Module):
    """Value encoder: the gene's vector plus a small network of its value."""

    def __init__(self, config: configs.ScalarMLP, d_model: int) -> None:
        super().__init__()
        self.mlp = ScalarMLP(config, d_model)

    def forward(self, gene_bld: Tensor, value_bl: Tensor, gene_mask_bl: Tensor) -> Tensor:
        """Return token vectors, shape `(cells, tokens, width)`."""
        return gene_bld + self.mlp(value_bl.to(gene_bld.dtype))


class AddedLinear(nn.Module):
    """Value encoder: the gene's vector plus a linear function of its value."""

    def __init__(self, d_model: int) -> None:
        super().__init__()
        self.linear = Linear(1, d_model)

    def forward(self, gene_bld: Tensor, value_bl: Tensor, gene_mask_bl: Tensor) -> Tensor:
        """Return token vectors, shape `(cells, tokens, width)`."""
        return gene_bld + self.linear(value_bl.to(gene_bld.dtype).unsqueeze(-1))


class AddedRow(nn.Module):
    """Value encoder: the gene's vector plus the row of a table that belongs to its value."""

    def __init__(self, config: configs.ValueTable, d_model: int) -> None:
        super().__init__()
        self.rows = Table(as_int(config.n_values), d_model, config.norm)

    def forward(self, gene_bld: Tensor, value_bl: Tensor, gene_mask_bl: Tensor) -> Tensor:
        """Return token vectors, shape `(cells, tokens, width)`."""
        return gene_bld + self.rows(value_bl.long())


class BatchNorm(nn.Module):
    """Normalisation of each channel by running statistics."""

    def __init__(self, config: configs.BatchNorm, d_model: int) -> None:
        super().__init__()
        self.norm = nn.BatchNorm1d(d_model, eps=float(config.eps))  # type: ignore[arg-type]

    def forward(self, x_bld: Tensor, condition_b: Tensor | None) -> Tensor:
        """Normalise token vectors of shape `(cells, tokens, width)`; the condition does not matter."""
        return self.norm(x_bld.transpose(1, 2)).transpose(1, 2)


class DomainNorm(nn.Module):
    """Normalisation of each channel by the running statistics of the cell's batch."""

    def __init__(self, config: configs.DomainNorm, d_model: int) -> None:
        super().__init__()
        eps = float(config.eps)  # type: ignore[arg-type]
        self.norms = nn.ModuleList(
            nn.BatchNorm1d(d_model, eps=eps, affine=False) for _ in range(as_int(config.n_domains))
        )

    def forward(self, x_bld: Tensor, condition_b: Tensor | None) -> Tensor:
        """Normalise token vectors of shape `(cells, tokens, width)`, each cell by its own batch."""
        condition_b = require_condition(condition_b)
        if not self.training:
            return self._by_running_statistics(x_bld, condition_b)
        out_bld = torch.empty_like(x_bld)
        for domain, norm in enumerate(self.norms):
            cells = condition_b == domain
            if cells.any():
                out_bld[cells] = norm(x_bld[cells].transpose(1, 2)).transpose(1, 2)
        return out_bld

    def _by_running_statistics(self, x_bld: Tensor, condition_b: Tensor) -> Tensor:
        """Take each cell's statistics by its number: without a loop that waits for the device, or breaks a graph."""
        norms = [cast("nn.BatchNorm1d", norm) for norm in self.norms]
        mean_nd = torch.stack([cast("Tensor", norm.running_mean) for norm in norms]).float()
        variance_nd = torch.stack([cast("Tensor", norm.running_var) for norm in norms]).float()
        scale_bd = torch.rsqrt(variance_nd + norms[0].eps)[condition_b]
        return ((x_bld.float() - mean_nd[condition_b, None]) * scale_bd.unsqueeze(1)).to(x_bld.dtype)


class Embedder(nn.Module):
    """Sum of the vectors of gene, value, position and segment, normalised where the model says so."""

    def __init__(self, config: configs.LCMConfig) -> None:
        super().__init__()
        width = as_int(config.d_model)
        self.gene, self.gene_norm = _gene_encoder(config.gene, width)
        self.n_bins = as_int(config.gene.n_bins) if isinstance(config.gene, table_configs.GeneBinTable) else None
        self.value = None if config.value is None else _value_encoder(config.value, width)
        self.fusion = None if config.fusion is None else JoinedInputs(config.fusion, width)
        self.position = None if config.position is None else _position_encoder(config.position, width)
        self.segment = None
        if isinstance(config.segment, configs.ConstantSegment):
            self.segment = nn.Embedding(as_int(config.segment.n_segments), width)
        self.shared_row = config.segment.row if isinstance(config.segment, table_configs.SharedSegment) else None
        n_tokens = as_int(config.gene.n_tokens)
        if self.shared_row is not None and not 0 <= self.shared_row < n_tokens:
            msg = f"The row {self.shared_row} is to be added to all tokens; the table has {n_tokens}."
            raise ValueError(msg)
        self.role = None if config.role is None else nn.Embedding(as_int(config.role.n_roles), width)
        self.condition = None
        if config.condition is not None:
            self.condition = Table(as_int(config.condition.n_conditions), width, config.condition.norm)
        self.norm = None if config.embedding_norm is None else _embedding_norm(config.embedding_norm, width)
        self.prefix = None if config.prefix is None else SpeciesPrefix(config.prefix, width)
        self.species = config.species

    def forward(self, tokens: TokenTensors) -> Tensor:
        """Turn tokens into vectors, shape `(cells, tokens, width)`."""
        if self.species is not None:
            tokens = replace(tokens, species_b=tokens.token_ids_bl.new_full((len(tokens.token_ids_bl),), self.species))
        if self.prefix is None:
            return self._tokens(tokens)
        return self.prefix(self._tokens(tokens.without_first()), tokens.species_b)

    def _tokens(self, tokens: TokenTensors) -> Tensor:
        x_bld = self.genes(tokens.token_ids_bl) if self.n_bins is None else self._of_bins(tokens, self.n_bins)
        if self.value is not None:
            x_bld = self.value(x_bld, require_values(tokens.value_bl), tokens.gene_mask_bl)
        if self.fusion is not None:
            x_bld = self.fusion(x_bld, tokens)
        if self.position is not None:
            places = torch.arange(x_bld.shape[1], device=x_bld.device)
            x_bld = x_bld + self.position(places if tokens.place_bl is None else tokens.place_bl).to(x_bld.dtype)
        if self.segment is not None:
            x_bld = x_bld + self.segment.weight[0]
        if self.shared_row is not None:
            x_bld = x_bld + self.genes(tokens.token_ids_bl.new_full((), self.shared_row))
        return self._normalize(x_bld, tokens.condition_b)

    def hidden(self, tokens: TokenTensors) -> Tensor | None:
        """Return the tokens whose value is hidden, shape `(cells, tokens)`, where the value encoder knows such."""
        if not isinstance(self.value, GeneBins) or tokens.value_bl is None:
            return None
        return self.value.hidden(tokens.value_bl, tokens.gene_mask_bl)

    def values(self, values: Tensor) -> Tensor:
        """Return the vectors of values alone, where they are added to genes'; any shape, vectors with one axis more."""
        if not isinstance(self.value, AddedBins):
            msg = f"The vector of a value alone is not known of {type(self.value).__name__}."
            raise TypeError(msg)
        return self.value.bins(values)

    def genes(self, token_ids: Tensor) -> Tensor:
        """Return the vectors of genes alone; ids of any shape, vectors with one axis more."""
        if self.n_bins is not None:  # a gene without a bin is the mean of its rows; special tokens have but one
            every = token_ids.unsqueeze(-1) + torch.arange(self.n_bins, device=token_ids.device)
            return self.gene(every.clamp(max=self.gene.num_embeddings - 1)).mean(-2)
        vectors = self.gene(token_ids)
        if isinstance(self.gene_norm, VectorMLP):
            return self.gene_norm(vectors, token_ids)
        return vectors if self.gene_norm is None else self.gene_norm(vectors)

    def _of_bins(self, tokens: TokenTensors, n_bins: int) -> Tensor:
        """Look up the row of each gene's bin; special tokens are rows themselves."""
        bin_bl = require_values(tokens.value_bl).long().clamp(0, n_bins - 1)
        return self.gene(tokens.token_ids_bl + torch.where(tokens.gene_mask_bl, bin_bl, torch.zeros_like(bin_bl)))

    def without_values(self, token_ids_bl: Tensor, condition_b: Tensor | None) -> Tensor:
        """Return the vectors of tokens of which only the gene is known, shape `(cells, tokens, width)`."""
        return self._normalize(self.genes(token_ids_bl), condition_b)

    def targets(self, token_ids_bm: Tensor, condition_b: Tensor | None) -> Tensor:
        """Return the vectors of tokens whose value is to be generated, shape `(cells, tokens, width)`."""
        if self.role is None:
            msg = "This model has no vector for tokens to be generated; it was not trained to generate values."
            raise ValueError(msg)
        return self._normalize(self.genes(token_ids_bm) + self.role.weight[TARGET], condition_b)

    def _normalize(self, x_bld: Tensor, condition_b: Tensor | None) -> Tensor:
        if isinstance(self.norm, (BatchNorm, DomainNorm)):
            return self.norm(x_bld, condition_b)
        return x_bld if self.norm is None else self.norm(x_bld)


def require_condition(condition_b: Tensor | None) -> Tensor:
    """Return the conditions of the cells; `ValueError` if there are none."""
    if condition_b is None:
        msg = "This model needs to know the batch of each cell; name the column of `.obs` as `batch_key`."
        raise ValueError(msg)
    return condition_b


def _gene_encoder(
    config: configs.TableEncoder
    | table_configs.GeneBinTable
    | fixed_configs.ProjectedVectors
    | fixed_configs.VectorMLP
    | fixed_configs.FixedVectors
    | fixed_configs.NoVectors
    | set_configs.BagOfGenes,
    d_model: int,
) -> tuple[GeneTable, nn.Module | None]:
    """Build the table that a configuration's type selects, and what its rows go through."""
    n_tokens = as_int(config.n_tokens)
    match config:
        case configs.TableEncoder():
            norm = None if config.norm is None else layer_norm(config.norm, d_model)
            return nn.Embedding(n_tokens, d_model), norm
        case table_configs.GeneBinTable():
            return nn.Embedding(n_tokens, d_model), None
        case fixed_configs.FixedVectors():
            return FixedTable(n_tokens, d_model), None
        case fixed_configs.NoVectors():
            return NoVectors(n_tokens, d_model), None
        case fixed_configs.ProjectedVectors():
            return FixedTable(n_tokens, as_int(config.d_vector)), ProjectedVectors(config, d_model)
        case fixed_configs.VectorMLP():
            return FixedTable(n_tokens, as_int(config.d_vector)), VectorMLP(config, d_model)
        case set_configs.BagOfGenes():
            msg = "A bag of genes makes one token of a cell; sentences of genes need a vector for each."
            raise TypeError(msg)


def _position_encoder(
    config: configs.LearnedPositions
    | fixed_configs.FixedPositions
    | fixed_configs.SinusoidalPositions
    | set_configs.GridPositions,
    d_model: int,
) -> nn.Module:
    """Build the encoder of places that a configuration's type selects."""
    match config:
        case configs.LearnedPositions():
            return nn.Embedding(as_int(config.n_positions), d_model)
        case fixed_configs.FixedPositions():
            return FixedTable(as_int(config.n_positions), d_model)
        case fixed_configs.SinusoidalPositions():
            return SinusoidalPositions(config, d_model)
        case set_configs.GridPositions():
            msg = "A grid of positions is for tokens that are cells; genes have a place in their sentence."
            raise TypeError(msg)


def _embedding_norm(config: configs.LayerNorm | configs.BatchNorm | configs.DomainNorm, d_model: int) -> nn.Module:
    """Build the normalisation that a configuration's type selects."""
    match config:
        case configs.LayerNorm():
            return layer_norm(config, d_model)
        case configs.BatchNorm():
            return BatchNorm(config, d_model)
        case configs.DomainNorm():
            return DomainNorm(config, d_model)


def _value_encoder(config: configs.ValueConfig, d_model: int) -> nn.Module:  # noqa: PLR0911
    """Build the value encoder that a configuration's type selects."""
    match config:
        case configs.ScalarMLP():
            return AddedValue(config, d_model)
        case configs.ScalarLinear():
            return AddedLinear(d_model)
        case configs.ValueTable():
            return AddedRow(config, d_model)
        case configs.SoftBins():
            return AddedBins(config, d_model)
        case configs.ScaledGene():
            return ScaledGene()
        case gated_configs.GeneBins():
            return GeneBins(config, d_model)
        case gated_configs.GeneAndDepthBins():
            return GeneAndDepthBins(config, d_model)
