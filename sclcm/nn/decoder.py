"""A second stack of blocks that reads what the backbone made of a cell, and a bridge that brings it there."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sclcm._sizes import as_int
from sclcm.nn import decoder_configs
from sclcm.nn.backbone import Backbone
from sclcm.nn.heads import build_heads
from sclcm.nn.layers import Linear, activation, layer_norm

if TYPE_CHECKING:
    from sclcm.nn.embedders import Embedder
    from sclcm.nn.fixed_vectors import GeneTable
    from sclcm.nn.tokens import TokenTensors


class ScatterBridge(nn.Module):
    """Token vectors take their places among all tokens of the vocabulary; the others come as they are embedded."""

    def __init__(self, config: decoder_configs.ScatterBridge, d_encoder: int, d_model: int) -> None:
        super().__init__()
        self.n_places = as_int(config.n_places)
        self.project = Linear(d_encoder, d_model)

    def forward(self, x_bld: Tensor, tokens: TokenTensors, embed: Embedder) -> Tensor:
        """Return what the decoder reads.

        Parameters
        ----------
        x_bld
            Vectors of a cell's tokens, shape `(cells, tokens, width)`.
        tokens
            The tokens they are of.
        embed
            The entrance of the model, by which all other tokens are embedded.

        Returns
        -------
        Shape `(cells, places, width of the decoder)`: one place for each of the lowest token ids.
        """
        n_cells, _, width = x_bld.shape
        nothing_d = embed.values(x_bld.new_zeros(1, dtype=torch.float32))[0].to(x_bld.dtype)
        # One place more takes what has none: padding.
        y_bgd = nothing_d.expand(n_cells, self.n_places + 1, width)
        if tokens.unread_ids_bm is not None and tokens.unread_value_bm is not None:
            unread_bmd = embed.values(tokens.unread_value_bm).to(x_bld.dtype)
            y_bgd = self._put(unread_bmd, tokens.unread_ids_bm, y_bgd)
        ids_bl = tokens.token_ids_bl
        if tokens.mask_bl is not None:
            ids_bl = torch.where(tokens.mask_bl, ids_bl, self.n_places)
        y_bgd = self._put(x_bld, ids_bl, y_bgd)[:, : self.n_places]
        genes_gd = embed.genes(torch.arange(self.n_places, device=x_bld.device))
        return self.project(y_bgd + genes_gd)

    @staticmethod
    def mask(tokens: TokenTensors) -> None:
        """Return which places hold a real token: all do."""

    @staticmethod
    def _put(x_bmd: Tensor, place_bm: Tensor, y_bgd: Tensor) -> Tensor:
        """Return vectors of which some are replaced."""
        return y_bgd.scatter(1, place_bm.unsqueeze(-1).expand_as(x_bmd), x_bmd)


class SequenceBridge(nn.Module):
    """The places of a sentence are mixed into those of the decoder, where tokens are that are asked for."""

    def __init__(self, config: decoder_configs.SequenceBridge, d_model: int) -> None:
        super().__init__()
        if not isinstance(config.widths, tuple) or not config.widths:
            msg = f"The bridge has no layers: `widths` is {config.widths!r}."
            raise ValueError(msg)
        self.n_places, widths = as_int(config.n_places), [as_int(width) for width in config.widths]
        sizes = itertools.pairwise([self.n_places, *widths])
        self.layers = nn.ModuleList(Linear(n_in, n_out) for n_in, n_out in sizes)
        self.activation = activation(config.activation)
        self.asked = nn.Embedding(as_int(config.n_tokens), d_model)

    def forward(self, x_bld: Tensor, tokens: TokenTensors, embed: Embedder) -> Tensor:
        """Return what the decoder reads.

        Parameters
        ----------
        x_bld
            Vectors of a cell's tokens, shape `(cells, places of a sentence, width)`.
        tokens
            The tokens they are of, and those that are asked for.
        embed
            The entrance of the model, which is not needed.

        Returns
        -------
        Shape `(cells, places of the decoder, width)`.
        """
        if tokens.asked_ids_bm is None:
            msg = "This model's decoder needs to know which tokens are asked for."
            raise ValueError(msg)
        return self.mix(x_bld) + self.asked(tokens.asked_ids_bm)

    @staticmethod
    def mask(tokens: TokenTensors) -> Tensor | None:
        """Return which places hold a real token, shape `(cells, places of the decoder)`; `None` if all do."""
        return tokens.asked_mask_bm

    def mix(self, x_bld: Tensor) -> Tensor:
        """Lead the places of sentences to those of the decoder, channel by channel; shape `(cells, places, width)`."""
        if x_bld.shape[1] != self.n_places:
            msg = f"The bridge reads sentences of {self.n_places} tokens, padding included; found {x_bld.shape[1]}."
            raise ValueError(msg)
        y_bdn = x_bld.transpose(1, 2).contiguous()
        for number, layer in enumerate(self.layers):
            y_bdn = layer(self.activation(y_bdn) if number else y_bdn)
        return y_bdn.transpose(1, 2)


class Decoder(nn.Module):
    """Bridge, blocks, a norm where the model has one, and heads that read what comes out."""

    def __init__(self, config: decoder_configs.DecoderConfig, d_encoder: int, table: GeneTable) -> None:
        super().__init__()
        width = as_int(config.d_model)
        self.bridge = _build_bridge(config.bridge, d_encoder, width)
        self.backbone = Backbone(config.backbone, width)
        self.norm = None if config.norm is None else layer_norm(config.norm, width)
        self.heads = build_heads(config.heads, width, table)

    def forward(self, x_bld: Tensor, tokens: TokenTensors, embed: Embedder) -> Tensor:
        """Return the vector of each place, shape `(cells, places, width of the decoder)`, for vectors of tokens."""
        y_bgd = self.backbone(self.bridge(x_bld, tokens, embed), self.bridge.mask(tokens))
        return y_bgd if self.norm is None else self.norm(y_bgd)


def _build_bridge(
    config: decoder_configs.ScatterBridge | decoder_configs.SequenceBridge, d_encoder: int, d_model: int
) -> ScatterBridge | SequenceBridge:
    """Build the bridge that a configuration's type selects."""
    match config:
        case decoder_configs.ScatterBridge():
            return ScatterBridge(config, d_encoder, d_model)
        case decoder_configs.SequenceBridge():
            if d_encoder != d_model:
                msg = f"A bridge along the sentence keeps the width of {d_encoder}; the decoder's is {d_model}."
                raise ValueError(msg)
            return SequenceBridge(config, d_model)
