"""Sizes that a release states itself: read from its config, its tensors or the caller, never typed into a spec."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")
_MISSING = object()


@dataclass(frozen=True)
class Config:
    """A key of the release's own configuration file; dots go into nested dictionaries.

    Where the file may lack it, `default` is what the authors' code takes instead. `also` are other keys of the same, as
    files of another age have them.
    """

    key: str
    default: int | None = None
    also: tuple[str, ...] = ()


@dataclass(frozen=True)
class Shape:
    """An axis of a tensor, named as in the release; `absent` is the size where the release may lack the tensor."""

    tensor: str
    axis: int = 0
    absent: int | None = None


@dataclass(frozen=True)
class Count:
    """How many tensors match a pattern, `{}` standing for a number: the depth of a stack, `per` of them each."""

    pattern: str
    per: int = 1


@dataclass(frozen=True)
class Present:
    """Whether the checkpoint holds a tensor, such as a bias."""

    tensor: str


@dataclass(frozen=True)
class Given:
    """A size that the release states nowhere: an argument of `load`; without a default, an error without it."""

    name: str
    default: int | float | str | None = None


@dataclass(frozen=True)
class Quotient:
    """One size divided by another, such as the heads of an attention whose width and head width are known."""

    of: Shape | Config
    by: Shape | Config


@dataclass(frozen=True)
class WherePresent:
    """A part of a declaration that is there only where the checkpoint holds a tensor.

    Elsewhere it is left out of the tuple that it stands in, or is `None`.
    """

    tensor: str
    part: object


@dataclass(frozen=True)
class Sum:
    """Several sizes added up, such as the rows of a table and of what is stored apart; numbers may be below zero."""

    parts: tuple[int | Shape | Count | Config | Given, ...]


@dataclass(frozen=True)
class Shapes:
    """An axis of each tensor that matches a pattern, `{}` standing for a number, in its order: widths of a stack."""

    pattern: str
    axis: int = 0


@dataclass(frozen=True)
class VocabularySize:
    """How many tokens the vocabulary has, special ones included, where no tensor has a row for each."""


Rule: TypeAlias = Config | Shape | Count | Present | Given | Quotient | Sum | Shapes | VocabularySize
_RULES = (Config, Shape, Count, Present, Given, Quotient, Sum, Shapes, VocabularySize)
Size: TypeAlias = int | Rule
Text: TypeAlias = str | Rule
Number: TypeAlias = float | Rule
Flag: TypeAlias = bool | Rule


def template_regex(pattern: str) -> re.Pattern[str]:
    """Compile a tensor name pattern, `{}` standing for a number."""
    return re.compile(r"(\d+)".join(re.escape(part) for part in pattern.split("{}")))


@dataclass(frozen=True, kw_only=True)
class ReleaseFacts:
    """What a checkpoint says of itself: its configuration, shapes and vocabulary; and what the caller gave."""

    config: Mapping[str, Any] = field(default_factory=dict)
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    given: Mapping[str, Any] = field(default_factory=dict)
    n_tokens: int | None = None

    def value(self, rule: Rule) -> Any:  # noqa: PLR0911
        """Return what a rule stands for in this release; a `ValueError` says what is missing."""
        match rule:
            case Config(key, default, also):
                return self._config((key, *also), default)
            case Shape(tensor, axis, absent):
                return self._shape(tensor, axis, absent)
            case Count(pattern, per):
                return self._count(pattern, per)
            case Present(tensor):
                return tensor in self.shapes
            case Quotient(of, by):
                return self._quotient(self.value(of), self.value(by))
            case Sum(parts):
                return sum(part if isinstance(part, int) else as_int(self.value(part)) for part in parts)
            case Shapes(pattern, axis):
                return self._shapes(pattern, axis)
            case Given(name, default):
                return self._given(name, default)
            case VocabularySize():
                return self._vocabulary_size()

    def _given(self, name: str, default: float | str | None) -> Any:
        if self.given.get(name, default) is None:
            msg = f"This release does not state `{name}`; pass it, as in `load(..., {name}=...)`."
            raise ValueError(msg)
        return self.given.get(name, default)

    def _vocabulary_size(self) -> int:
        if self.n_tokens is None:
            msg = "The vocabulary's size is asked for before the vocabulary is read."
            raise ValueError(msg)
        return self.n_tokens

    def _count(self, pattern: str, per: int) -> int:
        regex = template_regex(pattern)
        found = sum(regex.fullmatch(name) is not None for name in self.shapes)
        if found % per:
            msg = f"The release has {found} tensors {pattern!r}, expected a multiple of {per}; it may be incomplete."
            raise ValueError(msg)
        return found // per

    def _quotient(self, whole: object, part: object) -> int:
        """Sizes come from files; what is no size, or leaves a remainder, is refused."""
        if not isinstance(whole, int) or not isinstance(part, int) or part < 1 or whole % part:
            msg = f"A size of {whole!r} is no multiple of {part!r}; the release's configuration may be damaged."
            raise ValueError(msg)
        return whole // part

    def _shapes(self, pattern: str, axis: int) -> tuple[int, ...]:
        regex = template_regex(pattern)
        found = [(int(match[1]), name) for name in self.shapes if (match := regex.fullmatch(name))]
        return tuple(self._shape(name, axis, None) for _, name in sorted(found))

    def _config(self, keys: tuple[str, ...], default: int | None) -> Any:
        if keys[0] in self.given:
            return self.given[keys[0]]
        for key in keys:
            value: Any = self.config
            for part in key.split("."):
                value = value.get(part, _MISSING) if isinstance(value, Mapping) else _MISSING
            if value is not _MISSING:
                return value
        if default is not None:
            return default
        msg = f"The release's configuration lacks {keys[0]!r}; pass it, as in `load(..., {keys[0]}=...)`."
        raise ValueError(msg)

    def _shape(self, tensor: str, axis: int, absent: int | None) -> int:
        if tensor not in self.shapes:
            if absent is not None:
                return absent
            msg = f"The release lacks the tensor {tensor!r}, from which a size is read; the file may be incomplete."
            raise ValueError(msg)
        shape = self.shapes[tensor]
        if not -len(shape) <= axis < len(shape):
            msg = f"The tensor {tensor!r} has shape {shape!r}; a size was to be read from its axis {axis}."
            raise ValueError(msg)
        return shape[axis]


def resolve_sizes(declaration: T, facts: ReleaseFacts) -> T:
    """Return a copy of a (nested, frozen) declaration with every rule replaced by its value in a release."""
    if isinstance(declaration, _RULES):
        value = facts.value(declaration)
        return tuple(value) if isinstance(value, list) else value  # type: ignore[return-value]
    if isinstance(declaration, WherePresent):
        return resolve_sizes(declaration.part, facts) if declaration.tensor in facts.shapes else None  # type: ignore[return-value]
    if dataclasses.is_dataclass(declaration) and not isinstance(declaration, type):
        changes = {f.name: resolve_sizes(getattr(declaration, f.name), facts) for f in dataclasses.fields(declaration)}
        return dataclasses.replace(declaration, **changes)
    if isinstance(declaration, tuple):
        return tuple(resolve_sizes(item, facts) for item in declaration if not _is_absent(item, facts))  # type: ignore[return-value]
    if isinstance(declaration, Mapping):
        return {key: resolve_sizes(item, facts) for key, item in declaration.items()}  # type: ignore[return-value]
    return declaration


def _is_absent(item: object, facts: ReleaseFacts) -> bool:
    return isinstance(item, WherePresent) and item.tensor not in facts.shapes


def names_asked(declaration: object) -> set[str]:
    """Return what a caller may state of a (nested) declaration: its `Given` sizes and its keys of the configuration."""
    match declaration:
        case Config(name) | Given(name):
            return {name}
        case tuple():
            return set().union(*map(names_asked, declaration))
        case Mapping():
            return names_asked(tuple(declaration.values()))
    if dataclasses.is_dataclass(declaration):
        return names_asked(tuple(getattr(declaration, field.name) for field in dataclasses.fields(declaration)))
    return set()


def fill_sizes(declaration: T, known: Mapping[str, Any], *, fallback: Mapping[str, Any] | None = None) -> T:
    """Return a copy of a (nested, frozen) declaration with every rule replaced by a size that is known by name.

    A rule goes by its key or name, where it has one, or else by the field that it stands in. What is known comes first,
    then the rule's own default, then the fallback. `ValueError` lists the fields of rules that nothing is known of.
    """
    lookup = _Lookup(known, fallback or {})
    if missing := sorted({names[-1] for names, default in _rules(declaration) if lookup.find(names, default) is None}):
        listed = ", ".join(f"`{name}`" for name in missing)
        msg = f"No size is known of {listed}; pass {'it' if len(missing) == 1 else 'them'}, as in `{missing[0]}=...`."
        raise ValueError(msg)
    return _filled(declaration, "", lookup)


@dataclass(frozen=True)
class _Lookup:
    """Sizes by name, and those that are taken where neither they nor a rule's default say anything."""

    known: Mapping[str, Any]
    fallback: Mapping[str, Any]

    def find(self, names: tuple[str, ...], default: Any) -> Any:
        found = next((self.known[name] for name in names if name in self.known), default)
        return next((self.fallback[name] for name in names if name in self.fallback), None) if found is None else found


