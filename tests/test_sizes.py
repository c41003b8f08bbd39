"""Sizes that are read from a release."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from sclcm._sizes import (
    Config,
    Count,
    Given,
    Quotient,
    ReleaseFacts,
    Shape,
    Shapes,
    as_int,
    names_asked,
    resolve_sizes,
    template_regex,
)

FACTS = ReleaseFacts(
    config={"width": 8, "attention": {"heads": 2}, "listed": [1]},
    shapes={"layer.0.w": (8, 4), "layer.1.w": (8, 4), "layer.1.w.extra": (1,), "table": (30, 8), "scalar": ()},
    given={"depth": 3},
)


@dataclass(frozen=True, kw_only=True)
class Inner:
    width: int | Config
    name: str = "x"


@dataclass(frozen=True, kw_only=True)
class Outer:
    inner: Inner
    steps: tuple[Inner, ...] = ()
    heads: dict[str, Inner] | None = None


@pytest.mark.parametrize(
    ("rule", "value"),
    [
        (Config("width"), 8),
        (Config("attention.heads"), 2),
        (Shape("table"), 30),
        (Shape("table", 1), 8),
        (Shape("table", axis=-1), 8),
        (Count("layer.{}.w"), 2),
        (Count("block.{}.w"), 0),
        (Given("depth"), 3),
        (Quotient(of=Shape("table"), by=Config("attention.heads")), 15),
        (Shapes("layer.{}.w", 1), (4, 4)),
        (Shapes("block.{}.w"), ()),
    ],
)
def test_rule_reads_its_value(rule, value):
    assert FACTS.value(rule) == value


@pytest.mark.parametrize(
    ("rule", "message"),
    [
        (Config("depth_of_field"), r"lacks 'depth_of_field'; pass it, as in `load\(\.\.\., depth_of_field=\.\.\.\)`"),
        (Config("attention.width"), "lacks 'attention.width'"),
        (Config("width.more"), "lacks 'width.more'"),
        (Shape("missing"), "lacks the tensor 'missing'"),
        (Shape("table", 2), r"'table' has shape \(30, 8\).*axis 2"),
        (Shape("scalar"), "'scalar' has shape"),
        (Shape("table", -3), r"'table' has shape \(30, 8\).*axis -3"),
        (Quotient(Shape("table"), Shape("layer.0.w", 1)), "A size of 30 is no multiple of 4"),
        (Quotient(Shape("table"), Config("listed")), r"A size of 30 is no multiple of \[1\]"),
        (Given("n_genes"), r"does not state `n_genes`; pass it, as in `load\(\.\.\., n_genes=\.\.\.\)`"),
    ],
)
def test_rule_without_a_value_says_what_is_missing(rule, message):
    with pytest.raises(ValueError, match=message):
        FACTS.value(rule)


def test_what_the_caller_gives_overrides_the_configuration():
    facts = ReleaseFacts(config={"width": 8}, given={"width": 16})
    assert facts.value(Config("width")) == 16


def test_key_of_another_age_is_read_where_the_first_is_missing():
    rule = Config("speed", 3, also=("motion.speed", "pace"))
    for config, wanted in (
        ({}, 3),
        ({"pace": 5}, 5),
        ({"pace": 5, "motion": {"speed": 7}}, 7),
        ({"pace": 5, "motion": {"speed": 7}, "speed": 9}, 9),
        ({"motion": "none"}, 3),
    ):
        assert ReleaseFacts(config=config).value(rule) == wanted
    assert ReleaseFacts(config={"speed": 9}, given={"speed": 1}).value(rule) == 1
    with pytest.raises(ValueError, match="configuration lacks 'speed'"):
        ReleaseFacts().value(Config("speed", also=("pace",)))


def test_sizes_are_resolved_in_nested_declarations():
    declaration = Outer(
        inner=Inner(width=Config("width")),
        steps=(Inner(width=Shape("table")), Inner(width=5)),
        heads={"a": Inner(width=Count("layer.{}.w"))},
    )
    resolved = resolve_sizes(declaration, FACTS)
    assert resolved == Outer(inner=Inner(width=8), steps=(Inner(width=30), Inner(width=5)), heads={"a": Inner(width=2)})
    assert declaration.inner.width == Config("width")


def test_template_stands_for_numbers_and_takes_dots_literally():
    regex = template_regex("a.{}.b")
    assert regex.fullmatch("a.12.b").groups() == ("12",)
    assert regex.fullmatch("axb.1.b") is None
    assert regex.fullmatch("a.x.b") is None


@pytest.mark.parametrize("wrong", [0, -1, 2.0, "8", True, None, Config("width")])
def test_size_that_is_no_positive_integer_is_refused(wrong):
    with pytest.raises(ValueError, match="positive integer"):
        as_int(wrong)


def test_size_passes_through():
    assert as_int(7) == 7


def test_names_that_a_caller_may_state_are_those_of_given_sizes_and_of_the_configuration():
    declaration = Outer(
        inner=Inner(width=Config("width")),
        steps=(Inner(width=Given("depth")), Inner(width=Shape("table"))),
        heads={"a": Inner(width=Config("heads.a"))},
    )
    assert names_asked(declaration) == {"width", "depth", "heads.a"}
    assert names_asked(Inner(width=3)) == set()


def test_given_size_has_a_default_where_it_says_so():
    rule = Given("max_length", default=64)
    assert ReleaseFacts().value(rule) == 64
    assert ReleaseFacts(given={"max_length": 128}).value(rule) == 128
    with pytest.raises(ValueError, match="does not state `max_length`"):
        ReleaseFacts().value(Given("max_length"))
