"""Greedy decoding: tokens that a causal model adds to sentences, many cells at a time, each token read only once."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sclcm._sizes import as_int
from sclcm.engine.infer import in_pieces, to_tensors
from sclcm.nn.configs import ValueTable
from sclcm.nn.tokens import TokenTensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from sclcm.encoding.batches import TokenBatch
    from sclcm.nn.lcm import LCM

NONE = -1
"""Stands where no token was added."""


@dataclass(frozen=True, kw_only=True)
class Decoding:
    """How tokens are added, in token ids.

    Parameters
    ----------
    token_head
        Head that scores the tokens.
    value_head
        Head with one value for each token of the vocabulary; `None` where tokens have no values.
    n_tokens
        Most tokens that are added.
    stop
        Token after which none is added; `NONE` adds as many as there may be.
    max_value
        Largest value of an added token; the smallest is zero.
    bans_last
        Whether the last token of the sentence so far may not be chosen again, as none of the others may.
    repeats
        Whether all tokens of the sentence so far may be chosen again instead.
    ignored
        Tokens that are never chosen.
    classes
        Tokens among which the share of a chosen token is taken; others have no share.
    """

    token_head: str
    value_head: str | None
    n_tokens: int
    stop: int
    max_value: int
    bans_last: bool
    repeats: bool = False
    ignored: Sequence[int] = ()
    classes: Sequence[int] = ()

    def n_forward(self, places: Sequence[int]) -> int:
        """Return how many forward passes tell what stands so many places from the end, tokens as well as vectors.

        The last token need not be known: without `stop` among those before it, it is there for certain.

        Parameters
        ----------
        places
            Of tokens, counted from the end of the finished sentence; of vectors, from the end of what the last step
            reads.
        """
        return max(1, self.n_tokens - 1, self.n_tokens - min(places, default=0))


@dataclass(frozen=True, kw_only=True, eq=False)
class Generated:
    """What was added to each sentence; rows are cells.

    Parameters
    ----------
    token_ids
        The tokens added, as far as they were computed, `-1` after the last, shape `(cells, tokens)`, int64.
    values
        Their values, shape `(cells, tokens)`, int64.
    shares
        Probability of each among the classes, 0 for a token that is none of them, shape `(cells, tokens)`, float32.
    n_steps
        Tokens that decoding to the end adds, `stop` included, shape `(cells,)`, int64.
    vectors
        Vector of the token at a certain place of what the last step reads, shape `(cells, width)`, float32.
    """

    token_ids: np.ndarray
    values: np.ndarray
    shares: np.ndarray
    n_steps: np.ndarray
    vectors: np.ndarray

    @classmethod
    def empty(cls, n_cells: int, n_tokens: int, width: int) -> Generated:
        """Return arrays to be filled: nothing added, vectors of zeros."""
        return cls(
            token_ids=np.full((n_cells, n_tokens), NONE, dtype=np.int64),
            values=np.zeros((n_cells, n_tokens), dtype=np.int64),
            shares=np.zeros((n_cells, n_tokens), dtype=np.float32),
            n_steps=np.zeros(n_cells, dtype=np.int64),
            vectors=np.zeros((n_cells, width), dtype=np.float32),
        )

    def from_end(self, places: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the token so many places from the end of each finished sentence, and its share, shape `(cells,)`.

        `-1` stands for a token that was there before.
        """
        column = self.n_steps - 1 - places
        cells = np.arange(len(column))
        added = column >= 0
        column = np.where(added, column, 0)
        return np.where(added, self.token_ids[cells, column], NONE), np.where(added, self.shares[cells, column], 0.0)


def generate(
    lcm: LCM,
    batches: Iterable[TokenBatch],
    out: Generated,
    *,
    decoding: Decoding,
    places: int,
    device: torch.device,
) -> Iterator[int]:
    """Add tokens to sentences, batch by batch.

    Parameters
    ----------
    lcm
        The model, on `device`.
    batches
        Sentences in rectangles, padded at the right.
    out
        What is filled, one row for each cell of the data set; as many steps run as it has columns.
    decoding
        How tokens are chosen.
    places
        Whose vector is kept: of what the last step reads, the token so many places from the end.
    device
        Where to compute.

    Yields
    ------
    The number of cells done with, after each piece of a batch. Where the memory of the device does not suffice, the
    budget is halved and the pass goes on.
    """
    heads = _Heads(lcm, decoding)

    def work(piece: TokenBatch, pending: list[Generated]) -> None:
        with torch.inference_mode():
            found = _decode(lcm, to_tensors(piece, device), heads, n_forward=out.token_ids.shape[1], places=places)
            for name, tensor in found.items():
                getattr(pending[0], name)[piece.rows] = tensor.cpu().numpy()

    yield from in_pieces(batches, [out], work, device=device)


