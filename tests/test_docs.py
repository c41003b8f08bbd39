"""Shared docstring texts, and that the API page is complete."""

from __future__ import annotations

import inspect
import re
from importlib import import_module
from pathlib import Path

import pytest

from sclcm._docs import TEXTS, with_shared_docs


def test_shared_text_is_put_in_at_the_indent_of_its_place():
    @with_shared_docs
    def function() -> None:
        """Do a thing.

        Parameters
        ----------
        %(adata)s
        other
            Another argument with 5 %(adata)s in running text.
        """

    text = function.__doc__ or ""
    margin = text.splitlines()[2].split("Parameters")[0]
    assert f"\n{margin}adata\n{margin}    Annotated data, cells in rows.\n{margin}other\n" in text
    assert "5 %(adata)s in running text" in text


def test_function_without_docstring_is_left_alone():
    def function() -> None: ...

    assert with_shared_docs(function).__doc__ is None


def test_shared_texts_are_numpy_style_parameters():
    for name, text in TEXTS.items():
        lines = text.strip("\n").splitlines()
        assert lines[0].isidentifier(), name
        assert lines[1].startswith("    "), name


@pytest.mark.parametrize("name", ["datasets", "genes", "get", "models", "pl", "pp", "tl"])
def test_api_page_lists_every_public_name(name):
    page = (Path(__file__).parents[1] / "docs" / "api.md").read_text(encoding="utf-8")
    listed = {
        line.strip().removeprefix(f"{name}.") for line in page.splitlines() if line.strip().startswith(f"{name}.")
    }
    assert listed == set(import_module(f"sclcm.{name}").__all__)


def public_functions():
    for package in ("datasets", "genes", "get", "models", "pl", "pp", "tl"):
        module = import_module(f"sclcm.{package}")
        for name in module.__all__:
            yield pytest.param(getattr(module, name), id=f"{package}.{name}")


@pytest.mark.parametrize("function", list(public_functions()))
def test_public_docstrings_describe_every_argument_and_what_is_returned(function):
    text = inspect.getdoc(function)
    assert re.match(r"[A-Z].*\.$", text.splitlines()[0])
    sections = dict(re.findall(r"^(\w+)\n-+\n(.*?)(?=^\w+\n-+\n|\Z)", text, re.M | re.S))
    described = re.findall(r"^(?:\*\*)?(\w+(?:, \w+)*)(?:\n|$)", sections.get("Parameters", ""), re.M)
    assert {name for names in described for name in names.split(", ")} == set(inspect.signature(function).parameters)
    if inspect.isfunction(function):
        assert {"Returns", "Yields"} & sections.keys()
    for line in sections.get("Returns", "").splitlines() + sections.get("Yields", "").splitlines():
        # napoleon takes what comes before a colon for a name, and tears sentences apart
        is_text = line and not line.startswith((" ", "`adata.", "`uns[", "`var["))
        assert not is_text or ":" not in re.sub(r":\w+:`", "", line.removesuffix("Writes:"))
