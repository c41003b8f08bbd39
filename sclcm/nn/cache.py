"""Keys and values of the tokens so far, so that a causal model reads each token only once."""

from __future__ import annotations

from dataclasses import dataclass
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
    def of(cls, key_bhlk: Tensor, value_bhlk: Tensor, n_more: int) -> KeyValues:
        """Keep the keys and values of the first tokens, and make room for so many more."""
        return cls(key_bhwk=_roomy(key_bhlk, n_more), value_bhwk=_roomy(value_bhlk, n_more))

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


def _roomy(x_bhlk: Tensor, n_more: int) -> Tensor:
    """Copy into memory with room for more tokens."""
    n_cells, n_heads, length, width = x_bhlk.shape
    x_bhwk = x_bhlk.new_zeros(n_cells, n_heads, length + n_more, width)
    x_bhwk[:, :, :length] = x_bhlk
    return x_bhwk
