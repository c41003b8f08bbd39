"""Attention by positive random features (FAVOR+): linear in the length of a sentence, in time and in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
from torch import Tensor, nn

from sclcm._sizes import as_int
from sclcm.nn.layers import Linear

if TYPE_CHECKING:
    from sclcm.nn import configs

EPS = 1e-4
"""Added to every feature; because of it the stabilisers do not cancel out of the result."""

CPU_FEATURES = 1 << 20
"""Features computed at a time on a CPU; they then stay near the cache."""

DEVICE_FEATURES = 1 << 26
"""Features computed at a time on an accelerator."""


class KernelAttention(nn.Module):
    """Multi-head attention whose softmax is replaced by products of random features, which are stored.

    With queries and keys divided by the fourth root of the head width, the feature of a query `q` by the random vector
    `p` is `exp(p.q - |q|^2 / 2 - s) + eps`, where `s` is the largest of its products with random vectors. That of a key
    is the same with the largest product of all keys that `stabilizer` names. A query attends to a key by the product of
    their features, over the sum of those products.
    """

    projection: Tensor

    def __init__(self, config: configs.KernelAttention, d_model: int) -> None:
        super().__init__()
        self.n_heads, self.d_head = as_int(config.n_heads), as_int(config.d_head)
        self.stabilizer, self.padding = config.stabilizer, config.padding
        self.qkv = Linear(d_model, 3 * self.n_heads * self.d_head, bias=bool(config.qkv_bias))
        self.out = Linear(self.n_heads * self.d_head, d_model, bias=bool(config.out_bias))
        self.register_buffer("projection", torch.empty(as_int(config.n_features), self.d_head))
        draw_projection_(self.projection)

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
        with _single_precision(x_bld):
            mixed_bhlk = self._kernel(q_bhlk, k_bhlk, mask_bl).mix(v_bhlk.float()).to(v_bhlk.dtype)
        return self.out(mixed_bhlk.transpose(1, 2).flatten(2))

    def weights(self, x_bld: Tensor, mask_bl: Tensor | None) -> Tensor:
        """Return the attention weights themselves, shape `(cells, heads, queries, keys)`: quadratic in length.

        They are what the identity as values would be mixed to. Rows sum to one, unless padding counts, which has a
        weight but no value.
        """
        q_bhlk, k_bhlk, _ = self._project(x_bld)
        with _single_precision(x_bld):
            return self._kernel(q_bhlk, k_bhlk, mask_bl).weights()

    def received(self, x_bld: Tensor, mask_bl: Tensor | None) -> Tensor:
        """Return how much each key is attended to on average over the real queries, shape `(cells, heads, keys)`.

        That is the mean of `weights` over queries, in memory that is linear in length.
        """
        q_bhlk, k_bhlk, _ = self._project(x_bld)
        with _single_precision(x_bld):
            return self._kernel(q_bhlk, k_bhlk, mask_bl).received()

    def _project(self, x_bld: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return queries, keys and values, each of shape `(cells, heads, tokens, head width)`."""
        q_bhlk, k_bhlk, v_bhlk = self.qkv(x_bld).unflatten(-1, (3, self.n_heads, -1)).permute(2, 0, 3, 1, 4)
        return q_bhlk, k_bhlk, v_bhlk

    def _kernel(self, q_bhlk: Tensor, k_bhlk: Tensor, mask_bl: Tensor | None) -> _Kernel:
        scale = self.d_head**-0.25
        real_b1l1 = None if mask_bl is None else mask_bl[:, None, :, None]
        return _Kernel(
            q_bhlk=q_bhlk.float() * scale,
            k_bhlk=k_bhlk.float() * scale,
            projection_kr=self.projection.float().T,
            real_b1l1=real_b1l1,
            key_b1l1=real_b1l1 if self.padding == "excluded" else None,
            stabilizer=self.stabilizer,
        )


