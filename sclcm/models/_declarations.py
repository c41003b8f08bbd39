"""Declarations to JSON and back: every frozen dataclass by the name of its type, nothing else."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from sclcm.encoding import normalize, select, sentences, values
from sclcm.nn import configs, readouts
from sclcm.zoo import _spec

_MODULES = (configs, readouts, normalize, select, sentences, values, _spec)


def _types() -> dict[str, type]:
    """Return the dataclasses that a saved model may name."""
    found = (value for module in _MODULES for value in vars(module).values())
    return {value.__name__: value for value in found if isinstance(value, type) and dataclasses.is_dataclass(value)}


def to_json(declaration: Any) -> Any:
    """Return a declaration as JSON types."""
    if dataclasses.is_dataclass(declaration) and not isinstance(declaration, type):
        fields = {f.name: to_json(getattr(declaration, f.name)) for f in dataclasses.fields(declaration)}
        return {"type": type(declaration).__name__, **fields}
    if isinstance(declaration, Mapping):
        return {key: to_json(value) for key, value in declaration.items()}
    if isinstance(declaration, (tuple, list)):
        return [to_json(value) for value in declaration]
    return declaration


def from_json(stored: Any) -> Any:
    """Rebuild a declaration; `ValueError` names a type that is none of ours."""
    if isinstance(stored, list):
        return tuple(from_json(value) for value in stored)
    if not isinstance(stored, dict):
        return stored
    if "type" not in stored:
        return {key: from_json(value) for key, value in stored.items()}
    kind = _types().get(stored["type"])
    if kind is None:
        msg = f"The saved model names the component {stored['type']!r}, which this version does not have; update sclcm."
        raise ValueError(msg)
    fields = {key: from_json(value) for key, value in stored.items() if key != "type"}
    try:
        return kind(**fields)
    except TypeError as error:
        msg = f"The saved model's {stored['type']!r} does not fit this version of sclcm: {error}."
        raise ValueError(msg) from error
