"""A second stack of blocks that reads what the backbone made of a cell, and a bridge that brings it there."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from sclcm._sizes import as_int
from sclcm.nn.backbone import Backbone
from sclcm.nn.heads import build_heads
from sclcm.nn.layers import Linear, layer_norm

if TYPE_CHECKING:
    from sclcm.nn import decoder_configs
    from sclcm.nn.embedders import Embedder
    from sclcm.nn.fixed_vectors import FixedTable
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
    def _put(x_bmd: Tensor, place_bm: Tensor, y_bgd: Tensor) -> Tensor:
        """Return vectors of which some are replaced."""
        return y_bgd.scatter(1, place_bm.unsqueeze(-1).expand_as(x_bmd), x_bmd)


class Decoder(nn.Module):
    """Bridge, blocks, a norm where the model has one, and heads that read what comes out."""

    def __init__(self, config: decoder_configs.DecoderConfig, d_encoder: int, table: nn.Embedding | FixedTable) -> None:
        super().__init__()
        width = as_int(config.d_model)
        self.bridge = ScatterBridge(config.bridge, d_encoder, width)
        self.backbone = Backbone(config.backbone, width)
        self.norm = None if config.norm is None else layer_norm(config.norm, width)
        self.heads = build_heads(config.heads, width, table)

    def forward(self, x_bld: Tensor, tokens: TokenTensors, embed: Embedder) -> Tensor:
        """Return the vector of each place, shape `(cells, places, width of the decoder)`, for vectors of tokens."""
        y_bgd = self.backbone(self.bridge(x_bld, tokens, embed), None)
        return y_bgd if self.norm is None else self.norm(y_bgd)
