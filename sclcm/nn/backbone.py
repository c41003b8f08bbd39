"""The stack of Transformer blocks."""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn

from sclcm._sizes import as_int
from sclcm.nn import configs, gated_configs, set_configs
from sclcm.nn.attention import SoftmaxAttention, gather_places
from sclcm.nn.cache import Cache, pack
from sclcm.nn.cell_heads import ClosedFeedForward
from sclcm.nn.flow_attention import FlowAttention
from sclcm.nn.gated import GatedFeedForward, GatedLinearAttention
from sclcm.nn.kernel_attention import KernelAttention
from sclcm.nn.layers import FeedForward
from sclcm.nn.norms import build_norm
from sclcm.nn.table_configs import NoBackbone

if TYPE_CHECKING:
    from collections.abc import Iterator

    from sclcm._sizes import Size
    from sclcm.nn.cache import KeyValues
    from sclcm.nn.flow_attention import Sums


class Block(nn.Module):
    """Attention and feed-forward, each with a residual sum and a norm after or before it."""

    def __init__(self, config: configs.BackboneConfig, d_model: int) -> None:
        super().__init__()
        self.attn = build_attention(config.attention, d_model)
        self.norm1 = build_norm(config.layer_norm, d_model)
        self.ff = build_feed_forward(config.feed_forward, d_model)
        self.norm2 = build_norm(config.layer_norm, d_model)
        self.dropout = nn.Dropout(float(config.dropout))  # type: ignore[arg-type]
        self.is_pre_norm = config.norm == "pre"
        self.residual_scale = 1.0 if config.residual is None else _residual_scale(config.residual, config.n_blocks)

    def forward(self, x_bld: Tensor, mask_bl: Tensor | None) -> Tensor:
        """Transform token vectors; shapes `(cells, tokens, width)` in and out."""
        return self._finish(x_bld, self.attn(self.attended(x_bld), mask_bl))

    def with_targets(self, x_bld: Tensor, target_bmd: Tensor, mask_bl: Tensor | None) -> tuple[Tensor, Tensor]:
        """Transform visible tokens and those to be generated, shapes as given."""
        mixed = self.softmax.with_targets(self.attended(x_bld), self.attended(target_bmd), mask_bl)
        return self._finish(x_bld, mixed[0]), self._finish(target_bmd, mixed[1])

    def prefill(self, x_bld: Tensor, lengths: list[int] | None, n_more: int) -> tuple[Tensor, KeyValues]:
        """Transform the first tokens of each cell, and keep what later ones will ask for."""
        mixed_bld, kept = self.softmax.prefill(self.attended(x_bld), lengths, n_more)
        return self._finish(x_bld, mixed_bld), kept

    def prefill_some(
        self, x_bld: Tensor, asked_bmd: Tensor, *, place_bm: Tensor, lengths: list[int] | None, n_more: int
    ) -> tuple[Tensor, KeyValues]:
        """Do what `prefill` does, where only some tokens are asked for: these, at these places of their cells."""
        given = (self.attended(x_bld), self.attended(asked_bmd))
        mixed_bmd, kept = self.softmax.prefill_some(*given, place_bm=place_bm, lengths=lengths, n_more=n_more)
        return self._finish(asked_bmd, mixed_bmd), kept

    def step(self, x_b1d: Tensor, kept: KeyValues, place_b: Tensor) -> Tensor:
        """Transform one more token of each cell, at its place."""
        return self._finish(x_b1d, self.softmax.step(self.attended(x_b1d), kept, place_b))

    @property
    def n_rounds(self) -> int | None:
        """How often a set is gone over in pieces before they are mixed; `None`: it is mixed at once or not at all."""
        return self.attn.n_rounds if isinstance(self.attn, FlowAttention) else None

    def gather(self, x_bld: Tensor, known: tuple[Sums, ...]) -> Sums:
        """Return what some tokens of a set, shape `(1, tokens, width)`, add to the sums of the next round."""
        return self.flow.gather(self.attended(x_bld), known)

    def mix(self, x_bld: Tensor, known: tuple[Sums, ...]) -> Tensor:
        """Transform some tokens of a set, shape as given, when the sums over all of it are known."""
        return self._finish(x_bld, self.flow.mix(self.attended(x_bld), known))

    def attended(self, x_bld: Tensor) -> Tensor:
        """Return what the attention of this block is given, for the block's input."""
        return self.norm1(x_bld) if self.is_pre_norm else x_bld

    @property
    def softmax(self) -> SoftmaxAttention:
        """The attention, for what only softmax attention does."""
        if not isinstance(self.attn, SoftmaxAttention):
            msg = f"A block with {type(self.attn).__name__} reads whole sentences only; nothing is added to them later."
            raise TypeError(msg)
        return self.attn

    @property
    def flow(self) -> FlowAttention:
        """The attention, for what only one by sums does."""
        if not isinstance(self.attn, FlowAttention):
            msg = f"A block with {type(self.attn).__name__} mixes a set at once and never in pieces."
            raise TypeError(msg)
        return self.attn

    def _finish(self, x_bld: Tensor, mixed_bld: Tensor) -> Tensor:
        """Add what the attention gave, then the feed-forward."""
        x_bld = self._add(x_bld, mixed_bld)
        if self.is_pre_norm:
            return _sum(self._kept(x_bld), self.dropout(self.ff(self.norm2(x_bld))))
        return self.norm2(_sum(self._kept(x_bld), self.dropout(self.ff(x_bld))))

    def _add(self, x_bld: Tensor, mixed_bld: Tensor) -> Tensor:
        """Add what the attention gave."""
        x_bld = _sum(self._kept(x_bld), self.dropout(mixed_bld))
        return x_bld if self.is_pre_norm else self.norm1(x_bld)

    def halfway(self, x_bld: Tensor, mask_bl: Tensor | None) -> Tensor:
        """Return token vectors after the attention and before the feed-forward; shapes as given."""
        return self._add(x_bld, self.attn(self.attended(x_bld), mask_bl))

    def _kept(self, x_bld: Tensor) -> Tensor:
        """Return what a part is added to."""
        return x_bld if self.residual_scale == 1.0 else x_bld * self.residual_scale

    def attention_weights(self, x_bld: Tensor, mask_bl: Tensor | None) -> Tensor:
        """Return the weights of this block's attention, shape `(cells, heads, queries, keys)`, for its input."""
        return self.attn.weights(self.attended(x_bld), mask_bl)

    def attention_received(self, x_bld: Tensor, mask_bl: Tensor | None) -> Tensor:
        """Return how much each key is attended to, shape `(cells, heads, keys)`, for the input of this block."""
        if not isinstance(self.attn, KernelAttention):
            msg = f"{type(self.attn).__name__} does not sum its weights without holding them all; use them instead."
            raise TypeError(msg)
        return self.attn.received(self.attended(x_bld), mask_bl)


