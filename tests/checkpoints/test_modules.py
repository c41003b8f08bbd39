"""Models that were pickled whole, read without their classes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sclcm.checkpoints.modules import read_module
from sclcm.checkpoints.plain import FormatError, Record, UnsafeFileError

CLASSES = (
    "torch.nn.modules.batchnorm.BatchNorm1d",
    "torch.nn.modules.container.ModuleDict",
    "torch.nn.modules.container.Sequential",
    "torch.nn.modules.linear.Linear",
)


def model():
    shared = nn.Linear(3, 2, bias=False)
    inner = nn.Sequential(shared, nn.BatchNorm1d(2))
    inner.register_buffer("fleeting", torch.ones(2), persistent=False)
    return nn.ModuleDict({"a": inner, "again": shared})


def test_tensors_have_the_names_of_the_state_dict(tmp_path):
    stored = model()
    torch.save(stored, tmp_path / "model.pt")
    found = read_module(tmp_path / "model.pt", classes=CLASSES)
    assert list(found) == list(stored.state_dict())
    for name, tensor in stored.state_dict().items():
        torch.testing.assert_close(found[name], tensor, rtol=0, atol=0)
    assert "a.fleeting" not in found
    assert found["a.0.weight"].data_ptr() == found["again.weight"].data_ptr()


def test_module_may_lie_in_a_dictionary(tmp_path):
    torch.save({"net": model(), "epoch": 3}, tmp_path / "model.pt")
    assert "again.weight" in read_module(tmp_path / "model.pt", classes=CLASSES, entry="net")


def test_other_classes_are_refused(tmp_path):
    torch.save(model(), tmp_path / "model.pt")
    with pytest.raises(UnsafeFileError, match=r"asks for the Python object `torch\.nn\.modules\.batchnorm"):
        read_module(tmp_path / "model.pt", classes=CLASSES[1:])


@pytest.mark.parametrize("content", [{"a": torch.ones(2)}, torch.ones(2), [1, 2]])
def test_what_is_no_model_is_refused(tmp_path, content):
    torch.save(content, tmp_path / "model.pt")
    with pytest.raises(FormatError, match="expected a whole model"):
        read_module(tmp_path / "model.pt", classes=CLASSES)


def test_model_without_tensors_is_refused(tmp_path):
    torch.save(nn.Sequential(), tmp_path / "model.pt")
    with pytest.raises(FormatError, match="without any tensor"):
        read_module(tmp_path / "model.pt", classes=CLASSES)


def nested(state):
    return Record("a.B", (), state)


@pytest.mark.parametrize(
    ("content", "where"),
    [
        (nested(None), "at its top"),
        (nested({"_parameters": [1]}), "at its top"),
        (nested({"_modules": {1: None}}), "at its top"),
        (nested({"_modules": {"inner": nested({"_modules": {"x": 5}})}}), r"inner\.x\."),
    ],
)
def test_damaged_modules_are_refused(tmp_path, monkeypatch, content, where):
    monkeypatch.setattr("sclcm.checkpoints.modules.read_torch", lambda path, inert: content)
    with pytest.raises(FormatError, match=f"no readable module.*{where.removeprefix('at ')}"):
        read_module(tmp_path / "model.pt", classes=CLASSES)


def test_module_that_holds_itself_is_refused(tmp_path, monkeypatch):
    content = nested({"_modules": {}})
    content.state["_modules"]["x"] = content
    monkeypatch.setattr("sclcm.checkpoints.modules.read_torch", lambda path, inert: content)
    with pytest.raises(FormatError, match="no readable module"):
        read_module(tmp_path / "model.pt", classes=CLASSES)


def test_module_that_unfolds_without_end_is_refused(tmp_path, monkeypatch):
    content = nested({"_parameters": {str(i): torch.ones(1) for i in range(10)}})
    for _ in range(20):
        content = nested({"_modules": {"a": content, "b": content}})
    monkeypatch.setattr("sclcm.checkpoints.modules.read_torch", lambda path, inert: content)
    with pytest.raises(UnsafeFileError, match="unfolds to more than"):
        read_module(tmp_path / "model.pt", classes=CLASSES)
