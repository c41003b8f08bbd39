"""Declarations in few words: what differs from the defaults."""

from __future__ import annotations

import dataclasses
from typing import Any

from sclcm._sizes import Config, Given
from sclcm.encoding.sentences import Encoding


def brief(declaration: Any) -> str:
    """Return a declaration as text, without plain fields at their defaults and without the details of an encoding."""
    match declaration:
        case Config(name) | Given(name):
            return name
        case Encoding():
            return "one of its own"
        case tuple():
            return f"({', '.join(map(brief, declaration))})"
    if not dataclasses.is_dataclass(declaration):
        return repr(declaration)
    fields = [(f.name, getattr(declaration, f.name), f) for f in dataclasses.fields(declaration)]
    told = [
        (name, value) for name, value, field in fields if value != _default(field) or dataclasses.is_dataclass(value)
    ]
    said = [f"{name}={brief(value)}" for name, value in told]
    return f"{type(declaration).__name__}({', '.join(said)})"


def _default(field: dataclasses.Field[Any]) -> Any:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()