def _sum(x_bld: Tensor, made_bld: Tensor) -> Tensor:
    """Add what a layer has just made, and nobody else holds: in its memory, unless gradients need it."""
    if torch.is_grad_enabled() or made_bld.dtype != x_bld.dtype:
        return x_bld + made_bld
    return made_bld.add_(x_bld)


class Backbone(nn.Module):
    """Blocks in a row, then a norm where the model has one."""

    def __init__(self, config: configs.BackboneConfig | NoBackbone, d_model: int) -> None:
        super().__init__()
        if isinstance(config, NoBackbone):
            self.blocks, self.norm, self.n_blind = nn.ModuleList(), None, 0
            return
        self.blocks = nn.ModuleList(Block(config, d_model) for _ in range(as_int(config.n_blocks)))
        self.norm = None if config.final_norm is None else build_norm(config.final_norm, d_model)
        schedule = config.mask_schedule
        self.n_blind = 0 if schedule is None else int(len(self.blocks) * float(schedule.blind_share))  # type: ignore[arg-type]

    def forward(
        self, x_bld: Tensor, mask_bl: Tensor | None, n_blocks: int | None = None, hidden_bl: Tensor | None = None
    ) -> Tensor:
        """Transform token vectors.

        Parameters
        ----------
        x_bld
            Token vectors, shape `(cells, tokens, width)`.
        mask_bl
            Which tokens are real, shape `(cells, tokens)`, or `None` if all are.
        n_blocks
            Stop after so many blocks, without the final norm; `None` runs them all.
        hidden_bl
            Tokens whose value is hidden, shape `(cells, tokens)`, for a schedule of masks; `None` if none is.

        Returns
        -------
        Shape `(cells, tokens, width)`.
        """
        depth = len(self.blocks) if n_blocks is None else n_blocks
        open_bl = mask_bl
        if hidden_bl is not None:
            open_bl = ~hidden_bl if mask_bl is None else mask_bl & ~hidden_bl
        for number, block in enumerate(self.blocks[:depth]):
            x_bld = block(x_bld, open_bl if number < self.n_blind else mask_bl)
        return self.normalize(x_bld) if depth == len(self.blocks) else x_bld

    def attention_received(self, x_bld: Tensor, mask_bl: Tensor | None, *, halfway: bool = False) -> Tensor:
        """Return how much each token is attended to, a mean over blocks and heads, shape `(cells, tokens)`."""
        asked = self.attention_inputs(x_bld, mask_bl, halfway=halfway)
        return torch.stack([block.attention_received(y_bld, mask_bl).mean(1) for block, y_bld in asked]).mean(0)

    def attention_inputs(
        self, x_bld: Tensor, mask_bl: Tensor | None, *, halfway: bool
    ) -> Iterator[tuple[Block, Tensor]]:
        """Yield each block with the token vectors whose attention is asked for.

        Parameters
        ----------
        x_bld
            Token vectors, shape `(cells, tokens, width)`.
        mask_bl
            Which tokens are real, shape `(cells, tokens)`, or `None` if all are.
        halfway
            Whether these are what the attention of the block has made already, as some authors have it, and not what
            it is given.
        """
        for module in self.blocks:
            block = cast("Block", module)
            yield block, block.halfway(x_bld, mask_bl) if halfway else x_bld
            x_bld = block(x_bld, mask_bl)

    def with_targets(self, x_bld: Tensor, target_bmd: Tensor, mask_bl: Tensor | None) -> tuple[Tensor, Tensor]:
        """Transform visible tokens and those whose value is to be generated.

        Parameters
        ----------
        x_bld
            Vectors of the visible tokens, shape `(cells, tokens, width)`.
        target_bmd
            Vectors of the others, shape `(cells, targets, width)`: each sees the visible tokens and itself.
        mask_bl
            Which visible tokens are real, shape `(cells, tokens)`, or `None` if all are.

        Returns
        -------
        Both groups, shapes as given.
        """
        for block in self.blocks:
            x_bld, target_bmd = cast("Block", block).with_targets(x_bld, target_bmd, mask_bl)
        return self.normalize(x_bld), self.normalize(target_bmd)

    def prefill(self, x_bld: Tensor, length_b: Tensor, place_bm: Tensor, n_more: int) -> tuple[Tensor, Cache]:
        """Transform the first tokens of each cell, and keep what later ones will ask for.

        Parameters
        ----------
        x_bld
            Token vectors, padded at the right, shape `(cells, tokens, width)`.
        length_b
            Tokens of each cell, shape `(cells,)`.
        place_bm
            Which of them are asked for, shape `(cells, places)`; the last block computes no others.
        n_more
            Tokens to make room for.

        Returns
        -------
        Shape `(cells, places, width)`, and the cache.
        """
        kept = []
        *first, last = self.blocks
        x_bld, lengths = pack(x_bld, length_b)
        for block in first:
            x_bld, keys = cast("Block", block).prefill(x_bld, lengths, n_more)
            kept.append(keys)
        if lengths is None:
            asked_bmd = gather_places(x_bld, place_bm)
        else:
            asked_bmd = x_bld[0, place_bm + (length_b.cumsum(0) - length_b).unsqueeze(1)]
        asked_bmd, keys = cast("Block", last).prefill_some(
            x_bld, asked_bmd, place_bm=place_bm, lengths=lengths, n_more=n_more
        )
        return self.normalize(asked_bmd), Cache(blocks=(*kept, keys), length_b=length_b)

    def step(self, x_b1d: Tensor, cache: Cache) -> tuple[Tensor, Cache]:
        """Transform one more token of each cell; return its vector, shape `(cells, 1, width)`, and the longer cache.

        The given cache is used up.
        """
        for block, kept in zip(self.blocks, cache.blocks, strict=True):
            x_b1d = cast("Block", block).step(x_b1d, kept, cache.length_b)
        return self.normalize(x_b1d), Cache(blocks=cache.blocks, length_b=cache.length_b + 1)

    def normalize(self, x_bld: Tensor) -> Tensor:
        """Apply the norm after the last block, where the model has one; shape as given."""
        return x_bld if self.norm is None else self.norm(x_bld)


