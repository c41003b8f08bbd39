"""Tables of gene vectors made of descriptions, with encoders that are plain functions."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from sclcm.genes import vectors_from_text

TEXTS = {"CD3E": "part of the T-cell\nreceptor", "LYZ": "  ", "MS4A1": "B cells", "NKG7": None}


def lengths(texts):
    """Two numbers of each text."""
    return [[len(text), text.count("e")] for text in texts]


def test_each_text_has_a_vector_and_none_has_zeros():
    found = vectors_from_text(TEXTS, lengths)
    assert found.index.tolist() == list(TEXTS)
    assert found.to_numpy().tolist() == [[27, 4], [0, 0], [7, 1], [0, 0]]
    assert (found.dtypes == np.float32).all()


def test_series_is_read_like_a_dictionary():
    series = pd.Series(TEXTS)
    assert vectors_from_text(series, lengths).equals(vectors_from_text(TEXTS, lengths))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 50])
def test_encoder_sees_so_many_texts_at_a_time_and_no_empty_ones(batch_size):
    seen = []

    def encoder(texts):
        seen.append(len(texts))
        assert all(texts)
        return np.asarray(lengths(texts))

    descriptions = {f"G{i}": "x" * i for i in range(8)}
    found = vectors_from_text(descriptions, encoder, batch_size=batch_size)
    assert found[0].tolist() == list(range(8))
    assert sum(seen) == 7
    assert max(seen) <= batch_size


@pytest.mark.parametrize(
    ("given", "kind", "message"),
    [
        ({"descriptions": ["a"]}, TypeError, "`descriptions` is a list"),
        ({"descriptions": {"A": 3}}, TypeError, "description of 'A' is a int"),
        ({"descriptions": {"A": "", "B": None}}, ValueError, "All 2 descriptions are empty"),
        ({"descriptions": pd.Series(["a", "b"], index=["A", "A"])}, ValueError, "names 'A' twice"),
        ({"encoder": "ada"}, TypeError, "`encoder` is a str"),
        ({"batch_size": 0}, ValueError, "`batch_size` is 0"),
        ({"encoder": lambda texts: [[1.0]]}, ValueError, r"shape \(1, 1\) for 2 texts"),
        ({"encoder": lambda texts: [1.0] * len(texts)}, ValueError, r"shape \(2,\) for 2 texts"),
        ({"encoder": lambda texts: [["a"]] * len(texts)}, ValueError, "expected one vector of numbers for each"),
        ({"encoder": lambda texts: [[1.0], [np.nan]]}, ValueError, "not finite for the description of 'MS4A1'"),
        ({"encoder": lambda texts: [[1.0] * len(texts[0])], "batch_size": 1}, ValueError, "of several lengths, "),
    ],
)
def test_what_makes_no_table_is_refused(given, kind, message):
    with pytest.raises(kind, match=message):
        vectors_from_text(**{"descriptions": TEXTS, "encoder": lengths, **given})
