"""Random numbers that depend on a cell's counts and a seed alone: not on its neighbours, its place or the machine."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

Draws = Mapping[str, np.ndarray]
"""Numbers that take the place of our own, by the name of the step: one for each value, shape `(values,)`; or, for steps
that draw as often as they like, a row for each cell, shape `(cells, numbers)`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CellRandom:
    """A source of uniform numbers for each cell of a chunk.

    Parameters
    ----------
    counts
        Aligned counts of the cells, shape `(cells, features)`, canonical CSR.
    random_state
        The seed.
    draws
        Numbers to give out instead, such as those that another implementation has drawn.
    """

    counts: csr_matrix
    random_state: int = 0
    draws: Draws = field(default_factory=dict)
    _digests: dict[int, bytes] = field(default_factory=dict, init=False, repr=False)

    def uniforms(self, step: str, cell: int, *, start: int, stop: int) -> np.ndarray:
        """Return numbers of [0, 1) for the values `start:stop`, which are those of a cell, shape `(stop - start,)`."""
        if step in self.draws:
            return self.draws[step][start:stop]
        return np.random.Generator(np.random.Philox(key=self._key(step, cell))).random(stop - start)

    def numbers(self, step: str, cell: int, *, n: int) -> np.ndarray:
        """Return so many numbers of [0, 1) of a cell, shape `(n,)`."""
        if step in self.draws:
            return self.draws[step][cell, :n]
        return np.random.Generator(np.random.Philox(key=self._key(step, cell))).random(n)

    def _key(self, step: str, cell: int) -> int:
        if cell not in self._digests:  # steps share it: reading the counts is most of the work
            row = slice(self.counts.indptr[cell], self.counts.indptr[cell + 1])
            digest = hashlib.blake2b(self.counts.indices[row].astype("<i4", copy=False).tobytes(), digest_size=16)
            digest.update(self.counts.data[row].astype("<f4", copy=False).tobytes())
            self._digests[cell] = digest.digest()
        key = hashlib.blake2b(f"{self.random_state} {step} ".encode() + self._digests[cell], digest_size=16)
        return int.from_bytes(key.digest(), "little")


def check_random_state(random_state: int) -> None:
    """Refuse a seed that is no integer."""
    if isinstance(random_state, bool) or not isinstance(random_state, int | np.integer):
        msg = f"`random_state` is {random_state!r}; expected an integer."
        raise TypeError(msg)
