"""What a loaded file may consist of, the errors for the rest, and the walk that checks a finished object."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NoReturn

import numpy as np

REMEDY = (
    "Nothing in it was run. If you trust where it comes from, load it there with the authors' own software "
    "and save the plain data again (tensors as safetensors, dictionaries as JSON); otherwise delete it."
)


class UnsafeFileError(ValueError):
    """A file asks for something that plain data never needs; nothing of it was carried out."""


class FormatError(ValueError):
    """A file is not what it should be: empty, truncated, damaged, a web page, or another format."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Bounds that no honest file comes near."""

    opcodes: int = 30_000_000
    stack: int = 4_000_000
    memo: int = 3_000_000
    containers: int = 4_000_000
    calls: int = 2_000_000
    tuple_keys: int = 20_000
    key_parts: int = 400_000
    same_hash: int = 8
    depth: int = 100
    nodes: int = 50_000_000
    integer_bytes: int = 1024


class Unfinished:
    """Base of what may lie on the stack of the machine but never in its result."""

    __slots__ = ()
    label: str


@dataclass(frozen=True, slots=True)
class Symbol(Unfinished):
    """A name that stands for a type (`torch.FloatStorage`) and can only be handed to a constructor."""

    label: str
    value: str = ""


@dataclass(frozen=True, slots=True)
class Constructor(Unfinished):
    """A name that may be called, and our own function that is run in its place."""

    label: str
    build: Callable[[tuple[Any, ...]], Any]
    hashes: bool = False  # its argument is a list of set members
    cost: int = 128  # bytes of memory that a call takes besides its arguments
    factor: int = 1  # how often its arguments are worked through or copied
    new: bool = False  # a class whose empty instance NEWOBJ may ask for


@dataclass(slots=True, eq=False)
class Pending(Unfinished):
    """An object that is complete only once its state (opcode BUILD) has come."""

    label: str
    finish: Callable[[Any], Any]
    memo_keys: list[int] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class Inert:
    """A class or function that the caller named in `inert`: only its full name."""

    name: str


@dataclass(slots=True, eq=False)
class Record:
    """An instance of an `Inert` class, or a call of such a function: kept as data, never brought to life."""

    name: str
    args: tuple[Any, ...]
    state: Any = None


Table = Mapping[tuple[str, str], Symbol | Constructor]
_LEAVES = frozenset({str, int, float, bool, type(None), bytes, bytearray, complex, np.ndarray})


_SHORT = 8
_WALKED = (dict, list, tuple, Record, Unfinished)


class Refusal(Exception):  # noqa: N818
    """Raised by a constructor that will not take its arguments; the machine turns it into `UnsafeFileError`."""


def describe(value: Any) -> str:
    """Name a value for a message without printing its contents."""
    if isinstance(value, Unfinished):
        return f"`{value.label}`"
    return f"an object of type `{type(value).__name__}`"


def shorten(text: Any) -> str:
    """Make a name from a file fit to print: short, visible ASCII."""
    shown = text if isinstance(text, str) else f"<{type(text).__name__}>"
    return re.sub(r"[^\x21-\x7e]", "?", shown[:80])


# ---- the result: finished, no cycles, not deeper and not larger than data is ----


def _children(value: Any) -> tuple[list[Any], int]:
    """Return the items of a container that must be walked, and the number of objects in those that need not be."""
    if isinstance(value, dict):
        items: Any = value.values()
    elif isinstance(value, Record):
        items = (value.args, value.state)
    else:
        items = value if isinstance(value, (list, tuple)) else ()
    walked: list[Any] = []
    small = 1 + len(items)
    for item in items:
        if type(item) not in _LEAVES and isinstance(item, _WALKED):
            size = _size_if_small(item)
            if size is None:
                walked.append(item)
            else:
                small += size
    return walked, small


def _size_if_small(item: Any) -> int | None:
    """Return the length of a short row of plain values, of which there may be many: no need to walk it."""
    if type(item) is dict:
        return None if item else 0
    is_short = type(item) in {list, tuple} and len(item) <= _SHORT
    return len(item) if is_short and all(type(part) in _LEAVES for part in item) else None


def check_tree(root: Any, *, limits: Limits, unsafe: Callable[[str], NoReturn]) -> None:
    """Walk a loaded object without recursion; refuse unfinished parts, cycles, deep nesting and memo bombs."""
    done: dict[int, tuple[int, int]] = {}  # id -> (nodes when written out in full, depth)
    entered: set[int] = set()
    stack: list[tuple[Any, list[Any] | None, int]] = [(root, None, 0)]
    while stack:
        value, children, small = stack.pop()
        key = id(value)
        if children is not None:
            done[key] = _measure(children, small, done)
            entered.discard(key)
            if done[key][0] > limits.nodes or done[key][1] > limits.depth:
                unsafe(f"nests deeper than {limits.depth} levels or unfolds to more than {limits.nodes:,} objects")
        elif isinstance(value, Unfinished):
            unsafe(f"holds the bare type or unfinished object `{value.label}`")
        elif key in entered:
            unsafe("holds a container that contains itself")
        elif len(entered) > limits.depth:
            unsafe(f"nests deeper than {limits.depth} levels")
        elif key not in done:
            children, small = _children(value)
            entered.add(key)
            stack.append((value, children, small))
            stack.extend((child, None, 0) for child in children if id(child) not in done)


def _measure(children: list[Any], small: int, done: dict[int, tuple[int, int]]) -> tuple[int, int]:
    sizes = [done[id(child)] for child in children]
    return small + sum(s for s, _ in sizes), 1 + max((d for _, d in sizes), default=0)
