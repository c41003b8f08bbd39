"""Conditions of variants that are made of others, or that the caller of `load` decides."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sclcm._sizes import Given


@dataclass(frozen=True)
class Asked:
    """The caller asked for it by a word, such as `load(..., compat="torch-port")`; without it, the condition fails."""

    setting: Given
    value: str


@dataclass(frozen=True)
class ConfigIs:
    """The release's configuration has one of these values under a key."""

    key: str
    values: tuple[object, ...]


@dataclass(frozen=True)
class AnyOf:
    """One of these conditions holds."""

    conditions: tuple[Any, ...]


@dataclass(frozen=True)
class NoneOf:
    """None of these conditions holds."""

    conditions: tuple[Any, ...]


def words_asked(conditions: Iterable[object]) -> dict[str, set[str]]:
    """Return the words that conditions know, by the name of the argument of `load`."""
    found: dict[str, set[str]] = {}
    for condition in conditions:
        match condition:
            case Asked(setting, value):
                found.setdefault(setting.name, set()).add(value)
            case AnyOf(inner) | NoneOf(inner):
                for name, words in words_asked(inner).items():
                    found.setdefault(name, set()).update(words)
    return found


def check_words(conditions: Iterable[object], given: Mapping[str, Any]) -> None:
    """Refuse a word that no condition knows."""
    for name, words in words_asked(conditions).items():
        if name in given and given[name] not in words:
            msg = f"`{name}` is {given[name]!r}; expected {' or '.join(map(repr, sorted(words)))}, or leave it out."
            raise ValueError(msg)
