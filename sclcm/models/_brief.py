"""Declarations in few words: what differs from the defaults."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from sclcm._sizes import Config, Given
from sclcm.encoding.sentences import Encoding
from sclcm.zoo._spec import HasTensor, VocabularyHas

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sclcm.zoo._spec import ModelSpec


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


def brief_recipes(spec: ModelSpec) -> dict[str, str]:
    """Return the recipes of a family as text: those of all its files, and those that only some of them have."""
    told = {name: brief(recipe) for name, recipe in spec.recipes.items()}
    for variant in spec.variants:
        where = _where(variant.when)
        for name, recipe in variant.recipes.items():
            if name not in told:
                told[name] = f"{brief(recipe)}, only {where}"
            elif told[name] != brief(recipe):
                told[name] += f"; {where}: {brief(recipe)}"
    return told


def _where(conditions: Iterable[object]) -> str:
    """Return in words which files of a family are meant."""
    words = []
    for condition in conditions:
        match condition:
            case VocabularyHas(token):
                words.append(f"for vocabularies with {token!r}")
            case HasTensor(name):
                words.append(f"for files with {name!r}")
            case _:
                words.append(f"where {brief(condition)}")
    return " and ".join(words)


def _default(field: dataclasses.Field[Any]) -> Any:
    made = field.default_factory
    return field.default if made is dataclasses.MISSING else made()
