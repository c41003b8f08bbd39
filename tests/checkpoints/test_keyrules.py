"""Further rules of key maps, there and back."""

from __future__ import annotations

import pytest
import torch

from sclcm.checkpoints.keymap import Drop, DropUnder, KeyMap, KeyMapError, Rename, StripPrefix
from sclcm.checkpoints.keyrules import AddLowRank, AppendRows, JoinHeads, Reshape, Twice


def numbered(*shape):
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32).reshape(shape)


def test_axes_of_length_one_go_and_come_back():
    keys = KeyMap(Reshape("bins.{}.a", "{}.direct", stored=(1, 1), ours=()))
    found = keys.forward({"bins.0.a": torch.full((1, 1), 0.5)})
    assert found["0.direct"].shape == ()
    assert keys.backward(found)["bins.0.a"].tolist() == [[0.5]]
    with pytest.raises(KeyMapError, match=r"'bins\.3\.a' has the shape \(2,\), expected \(1, 1\)"):
        keys.forward({"bins.3.a": torch.zeros(2)})


ROWS = AppendRows("table", (("cls", (1, 1)), ("more", (1, 2))), "embed.weight")


def test_rows_stored_apart_come_below_the_table_and_go_apart_again():
    stored = {"table": numbered(5, 3), "cls": numbered(1, 1, 3) + 100, "more": numbered(1, 2, 3) + 200}
    found = KeyMap(ROWS).forward(stored)
    assert found["embed.weight"].shape == (8, 3)
    assert found["embed.weight"][5:].tolist() == [[100, 101, 102], [200, 201, 202], [203, 204, 205]]
    back = KeyMap(ROWS).backward(found)
    assert all(back[name].equal(tensor) and back[name].shape == tensor.shape for name, tensor in stored.items())


def test_rows_that_are_missing_or_misshapen_are_errors():
    stored = {"table": numbered(5, 3), "cls": numbered(1, 1, 3), "more": numbered(1, 2, 3)}
    with pytest.raises(KeyMapError, match="lacks 'cls', of which rows"):
        KeyMap(ROWS).forward({name: tensor for name, tensor in stored.items() if name != "cls"})
    with pytest.raises(KeyMapError, match="lacks the tensors of these rules: AppendRows"):
        KeyMap(ROWS).forward({})
    with pytest.raises(KeyMapError, match=r"'more' has the shape \(1, 3, 3\), expected \(1, 2, 3\)"):
        KeyMap(ROWS).forward({**stored, "more": numbered(1, 3, 3)})


LOW_RANK = KeyMap(AddLowRank("l.{}.q", "l.{}.lora_q.A", "l.{}.lora_q.B"), Rename("l.{}.q", "blocks.{}.q"))


def test_low_rank_product_is_added_to_its_matrix():
    stored = {"l.0.q": numbered(4, 3), "l.1.q": numbered(4, 3), "l.1.lora_q.A": numbered(2, 3)}
    stored["l.1.lora_q.B"] = numbered(4, 2)
    found = LOW_RANK.forward(stored)
    assert found["blocks.0.q"].equal(stored["l.0.q"])
    assert found["blocks.1.q"].equal(numbered(4, 3) + numbered(4, 2) @ numbered(2, 3))
    assert stored["l.1.q"].equal(numbered(4, 3))


def test_low_rank_product_that_does_not_fit_is_an_error():
    stored = {"l.0.q": numbered(4, 3), "l.0.lora_q.A": numbered(2, 3), "l.0.lora_q.B": numbered(4, 2)}
    for change, says in (
        ({"l.0.lora_q.B": numbered(4, 1)}, "have no product"),
        ({"l.0.lora_q.B": numbered(5, 2)}, r"does not fit 'l\.0\.q'"),
        ({"l.0.lora_q.A": numbered(2)}, "have no product"),
    ):
        with pytest.raises(KeyMapError, match=says):
            LOW_RANK.forward({**stored, **change})
    del stored["l.0.lora_q.B"]
    with pytest.raises(KeyMapError, match=r"has 'l\.0\.lora_q\.A' but lacks 'l\.0\.lora_q\.B'"):
        LOW_RANK.forward(stored)


def test_what_an_optimiser_remembers_counts_as_none_of_the_release():
    keys = KeyMap(StripPrefix("module."), DropUnder("moment1."), Drop("step"), Rename("w", "weight"))
    stored = {"module.w": numbered(2), "moment1.w": numbered(2), "moment1.x.y": numbered(1), "step": numbered(1)}
    assert set(keys.bare(stored)) == {"w"}
    assert set(keys.forward(stored)) == {"weight"}
    assert keys.backward(keys.forward(stored)).keys() == {"w"}


def test_what_is_stored_twice_is_checked_and_left_out():
    keys = KeyMap(Twice("again.", "net."), Rename("net.{}.w", "blocks.{}.w"))
    stored = {"net.0.w": numbered(2), "again.0.w": numbered(2)}
    ours = keys.forward(stored)
    assert list(ours) == ["blocks.0.w"]
    assert list(keys.backward(ours)) == ["net.0.w"]
    assert list(keys.forward({"net.0.w": numbered(2)})) == ["blocks.0.w"]
    for other in ({"again.0.w": numbered(2) + 1}, {"again.1.w": numbered(2)}):
        with pytest.raises(KeyMapError, match=r"'again\.\d\.w' is to be 'net\.\d\.w' once more"):
            keys.forward({**stored, **other})


HEADS = KeyMap(JoinHeads(query="l.{}.q", key="l.{}.k", value="l.{}.v", target="blocks.{}.qkv"))


@pytest.mark.parametrize("n_keys", [1, 2, 4])
def test_heads_are_joined_and_come_apart_again(n_keys):
    stored = {"l.0.q": numbered(4, 4), "l.0.k": numbered(n_keys, 4) + 20, "l.0.v": numbered(n_keys, 4) + 40}
    stored |= {name.replace("0", "1"): tensor + 100 for name, tensor in stored.items()}
    found = HEADS.forward(stored)
    assert found.keys() == {"blocks.0.qkv", "blocks.1.qkv"}
    assert found["blocks.1.qkv"].equal(torch.cat([stored[f"l.1.{part}"] for part in "qkv"]))
    back = HEADS.backward(found)
    assert back.keys() == stored.keys()
    assert all(back[name].equal(tensor) for name, tensor in stored.items())


def test_heads_that_do_not_fit_are_an_error():
    stored = {"l.0.q": numbered(4, 4), "l.0.k": numbered(2, 4), "l.0.v": numbered(2, 4)}
    with pytest.raises(KeyMapError, match=r"has 'l\.0\.q' but lacks 'l\.0\.v'"):
        HEADS.forward({name: tensor for name, tensor in stored.items() if name != "l.0.v"})
    for name, shape in (("l.0.v", (1, 4)), ("l.0.q", (6, 4)), ("l.0.q", (4,)), ("l.0.k", (2, 3))):
        with pytest.raises(KeyMapError, match="are no heads of one attention"):
            HEADS.forward({**stored, name: numbered(*shape)})


def test_part_of_a_file_is_taken_and_the_rest_left_aside():
    keys = KeyMap(Rename("table", "embed.weight"), Rename("l.{}.w", "blocks.{}.w"), Rename("head", "heads.a"))
    stored = {"table": numbered(2), "l.0.w": numbered(3), "l.1.w": numbered(3), "unknown": numbered(1)}
    assert keys.part(stored, "blocks.").keys() == {"blocks.0.w", "blocks.1.w"}
    assert len(stored) == 4
