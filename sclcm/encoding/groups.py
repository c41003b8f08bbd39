"""Sentences that hold a weighted sample of a cell's genes, in groups with a token before and after each."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sclcm._sizes import Size, as_int

if TYPE_CHECKING:
    from sclcm.encoding.draws import CellRandom
    from sclcm.encoding.normalize import Arrays


@dataclass(frozen=True, kw_only=True)
class SampledGroups:
    """A sample of the genes, drawn with replacement and weighted by value, in groups whose order is shuffled.

    A group begins with a token of its own and ends with one that all groups share. Within it genes stand in ascending
    order of their place, repeats next to each other. Which genes are drawn and the order of the groups are keyed by
    the cell; a gene's chances do not depend on the order of var.

    Parameters
    ----------
    n_draws
        Genes that are drawn of each cell, however many it expresses.
    group
        Name of the companion array with the token that opens each token's group, shape `(tokens of the vocabulary,)`.
    place
        Name of the companion array with each token's place in its group, likewise.
    close
        Special token that ends a group.
    """

    n_draws: Size
    group: str
    place: str
    close: str

    def sample(
        self,
        weights: np.ndarray,
        token_ids: np.ndarray,
        indptr: np.ndarray,
        *,
        arrays: Arrays,
        close: int,
        random: CellRandom,
    ) -> list[np.ndarray]:
        """Return, for each cell, the positions of its tokens among the stored values.

        Parameters
        ----------
        weights
            Values of all cells, one after the other, shape `(stored,)`.
        token_ids
            Tokens of the stored values, likewise.
        indptr
            Where each cell begins.
        arrays
            Companion arrays.
        close
            Token id of the token that ends a group.
        random
            Uniform numbers: `"sample"`, one for each draw, and `"groups"`, one for each group in ascending order of
            its token.

        Returns
        -------
        Positions; a token that is no gene is there as `-1 - token id`. A cell without values has no tokens.
        """
        groups, places = arrays[self.group], arrays[self.place]
        rows = []
        for cell, (start, stop) in enumerate(itertools.pairwise(indptr.tolist())):
            if start == stop:
                rows.append(np.zeros(0, dtype=np.int64))
                continue
            uniforms = random.numbers("sample", cell, n=as_int(self.n_draws))
            drawn = start + draw_weighted(weights[start:stop], uniforms)
            tokens = token_ids[drawn]
            order = _in_groups(groups[tokens], places[tokens], drawn, cell=cell, random=random)
            rows.append(_framed(drawn[order], groups[tokens[order]], close))
        return rows


def draw_weighted(weights: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
    """Return the place of a weight for each uniform number, in proportion to the weights."""
    sums = np.cumsum(weights, dtype=np.float64)
    # A number just below one may be rounded up to the whole sum, beyond the last place.
    return np.minimum(sums.searchsorted(uniforms * sums[-1], side="right"), len(weights) - 1)


def _in_groups(
    groups: np.ndarray, places: np.ndarray, drawn: np.ndarray, *, cell: int, random: CellRandom
) -> np.ndarray:
    """Return the order of drawn genes: groups as shuffled, then by place; ties as stored, that is by the vocabulary."""
    present, group_of = np.unique(groups, return_inverse=True)
    rank = np.empty(len(present), dtype=np.int64)
    rank[np.argsort(random.numbers("groups", cell, n=len(present)), kind="stable")] = np.arange(len(present))
    return np.lexsort((drawn, places, rank[group_of]))


def _framed(drawn: np.ndarray, groups: np.ndarray, close: int) -> np.ndarray:
    """Put the token of its group before each run of genes of one group, and the closing one after it."""
    begins = np.flatnonzero(np.append(True, groups[1:] != groups[:-1]))
    ends = np.append(begins[1:], len(groups))
    # What is inserted at one place stands in the order given: a closing token before the next opening one.
    at = np.stack([begins, ends], axis=1).ravel()
    special = -1 - np.stack([groups[begins], np.full(len(begins), close)], axis=1).ravel()
    return np.insert(drawn.astype(np.int64), at, special)