@dataclass(frozen=True, kw_only=True, eq=False)
class _Kernel:
    """Queries and keys of some cells as features, some tokens at a time.

    Parameters
    ----------
    q_bhlk
    k_bhlk
        Scaled queries and keys.
    projection_kr
        The random vectors.
    real_b1l1
        Which tokens are real; `None` if all are.
    key_b1l1
        Which tokens are keys; `None` if all are.
    stabilizer
        Over what the largest product of the keys is taken.
    """

    q_bhlk: Tensor
    k_bhlk: Tensor
    projection_kr: Tensor
    real_b1l1: Tensor | None
    key_b1l1: Tensor | None
    stabilizer: Literal["cell", "head", "batch"]

    def mix(self, v_bhlk: Tensor) -> Tensor:
        """Return the values that queries attend to, shape as the queries."""
        # The sum over keys is one product more, by a value of one.
        value_bhlk = v_bhlk if self.real_b1l1 is None else v_bhlk.masked_fill(~self.real_b1l1, 0)
        summed_bhrv, _ = self._sum_keys(torch.cat([value_bhlk, torch.ones_like(v_bhlk[..., :1])], dim=-1))
        least_bh1v = EPS * summed_bhrv.sum(2, keepdim=True)
        parts = []
        for part in self._parts():
            shares = self._shares(self.q_bhlk[:, :, part])
            parts.append(torch.addcmul(least_bh1v, shares.query_factor(), shares.share_bhnr @ summed_bhrv))
        mixed_bhlv = torch.cat(parts, dim=2)
        return mixed_bhlv[..., :-1] / _not_zero(mixed_bhlv[..., -1:])

    def weights(self) -> Tensor:
        """Return the weight of each key for each query, shape `(cells, heads, queries, keys)`."""
        whole, shares = slice(None), self._shares(self.k_bhlk)
        key_bhlr = self._keys(whole, shares, self._stabilizer(shares.most(), whole))
        query_bhlr = self._queries(whole)
        products_bhqk = query_bhlr @ key_bhlr.transpose(-1, -2)
        weights_bhqk = products_bhqk / _not_zero(products_bhqk.sum(-1, keepdim=True))
        return weights_bhqk if self.real_b1l1 is None else weights_bhqk * self.real_b1l1.transpose(-1, -2)

    def received(self) -> Tensor:
        """Return the mean weight of each key over the real queries, shape `(cells, heads, keys)`."""
        total_bhr1, largest = self._sum_keys(torch.ones_like(self.k_bhlk[..., :1]))
        real_bhl1 = torch.ones_like(self.q_bhlk[..., :1])
        real_bhl1 = real_bhl1 if self.real_b1l1 is None else real_bhl1 * self.real_b1l1
        share_bhl1 = real_bhl1 / _not_zero(real_bhl1.sum(2, keepdim=True))
        asked_bhr1 = torch.zeros_like(total_bhr1)
        for part in self._parts():
            query_bhnr = self._queries(part)
            asked_bhr1 = asked_bhr1 + query_bhnr.transpose(-1, -2) @ (
                share_bhl1[:, :, part] / _not_zero(query_bhnr @ total_bhr1)
            )
        found = [
            self._keys(part, self._shares(self.k_bhlk[:, :, part]), largest) @ asked_bhr1 for part in self._parts()
        ]
        received_bhl = torch.cat(found, dim=2)[..., 0]
        return received_bhl * real_bhl1[..., 0]

    def _parts(self) -> list[slice]:
        """Return stretches of tokens whose features fit into memory at once."""
        n_cells, n_heads, length, _ = self.q_bhlk.shape
        at_once = CPU_FEATURES if self.q_bhlk.device.type == "cpu" else DEVICE_FEATURES
        size = max(1, at_once // (n_cells * n_heads * self.projection_kr.shape[1]))
        return [slice(start, start + size) for start in range(0, length, size)]

    def _shares(self, x_bhnk: Tensor) -> _Shares:
        products_bhnr = x_bhnk @ self.projection_kr
        return _Shares(
            products_bhnr=products_bhnr, share_bhnr=products_bhnr.softmax(-1), half_bhn1=_half_square(x_bhnk)
        )

    def _queries(self, part: slice) -> Tensor:
        """Return the features of some queries, shape `(cells, heads, queries, features)`."""
        shares = self._shares(self.q_bhlk[:, :, part])
        return shares.share_bhnr * shares.query_factor() + EPS

    def _keys(self, part: slice, shares: _Shares, largest: Tensor) -> Tensor:
        """Return the features of some keys, shape `(cells, heads, keys, features)`; zero where there is no key."""
        feature_bhnr = shares.share_bhnr * shares.key_factor(shares.most(), largest) + EPS
        return feature_bhnr if self.key_b1l1 is None else feature_bhnr.masked_fill(~self.key_b1l1[:, :, part], 0)

    def _stabilizer(self, most_bhn1: Tensor, part: slice) -> Tensor:
        """Return the largest of the products of some keys; broadcasts to them."""
        if self.key_b1l1 is not None:
            lowest = torch.finfo(most_bhn1.dtype).min
            most_bhn1 = most_bhn1.masked_fill(~self.key_b1l1[:, :, part], lowest)
        match self.stabilizer:
            case "head":
                return most_bhn1.amax(2, keepdim=True)
            case "cell":
                return most_bhn1.amax((1, 2), keepdim=True)
            case "batch":
                return most_bhn1.amax()

    def _sum_keys(self, value_bhlv: Tensor) -> tuple[Tensor, Tensor]:
        """Return the sum over keys of feature times value, and the largest product of a key with a random vector.

        Each product is computed once: what is summed already is scaled down whenever a larger one is met. The sum has
        the shape `(cells, heads, features, width of a value)`; the other broadcasts to the features of keys.
        """
        if self.key_b1l1 is not None:
            value_bhlv = value_bhlv.masked_fill(~self.key_b1l1, 0)
        n_cells, n_heads, _, width = value_bhlv.shape
        summed_bhrv = value_bhlv.new_zeros(n_cells, n_heads, self.projection_kr.shape[1], width)
        largest = value_bhlv.new_full((), torch.finfo(value_bhlv.dtype).min)
        for part in self._parts():
            shares = self._shares(self.k_bhlk[:, :, part])
            most_bhn1, before = shares.most(), largest
            largest = torch.maximum(before, self._stabilizer(most_bhn1, part))
            factor_bhn1 = shares.key_factor(most_bhn1, largest)
            if self.key_b1l1 is not None:
                factor_bhn1 = factor_bhn1.masked_fill(~self.key_b1l1[:, :, part], 0)
            added_bhrv = shares.share_bhnr.transpose(-1, -2) @ (factor_bhn1 * value_bhlv[:, :, part])
            summed_bhrv = torch.addcmul(added_bhrv, summed_bhrv, torch.exp(before - largest))
        return summed_bhrv + EPS * value_bhlv.sum(2, keepdim=True), largest


@dataclass(frozen=True, kw_only=True, eq=False)
class _Shares:
    """Features of some tokens, up to a factor for each token: their exponents as shares of their sum.

    A softmax is one pass over the features, where products, differences and exponents one after another are four.

    Parameters
    ----------
    products_bhnr
        Products with the random vectors.
    share_bhnr
        `exp` of each product over the sum of them all.
    half_bhn1
        Half the squared length of the token's query or key.
    """

    products_bhnr: Tensor
    share_bhnr: Tensor
    half_bhn1: Tensor

    def query_factor(self) -> Tensor:
        """Return what the shares of queries are multiplied by."""
        return torch.exp(-self.half_bhn1) / self.share_bhnr.amax(-1, keepdim=True)

    def most(self) -> Tensor:
        """Return the largest product of each token."""
        return self.products_bhnr.amax(-1, keepdim=True)

    def key_factor(self, most_bhn1: Tensor, largest: Tensor) -> Tensor:
        """Return what the shares of keys are multiplied by, when these are the largest products, and of all keys."""
        exponent_bhn1 = (most_bhn1 - self.half_bhn1 - largest).clamp(max=0)  # only padding's may be larger
        return torch.exp(exponent_bhn1) / self.share_bhnr.amax(-1, keepdim=True)


def _not_zero(sum_bhl1: Tensor) -> Tensor:
    """Return what to divide by. Only a sum over no keys is less than one product of two features, and is zero."""
    return sum_bhl1.clamp_min(EPS**2 / 2)


def _half_square(x_bhnk: Tensor) -> Tensor:
    return x_bhnk.square().sum(-1, keepdim=True) / 2


def _single_precision(x_bld: Tensor) -> torch.autocast:
    """Exponents of features are taken in float32, whatever the model is computed in."""
    return torch.autocast(x_bld.device.type, enabled=False)


def draw_projection_(projection_rk: Tensor) -> None:
    """Fill in random vectors: orthogonal to each other in blocks of the head width, as long as Gaussian vectors are."""
    if projection_rk.is_meta:
        return
    with torch.no_grad():
        for block_kk in projection_rk.split(projection_rk.shape[1]):
            nn.init.orthogonal_(block_kk)
        projection_rk.mul_(torch.randn_like(projection_rk).norm(dim=1, keepdim=True))
