"""What a model knows besides counts: prior vectors of genes beside their own, and a vector of the species."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from sclcm._sizes import as_int
from sclcm.nn.fixed_vectors import FixedTable
from sclcm.nn.layers import Linear, activation, layer_norm

if TYPE_CHECKING:
    from sclcm.nn import prior_configs as configs
    from sclcm.nn.tokens import TokenTensors


class PriorVectors(nn.Module):
    """Fixed vectors of tokens, brought to the width of the model."""

    def __init__(self, config: configs.PriorVectors, d_model: int) -> None:
        super().__init__()
        self.table = FixedTable(as_int(config.n_tokens), as_int(config.d_prior))
        self.project = Linear(as_int(config.d_prior), d_model)

    def forward(self, token_ids_bl: Tensor) -> Tensor:
        """Return the vectors of tokens, shape `(cells, tokens, width)`."""
        return self.project(self.table(token_ids_bl))


class Partners(nn.Module):
    """The token whose prior vectors a token takes."""

    index: Tensor

    def __init__(self, config: configs.Partners) -> None:
        super().__init__()
        # On the CPU whatever is the default: on the meta device this would make torch import its compiler.
        self.register_buffer("index", torch.arange(as_int(config.n_tokens), device="cpu"))
        self.species = config.species

    def check(self) -> None:
        """Refuse an index that points outside of the vocabulary, as a damaged file may hold it."""
        if self.index.is_meta:
            return
        n_tokens, kind = len(self.index), self.index.dtype
        if kind.is_floating_point or kind == torch.bool or not 0 <= self.index.min() <= self.index.max() < n_tokens:
            msg = f"The index of partners should hold token ids, whole numbers from 0 to {n_tokens - 1}, but does not."
            raise ValueError(msg)

    def forward(self, token_ids_bl: Tensor, species_b: Tensor) -> Tensor:
        """Return partners in cells of the one species, and the tokens themselves in others, shape as given."""
        return torch.where((species_b == self.species).unsqueeze(1), self.index[token_ids_bl], token_ids_bl)


class JoinedInputs(nn.Module):
    """Gene vector, value and prior vectors side by side, mixed by a small network."""

    def __init__(self, config: configs.JoinedInputs, d_model: int) -> None:
        super().__init__()
        chosen = [cast("configs.PriorVectors", prior) for prior in config.priors]
        self.priors = nn.ModuleDict({prior.name: PriorVectors(prior, d_model) for prior in chosen})
        self.partners = Partners(config.partners)
        self.has_value = bool(config.has_value)
        self.up = Linear((1 + len(chosen)) * d_model + self.has_value, d_model)
        self.norm = layer_norm(config.layer_norm, d_model)
        self.activation = activation(config.activation)
        self.down = Linear(d_model, d_model)

    def forward(self, gene_bld: Tensor, tokens: TokenTensors) -> Tensor:
        """Return token vectors from those of the genes; shapes `(cells, tokens, width)`."""
        parts = [gene_bld]
        if self.has_value:
            parts.append(require_values(tokens.value_bl).to(gene_bld.dtype).unsqueeze(-1))
        known_bl = self.partners(tokens.token_ids_bl, require_species(tokens.species_b))
        parts += [prior(known_bl).to(gene_bld.dtype) for prior in self.priors.values()]
        return self.down(self.activation(self.norm(self.up(torch.cat(parts, dim=-1)))))


class SpeciesPrefix(nn.Module):
    """A vector of the species before all others."""

    def __init__(self, config: configs.SpeciesPrefix, d_model: int) -> None:
        super().__init__()
        self.table = nn.Embedding(as_int(config.n_species), d_model)

    def forward(self, x_bld: Tensor, species_b: Tensor | None) -> Tensor:
        """Return token vectors with the species' vector before them, shape `(cells, 1 + tokens, width)`."""
        return torch.cat([self.table(require_species(species_b)).unsqueeze(1).to(x_bld.dtype), x_bld], dim=1)


def require_species(species_b: Tensor | None) -> Tensor:
    """Return the species of the cells; `ValueError` if there are none."""
    if species_b is None:
        msg = "This model needs to know the species of each cell."
        raise ValueError(msg)
    return species_b


def require_values(value_bl: Tensor | None) -> Tensor:
    """Return the values of the tokens; `ValueError` if there are none."""
    if value_bl is None:
        msg = "This model needs tokens with values, but they have none; its encoding must set `value`."
        raise ValueError(msg)
    return value_bl
