"""Conditions of variants that are made of others, or that the caller decides."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from sclcm._sizes import Config, Given, ReleaseFacts, Shape, Sum, names_asked, resolve_sizes
from sclcm.zoo._conditions import AnyOf, Asked, NoneOf, check_words, words_asked
from sclcm.zoo._spec import HasTensor, LacksTensor, holds

ASKED = Asked(Given("compat"), "port")
EITHER = AnyOf((HasTensor("w"), ASKED))
NO_TOKENS = SimpleNamespace(specials={})


@pytest.mark.parametrize("given", [{}, {"compat": "port"}, {"compat": "other"}])
@pytest.mark.parametrize("shapes", [{}, {"w": (1,)}])
def test_conditions_of_conditions(given, shapes):
    facts = ReleaseFacts(shapes=shapes, given=given)
    asked = given.get("compat") == "port"
    assert holds(ASKED, facts, NO_TOKENS) == asked
    assert holds(EITHER, facts, NO_TOKENS) == (asked or bool(shapes))
    assert holds(NoneOf((EITHER, LacksTensor("v"))), facts, NO_TOKENS) is False
    assert holds(NoneOf((EITHER,)), facts, NO_TOKENS) == (not asked and not shapes)
    assert not holds(AnyOf(()), facts, NO_TOKENS)


def test_words_that_may_be_asked_for_are_known():
    assert words_asked((HasTensor("w"), NoneOf((EITHER,)), Asked(Given("compat"), "old"))) == {
        "compat": {"port", "old"}
    }
    assert names_asked(NoneOf((EITHER,))) == {"compat"}
    check_words((EITHER,), {"compat": "port", "else": 3})
    check_words((EITHER,), {})
    with pytest.raises(ValueError, match="`compat` is 3; expected 'port', or leave it out"):
        check_words((EITHER,), {"compat": 3})


def test_sizes_add_up():
    facts = ReleaseFacts(shapes={"table": (5, 3)}, config={"more": 2}, given={"n": 7})
    assert resolve_sizes(Sum((Shape("table"), Config("more"), Given("n"), 1)), facts) == 15
    assert names_asked(Sum((Given("n"), 1))) == {"n"}
    with pytest.raises(ValueError, match="A size must be a positive integer"):
        resolve_sizes(Sum((Config("more"), 1)), ReleaseFacts(config={"more": "2"}))
