"""Sentences that hold a weighted sample of a cell's genes, in groups with a token before and after each."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from sclcm._sizes import Size, as_int
from sclcm.encoding.taken import GENE, StoredValues, Taken

if TYPE_CHECKING:
    from sclcm.encoding.draws import CellRandom


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

    def take(self, cells: StoredValues, limit: int) -> Taken:
        """Draw genes of each cell: by `"sample"`, a number for each, and `"groups"`, one for each group by its token.

        `ValueError` if that is more than `limit` tokens; a sample is not cut, which would lose the groups at its end.
        A cell without values has no tokens.
        """
        close = cells.vocabulary.specials[self.close]
        rows = [self._row(cells, cell, span, close=close) for cell, span in enumerate(cells.spans())]
        taken = cells.rows([np.maximum(row, 0) for row in rows])
        if (longest := taken.lengths.max(initial=0)) > limit:
            cell = cells.start + int(np.argmax(taken.lengths))
            msg = (
                f"The sentence of cell {cell} would have {longest:,} tokens between its first and its last, and the "
                f"model takes {limit:,}: its genes lie in many groups, each with two tokens of its own. Draw fewer "
                "genes of each cell."
            )
            raise ValueError(msg)
        drawn = np.concatenate([*rows, np.zeros(0, dtype=np.int64)])
        return replace(taken, special_ids=np.where(drawn < 0, -1 - drawn, GENE).astype(np.int32))

    def _row(self, cells: StoredValues, cell: int, span: tuple[int, int], *, close: int) -> np.ndarray:
        """Return the places of a cell's tokens among the stored values; a token that is no gene as `-1 - token id`."""
        start, stop = span
        if start == stop:
            return np.zeros(0, dtype=np.int64)
        groups, places = cells.arrays[self.group], cells.arrays[self.place]
        uniforms = cells.random.numbers("sample", cell, n=as_int(self.n_draws))
        drawn = start + draw_weighted(cells.values[start:stop], uniforms)
        tokens = cells.vocabulary.token_ids[cells.columns[drawn]]
        order = _in_groups(groups[tokens], places[tokens], drawn, cell=cell, random=cells.random)
        return _framed(drawn[order], groups[tokens[order]], close)


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
