"""Declarations to JSON and back: every frozen dataclass by the name of its type, nothing else."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any, Literal, Union, get_args, get_origin, get_type_hints

from sclcm import _sizes
from sclcm.encoding import (
    context,
    coordinates,
    depth,
    expand,
    factors,
    fixed_bins,
    groups,
    normalize,
    recount,
    select,
    sentences,
    values,
)
from sclcm.nn import (
    attention_configs,
    cell_configs,
    configs,
    decoder_configs,
    fixed_configs,
    gated_configs,
    prior_configs,
    readouts,
    set_configs,
    table_configs,
)
from sclcm.zoo import _labels, _modules, _recipes, _spec

if TYPE_CHECKING:
    from collections.abc import Iterable

_MODULES = (
    *(
        _sizes,
        attention_configs,
        cell_configs,
        configs,
        decoder_configs,
        fixed_configs,
        gated_configs,
        prior_configs,
        readouts,
        set_configs,
        table_configs,
    ),
    *(context, coordinates, depth, expand, factors, fixed_bins, groups, normalize, recount, select, sentences, values),
    *(_labels, _modules, _recipes, _spec),
)
_ROOTS = (
    configs.LCMConfig,
    sentences.Encoding,
    _spec.Recipe,
    _labels.GeneratedLabels,
    _labels.ClassLabels,
    _modules.Translation,
    _recipes.GeneRecipe,
)


@cache
def _types() -> dict[str, type]:
    """Return the dataclasses that a saved model may name: those that its declarations can hold, sizes resolved."""
    found: dict[str, type] = {}
    waiting: list[Any] = list(_ROOTS)
    while waiting:
        hint = waiting.pop()
        waiting.extend(get_args(hint))
        is_new = isinstance(hint, type) and dataclasses.is_dataclass(hint) and hint.__name__ not in found
        if is_new and hint.__module__ != _sizes.__name__:
            found[hint.__name__] = hint
            waiting.extend(_hints(hint).values())
    return found


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
    kind = _types().get(stored["type"]) if isinstance(stored["type"], str) else None
    if kind is None:
        msg = f"The saved model names the component {stored['type']!r}, which this version does not have; update sclcm."
        raise ValueError(msg)
    fields = {key: from_json(value) for key, value in stored.items() if key != "type"}
    try:
        found = kind(**fields)
    except TypeError as error:
        msg = f"The saved model's {stored['type']!r} does not fit this version of sclcm: {error}."
        raise ValueError(msg) from error
    _check_fields(found)
    return found


# ---- what a file declares, held against the types that the declarations have ----


def check_declaration(declaration: Any) -> None:
    """Refuse a (nested) declaration with a field of the wrong type, as a hostile or damaged configuration makes it."""
    if isinstance(declaration, Mapping):
        check_declaration(tuple(declaration.values()))
    elif isinstance(declaration, tuple):
        for item in declaration:
            check_declaration(item)
    elif dataclasses.is_dataclass(declaration):
        _check_fields(declaration)
        check_declaration(tuple(getattr(declaration, f.name) for f in dataclasses.fields(declaration)))


def _check_fields(declaration: Any) -> None:
    for name, hint in _hints(declaration.__class__).items():
        value = getattr(declaration, name)
        if not fits(value, hint):
            msg = (
                f"`{name}` of the model's {type(declaration).__name__} is {_shown(value)}, which is not of its type; "
                "the configuration is damaged or of another model. Get it from its authors."
            )
            raise ValueError(msg)


@cache
def _hints(kind: type[Any]) -> dict[str, Any]:
    names = {name: value for module in _MODULES for name, value in vars(module).items()}
    return get_type_hints(kind, localns={**names, "Mapping": Mapping})


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:60]}..."


def fits(value: Any, hint: Any) -> bool:
    """Whether a value is what a type hint says; an integer is a number, a truth value is not."""
    if get_origin(hint) is not None:
        return _fits_parts(value, get_origin(hint), get_args(hint))
    if hint in {int, float}:
        return type(value) is int or type(value) is hint
    return hint is Any or isinstance(value, hint)


def _fits_parts(value: Any, origin: Any, args: tuple[Any, ...]) -> bool:
    if origin in {Union, types.UnionType}:
        return any(fits(value, arg) for arg in args)
    if origin is Literal:
        return isinstance(value, str) and value in args
    if origin in {tuple, list}:
        return isinstance(value, origin) and _fit_all(value, args[0])
    return isinstance(value, Mapping) and _fit_all(value, args[0]) and _fit_all(value.values(), args[1])


def _fit_all(values: Iterable[Any], hint: Any) -> bool:
    if hint in {str, int}:  # vocabularies have tens of thousands of them
        return set(map(type, values)) <= {hint}
    return all(fits(value, hint) for value in values)