class _Heads:
    """The two heads of decoding, in float32, since scores of half precision would tie."""

    def __init__(self, lcm: LCM, decoding: Decoding) -> None:
        self.decoding = decoding
        self._score = _as_float32(lcm.heads[decoding.token_head])
        self._value = None if decoding.value_head is None else _as_float32(lcm.heads[decoding.value_head])

    def choose(self, x_bd: Tensor, banned_bv: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return token, value and share of each cell, shape `(cells,)`, from the vector of its last token."""
        x_bd = x_bd.float()
        with torch.autocast(x_bd.device.type, enabled=False):
            score_bv = self._score(x_bd).masked_fill(banned_bv, float("-inf"))
            value_bv = torch.zeros_like(score_bv) if self._value is None else self._value(x_bd)
        token_b1 = score_bv.argmax(-1, keepdim=True)
        # Half to even, as numpy rounds.
        value_b = value_bv.gather(1, token_b1).round().clamp(0, self.decoding.max_value).long().squeeze(1)
        return token_b1.squeeze(1), value_b, self._share(score_bv, token_b1)

    def _share(self, score_bv: Tensor, token_b1: Tensor) -> Tensor:
        classes_c = torch.tensor(self.decoding.classes, dtype=torch.long, device=score_bv.device)
        if not len(classes_c):
            return score_bv.new_zeros(len(score_bv))
        is_class_b = torch.isin(token_b1.squeeze(1), classes_c)
        share_b = (score_bv.gather(1, token_b1).squeeze(1) - score_bv[:, classes_c].logsumexp(1)).exp()
        return torch.where(is_class_b, share_b, torch.zeros_like(share_b))


def _as_float32(head: torch.nn.Module) -> Callable[[Tensor], Tensor]:
    is_float32 = all(parameter.dtype == torch.float32 for parameter in head.parameters())
    return head if is_float32 else copy.deepcopy(head).float()


def _decode(lcm: LCM, tokens: TokenTensors, heads: _Heads, *, n_forward: int, places: int) -> dict[str, Tensor]:
    """Add tokens to the sentences of one batch; cells that are finished leave it."""
    decoding = heads.decoding
    read_bmd, cache = lcm.prefill(tokens, n_last=places + 1, n_more=n_forward - 1)
    n_cells, device = len(read_bmd), read_bmd.device
    token_ids = torch.full((n_cells, n_forward), NONE, device=device)
    values, shares = torch.zeros_like(token_ids), torch.zeros(n_cells, n_forward, device=device)
    n_steps = torch.full((n_cells,), decoding.n_tokens, device=device)
    # Vectors from the place that the first step looks at to the last that is read; each step looks one further.
    window = torch.cat([read_bmd, read_bmd.new_zeros(n_cells, n_forward - 1, read_bmd.shape[2])], dim=1)
    cells_c, x_cd = torch.arange(n_cells, device=device), read_bmd[:, -1]
    last_c, banned_cv = _last_tokens(tokens), _banned(tokens, lcm.embed.gene.num_embeddings, decoding)
    for step in range(n_forward):
        token_c, value_c, share_c = heads.choose(x_cd, banned_cv)
        token_ids[cells_c, step], values[cells_c, step], shares[cells_c, step] = token_c, value_c, share_c
        stops_c = token_c == decoding.stop
        n_steps[cells_c[stops_c]] = step + 1
        going = (~stops_c).nonzero().squeeze(1)
        if step + 1 == n_forward or not len(going):
            break
        if not decoding.repeats:
            banned_cv.scatter_(1, (token_c if decoding.bans_last else last_c).unsqueeze(1), value=True)
        if len(going) < len(cells_c):
            cells_c, token_c, value_c, banned_cv = (x[going] for x in (cells_c, token_c, value_c, banned_cv))
            cache = cache.take(going)
        x_cd, cache = lcm.step(_one_token(lcm, token_c, value_c), cache)
        window[cells_c, places + 1 + step] = x_cd
        last_c = token_c
    vectors = window[torch.arange(n_cells, device=device), n_steps.clamp(max=window.shape[1]) - 1].float()
    return {"token_ids": token_ids, "values": values, "shares": shares, "n_steps": n_steps, "vectors": vectors}


def _last_tokens(tokens: TokenTensors) -> Tensor:
    """Return the last token of each sentence, shape `(cells,)`."""
    return tokens.token_ids_bl.gather(1, tokens.lengths().unsqueeze(1) - 1).squeeze(1)


def _banned(tokens: TokenTensors, n_vocabulary: int, decoding: Decoding) -> Tensor:
    """Return which tokens may not be chosen first, shape `(cells, tokens of the vocabulary)`."""
    n_cells, length = tokens.token_ids_bl.shape
    device = tokens.token_ids_bl.device
    n_banned_b = tokens.lengths() - (0 if decoding.bans_last else 1)
    cells_n, places_n = (torch.arange(length, device=device) < n_banned_b.unsqueeze(1)).nonzero(as_tuple=True)
    banned_bv = torch.zeros(n_cells, n_vocabulary, dtype=torch.bool, device=device)
    banned_bv[cells_n, tokens.token_ids_bl[cells_n, places_n]] = not decoding.repeats
    banned_bv[:, torch.tensor(decoding.ignored, dtype=torch.long, device=device)] = True
    return banned_bv


def _one_token(lcm: LCM, token_c: Tensor, value_c: Tensor) -> TokenTensors:
    """Make the batch of one token for each cell; one with a value counts as a gene."""
    table = lcm.config.value
    largest = as_int(table.n_values) - 1 if isinstance(table, ValueTable) else None
    value_c1 = (value_c if largest is None else value_c.clamp(max=largest)).unsqueeze(1)
    return TokenTensors(token_ids_bl=token_c.unsqueeze(1), mask_bl=None, gene_mask_bl=value_c1 > 0, value_bl=value_c1)