def _residual_scale(config: gated_configs.ScaledResidual, n_blocks: Size) -> float:
    return float((float(config.factor) * as_int(n_blocks)) ** float(config.power))  # type: ignore[arg-type]


def build_feed_forward(config: configs.FeedForwardConfig, d_model: int) -> FeedForward | GatedFeedForward:
    """Build the feed-forward that a configuration's type selects."""
    match config:
        case configs.FeedForward():
            return FeedForward(config, d_model)
        case gated_configs.GatedFeedForward():
            return GatedFeedForward(config, d_model)
        case set_configs.ClosedFeedForward():
            return ClosedFeedForward(
                configs.FeedForward(d_hidden=config.d_hidden, activation=config.activation), d_model
            )


def build_attention(
    config: configs.AttentionConfig, d_model: int
) -> SoftmaxAttention | KernelAttention | GatedLinearAttention | FlowAttention:
    """Build the attention that a configuration's type selects."""
    match config:
        case configs.SoftmaxAttention():
            return SoftmaxAttention(config, d_model)
        case configs.KernelAttention():
            return KernelAttention(config, d_model)
        case gated_configs.GatedLinearAttention():
            return GatedLinearAttention(config, d_model)
        case set_configs.FlowAttention():
            return FlowAttention(config, d_model)
