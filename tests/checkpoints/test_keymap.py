"""Key maps: every rule there and back, and messages that list names."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

import sclcm.reference
from sclcm.checkpoints.keymap import (
    Cast,
    Drop,
    Either,
    Join,
    Keep,
    KeyMap,
    KeyMapError,
    Rename,
    Split,
    Squeeze,
    StripPrefix,
    Tie,
    Transpose,
)
from sclcm.checkpoints.keyrules import DropCounting, DropFilled
from sclcm.checkpoints.readers import read_tensors
from sclcm.zoo.geneformer import SPEC

REFERENCE = Path(sclcm.reference.__file__).parent / "geneformer"


def numbered(*shape, start=0):
    return torch.arange(start, start + torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)


def assert_same(found, wanted):
    assert sorted(found) == sorted(wanted)
    for name, tensor in wanted.items():
        assert found[name].dtype == tensor.dtype, name
        assert torch.equal(found[name], tensor), name


A, B, C = numbered(2, 3), numbered(2, 3, start=10), numbered(2, 3, start=20)

INVERTIBLE = {
    "rename": (Rename("theirs", "ours"), {"theirs": A}, {"ours": A}),
    "rename by number": (Rename("t.{}.w", "o.{}.w"), {"t.0.w": A, "t.10.w": B}, {"o.0.w": A, "o.10.w": B}),
    "rename by two numbers": (Rename("t.{}.{}", "o.{}.x.{}"), {"t.1.2": A, "t.2.1": B}, {"o.1.x.2": A, "o.2.x.1": B}),
    "join rows": (Join(("q", "k", "v"), "qkv"), {"q": A, "k": B, "v": C}, {"qkv": torch.cat([A, B, C])}),
    "join columns": (Join(("q", "k"), "qk", axis=1), {"q": A, "k": B}, {"qk": torch.cat([A, B], 1)}),
    "join by number": (
        Join(("{}.q", "{}.k"), "{}.qk"),
        {"0.q": A, "0.k": B, "1.q": B, "1.k": C},
        {"0.qk": torch.cat([A, B]), "1.qk": torch.cat([B, C])},
    ),
    "split": (Split("{}.kv", ("{}.k", "{}.v"), axis=1), {"3.kv": torch.cat([A, B], 1)}, {"3.k": A, "3.v": B}),
    "transpose": (Transpose("{}.w", "o.{}"), {"0.w": A}, {"o.0": A.t()}),
    "squeeze": (Squeeze("w", "o", axis=1), {"w": A[:, None]}, {"o": A}),
    "cast": (Cast("w", "o", stored="float16", ours="float32"), {"w": A.half()}, {"o": A}),
    "tie stored once": (Tie(("w", "copy"), "o"), {"w": A}, {"o": A}),
    "first of two dialects": (Either((Rename("new", "o"), Rename("old", "o"))), {"new": A}, {"o": A}),
    "keep": (Keep(), {"a": A, "b.0": B}, {"a": A, "b.0": B}),
}


@pytest.mark.parametrize("case", INVERTIBLE)
def test_rule_works_there_and_back(case):
    rule, theirs, ours = INVERTIBLE[case]
    keys = KeyMap(rule)
    assert_same(keys.forward(theirs), ours)
    assert_same(keys.backward(ours), theirs)


@pytest.mark.parametrize("case", INVERTIBLE)
def test_what_a_rule_gives_can_be_saved(case, tmp_path):
    rule, theirs, ours = INVERTIBLE[case]
    for state in (KeyMap(rule).forward(theirs), KeyMap(rule).backward(ours)):
        save_file({name: tensor.contiguous() for name, tensor in state.items()}, tmp_path / "w.safetensors")
        assert_same(read_tensors(tmp_path / "w.safetensors"), state)


LOSSY = {
    "tie stored twice": (Tie(("w", "copy"), "o"), {"w": A, "copy": A.clone()}, {"o": A}, {"w": A}),
    "tie stored under the second name": (Tie(("w", "copy"), "o"), {"copy": A}, {"o": A}, {"w": A}),
    "second dialect": (Either((Rename("new", "o"), Rename("old", "o"))), {"old": A}, {"o": A}, {"new": A}),
    "joined or not": (
        Either((Rename("qk", "o"), Join(("q", "k"), "o"))),
        {"q": A, "k": B},
        {"o": torch.cat([A, B])},
        {"qk": torch.cat([A, B])},
    ),
}


@pytest.mark.parametrize("case", LOSSY)
def test_first_dialect_is_written_back(case):
    rule, theirs, ours, written = LOSSY[case]
    assert_same(KeyMap(rule).forward(theirs), ours)
    assert_same(KeyMap(rule).backward(ours), written)


def test_prefix_is_stripped_before_the_rules_that_follow():
    keys = KeyMap(StripPrefix("module."), Rename("w", "o"))
    assert_same(keys.forward({"module.w": A}), {"o": A})
    assert_same(keys.forward({"w": A}), {"o": A})
    assert_same(keys.backward({"o": A}), {"w": A})


def test_prefix_that_hides_a_second_copy_is_an_error():
    with pytest.raises(KeyMapError, match=r"'module\.w' and 'w'"):
        KeyMap(StripPrefix("module."), Rename("w", "o")).forward({"module.w": A, "w": B})


def test_bare_names_are_those_without_the_prefixes_that_come_first():
    keys = KeyMap(StripPrefix("module."), StripPrefix("model."), Rename("w", "o"), StripPrefix("late."))
    theirs = {"module.model.w": A, "module.b": B, "late.c": C}
    assert_same(keys.bare(theirs), {"w": A, "b": B, "late.c": C})
    assert sorted(theirs) == ["late.c", "module.b", "module.model.w"]
    assert_same(KeyMap(Rename("w", "o"), StripPrefix("module.")).bare({"module.w": A}), {"module.w": A})
    assert_same((KeyMap(StripPrefix("module.")) + KeyMap(StripPrefix("x."))).bare({"module.x.w": A}), {"w": A})
    with pytest.raises(KeyMapError, match=r"'module\.w' and 'w'"):
        KeyMap(StripPrefix("module.")).bare({"module.w": A, "w": B})


def test_dropped_tensors_do_not_come_back():
    keys = KeyMap(Drop("layer.{}.position_ids"), Rename("w", "o"))
    assert_same(keys.forward({"layer.0.position_ids": A, "layer.7.position_ids": B, "w": C}), {"o": C})
    assert_same(keys.backward({"o": C}), {"w": C})


def test_indices_are_taken_in_numeric_order():
    keys = KeyMap(Rename("t.{}", "o.{}"))
    assert list(keys.forward({f"t.{i}": A for i in (10, 9, 1)})) == ["o.1", "o.9", "o.10"]


def test_maps_are_added_in_order():
    keys = KeyMap(Rename("a", "x")) + KeyMap(Rename("b", "y"))
    assert_same(keys.forward({"a": A, "b": B}), {"x": A, "y": B})
    assert_same(keys.backward({"x": A, "y": B}), {"a": A, "b": B})


def test_input_is_left_alone():
    theirs = {"a": A, "b": B}
    KeyMap(Rename("a", "x"), Drop("b")).forward(theirs)
    assert sorted(theirs) == ["a", "b"]


OPTIONAL = {
    "rename": Rename("a", "x", optional=True),
    "join": Join(("a", "b"), "x", optional=True),
    "split": Split("a", ("x", "y"), optional=True),
    "transpose": Transpose("a", "x", optional=True),
    "squeeze": Squeeze("a", "x", optional=True),
    "cast": Cast("a", "x", stored="float16", ours="float32", optional=True),
    "tie": Tie(("a", "b"), "x", optional=True),
    "either": Either((Rename("a", "x"), Rename("b", "x")), optional=True),
    "strip": StripPrefix("a."),
    "drop": Drop("a"),
}


@pytest.mark.parametrize("case", OPTIONAL)
def test_optional_rule_may_be_idle(case):
    assert KeyMap(OPTIONAL[case]).forward({}) == {}


@pytest.mark.parametrize("case", sorted(OPTIONAL.keys() - {"strip", "drop"}))
def test_rule_without_its_tensors_is_an_error_that_names_them(case):
    rule = dataclasses.replace(OPTIONAL[case], optional=False)
    with pytest.raises(KeyMapError, match=r"lacks the tensors of these rules: .*'a'"):
        KeyMap(rule).forward({})


def test_tensors_without_a_rule_are_an_error_that_lists_them():
    with pytest.raises(KeyMapError, match=r"no rule names: 'lora\.0\.a', 'zeta'"):
        KeyMap(Rename("a", "x")).forward({"zeta": A, "a": A, "lora.0.a": A})
    with pytest.raises(KeyMapError, match="No rule writes these tensors back: 'y'"):
        KeyMap(Rename("a", "x")).backward({"x": A, "y": A})


def test_copies_that_differ_are_an_error_that_names_them():
    with pytest.raises(KeyMapError, match="'w' and 'copy' are one tensor stored twice, but differ"):
        KeyMap(Tie(("w", "copy"), "o")).forward({"w": A, "copy": B})
    with pytest.raises(KeyMapError, match="'w' and 'third'"):
        KeyMap(Tie(("w", "copy", "third"), "o")).forward({"w": A, "copy": A, "third": A[:1]})


@pytest.mark.parametrize(
    ("rule", "shape"),
    [
        (Transpose("a", "x"), ()),
        (Transpose("a", "x"), (2, 2, 2)),
        (Join(("a", "b"), "x"), ()),
        (Join(("a", "b"), "x", axis=2), (2, 2)),
        (Split("a", ("x", "y")), ()),
        (Split("a", ("x", "y"), axis=2), (2, 2)),
    ],
)
def test_tensors_of_another_shape_than_a_rule_is_for_are_an_error(rule, shape):
    names = ("a", "b") if isinstance(rule, Join) else ("a",)
    with pytest.raises(KeyMapError, match=r"'a'"):
        KeyMap(rule).forward({name: torch.ones(shape) for name in names})


def test_join_names_the_parts_that_are_missing():
    with pytest.raises(KeyMapError, match=r"has 'l.1.q' but lacks 'l.1.k', 'l.1.v'"):
        KeyMap(Join(("l.{}.q", "l.{}.k", "l.{}.v"), "o.{}")).forward({"l.1.q": A})
    with pytest.raises(KeyMapError, match=r"no rule names: 'l.1.k'"):
        KeyMap(Join(("l.{}.q", "l.{}.k"), "o.{}")).forward({"l.0.q": A, "l.0.k": A, "l.1.k": A})


@pytest.mark.parametrize("other", [numbered(3, 3), numbered(2, 4)])
def test_join_of_unequal_shapes_is_an_error(other):
    with pytest.raises(KeyMapError, match=r"'q', 'k'.*one shape"):
        KeyMap(Join(("q", "k"), "qk")).forward({"q": A, "k": other})


def test_split_into_parts_that_are_not_equal_is_an_error():
    with pytest.raises(KeyMapError, match=r"'kv'.*\(3, 2\).*2 equal parts"):
        KeyMap(Split("kv", ("k", "v"))).forward({"kv": numbered(3, 2)})


def test_squeeze_of_a_longer_axis_is_an_error():
    with pytest.raises(KeyMapError, match="Axis 0 of 'w' must have length 1"):
        KeyMap(Squeeze("w", "o")).forward({"w": A})


def test_squeeze_of_several_axes_comes_back():
    keys, stored = KeyMap(Squeeze("w", "o", axis=(0, 2))), {"w": numbered(1, 3, 1, 2)}
    ours = keys.forward(stored)
    assert ours["o"].shape == (3, 2)
    assert_same(keys.backward(ours), stored)


def test_braces_that_are_no_template_are_left_alone():
    assert_same(KeyMap(Rename("w", "{x}")).forward({"w": A}), {"{x}": A})


@pytest.mark.parametrize("tensor", [torch.ones(()), torch.ones(2, 3), torch.ones(2, dtype=torch.int64)])
def test_tensor_with_one_known_number_is_checked_and_dropped(tensor):
    keys = KeyMap(DropFilled("alpha", 1.0), Rename("w", "o"))
    assert_same(keys.forward({"alpha": tensor, "w": A}), {"o": A})
    assert_same(keys.backward({"o": A}), {"w": A})
    assert_same(keys.forward({"w": A}), {"o": A})
    with pytest.raises(KeyMapError, match="'alpha' should hold 1 throughout"):
        keys.forward({"alpha": tensor * 2, "w": A})


def test_tensor_that_counts_is_checked_and_dropped():
    keys = KeyMap(DropCounting("places"), Rename("w", "o"))
    assert_same(keys.forward({"places": torch.arange(5)[None], "w": A}), {"o": A})
    assert_same(keys.forward({"w": A}), {"o": A})
    with pytest.raises(KeyMapError, match="'places' should hold 0, 1, 2"):
        keys.forward({"places": torch.tensor([0, 1, 3]), "w": A})


# ---- a published map ----

CHECKPOINTS = {
    "v1": (REFERENCE / "v1/checkpoint/model.safetensors", 1),
    "v1 bin": (REFERENCE / "v1/checkpoint/pytorch_model.bin", 1),
    "v1 cell classifier": (REFERENCE / "v1/checkpoint/cell_classifier/model.safetensors", 2),
    "v2": (REFERENCE / "v2/checkpoint/model.safetensors", 1),
    "v2 gene classifier": (REFERENCE / "v2/checkpoint/gene_classifier/model.safetensors", 3),
}
GONE = {"bert.embeddings.position_ids", "cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}


@pytest.mark.parametrize("case", CHECKPOINTS)
def test_geneformer_map_inverts(case, tmp_path):
    file, variant = CHECKPOINTS[case]
    theirs = read_tensors(file)
    keys = SPEC.keys + SPEC.variants[variant].keys
    ours = keys.forward(theirs)
    written = keys.backward(ours)
    assert_same(written, {name: tensor for name, tensor in theirs.items() if name not in GONE})
    assert_same(keys.forward(written), ours)
    save_file({name: tensor.contiguous() for name, tensor in written.items()}, tmp_path / "model.safetensors")
    assert_same(read_tensors(tmp_path / "model.safetensors"), written)
