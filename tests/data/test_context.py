"""What each cell is, by columns of obs or as the caller says."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sclcm.data.context import cell_context
from sclcm.encoding.context import ArrayChoice, ContextToken
from sclcm.encoding.factors import DivideByChosen
from sclcm.encoding.select import ByRank
from sclcm.encoding.sentences import Encoding
from sclcm.genes.vocabulary import GeneVocabulary

SPECIALS = {"<pad>": 1, "cat": 3, "dog": 4, "wild": 5, "tame": 6}
VOCABULARY = GeneVocabulary.from_mapping({**SPECIALS, "ENSG00000000003": 10}, specials=SPECIALS, ids="ensembl")
CHOICE = ArrayChoice(
    name="means", arrays={"cats": "c", "dogs": "d"}, follows="kind", by_token={"dog": "dogs"}, otherwise="cats"
)
ENCODING = Encoding(
    normalize=(DivideByChosen(choice=CHOICE),),
    select=ByRank(),
    context=(
        ContextToken(name="kind", tokens=("cat", "dog"), aliases={"Felis catus": "cat"}, columns=("kind", "species")),
        ContextToken(name="life", tokens=("wild", "tame"), columns=("life",)),
        ContextToken(name="age", tokens=("wild",), columns=("age",), used=False),
    ),
    max_tokens=None,
)
OBS = pd.DataFrame({"kind": ["cat", "Dog", "felis catus"], "life": pd.Categorical([5, 6, 5]), "other": ["x", "y", "z"]})
ARRAYS = {"c": np.ones(1), "d": np.ones(1)}


def context(obs=OBS, arrays=ARRAYS, **conditions):
    return cell_context(
        obs, ENCODING, vocabulary=VOCABULARY, pad="<pad>", arrays=arrays, conditions=conditions, model="toy"
    )


def lists(found):
    return {name: values.tolist() for name, values in found.items()}


def test_columns_name_tokens_in_any_letter_case_or_give_their_ids():
    assert lists(context()) == {"kind": [3, 4, 3], "life": [5, 6, 5], "means": [0, 1, 0]}
    assert all(values.dtype == np.int32 for values in context().values())


def test_further_columns_are_looked_for_in_order():
    assert lists(context(OBS.rename(columns={"kind": "species"})))["kind"] == [3, 4, 3]


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.float32])
def test_numbers_of_any_type_are_ids(dtype):
    obs = OBS.assign(kind=np.array([3, 4, 4], dtype=dtype))
    assert lists(context(obs))["kind"] == [3, 4, 4]


def test_one_value_or_another_column_may_be_said():
    found = lists(context(OBS[["other"]].assign(where=[4, 3, 3]), kind="where", life="Tame"))
    assert found == {"kind": [4, 3, 3], "life": [6, 6, 6], "means": [1, 0, 0]}
    assert lists(context(kind=4))["kind"] == [4, 4, 4]


def test_no_value_keeps_the_place_and_takes_the_array_of_other_cells():
    assert lists(context(kind=None)) == {"kind": [1, 1, 1], "life": [5, 6, 5], "means": [0, 0, 0]}


def test_array_may_be_said_for_all_cells_or_by_a_column_or_be_none():
    assert lists(context(means="dogs"))["means"] == [1, 1, 1]
    assert lists(context(OBS.assign(m=["dogs", "cats", "cats"]), means="m"))["means"] == [1, 0, 0]
    assert lists(context(arrays={}, means=None))["means"] == [-1, -1, -1]


def test_missing_column_is_an_error_that_lists_what_is_known():
    way = r"kind \(column 'kind' or 'species'\), of which it knows 'cat' \(3\), 'dog' \(4\)"
    with pytest.raises(KeyError, match=way + r"\. Say it by `conditions=\{'kind': \.\.\.\}`"):
        context(OBS.drop(columns="kind"))
    with pytest.raises(KeyError, match=way + r"; life \(column 'life'\)"):
        context(OBS[["other"]])


def test_unknown_values_are_an_error_that_lists_what_is_known():
    with pytest.raises(ValueError, match=r"holds 'ape'; 'toy' knows as kind: 'cat' \(3\), 'dog' \(4\)"):
        context(OBS.assign(kind=["cat", "ape", "dog"]))
    with pytest.raises(ValueError, match=r"holds 5; 'toy' knows as kind"):
        context(OBS.assign(kind=[3, 4, 5]))
    with pytest.raises(ValueError, match="holds True"):
        context(OBS.assign(kind=True))
    with pytest.raises(ValueError, match=r"`conditions\['kind'\]` is 'ape', which is neither a column"):
        context(kind="ape")
    with pytest.raises(ValueError, match="'cats', 'dogs'"):
        context(means=1)


def test_missing_values_are_an_error():
    with pytest.raises(ValueError, match="is missing for 1 cells"):
        context(OBS.assign(kind=["cat", None, "dog"]))


def test_condition_that_the_model_does_not_know_is_an_error():
    with pytest.raises(ValueError, match=r"names 'age'.*its conditions are 'kind', 'life', 'means'"):
        context(age="wild")


def test_array_that_the_release_lacks_is_an_error_only_where_a_cell_needs_it():
    cats = OBS.assign(kind="cat")
    assert lists(context(cats, arrays={"c": np.ones(1)}))["means"] == [0, 0, 0]
    with pytest.raises(ValueError, match=r"1 of the cells by its array 'dogs'.*one of those it has, \['cats'\]"):
        context(arrays={"c": np.ones(1)})


def test_no_cells_have_no_context():
    assert lists(context(OBS[:0])) == {"kind": [], "life": [], "means": []}


def test_model_without_conditions_takes_none():
    plain = Encoding(select=ByRank(), max_tokens=None)
    given = {"vocabulary": VOCABULARY, "pad": "<pad>", "arrays": {}, "model": "toy"}
    assert cell_context(OBS, plain, conditions=None, **given) == {}
    with pytest.raises(ValueError, match="it has none"):
        cell_context(OBS, plain, conditions={"kind": "cat"}, **given)
