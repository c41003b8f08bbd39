"""The large cellular model: encoders, backbone and heads, assembled from one configuration."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from sclcm._sizes import as_int
from sclcm.nn.backbone import Backbone, Block
from sclcm.nn.embedders import Embedder
from sclcm.nn.heads import build_head

if TYPE_CHECKING:
    from sclcm.nn import configs


@dataclass(frozen=True, kw_only=True)
class TokenTensors:
    """A batch of sentences on the device.

    Parameters
    ----------
    token_ids_bl
        Token ids, shape `(cells, tokens)`.
    mask_bl
        Which tokens are real, shape `(cells, tokens)`; `None` if all are.
    gene_mask_bl
        Which tokens are genes, neither special nor padding, shape `(cells, tokens)`.
    value_bl
        Values, shape `(cells, tokens)`, or `None`.
    """

    token_ids_bl: Tensor
    mask_bl: Tensor | None
    gene_mask_bl: Tensor
    value_bl: Tensor | None = None


class LCM(nn.Module):
    """Any of the zoo's models, as its configuration says."""

    def __init__(self, config: configs.LCMConfig) -> None:
        super().__init__()
        width = as_int(config.d_model)
        self.config = config
        self.embed = Embedder(config)
        self.backbone = Backbone(config.backbone, width)
        self.heads = nn.ModuleDict(
            {name: build_head(head, width, self.embed.gene) for name, head in config.heads.items()}
        )
        self.apply(_initialize)

    @property
    def n_blocks(self) -> int:
        """Depth of the backbone."""
        return len(self.backbone.blocks)

    def forward(self, tokens: TokenTensors, n_blocks: int | None = None) -> Tensor:
        """Return token vectors after so many blocks (all of them with `None`), shape `(cells, tokens, width)`."""
        x_bld = self.embed(tokens.token_ids_bl, tokens.value_bl, tokens.gene_mask_bl)
        return self.backbone(x_bld, tokens.mask_bl, n_blocks)

    def attention_weights(self, tokens: TokenTensors, block: int) -> Tensor:
        """Return the attention weights of one block, counted from zero; shape `(cells, heads, queries, keys)`."""
        x_bld = self.forward(tokens, n_blocks=block)
        return cast("Block", self.backbone.blocks[block]).attention_weights(x_bld, tokens.mask_bl)


def _initialize(module: nn.Module) -> None:
    """Normal weights of deviation 0.02 and zero biases, as BERT and its descendants start."""
    if isinstance(module, (nn.Linear, nn.Embedding)):
        torch.nn.init.normal_(module.weight, std=0.02)
    if isinstance(module, nn.Linear) and module.bias is not None:
        torch.nn.init.zeros_(module.bias)
