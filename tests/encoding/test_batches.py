"""From sentences to padded batches."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sclcm.encoding.batches import iter_batches, pad_sentences
from sclcm.encoding.sentences import SPECIAL, CellSentences

PAD = 9


def make_sentences(lengths):
    """Token ids count from 10 through all cells; the first token of a cell is special."""
    indptr = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    n = int(indptr[-1])
    features = np.arange(n, dtype=np.int32)
    features[indptr[:-1][np.diff(indptr) > 0]] = SPECIAL
    return CellSentences(
        token_ids=np.arange(10, 10 + n, dtype=np.int32),
        features=features,
        indptr=indptr,
        rows=np.arange(100, 100 + len(lengths)),
        values={"value": np.arange(1, n + 1, dtype=np.float32) / 2},
        scalars={"total": np.arange(len(lengths)) * 1.5},
    )


def unpadded(batch):
    return {
        int(row): ids[mask].tolist() for row, ids, mask in zip(batch.rows, batch.token_ids, batch.mask, strict=True)
    }


def all_tokens(sentences):
    spans = zip(sentences.rows, sentences.indptr[:-1], sentences.indptr[1:], strict=True)
    return {int(row): sentences.token_ids[start:stop].tolist() for row, start, stop in spans if stop > start}


def test_sentences_are_padded_at_the_right():
    batch = pad_sentences(make_sentences([2, 3, 1]), np.array([0, 1]), pad=PAD)
    assert batch.token_ids.tolist() == [[10, 11, PAD], [12, 13, 14]]
    assert batch.mask.tolist() == [[True, True, False], [True, True, True]]
    assert batch.features.tolist() == [[SPECIAL, 1, SPECIAL], [SPECIAL, 3, 4]]
    assert batch.values["value"].tolist() == [[0.5, 1.0, 0.0], [1.5, 2.0, 2.5]]
    assert batch.scalars["total"].tolist() == [0.0, 1.5]
    assert batch.rows.tolist() == [100, 101]
    assert (batch.token_ids.dtype, batch.values["value"].dtype) == (np.int32, np.float32)


def test_cell_without_tokens_is_a_row_of_padding():
    batch = pad_sentences(make_sentences([0, 2]), np.array([0, 1]), pad=PAD)
    assert batch.token_ids.tolist() == [[PAD, PAD], [10, 11]]
    assert not batch.mask[0].any()


@pytest.mark.parametrize("cells", [[], [0], [0, 1]])
def test_nothing_but_empty_cells_makes_a_rectangle_of_no_width(cells):
    batch = pad_sentences(make_sentences([0, 0]), np.array(cells, dtype=int), pad=PAD)
    assert batch.token_ids.shape == (len(cells), 0)


lengths = st.lists(st.integers(0, 9), max_size=12)


@settings(deadline=None, max_examples=50)
@given(lengths, st.integers(1, 30), st.none() | st.integers(1, 4))
def test_every_cell_with_tokens_comes_once_and_whole(lengths, max_tokens, max_cells):
    sentences = make_sentences(lengths)
    batches = list(iter_batches(sentences, pad=PAD, max_tokens=max_tokens, max_cells=max_cells))
    assert sum(batch.n_cells for batch in batches) == sum(length > 0 for length in lengths)
    assert {row: ids for batch in batches for row, ids in unpadded(batch).items()} == all_tokens(sentences)


@settings(deadline=None, max_examples=50)
@given(lengths, st.integers(1, 30), st.none() | st.integers(1, 4))
def test_batches_respect_the_budget_and_come_longest_first(lengths, max_tokens, max_cells):
    batches = list(iter_batches(make_sentences(lengths), pad=PAD, max_tokens=max_tokens, max_cells=max_cells))
    for batch in batches:
        assert batch.token_ids.size <= max_tokens or batch.n_cells == 1
        assert max_cells is None or batch.n_cells <= max_cells
        assert batch.mask[0].all()  # no wider than its longest sentence
        assert (np.diff(batch.mask.sum(1)) <= 0).all()
        assert (batch.token_ids[~batch.mask] == PAD).all()
    widths = [batch.token_ids.shape[1] for batch in batches]
    assert widths == sorted(widths, reverse=True)


def take(sentences, start, stop):
    cut = slice(sentences.indptr[start], sentences.indptr[stop])
    return CellSentences(
        token_ids=sentences.token_ids[cut],
        features=sentences.features[cut],
        indptr=sentences.indptr[start : stop + 1] - sentences.indptr[start],
        rows=sentences.rows[start:stop],
        values={name: channel[cut] for name, channel in sentences.values.items()},
        scalars={name: scalar[start:stop] for name, scalar in sentences.scalars.items()},
    )


@settings(deadline=None, max_examples=50)
@given(lengths.filter(bool), st.data())
def test_pieces_make_the_batches_of_the_whole(lengths, data):
    whole = make_sentences(lengths)
    cuts = [0, *sorted(data.draw(st.lists(st.integers(0, len(lengths)), max_size=3))), len(lengths)]
    pieces = [take(whole, start, stop) for start, stop in itertools.pairwise(cuts)]
    found, wanted = (list(iter_batches(given, pad=PAD, max_tokens=20, step=4)) for given in (pieces, whole))
    for batch, other in zip(found, wanted, strict=True):
        for name in ("rows", "token_ids", "features", "mask"):
            assert np.array_equal(getattr(batch, name), getattr(other, name))
        assert np.array_equal(batch.values["value"], other.values["value"])
        assert np.array_equal(batch.scalars["total"], other.scalars["total"])


def test_cells_of_equal_length_keep_their_order():
    (batch,) = iter_batches(make_sentences([2, 3, 2, 3]), pad=PAD, max_tokens=100)
    assert batch.rows.tolist() == [101, 103, 100, 102]


@pytest.mark.parametrize("n", [2, 3, 5])
def test_halves_are_the_batch_in_two_of_the_same_width(n):
    (batch,) = iter_batches(make_sentences([4] * n), pad=PAD, max_tokens=100)
    first, second = batch.halves()
    assert (first.n_cells, second.n_cells) == (n // 2, n - n // 2)
    for name in ("rows", "token_ids", "features", "mask"):
        assert np.array_equal(np.concatenate([getattr(first, name), getattr(second, name)]), getattr(batch, name))
    assert np.array_equal(np.concatenate([first.values["value"], second.values["value"]]), batch.values["value"])
    assert np.array_equal(np.concatenate([first.scalars["total"], second.scalars["total"]]), batch.scalars["total"])


@settings(deadline=None, max_examples=50)
@given(lengths, st.integers(1, 6), st.none() | st.integers(1, 12))
def test_widths_are_rounded_up_where_the_model_takes_it(lengths, step, max_width):
    sentences = make_sentences(lengths)
    batches = list(iter_batches(sentences, pad=PAD, max_tokens=30, max_cells=3, step=step, max_width=max_width))
    assert {row: ids for batch in batches for row, ids in unpadded(batch).items()} == all_tokens(sentences)
    for batch in batches:
        longest, width = int(batch.mask.sum(1).max()), batch.token_ids.shape[1]
        rounded = -(-longest // step) * step
        assert width == (rounded if max_width is None or rounded <= max_width else max(longest, max_width))
        assert batch.token_ids.size <= 30 or batch.n_cells == 1
        assert (batch.token_ids[~batch.mask] == PAD).all()
        assert (batch.features[~batch.mask] == SPECIAL).all()