def names_to_fill(declaration: object) -> set[str]:
    """Return the names that `fill_sizes` reads sizes by."""
    return {name for names, _ in _rules(declaration) for name in names}


def _rules(declaration: object, field_name: str = "") -> Iterator[tuple[tuple[str, ...], Any]]:
    """Yield, for each rule of a (nested) declaration, the names that it goes by, and its default."""
    if isinstance(declaration, _RULES):
        yield _names_of(declaration, field_name), getattr(declaration, "default", None)
    elif dataclasses.is_dataclass(declaration):
        for part in dataclasses.fields(declaration):
            yield from _rules(getattr(declaration, part.name), part.name)
    elif isinstance(declaration, Mapping | tuple):
        for item in declaration.values() if isinstance(declaration, Mapping) else declaration:
            yield from _rules(item, field_name)


def _names_of(rule: Rule, field_name: str) -> tuple[str, ...]:
    match rule:
        case Config(name) | Given(name):
            return tuple(dict.fromkeys((name, field_name)))
    return (field_name,)


def _filled(declaration: Any, field_name: str, lookup: _Lookup) -> Any:
    if isinstance(declaration, _RULES):
        return lookup.find(_names_of(declaration, field_name), getattr(declaration, "default", None))
    if dataclasses.is_dataclass(declaration) and not isinstance(declaration, type):
        parts = {f.name: _filled(getattr(declaration, f.name), f.name, lookup) for f in dataclasses.fields(declaration)}
        return dataclasses.replace(declaration, **parts)
    if isinstance(declaration, tuple):
        return tuple(_filled(item, field_name, lookup) for item in declaration)
    if isinstance(declaration, Mapping):
        return {key: _filled(item, field_name, lookup) for key, item in declaration.items()}
    return declaration


def names_given(declaration: object) -> set[str]:
    """Return the `Given` sizes of a (nested) declaration, which files state nowhere."""
    match declaration:
        case Given(name):
            return {name}
        case tuple():
            return set().union(*map(names_given, declaration))
        case Mapping():
            return names_given(tuple(declaration.values()))
    if dataclasses.is_dataclass(declaration):
        return names_given(tuple(getattr(declaration, field.name) for field in dataclasses.fields(declaration)))
    return set()


def as_int(size: Size, *, least: int = 1) -> int:
    """Return a resolved size, an integer of one or more; `ValueError` if it is a rule still, or no such number."""
    if isinstance(size, bool) or not isinstance(size, int) or size < least:
        kind = "a positive integer" if least == 1 else f"an integer of at least {least}"
        msg = f"A size must be {kind}, found {size!r}; the release's configuration may be damaged."
        raise ValueError(msg)
    return size
