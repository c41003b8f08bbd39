"""Attention: which tokens of a sentence inform which."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from sclcm._sizes import as_int
from sclcm.nn.cache import KeyValues, spans
from sclcm.nn.layers import Linear, linear, processor
from sclcm.nn.rotary import places, rotate

if TYPE_CHECKING:
    from sclcm.nn import configs

BLOCK = 128
"""Queries at a time where softmax and products run apart; their scores then stay in the processor's cache."""

LONG = 512
"""Sentences from this length on are attended to one by one on a CPU."""


class SoftmaxAttention(nn.Module):
    """Multi-head softmax attention with one joint projection for queries, keys and values."""

    def __init__(self, config: configs.SoftmaxAttention, d_model: int) -> None:
        super().__init__()
        self.n_heads = as_int(config.n_heads)
        if d_model % self.n_heads:
            msg = f"{self.n_heads} heads do not divide a width of {d_model}."
            raise ValueError(msg)
        self.causal = config.causal
        if config.causal and config.padding_bias is not None:
            msg = "Causal attention does not see padding at the right; leave out `padding_bias`."
            raise ValueError(msg)
        self.base = _wave_base(config, d_model // self.n_heads)
        self.group = as_int(config.heads_per_key)
        if self.n_heads % self.group:
            msg = f"{self.n_heads} heads cannot share keys {self.group} by {self.group}."
            raise ValueError(msg)
        self.projects_targets = config.projects_targets
        self.padding_bias = None if config.padding_bias is None else float(config.padding_bias)  # type: ignore[arg-type]
        self.widths = (d_model, d_model // self.group, d_model // self.group)
        self.qkv = Linear(d_model, sum(self.widths), bias=bool(config.bias))
        self.out = Linear(d_model, d_model, bias=bool(config.bias))

    def forward(self, x_bld: Tensor, mask_bl: Tensor | None) -> Tensor:
        """Mix token vectors.

        Parameters
        ----------
        x_bld
            Token vectors, shape `(cells, tokens, width)`.
        mask_bl
            Which tokens are real, shape `(cells, tokens)`, or `None` if all are.

        Returns
        -------
        Shape `(cells, tokens, width)`.
        """
        q_bhlk, k_bhlk, v_bhlk = self._project(x_bld)
        k_bhlk, v_bhlk = self._spread(k_bhlk), self._spread(v_bhlk)
        if self.padding_bias is None or mask_bl is None:
            mixed_bhlk = attend(q_bhlk, k_bhlk, v_bhlk, mask_bl, causal=self.causal)
        else:
            bias_b11l = padding_scores(mask_bl, self.padding_bias).to(q_bhlk.dtype)
            mixed_bhlk = functional.scaled_dot_product_attention(q_bhlk, k_bhlk, v_bhlk, attn_mask=bias_b11l)
        return self.out(mixed_bhlk.transpose(1, 2).flatten(2))

    def with_targets(self, x_bld: Tensor, target_bmd: Tensor, mask_bl: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mix token vectors in two groups: visible tokens see each other, each target sees them and itself.

        Parameters
        ----------
        x_bld
            Vectors of the visible tokens, shape `(cells, tokens, width)`.
        target_bmd
            Vectors of the tokens whose value is to be generated, shape `(cells, targets, width)`.
        mask_bl
            Which visible tokens are real, shape `(cells, tokens)`, or `None` if all are.

        Returns
        -------
        Both groups, shapes as given.
        """
        if self.base is not None:
            msg = "Tokens to be generated have no place, so attention with rotary positions cannot read them."
            raise ValueError(msg)
        q_bhlk, *kept = self._project(x_bld)
        k_bhlk, v_bhlk = map(self._spread, kept)
        mixed_bhlk = attend(q_bhlk, k_bhlk, v_bhlk, mask_bl, causal=self.causal)
        q_bhmk, *own = self._project(target_bmd)
        own_k_bhmk, own_v_bhmk = map(self._spread, own)
        scores_bhml = q_bhmk @ k_bhlk.transpose(-1, -2)
        if mask_bl is not None:
            scores_bhml = scores_bhml.masked_fill(~mask_bl[:, None, None], float("-inf"))
        own_bhm1 = (q_bhmk * own_k_bhmk).sum(-1, keepdim=True)
        weights = torch.softmax(torch.cat([scores_bhml, own_bhm1], dim=-1) * q_bhmk.shape[-1] ** -0.5, dim=-1)
        target_bhmk = weights[..., :-1] @ v_bhlk + weights[..., -1:] * own_v_bhmk
        out_bmd = target_bhmk.transpose(1, 2).flatten(2)
        return self.out(mixed_bhlk.transpose(1, 2).flatten(2)), self.out(out_bmd) if self.projects_targets else out_bmd

    def prefill(self, x_bld: Tensor, lengths: list[int] | None, n_more: int) -> tuple[Tensor, KeyValues]:
        """Mix the first tokens of each cell causally, and keep what later tokens will ask for.

        Parameters
        ----------
        x_bld
            Token vectors, padded at the right, shape `(cells, tokens, width)`: no real token sees the padding, which
            comes after it. Of packed cells shape `(1, all tokens, width)`.
        lengths
            Tokens of each packed cell, or `None`.
        n_more
            Tokens to make room for.

        Returns
        -------
        Shape as given, and the keys and values.
        """
        q_bhlk, k_bhlk, v_bhlk = self._project(x_bld, lengths=lengths)
        all_k_bhlk, all_v_bhlk = self._spread(k_bhlk), self._spread(v_bhlk)
        if lengths is None:
            mixed_bhlk = attend(q_bhlk, all_k_bhlk, all_v_bhlk, None, causal=True)
        else:
            mixed_bhlk = _attend_packed(q_bhlk, all_k_bhlk, all_v_bhlk, spans(lengths))
        return self.out(mixed_bhlk.transpose(1, 2).flatten(2)), KeyValues.of(k_bhlk, v_bhlk, lengths, n_more)

    def prefill_some(
        self, x_bld: Tensor, asked_bmd: Tensor, *, place_bm: Tensor, lengths: list[int] | None, n_more: int
    ) -> tuple[Tensor, KeyValues]:
        """Do what `prefill` does, where only some tokens are asked for: these, at these places of their cells."""
        n_query = self.out.in_features
        weight, bias = self.qkv.weight, self.qkv.bias
        q_bmd = linear(asked_bmd, weight[:n_query], None if bias is None else bias[:n_query])
        kv_bld = linear(x_bld, weight[n_query:], None if bias is None else bias[n_query:])
        q_bhmk = q_bmd.unflatten(-1, (self.n_heads, -1)).transpose(1, 2)
        k_bhlk, v_bhlk = kv_bld.unflatten(-1, (2, self.n_heads // self.group, -1)).permute(2, 0, 3, 1, 4)
        q_bhmk = self._place(q_bhmk, place_bm)
        k_bhlk = self._place(k_bhlk, None if self.base is None else places(x_bld.shape[1], lengths, x_bld.device))
        kept = KeyValues.of(k_bhlk, v_bhlk, lengths, n_more)
        return self._look_back(q_bhmk, kept, place_bm), kept

    def step(self, x_b1d: Tensor, kept: KeyValues, place_b: Tensor) -> Tensor:
        """Mix one more token of each cell, at its place, with those before it, and keep its key and value as well."""
        q_bh1k, k_bh1k, v_bh1k = self._project(x_b1d, place=place_b.unsqueeze(1))
        kept.append(k_bh1k, v_bh1k, place_b)
        return self._look_back(q_bh1k, kept, place_b.unsqueeze(1))

    def _look_back(self, q_bhmk: Tensor, kept: KeyValues, place_bm: Tensor) -> Tensor:
        """Mix queries at given places with the keys and values up to there; shape `(cells, places, width)`."""
        key_bhwk, value_bhwk = self._spread(kept.key_bhwk), self._spread(kept.value_bhwk)
        allowed = torch.arange(key_bhwk.shape[2], device=place_bm.device) <= place_bm[:, None, :, None]
        mixed_bhmk = functional.scaled_dot_product_attention(q_bhmk, key_bhwk, value_bhwk, attn_mask=allowed)
        return self.out(mixed_bhmk.transpose(1, 2).flatten(2))

    def scores(self, x_bld: Tensor) -> Tensor:
        """Return the products of queries and keys, neither scaled nor masked, shape `(cells, heads, queries, keys)`."""
        q_bhlk, k_bhlk, _ = self._project(x_bld)
        return q_bhlk @ self._spread(k_bhlk).transpose(-1, -2)

    def weights(self, x_bld: Tensor, mask_bl: Tensor | None) -> Tensor:
        """Return the attention weights themselves, shape `(cells, heads, queries, keys)`; rows sum to one."""
        scores = self.scores(x_bld) * (x_bld.shape[-1] // self.n_heads) ** -0.5
        if self.padding_bias is not None and mask_bl is not None:
            return torch.softmax(scores + padding_scores(mask_bl, self.padding_bias), dim=-1)
        allowed = allowed_keys(mask_bl, x_bld.shape[1], causal=self.causal, device=x_bld.device)
        if allowed is not None:
            scores = scores.masked_fill(~allowed, float("-inf"))
        return torch.softmax(scores, dim=-1)

    def _project(
        self, x_bld: Tensor, *, lengths: list[int] | None = None, place: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each of shape `(cells, heads, tokens, head width)`.

        Those that several heads share are there once. Places count from the left, in packed cells from the first of
        each, unless they are given.
        """
        q_bhlk, k_bhlk, v_bhlk = (
            part_bld.unflatten(-1, (-1, self.out.in_features // self.n_heads)).transpose(1, 2)
            for part_bld in self.qkv(x_bld).split(self.widths, dim=-1)
        )
        if self.base is None:
            return q_bhlk, k_bhlk, v_bhlk
        place = places(x_bld.shape[1], lengths, x_bld.device) if place is None else place
        return self._place(q_bhlk, place), self._place(k_bhlk, place), v_bhlk

    def _place(self, x_bhlk: Tensor, place: Tensor | None) -> Tensor:
        """Turn queries or keys by their place, in attention where places do so."""
        return x_bhlk if self.base is None or place is None else rotate(x_bhlk, place, self.base)

    def _spread(self, x_bhlk: Tensor) -> Tensor:
        """Repeat keys or values for each head of those that share them."""
        return x_bhlk if self.group == 1 else x_bhlk.repeat_interleave(self.group, dim=1)


def _wave_base(config: configs.SoftmaxAttention, d_head: int) -> float | None:
    """Return the longest wave of rotary positions; `None` without such."""
    if config.rotary is None:
        return None
    if d_head % 2:
        msg = f"Rotary positions turn planes of two channels, but the heads have {d_head}; choose an even width."
        raise ValueError(msg)
    base = float(config.rotary.base)  # type: ignore[arg-type]
    if not 0 < base < math.inf:
        msg = f"The base of rotary positions is {base!r}; expected a number above zero, such as 10,000."
        raise ValueError(msg)
    return base


def gather_places(x_bld: Tensor, place_bm: Tensor) -> Tensor:
    """Return the token vectors at some places of each cell, shape `(cells, places, width)`."""
    return x_bld.gather(1, place_bm.unsqueeze(-1).expand(-1, -1, x_bld.shape[-1]))


def padding_scores(mask_bl: Tensor, bias: float) -> Tensor:
    """Return what is added to scores for being padding, shape `(cells, 1, 1, tokens)`, float32."""
    return (~mask_bl).float()[:, None, None, :] * bias


def allowed_keys(mask_bl: Tensor | None, length: int, *, causal: bool, device: torch.device) -> Tensor | None:
    """Return which keys a query may see, a boolean tensor that broadcasts to `(cells, heads, queries, keys)`."""
    real = None if mask_bl is None else mask_bl[:, None, None, :]
    if not causal:
        return real
    before = torch.ones(length, length, dtype=torch.bool, device=device).tril()[None, None]
    return before if real is None else before & real


def attend(q_bhlk: Tensor, k_bhlk: Tensor, v_bhlk: Tensor, mask_bl: Tensor | None, *, causal: bool) -> Tensor:
    """Softmax attention by the fastest exact way for device, precision and length; shape as the queries."""
    if not causal and _cell_by_cell_is_faster(q_bhlk):
        lengths = _lengths(mask_bl)
        if lengths is not None or mask_bl is None:
            return _attend_cell_by_cell(q_bhlk, k_bhlk, v_bhlk, lengths)
    if causal and mask_bl is None:
        return functional.scaled_dot_product_attention(q_bhlk, k_bhlk, v_bhlk, is_causal=True)
    allowed = allowed_keys(mask_bl, q_bhlk.shape[2], causal=causal, device=q_bhlk.device)
    return functional.scaled_dot_product_attention(q_bhlk, k_bhlk, v_bhlk, attn_mask=allowed)


def _cell_by_cell_is_faster(q_bhlk: Tensor) -> bool:
    """On a CPU, a long sentence alone fills the processor, and needs neither a mask nor work on padding."""
    return (
        q_bhlk.device.type == "cpu"
        and q_bhlk.shape[2] >= LONG
        and not torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
    )


def _lengths(mask_bl: Tensor | None) -> list[int] | None:
    """Return the number of real tokens of each cell if all padding is at the right, else `None`."""
    if mask_bl is None or (mask_bl[:, 1:] & ~mask_bl[:, :-1]).any():
        return None
    return mask_bl.sum(1).tolist()


def _attend_cell_by_cell(q_bhlk: Tensor, k_bhlk: Tensor, v_bhlk: Tensor, lengths: list[int] | None) -> Tensor:
    """Attend within each cell, to real tokens only; padding looks at them as well, since poolings may count it."""
    alone = _attend_in_blocks if _blocks_are_faster(q_bhlk) else functional.scaled_dot_product_attention
    if len(q_bhlk) == 1 and (lengths is None or lengths[0] == q_bhlk.shape[2]):
        return alone(q_bhlk, k_bhlk, v_bhlk)  # nothing to put together
    out_blhk = torch.zeros_like(q_bhlk.transpose(1, 2), memory_format=torch.contiguous_format)
    for cell in range(q_bhlk.shape[0]):
        q, real = q_bhlk[cell : cell + 1], slice(0, None if lengths is None else lengths[cell])
        k, v = (x_bhlk[cell : cell + 1, :, real] for x_bhlk in (k_bhlk, v_bhlk))
        if k.shape[2]:
            out_blhk[cell : cell + 1] = alone(q, k, v).transpose(1, 2)
    return out_blhk.transpose(1, 2)


def _blocks_are_faster(q_bhlk: Tensor) -> bool:
    """On a CPU, fused attention has slow products in bfloat16, but twice as fast ones where there are matrix units."""
    return q_bhlk.dtype == torch.bfloat16 and q_bhlk.device.type == "cpu" and not _has_matrix_units()


def _has_matrix_units() -> bool:
    """Whether the processor has AMX."""
    return bool(processor().get("amx_bf16"))


def _attend_packed(q_1hnk: Tensor, k_1hnk: Tensor, v_1hnk: Tensor, cells: list[slice]) -> Tensor:
    """Attend causally within each packed cell; shape as the queries."""
    in_blocks = _blocks_are_faster(q_1hnk)
    out_1nhk = torch.empty_like(q_1hnk.transpose(1, 2), memory_format=torch.contiguous_format)
    for cell in cells:
        q, k, v = (x_1hnk[:, :, cell] for x_1hnk in (q_1hnk, k_1hnk, v_1hnk))
        if in_blocks:
            mixed = _attend_back_in_blocks(q, k, v)
        else:
            mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        out_1nhk[:, cell] = mixed.transpose(1, 2)
    return out_1nhk.transpose(1, 2)


def _attend_back_in_blocks(q_bhlk: Tensor, k_bhlk: Tensor, v_bhlk: Tensor) -> Tensor:
    """Do what `_attend_in_blocks` does, causally: of the keys, those up to the end of each block."""
    q_hlk, k_hlk, v_hlk = (x_bhlk.flatten(0, 1).contiguous() for x_bhlk in (q_bhlk, k_bhlk, v_bhlk))
    q_hlk = q_hlk * q_hlk.shape[-1] ** -0.5
    k_hkl = k_hlk.transpose(1, 2)
    later = torch.ones(BLOCK, BLOCK, dtype=torch.bool, device=q_hlk.device).triu(1)
    blocks = []
    for start in range(0, q_hlk.shape[1], BLOCK):
        stop = min(start + BLOCK, q_hlk.shape[1])
        scores_hbl = q_hlk[:, start:stop] @ k_hkl[:, :, :stop]
        scores_hbl[:, :, start:].masked_fill_(later[: stop - start, : stop - start], float("-inf"))
        blocks.append(torch.softmax(scores_hbl, dim=-1) @ v_hlk[:, :stop])
    return torch.cat(blocks, dim=1).view(q_bhlk.shape)


def _attend_in_blocks(q_bhlk: Tensor, k_bhlk: Tensor, v_bhlk: Tensor) -> Tensor:
    """Products and softmax apart, some queries at a time, so that the scores stay in the processor's cache.

    In bfloat16 the products then have fast kernels that the fused attention does not use.
    """
    q_hlk, k_hlk, v_hlk = (x_bhlk.flatten(0, 1).contiguous() for x_bhlk in (q_bhlk, k_bhlk, v_bhlk))
    q_hlk = q_hlk * q_hlk.shape[-1] ** -0.5
    k_hkl = k_hlk.transpose(1, 2)
    blocks = [torch.softmax(q_hbk @ k_hkl, dim=-1) @ v_hlk for q_hbk in q_hlk.split(BLOCK, dim=1)]
    return torch.cat(blocks, dim=1).view(q_bhlk.shape)
