"""Edits of sentences: a token that is deleted leaves the others as they were."""

from __future__ import annotations

import numpy as np
import pytest

from sclcm.encoding.edits import delete_tokens, find_tokens
from sclcm.encoding.sentences import SPECIAL, CellSentences

SENTENCES = CellSentences(
    token_ids=np.array([9, 4, 5, 4, 9, 7, 5], dtype=np.int32),
    features=np.array([SPECIAL, 0, 1, 0, SPECIAL, 3, 1], dtype=np.int32),
    indptr=np.array([0, 4, 4, 5, 7]),
    rows=np.array([10, 11, 12, 13]),
    values={"value": np.arange(7, dtype=np.float32)},
    scalars={"total": np.array([1.0, 2, 3, 4])},
)


def test_first_occurrence_in_the_own_sentence_is_found():
    assert find_tokens(SENTENCES, np.array([4, 4, 9, 5])).tolist() == [1, -1, 0, 1]
    assert find_tokens(SENTENCES, np.array([7, 9, 5, 9])).tolist() == [-1, -1, -1, -1]


def test_deleted_tokens_leave_and_the_others_move_up():
    edited = delete_tokens(SENTENCES, np.array([1, -1, 0, 1]))
    assert edited.indptr.tolist() == [0, 3, 3, 3, 4]
    assert edited.token_ids.tolist() == [9, 5, 4, 7]
    assert edited.features.tolist() == [SPECIAL, 1, 0, 3]
    assert edited.values["value"].tolist() == [0, 2, 3, 5]
    assert edited.rows.tolist() == SENTENCES.rows.tolist()
    assert edited.scalars["total"].tolist() == [1, 2, 3, 4]
    assert edited.token_ids.dtype == np.int32


def test_nothing_to_delete_changes_nothing():
    same = delete_tokens(SENTENCES, np.full(4, -1))
    assert same.token_ids.tolist() == SENTENCES.token_ids.tolist()
    assert same.indptr.tolist() == SENTENCES.indptr.tolist()


@pytest.mark.parametrize(("places", "cell"), [([4, -1, -1, -1], 0), ([-1, 0, -1, -1], 1), ([-1, -1, -2, -1], 2)])
def test_place_outside_of_its_sentence_is_refused(places, cell):
    with pytest.raises(ValueError, match=f"sentence of cell {cell} .* none at the place"):
        delete_tokens(SENTENCES, np.array(places))
