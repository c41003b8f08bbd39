"""The batch of each cell as a number that a model knows."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sclcm.data.conditions import number_conditions


def numbers(values, n_conditions=3):
    return number_conditions(pd.DataFrame({"batch": values}), "batch", n_conditions=n_conditions, model="toy").tolist()


def test_names_are_numbered_in_alphabetical_order():
    assert numbers(["c", "a", "b", "a"]) == [2, 0, 1, 0]


def test_categories_keep_their_order_and_count_even_without_cells():
    assert numbers(pd.Categorical(["x", "a"], categories=["x", "unused", "a"])) == [0, 2]


@pytest.mark.parametrize("dtype", [np.int8, np.int64, np.uint16, "Int32"])
def test_whole_numbers_are_taken_as_they_are(dtype):
    assert numbers(pd.array([2, 0, 2], dtype=dtype)) == [2, 0, 2]


@pytest.mark.parametrize(
    ("values", "found"),
    [(["a", "b", "c", "d"], "has 4 batches"), ([0, 3], "numbers from 0 to 3"), ([-1, 0], "numbers from -1 to 0")],
)
def test_more_batches_than_the_model_knows_are_refused(values, found):
    with pytest.raises(ValueError, match=rf"{found}, but 'toy' was fine-tuned on 3 batches"):
        numbers(values)


def test_cells_without_a_batch_are_refused():
    with pytest.raises(ValueError, match="is missing for 2 cells"):
        numbers(["a", None, None])


def test_column_that_is_not_there_is_named_with_those_that_are():
    with pytest.raises(KeyError, match=r"no column 'donor'; its columns are \['batch'\]"):
        number_conditions(pd.DataFrame({"batch": [1]}), "donor", n_conditions=1, model="toy")


def test_data_without_cells_has_no_batches():
    assert numbers(np.zeros(0, dtype=np.int64)) == []
