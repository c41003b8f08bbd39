"""Attention by conserved flows: tokens meet through sums over all of them, so that a set may be gone over in pieces."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

import torch
from torch import Tensor, nn

from sclcm._sizes import as_int
from sclcm.nn.layers import Linear

if TYPE_CHECKING:
    from sclcm.nn import set_configs

Sums: TypeAlias = tuple[Tensor, ...]
"""What one round adds up over all tokens, float64 where the device has it."""


class FlowAttention(nn.Module):
    """Multi-head attention by conserved flows, with one joint projection for queries, keys and values.

    A query is a sink and a key a source. What flows in and out is first counted, then what each sink and source keeps
    when the others' flows are one; sources then compete by a softmax over all tokens, and a gate lets each sink take
    its share. Three rounds of sums are all that a token learns of the others.
    """

    n_rounds = 3

    def __init__(self, config: set_configs.FlowAttention, d_model: int) -> None:
        super().__init__()
        self.n_heads = as_int(config.n_heads)
        if d_model % self.n_heads:
            msg = f"{self.n_heads} heads do not divide a width of {d_model}."
            raise ValueError(msg)
        self.eps = float(config.eps)  # type: ignore[arg-type]
        self.qkv = Linear(d_model, 3 * d_model, bias=bool(config.bias))
        self.out = Linear(d_model, d_model, bias=bool(config.bias))

    def forward(self, x_bld: Tensor, mask_bl: Tensor | None) -> Tensor:
        """Mix token vectors.

        Parameters
        ----------
        x_bld
            Token vectors, shape `(sentences, tokens, width)`; where tokens are cells, a sentence is a set of cells.
        mask_bl
            Which tokens are real, shape `(sentences, tokens)`, or `None` if all are.

        Returns
        -------
        Shape `(sentences, tokens, width)`.
        """
        q_bhlk, k_bhlk, v_bhlk = self._project(x_bld)
        return self._take(q_bhlk, self._rounds(q_bhlk, k_bhlk, v_bhlk, mask_bl), x_bld.dtype)

    def gather(self, x_bld: Tensor, known: tuple[Sums, ...]) -> Sums:
        """Return what some tokens of a set add to the sums of the next round.

        Parameters
        ----------
        x_bld
            Vectors of some tokens, shape `(sentences, tokens, width)`.
        known
            Sums over all tokens of the rounds before.
        """
        return self._sums(*self._project(x_bld), None, known)

    def mix(self, x_bld: Tensor, known: tuple[Sums, ...]) -> Tensor:
        """Mix some tokens of a set, shape as given, when the sums of all rounds are known."""
        return self._take(self._project(x_bld)[0], known, x_bld.dtype)

    def weights(self, x_bld: Tensor, mask_bl: Tensor | None) -> Tensor:
        """Return how much each value counts for each token, shape `(sentences, heads, queries, keys)`.

        The output is their product with the values, but rows do not sum to one: a gate closes and opens each.
        """
        q_bhlk, k_bhlk, v_bhlk = self._project(x_bld)
        (_, keys, count), (queries, conserved), (_, weights) = self._rounds(q_bhlk, k_bhlk, v_bhlk, mask_bl)
        share_bhl1 = self._kept(k_bhlk, queries).clamp(-1, 1).exp() * (count / weights).float()
        share_bhl1 = share_bhl1 if mask_bl is None else share_bhl1 * mask_bl[:, None, :, None]
        gate_bhl1 = torch.sigmoid(self._kept(q_bhlk, conserved)) / self._kept(q_bhlk, keys)
        return (q_bhlk * gate_bhl1) @ (k_bhlk * share_bhl1).transpose(-1, -2)

    def _rounds(self, q_bhlk: Tensor, k_bhlk: Tensor, v_bhlk: Tensor, mask_bl: Tensor | None) -> tuple[Sums, ...]:
        known: tuple[Sums, ...] = ()
        for _ in range(self.n_rounds):
            known = (*known, self._sums(q_bhlk, k_bhlk, v_bhlk, mask_bl, known))
        return known

    def _project(self, x_bld: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each of shape `(sentences, heads, tokens, head width)`, float32."""
        q_bhlk, k_bhlk, v_bhlk = self.qkv(x_bld).float().unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        return torch.sigmoid(q_bhlk), torch.sigmoid(k_bhlk), v_bhlk

    def _sums(
        self, q_bhlk: Tensor, k_bhlk: Tensor, v_bhlk: Tensor, mask_bl: Tensor | None, known: tuple[Sums, ...]
    ) -> Sums:
        real_bhl1 = None if mask_bl is None else mask_bl[:, None, :, None].float()
        match known:
            case ():
                ones_bhl1 = torch.ones_like(q_bhlk[..., :1]) if real_bhl1 is None else real_bhl1
                return _total(q_bhlk, real_bhl1), _total(k_bhlk, real_bhl1), _total(ones_bhl1, None)
            case (flows,):
                to_sinks, from_sources = self._kept(q_bhlk, flows[1]), self._kept(k_bhlk, flows[0])
                return _total(q_bhlk / to_sinks, real_bhl1), _total(k_bhlk / from_sources, real_bhl1)
            case _:
                # Within [-1, 1], so that exponents need no stabiliser.
                weight_bhl1 = self._kept(k_bhlk, known[1][0]).clamp(-1, 1).exp()
                weight_bhl1 = weight_bhl1 if real_bhl1 is None else weight_bhl1 * real_bhl1
                kv_bhkm = k_bhlk.transpose(-1, -2) @ (v_bhlk * weight_bhl1)
                return kv_bhkm.to(_exact(kv_bhkm)), _total(weight_bhl1, None)

    def _kept(self, x_bhlk: Tensor, total_bh1k: Tensor) -> Tensor:
        """Return products of tokens with a sum over the others, shape `(sentences, heads, tokens, 1)`."""
        return ((x_bhlk + self.eps) * (total_bh1k.float() + self.eps)).sum(-1, keepdim=True)

    def _take(self, q_bhlk: Tensor, known: tuple[Sums, ...], dtype: torch.dtype) -> Tensor:
        (_, keys, count), (_, conserved), (kv_bhkm, weights) = known
        shares_bhkm = (kv_bhkm * (count / weights)).float()
        gate_bhl1 = torch.sigmoid(self._kept(q_bhlk, conserved))
        mixed_bhlk = (q_bhlk / self._kept(q_bhlk, keys)) @ shares_bhkm * gate_bhl1
        return self.out(mixed_bhlk.transpose(1, 2).flatten(2).to(dtype))


def _exact(x: Tensor) -> torch.dtype:
    return torch.float32 if x.device.type == "mps" else torch.float64


def _total(x_bhlk: Tensor, real_bhl1: Tensor | None) -> Tensor:
    """Sum over real tokens, shape `(sentences, heads, 1, head width)`."""
    x_bhlk = x_bhlk if real_bhl1 is None else x_bhlk * real_bhl1
    return x_bhlk.sum(2, keepdim=True, dtype=_exact(x_bhlk))
