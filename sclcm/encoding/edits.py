"""Edits of sentences: what a cell would be without a token."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from sclcm.encoding.sentences import CellSentences


def find_tokens(sentences: CellSentences, token_ids: np.ndarray) -> np.ndarray:
    """Find one token in each sentence.

    Parameters
    ----------
    sentences
        The cells.
    token_ids
        Token to find in each, shape `(cells,)`.

    Returns
    -------
    Place of its first occurrence in the sentence, from zero, shape `(cells,)`; `-1` where there is none.
    """
    of_cell = np.repeat(np.arange(sentences.n_cells), sentences.lengths)
    hits = np.flatnonzero(sentences.token_ids == np.asarray(token_ids)[of_cell])
    cells, first = np.unique(of_cell[hits], return_index=True)
    places = np.full(sentences.n_cells, -1, dtype=np.int64)
    places[cells] = hits[first] - sentences.indptr[cells]
    return places


def delete_tokens(sentences: CellSentences, places: np.ndarray) -> CellSentences:
    """Delete one token from each sentence; those after it move up.

    Parameters
    ----------
    sentences
        The cells.
    places
        Place of the token in its sentence, from zero, shape `(cells,)`; `-1` deletes none.

    Raises
    ------
    ValueError
        A place that is not in its sentence.
    """
    places = np.asarray(places)
    outside = np.flatnonzero((places < -1) | (places >= sentences.lengths))
    if len(outside):
        cell = outside[0]
        msg = f"The sentence of cell {cell} has {sentences.lengths[cell]} tokens, but none at the place {places[cell]}."
        raise ValueError(msg)
    stays = np.ones(len(sentences.token_ids), dtype=bool)
    is_edited = places >= 0
    stays[sentences.indptr[:-1][is_edited] + places[is_edited]] = False
    return replace(
        sentences,
        token_ids=sentences.token_ids[stays],
        features=sentences.features[stays],
        indptr=np.concatenate([[0], np.cumsum(sentences.lengths - is_edited)]),
        values={name: channel[stays] for name, channel in sentences.values.items()},
    )
