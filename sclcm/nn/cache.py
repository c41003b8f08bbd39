"""Keys and values of the tokens so far, so that a causal model reads each token only once."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class KeyValues:
    """What one attention layer keeps of each token; a cell's tokens stand at the left, with room for more after them.

    Parameters
    ----------
    key_bhwk
    value_bhwk
        Shape `(cells, heads, width of the room, head width)`.
    """

    key_bhwk: Tensor
    value_bhwk: Tensor

    @classmethod
    def of(cls, key_bhlk: Tensor, value_bhlk: Tensor, lengths: list[int] | None, n_more: int) -> KeyValues:
        """Keep the keys and values of the first tokens, and make room for so many more.

        Parameters
        ----------
        key_bhlk
        value_bhlk
            Shape `(cells, heads, tokens, head width)`; of packed cells `(1, heads, all tokens, head width)`.
        lengths
            Tokens of each packed cell; `None` where cells stand in a rectangle.
        n_more
            Tokens to make room for.
        """
        make = _roomy if lengths is None else partial(_unpacked, lengths=lengths)
        return cls(key_bhwk=make(key_bhlk, n_more=n_more), value_bhwk=make(value_bhlk, n_more=n_more))

    def append(self, key_bh1k: Tensor, value_bh1k: Tensor, place_b: Tensor) -> None:
        """Put one token of each cell at its place, which is as many as the cell has tokens already."""
        cells = torch.arange(len(place_b), device=place_b.device)
        self.key_bhwk[cells, :, place_b] = key_bh1k[:, :, 0]
        self.value_bhwk[cells, :, place_b] = value_bh1k[:, :, 0]

    def take(self, cells_c: Tensor) -> KeyValues:
        """Return the part of some cells."""
        return KeyValues(key_bhwk=self.key_bhwk[cells_c], value_bhwk=self.value_bhwk[cells_c])


@dataclass(frozen=True, kw_only=True, eq=False)
class Cache:
    """What a causal model keeps of the tokens so far.

    Parameters
    ----------
    blocks
        Of each block.
    length_b
        Tokens of each cell so far, shape `(cells,)`.
    """

    blocks: tuple[KeyValues, ...]
    length_b: Tensor

    def take(self, cells_c: Tensor) -> Cache:
        """Return the part of some cells."""
        return Cache(blocks=tuple(block.take(cells_c) for block in self.blocks), length_b=self.length_b[cells_c])


def pack(x_bld: Tensor, length_b: Tensor) -> tuple[Tensor, list[int] | None]:
    """Put the real tokens of all cells one after the other where that is faster, shape `(1, all tokens, width)`.

    On a CPU each cell is attended to on its own, and nothing is computed for padding.

    Returns
    -------
    The token vectors, and the number of each cell's; `None` if they were left in the rectangle.
    """
    if x_bld.device.type != "cpu" or torch.is_grad_enabled() or torch.compiler.is_compiling():
        return x_bld, None
    real_bl = torch.arange(x_bld.shape[1]) < length_b.unsqueeze(1)
    return x_bld[real_bl].unsqueeze(0), length_b.tolist()


def spans(lengths: list[int]) -> list[slice]:
    """Return where each packed cell stands."""
    return [slice(stop - length, stop) for length, stop in zip(lengths, accumulate(lengths), strict=True)]


def _unpacked(x_1hnk: Tensor, *, lengths: list[int], n_more: int) -> Tensor:
    """Copy packed cells into a rectangle with room for more tokens."""
    _, n_heads, _, width = x_1hnk.shape
    x_bhwk = x_1hnk.new_zeros(len(lengths), n_heads, max(lengths) + n_more, width)
    for cell, span in enumerate(spans(lengths)):
        x_bhwk[cell, :, : lengths[cell]] = x_1hnk[0, :, span]
    return x_bhwk


def _roomy(x_bhlk: Tensor, *, n_more: int) -> Tensor:
    """Copy into memory with room for more tokens."""
    n_cells, n_heads, length, width = x_bhlk.shape
    x_bhwk = x_bhlk.new_zeros(n_cells, n_heads, length + n_more, width)
    x_bhwk[:, :, :length] = x_bhlk
    return x_bhwk
