"""A pickle machine of our own: plain data only; no name is imported, nothing but our own table is called."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np

from sclcm.checkpoints.opcodes import HANDLERS, STOP
from sclcm.checkpoints.plain import (
    REMEDY,
    Constructor,
    FormatError,
    Inert,
    Limits,
    Pending,
    Record,
    Refusal,
    Table,
    UnsafeFileError,
    check_tree,
    describe,
    shorten,
)

if TYPE_CHECKING:
    import mmap
    from collections.abc import Callable

# What a damaged pickle makes of our own code; never a refusal.
_DAMAGE = (ArithmeticError, AttributeError, LookupError, MemoryError, RuntimeError, TypeError, ValueError, struct.error)
_KEYS = frozenset({str, int, float, bool, type(None), bytes})


class Machine:
    """Runs one pickle over `data` from byte `start`; `at` is the byte after it when `load` returns."""

    def __init__(
        self,
        data: bytes | mmap.mmap,
        *,
        source: str,
        table: Table,
        inert: frozenset[str] = frozenset(),
        persistent: Callable[[Any], Any] | None = None,
        start: int = 0,
        limits: Limits | None = None,
    ) -> None:
        self.data, self.at = data, start
        self.end: int = len(data)
        self.source, self.table, self.inert, self.persistent = source, table, inert, persistent
        self.limits = limits or Limits()
        # No honest pickle spends less than a few bytes on what it builds or remembers.
        self.max_memo = min(self.limits.memo, 50_000 + self.end // 4)
        self.max_containers = min(self.limits.containers, 50_000 + self.end // 5)
        self.stack: list[Any] = []
        self.marks: list[list[Any]] = []
        self.memo: dict[int, Any] = {}
        self.containers = self.calls = self.tuple_keys = self.key_parts = 0
        self.hashes: dict[int, list[tuple[Any, ...]]] = {}
        self.budget = 12 * self.end + (48 << 20)

    # ---- running ----

    def load(self) -> Any:
        """Run to the end of the pickle and return its object, checked to be finished plain data."""
        root = self.load_raw()
        check_tree(root, limits=self.limits, unsafe=self.unsafe)
        return root

    def load_raw(self) -> Any:
        """Run to the end of the pickle and return its object, which may be a `Symbol` or a storage."""
        try:
            return self._run()
        except (UnsafeFileError, FormatError):
            raise
        except _DAMAGE as error:
            msg = (
                f"`{self.source}` is damaged: its pickle makes no sense near byte {self.at} "
                f"({type(error).__name__}). Download or copy the file again."
            )
            raise FormatError(msg) from error

    def _run(self) -> Any:
        handlers, data, end = HANDLERS, self.data, self.end
        for done in range(self.limits.opcodes):
            at = self.at
            if at >= end:
                self.truncated()
            code = data[at]
            self.at = at + 1
            if code == STOP:
                return self._stop()
            handlers[code](self)
            if not done & 0xFFFF and len(self.stack) > self.limits.stack:
                self.unsafe(f"holds more than {self.limits.stack:,} objects in no container")
        self.unsafe(f"runs more than {self.limits.opcodes:,} pickle opcodes")

    def _stop(self) -> Any:
        if self.marks or len(self.stack) != 1:
            msg = (
                f"`{self.source}` is damaged: its pickle ends with a stack that is not one object. Get the file again."
            )
            raise FormatError(msg)
        return self.stack.pop()

    # ---- errors ----

    def unsafe(self, what: str) -> NoReturn:
        """Refuse the file because it `what`."""
        msg = f"`{self.source}` {what} (near byte {self.at}), which plain data never needs. {REMEDY}"
        raise UnsafeFileError(msg)

    def truncated(self) -> NoReturn:
        """Refuse the file because it ends too early."""
        msg = (
            f"`{self.source}` is truncated: its pickle wants more than the {self.end:,} bytes there are "
            f"(at byte {self.at:,}). Download or copy the file again."
        )
        raise FormatError(msg)

    # ---- reading ----

    def take(self, n: int) -> bytes:
        """Take the next `n` bytes, never more than there are."""
        stop = self.at + n
        if n < 0 or stop > self.end:
            self.truncated()
        piece = self.data[self.at : stop]
        self.at = stop
        return piece

    def number(self, layout: str, n: int) -> Any:
        """Take `n` bytes as one number."""
        stop = self.at + n
        if stop > self.end:
            self.truncated()
        piece = self.data[self.at : stop]
        self.at = stop
        return struct.unpack(layout, piece)[0]

    def line(self, longest: int) -> bytes:
        """Take a line of text of at most `longest` bytes."""
        stop = self.data.find(b"\n", self.at, min(self.end, self.at + longest + 1))
        if stop < 0:
            if self.end - self.at > longest:
                self.unsafe(f"holds a line of more than {longest:,} characters where a short one belongs")
            self.truncated()
        piece = self.data[self.at : stop]
        self.at = stop + 1
        return piece

    # ---- stack and memo ----

    def push(self, value: Any) -> None:
        """Put a value on the stack."""
        self.stack.append(value)

    def push_container(self, value: Any) -> None:
        """Put a new container on the stack, counted."""
        self.containers += 1
        if self.containers > self.max_containers:
            self.unsafe(f"builds more than {self.max_containers:,} containers")
        self.stack.append(value)

    def pop_mark(self) -> list[Any]:
        """Take everything down to the last mark."""
        items = self.stack
        self.stack = self.marks.pop()
        return items

    def remember(self, key: int) -> None:
        """Store the top of the stack in the memo."""
        if len(self.memo) >= self.max_memo or key < 0:
            self.unsafe(f"keeps more than {self.max_memo:,} objects in its memo, or numbers them below zero")
        top = self.memo[key] = self.stack[-1]
        if isinstance(top, Pending):
            top.memo_keys.append(key)

    # ---- names, calls, state ----

    def find(self, module: Any, name: Any) -> None:
        """Push our stand-in of a global; refuse every name that is not in the table."""
        known = isinstance(module, str) and isinstance(name, str)
        found = self.table.get((module, name)) if known else None
        if found is not None:
            self.stack.append(found)
        elif known and f"{module}.{name}" in self.inert:
            self.stack.append(Inert(f"{module}.{name}"))
        else:
            self.unsafe(f"asks for the Python object `{shorten(module)}.{shorten(name)}`")

    def call(self, func: Any, args: Any) -> None:
        """Run our stand-in of `func`, or note the call of an inert one; nothing else can be called."""
        if not isinstance(func, (Constructor, Inert)) or not isinstance(args, tuple):
            self.unsafe(f"calls {describe(func)}, which is not a function of the allowed table")
        self.calls += 1
        if self.calls > self.limits.calls:
            self.unsafe(f"makes more than {self.limits.calls:,} calls")
        if isinstance(func, Inert):
            self.charge(args)
            self.stack.append(Record(func.name, args))
            return
        self.charge(args, cost=func.cost, factor=func.factor)
        if func.hashes:
            self.check_keys([key for members in args for key in members])
        self.stack.append(self._guarded(func.label, func.build, args))

    def build(self, state: Any) -> None:
        """Complete the object on top of the stack; only our own unfinished objects take a state."""
        target = self.stack[-1]
        self.charge(state)
        if isinstance(target, Pending):
            value = self._guarded(target.label, target.finish, state)
            self.stack[-1] = value
            self.memo.update((key, value) for key in target.memo_keys if self.memo.get(key) is target)
        elif isinstance(target, Record) and target.state is None:
            target.state = state
        elif not (type(target) is dict and type(state) is dict and state.keys() <= {"_metadata"}):
            self.unsafe(f"sets the inner state of {describe(target)}")

    def _guarded(self, label: str, build: Callable[[Any], Any], value: Any) -> Any:
        try:
            return build(value)
        except Refusal as refusal:
            self.unsafe(f"misuses `{label}`: {refusal}")

    def charge(self, args: Any, *, cost: int = 128, factor: int = 1) -> None:
        """Count what a call may allocate, so that memoised data cannot be multiplied without end."""
        self.budget -= factor * _weight(args) + cost
        if self.budget < 0:
            self.unsafe("multiplies its own data far beyond its size")

    def check_keys(self, keys: list[Any]) -> None:
        """Allow only dictionary keys and set members whose hashing is cheap and bounded."""
        for key in keys:
            kind = type(key)
            if kind is str:
                continue
            if kind is tuple:
                self._check_tuple_key(key)
            elif kind is int:
                self._check_integer_key(key)
            elif kind not in _KEYS and not _hashes_well(key):
                self.unsafe(f"uses {describe(key)} as a key")

    def _check_integer_key(self, key: int) -> None:
        if key.bit_length() > 64:
            self.unsafe("uses an integer beyond 64 bits as a key")

    def _check_tuple_key(self, key: tuple[Any, ...]) -> None:
        self.tuple_keys += 1
        flat = [part for item in key for part in (item if type(item) is tuple else (item,))] if len(key) <= 64 else []
        self.key_parts += len(flat)
        many = self.tuple_keys > self.limits.tuple_keys or self.key_parts > self.limits.key_parts
        simple = len(key) <= 64 and len(flat) <= 4096
        if many or not simple or not all(type(part) in _KEYS or _hashes_well(part) for part in flat):
            self.unsafe(f"uses more than {self.limits.tuple_keys:,} tuples, or a nested or very long one, as keys")
        for part in flat:
            if type(part) is int:
                self._check_integer_key(part)
        same = self.hashes.setdefault(hash(key), [])
        if key not in same:
            same.append(key)
        if len(same) > self.limits.same_hash:
            self.unsafe("uses keys that are made to collide")


def _hashes_well(key: Any) -> bool:
    """Whether few values of a numpy number share a hash: complex and extended numbers can be made to, without end."""
    return isinstance(key, np.generic) and (key.dtype.kind in "biuSU" or (key.dtype.kind == "f" and key.itemsize <= 8))


def _weight(value: Any, depth: int = 2) -> int:
    if isinstance(value, (str, bytes, bytearray)):
        return len(value)
    if isinstance(value, (tuple, list)):
        inner = sum(_weight(item, depth - 1) for item in value) if depth and len(value) < 64 else 0
        return 16 * len(value) + inner
    return 16 * len(value) if isinstance(value, (dict, set, frozenset)) else 16
