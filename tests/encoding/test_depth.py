"""Special tokens whose values are made of the total of a cell."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy.sparse import csr_matrix

from sclcm.encoding.batches import iter_batches
from sclcm.encoding.chunks import CellChunk
from sclcm.encoding.depth import (
    CountTotal,
    DepthToken,
    DepthTokens,
    FixedDepth,
    Log1pTotal,
    Log10Total,
    PlainTotal,
    StoredTotal,
    ValueTotal,
)
from sclcm.encoding.normalize import LogNormalizeKnown
from sclcm.encoding.select import InOrder
from sclcm.encoding.sentences import SPECIAL, Encoding, encode
from sclcm.encoding.values import Normalized
from sclcm.genes.vocabulary import GeneVocabulary

GENES = [f"G{i}" for i in range(4)]
VOCABULARY = GeneVocabulary.from_mapping(
    {name: i for i, name in enumerate(["<cls>", *GENES, "<T>", "<S>", "<pad>"])},
    specials=["<cls>", "<T>", "<S>", "<pad>"],
    ids="symbol",
)
COUNTS = [[3, 0, 7, 0], [0, 0, 0, 0], [0, 1, 0, 0], [50, 25, 20, 5]]
ASKED, GIVEN = DepthToken(token="<T>", value=FixedDepth(value=4.0)), DepthToken(token="<S>", value=Log10Total())
DEPTH = DepthTokens(tokens=(ASKED, GIVEN), total=CountTotal(), target="<T>")


def sentences(depth=DEPTH, *, counts=COUNTS, obs=None, **given):
    matrix = csr_matrix(np.asarray(counts, dtype=np.float32))
    totals = np.asarray(matrix.sum(1)).ravel() + 1000.0  # genes that the model does not know count for nothing here
    chunk = CellChunk(start=5, counts=matrix, totals=totals, n_genes=np.diff(matrix.indptr), obs=obs or {})
    plain = {"normalize": (LogNormalizeKnown(),), "select": InOrder(), "value": Normalized(), "max_tokens": None}
    encoding = Encoding(**{**plain, "depth": depth, **given})
    return encode(chunk, encoding, vocabulary=VOCABULARY, arrays={})


def rows(found):
    parts = zip(found.indptr[:-1], found.indptr[1:], strict=True)
    return [(found.token_ids[a:b].tolist(), found.values["value"][a:b].round(4).tolist()) for a, b in parts]


def test_tokens_come_last_with_values_made_of_the_total_over_known_genes():
    found = sentences()
    first, empty, single, last = rows(found)
    logs = np.log1p(np.array([3, 7]) / 10 * 1e4).round(4)
    assert first == ([1, 3, 5, 6], [*logs.astype(np.float32).tolist(), 4.0, 1.0])
    assert empty == ([], [])
    assert single[0] == [2, 5]  # log10(1) is not above zero
    assert last[0] == [1, 2, 3, 4, 5, 6]
    assert last[1][-2:] == [4.0, 2.0]
    assert found.features.tolist() == [0, 2, SPECIAL, SPECIAL, 1, SPECIAL, 0, 1, 2, 3, SPECIAL, SPECIAL]
    assert found.rows.tolist() == [5, 6, 7, 8]


def test_values_of_tokens_that_are_left_out_stay_with_the_cell():
    found = sentences()
    assert found.scalars["depth_ids"].tolist() == [[5, 6]] * 4
    assert found.scalars["depth_values"].tolist() == [[4.0, 1.0], [4.0, -np.inf], [4.0, 0.0], [4.0, 2.0]]
    (batch,) = iter_batches(found, pad=7, max_tokens=100)
    assert batch.rows.tolist() == [8, 5, 7]
    assert batch.scalars["depth_values"].tolist() == [[4.0, 2.0], [4.0, 1.0], [4.0, 0.0]]
    assert batch.halves()[1].scalars["depth_values"].tolist() == [[4.0, 1.0], [4.0, 0.0]]


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        (FixedDepth(value=2.5), 2.5),
        (Log10Total(times=5.0), np.log10(50)),
        (Log10Total(plus=0.5), 1.5),
        (PlainTotal(), 10.0),
    ],
)
def test_target_may_be_set(value, wanted):
    depth = DEPTH.aiming_at(value)
    assert depth.tokens[1] == GIVEN
    assert rows(sentences(depth))[0][1][-2:] == pytest.approx([wanted, 1.0], abs=1e-4)


def test_target_that_is_not_above_zero_is_left_out():
    assert [ids for ids, _ in rows(sentences(DEPTH.aiming_at(FixedDepth(value=0.0))))] == [
        [1, 3, 6],
        [],
        [2],
        [1, 2, 3, 4, 6],
    ]


def test_total_may_be_that_of_values_or_stored():
    by_value = sentences(dataclasses.replace(DEPTH, total=ValueTotal()))
    wanted = np.log10(np.log1p(np.array([3, 7]) * 1e3).sum())
    assert by_value.scalars["depth_values"][0, 1] == pytest.approx(wanted, rel=1e-6)
    stored = dataclasses.replace(DEPTH, total=StoredTotal(column="n"))
    found = sentences(stored, obs={"n": np.array([1000, 10, 1, 1e4])})
    assert found.scalars["depth_values"][:, 1].tolist() == [3.0, 1.0, 0.0, 4.0]


@pytest.mark.parametrize(
    ("obs", "message"),
    [
        ({}, "no column 'n', from which this recipe takes the total"),
        ({"n": np.array(["1", "a", "2", "3"])}, "not all are numbers"),
        ({"n": np.array([1.0, np.nan, 2, 3])}, "holds nan; expected the total counts"),
        ({"n": np.array([1.0, -2, 2, 3])}, "holds -2.0; expected the total counts"),
    ],
)
def test_stored_total_must_be_one(obs, message):
    with pytest.raises(ValueError, match=message):
        sentences(dataclasses.replace(DEPTH, total=StoredTotal(column="n")), obs=obs)


def test_longest_sentence_leaves_room_and_a_prefix_stays_in_front():
    found = rows(sentences(max_tokens=5, prefix=("<cls>",)))
    assert found[0][0] == [0, 1, 3, 5, 6]
    assert len(found[3][0]) == 5
    assert found[3][0][0] == 0
    assert found[3][0][-2:] == [5, 6]


def test_columns_that_are_read_are_named():
    depth = dataclasses.replace(DEPTH, total=StoredTotal(column="n"))
    assert Encoding(select=InOrder(), max_tokens=None, depth=depth).obs_columns == ("n",)
    assert Encoding(select=InOrder(), max_tokens=None, depth=DEPTH).obs_columns == ()


def test_total_may_be_in_thousands_below_a_logarithm_of_one_more():
    assert Log1pTotal(per=1000.0).apply(np.array([0.0, 1000.0, 250.0])) == pytest.approx(np.log([1, 2, 1.25]))
