"""Tensors of torch files that stay in the file, or whose numbers are left out."""

from __future__ import annotations

import pytest
import torch

from sclcm.checkpoints import torchfiles
from sclcm.checkpoints.readers import read_tensors, read_torch


@pytest.fixture
def file(tmp_path, monkeypatch):
    """A file of a large table, a view of it, and a small tensor; large is what has more than 1,000 bytes."""
    monkeypatch.setattr(torchfiles, "_LARGE", 1000)
    table = torch.randn(100, 8)
    torch.save({"table": table, "view": table[10:12], "small": torch.arange(3)}, tmp_path / "table.pt")
    return tmp_path / "table.pt"


def test_blank_tensors_have_shapes_and_no_numbers(file):
    found = read_torch(file, ways="blank")
    assert [(name, tuple(tensor.shape), tensor.dtype) for name, tensor in found.items()] == [
        ("table", (100, 8), torch.float32),
        ("view", (2, 8), torch.float32),
        ("small", (3,), torch.int64),
    ]
    assert all(tensor.is_meta for tensor in found.values())


def test_mapped_tensors_are_those_of_the_file_and_share_it(file):
    wanted, found = read_tensors(file), read_tensors(file, mapped=True)
    assert all(found[name].equal(tensor) for name, tensor in wanted.items())
    assert found["view"].data_ptr() == found["table"][10:].data_ptr()


def test_what_is_written_into_a_mapped_tensor_stays_in_memory(file):
    before = file.read_bytes()
    found = read_tensors(file, mapped=True)
    found["table"].zero_()
    assert not found["table"].any()
    assert file.read_bytes() == before
    assert read_tensors(file)["table"].any()


def test_truncated_file_is_refused_whatever_the_way(file):
    file.write_bytes(file.read_bytes()[:-500])
    for ways in ("read", "mapped", "blank"):
        with pytest.raises(ValueError, match="truncated or damaged"):
            read_torch(file, ways=ways)


def test_older_files_are_read_whole(tmp_path):
    torch.save({"a": torch.ones(2)}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    for ways in ("read", "mapped", "blank"):
        assert read_torch(tmp_path / "old.pt", ways=ways)["a"].tolist() == [1, 1]
