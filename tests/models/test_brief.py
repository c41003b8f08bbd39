"""Declarations in few words."""

from __future__ import annotations

from sclcm._sizes import Config, Count
from sclcm.encoding.select import ByRank
from sclcm.encoding.sentences import Encoding
from sclcm.models._brief import brief
from sclcm.nn.readouts import Concatenated, FirstToken, FromEnd, GreedyDecoding, MeanPooling
from sclcm.zoo._spec import Recipe


def test_only_what_is_no_default_is_said():
    assert brief(Recipe()) == "Recipe(pooling=MeanPooling())"
    assert brief(Recipe(pooling=FirstToken(), layer=-2)) == "Recipe(pooling=FirstToken(), layer=-2)"
    both = Recipe(pooling=Concatenated(parts=(MeanPooling(), FirstToken())), head="x")
    assert brief(both) == "Recipe(pooling=Concatenated(parts=(MeanPooling(), FirstToken())), head='x')"


def test_sizes_are_said_by_the_name_of_their_key():
    decoding = GreedyDecoding(
        token_head="token",
        value_head="value",
        n_tokens=Config("n"),
        stop="<end>",
        max_value=Count("w.{}"),
        ban="all",
    )
    text = brief(Recipe(pooling=FromEnd(places=1), decoding=decoding))
    assert "n_tokens=n, stop='<end>', max_value=Count(pattern='w.{}')" in text


def test_encodings_are_not_spelt_out():
    found = brief(Recipe(encoding=Encoding(select=ByRank(), max_tokens=None)))
    assert found == "Recipe(pooling=MeanPooling(), encoding=one of its own)"
