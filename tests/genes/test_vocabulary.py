"""Vocabularies: construction, look-up, exact round trip."""

from __future__ import annotations

import json
import pickle

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sclcm.genes.vocabulary import GeneVocabulary


def make(**changes):
    mapping = {"<pad>": 0, "CD3E": 4, "<cls>": 2, "ACTB": 3, "GAPDH": 7}
    return GeneVocabulary.from_mapping(mapping, **({"specials": ["<pad>", "<cls>"], "ids": "symbol"} | changes))


def test_features_come_in_order_of_token_id():
    vocabulary = make()
    assert vocabulary.features.tolist() == ["ACTB", "CD3E", "GAPDH"]
    assert vocabulary.token_ids.tolist() == [3, 4, 7]
    assert vocabulary.token_ids.dtype == np.int32
    assert (vocabulary.n_features, vocabulary.n_tokens) == (3, 8)


def test_special_token_may_have_the_highest_id():
    assert GeneVocabulary.from_mapping({"A": 0, "<eos>": 9}, specials=["<eos>"], ids="symbol").n_tokens == 10


def test_token_finds_features_and_specials():
    vocabulary = make()
    assert [vocabulary.token(name) for name in ("<pad>", "CD3E")] == [0, 4]
    with pytest.raises(KeyError, match=r"'cd3e' is neither a feature nor a special token.*'ACTB'"):
        vocabulary.token("cd3e")


def test_labels_keep_the_shape():
    vocabulary = make()
    assert vocabulary.labels(np.array([[0, 3], [7, 2]])).tolist() == [["<pad>", "ACTB"], ["GAPDH", "<cls>"]]
    assert vocabulary.labels(np.array([], dtype=int)).shape == (0,)
    for outside in (1, 8, -1):
        with pytest.raises(ValueError, match=f"token id {outside} is not in this vocabulary"):
            vocabulary.labels(np.array([3, outside]))


@pytest.mark.parametrize(
    ("mapping", "specials", "message"),
    [
        ({}, [], "no features"),
        ({"<pad>": 0}, ["<pad>"], "no features"),
        ({"A": 1, "B": 1}, [], "token id 1 occurs more than once"),
        ({"A": 1, "<pad>": 1}, ["<pad>"], "token id 1 occurs more than once"),
        ({"A": -1}, [], "token ids run from -1"),
        ({"A": 1, "<pad>": -2}, ["<pad>"], "negative"),
        ({"A": 2**31}, [], "expected 0 to"),
        ({"A": 2**70}, [], "'A' has the token id 1180591620717411303424; expected an integer"),
        ({"A": 1.5}, [], "'A' has the token id 1.5; expected an integer"),
        ({"A": None}, [], "'A' has the token id None"),
        ({"A": 1, "<pad>": "zero"}, ["<pad>"], "'<pad>' has the token id 'zero'"),
        ({"A": 1}, ["<mask>"], r"\['<mask>'\] are not in the mapping"),
    ],
)
def test_faulty_mapping_is_refused(mapping, specials, message):
    with pytest.raises(ValueError, match=message):
        GeneVocabulary.from_mapping(mapping, specials=specials, ids="symbol")


def test_fields_that_disagree_are_refused():
    common = {"specials": {}, "ids": "symbol"}
    with pytest.raises(ValueError, match="2 features but 1 token ids"):
        GeneVocabulary(features=np.array(["A", "B"]), token_ids=np.array([0]), **common)
    with pytest.raises(ValueError, match="not ascending"):
        GeneVocabulary(features=np.array(["A", "B"]), token_ids=np.array([1, 0]), **common)
    with pytest.raises(ValueError, match="`ids` is 'entrez'"):
        make(ids="entrez")


def test_vocabulary_survives_json_and_pickle_exactly():
    vocabulary = make(names={"P53": "ACTB"}, species=("human", "mouse"))
    for copy in (
        GeneVocabulary.from_json(json.loads(json.dumps(vocabulary.to_json()))),
        pickle.loads(pickle.dumps(vocabulary)),
    ):
        assert copy.digest() == vocabulary.digest()
        assert copy.to_json() == vocabulary.to_json()
        assert copy.token_ids.dtype == np.int32


def test_arrays_cannot_be_written_to():
    with pytest.raises(ValueError, match="read-only"):
        make().token_ids[0] = 5


def test_digest_notices_two_swapped_ids():
    swapped = {"<pad>": 0, "CD3E": 3, "<cls>": 2, "ACTB": 4, "GAPDH": 7}
    other = GeneVocabulary.from_mapping(swapped, specials=["<pad>", "<cls>"], ids="symbol")
    assert other.digest() != make().digest()


@given(
    st.dictionaries(st.text(min_size=1), st.integers(0, 2**31 - 2), min_size=1).filter(
        lambda d: len(set(d.values())) == len(d)
    )
)
def test_tokens_and_names_invert_each_other(mapping):
    vocabulary = GeneVocabulary.from_mapping(mapping, specials=(), ids="symbol")
    assert {name: vocabulary.token(name) for name in mapping} == mapping
    assert GeneVocabulary.from_json(vocabulary.to_json()).digest() == vocabulary.digest()
    if vocabulary.n_tokens < 10**6:
        assert vocabulary.labels(vocabulary.token_ids).tolist() == vocabulary.features.tolist()
