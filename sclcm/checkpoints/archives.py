"""Zip archives read by their central directory only: plain entries, no tricks, nothing unpacked to disk."""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass
from itertools import pairwise
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, NoReturn, Self

import numpy as np

from sclcm.checkpoints.plain import FormatError, UnsafeFileError, shorten

if TYPE_CHECKING:
    from pathlib import Path

_END, _END64, _LOCATOR64 = b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_CENTRAL, _LOCAL = b"PK\x01\x02", b"PK\x03\x04"
_STORED, _DEFLATED = 0, 8
_ALIGNED = 16  # no number is wider
_MAX_DIRECTORY = 32 << 20
_MAX_ENTRIES = 250_000
_WIDE, _WIDER = 0xFFFFFFFF, 0xFFFF


@dataclass(frozen=True, slots=True)
class Entry:
    """One file of an archive, as the central directory describes it."""

    name: str
    header: int
    packed: int
    size: int
    method: int


class Archive:
    """An open zip file; use it as a context manager."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.file = path.open("rb", buffering=0)
        self.ends: dict[int, int] = {}  # header of an entry -> where the next thing begins
        try:
            self.size = self.file.seek(0, 2)
            self.entries = self._read_directory()
        except BaseException:
            self.file.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.file.close()

    # ---- errors ----

    def damaged(self, what: str) -> NoReturn:
        """Refuse the archive as broken."""
        msg = f"`{self.path}` is a truncated or damaged zip archive: {what}. Download or copy the file again."
        raise FormatError(msg)

    def unsafe(self, what: str) -> NoReturn:
        """Refuse the archive as made to do harm."""
        msg = f"`{self.path}` {what}, which no checkpoint does. Nothing was unpacked; get the file from its authors."
        raise UnsafeFileError(msg)

    # ---- reading ----

    def _at(self, offset: int, n: int) -> bytes:
        if offset < 0 or n < 0 or offset + n > self.size:
            self.damaged(f"it refers to byte {offset + n:,} of {self.size:,}")
        self.file.seek(offset)
        piece = self.file.read(n)
        while len(piece) < n:  # an unbuffered read may stop early
            more = self.file.read(n - len(piece))
            if not more:
                self.damaged("it ends while it is read")
            piece += more
        return piece

    def data_offset(self, entry: Entry) -> int:
        """Check the entry's own header against the directory and return where its bytes begin."""
        header = self._at(entry.header, 30)
        flags, method, n_name, n_extra = struct.unpack("<6xHH16xHH", header)
        if header[:4] != _LOCAL or method != entry.method or flags & 1:
            self.damaged(f"the header of `{shorten(entry.name)}` contradicts the directory")
        if self._at(entry.header + 30, n_name) != entry.name.encode():
            self.unsafe(f"gives its entry `{shorten(entry.name)}` two names")
        start = entry.header + 30 + n_name + n_extra
        if start + entry.packed > self.ends[entry.header]:
            self.unsafe(f"lets `{shorten(entry.name)}` reach into what follows it")
        return start

    def read(self, name: str, *, limit: int) -> bytes:
        """Return one entry as bytes, at most `limit` of them, unpacked if need be."""
        entry = self.entries[name]
        if entry.size > limit:
            self.unsafe(f"holds `{shorten(name)}` of {entry.size:,} bytes where at most {limit:,} make sense")
        raw = self._at(self.data_offset(entry), entry.packed)
        if entry.method == _STORED:
            return raw
        try:
            data = zlib.decompressobj(-15).decompress(raw, entry.size + 1)
        except zlib.error:
            self.damaged(f"`{shorten(name)}` cannot be unpacked")
        if len(data) != entry.size:
            self.unsafe(f"lies about the size of `{shorten(name)}`")
        return data

    def read_into(self, name: str, target: memoryview) -> None:
        """Fill `target` with one stored entry."""
        entry = self.entries[name]
        if entry.method != _STORED or entry.size != len(target):
            self.unsafe(f"holds `{shorten(name)}` in {entry.size:,} bytes where {len(target):,} are announced")
        self.file.seek(self.data_offset(entry))
        done = 0
        while done < len(target):
            n = self.file.readinto(target[done:])
            if not n:
                self.damaged(f"it ends within `{shorten(name)}`")
            done += n

    def map(self, name: str) -> np.ndarray | None:
        """Return one stored entry as bytes that stay in the file until they are used; `None` if it lies unaligned.

        What is written into them stays in memory.
        """
        entry = self.entries[name]
        start = self.data_offset(entry)
        if entry.method != _STORED or start % _ALIGNED:
            return None
        return np.memmap(self.path, dtype=np.uint8, mode="c", offset=start, shape=(entry.size,))

    # ---- the directory ----

    def _read_directory(self) -> dict[str, Entry]:
        start, length, count = self._find_directory()
        if length > _MAX_DIRECTORY or count > _MAX_ENTRIES:
            self.unsafe(f"lists {count:,} entries in {length:,} bytes")
        data = self._at(start, length)
        entries: dict[str, Entry] = {}
        at = 0
        while at < length:
            entry, at = self._parse(data, at)
            if entry.name in entries:
                self.unsafe(f"holds `{shorten(entry.name)}` twice")
            entries[entry.name] = entry
        if len(entries) != count:
            self.damaged(f"it announces {count:,} entries and lists {len(entries):,}")
        self._check_fit(entries, start)
        return entries

    def _find_directory(self) -> tuple[int, int, int]:
        tail_length = min(self.size, 22 + 65535)
        tail = self._at(self.size - tail_length, tail_length)
        at = tail.rfind(_END)
        if at < 0 or at + 22 > len(tail) or at + 22 + struct.unpack_from("<H", tail, at + 20)[0] != len(tail):
            self.damaged("its table of contents is missing")
        count, length, start = struct.unpack_from("<HII", tail, at + 10)
        if at >= 20 and tail[at - 20 : at - 16] == _LOCATOR64:
            where = struct.unpack_from("<Q", tail, at - 12)[0]
            record = self._at(where, 56)
            if record[:4] != _END64:
                self.damaged("its large table of contents is missing")
            count, length, start = struct.unpack_from("<QQQ", record, 32)
        return start, length, count

    def _parse(self, data: bytes, at: int) -> tuple[Entry, int]:
        if at + 46 > len(data) or data[at : at + 4] != _CENTRAL:
            self.damaged("its table of contents is broken")
        flags, method = struct.unpack_from("<HH", data, at + 8)
        packed, size, n_name, n_extra, n_comment = struct.unpack_from("<IIHHH", data, at + 20)
        header = struct.unpack_from("<I", data, at + 42)[0]
        end = at + 46 + n_name + n_extra
        if end + n_comment > len(data):
            self.damaged("its table of contents is broken")
        name = self._checked_name(data[at + 46 : at + 46 + n_name])
        extra = data[at + 46 + n_name : end]
        size, packed, header = self._widen(extra, [size, packed, header])
        if flags & 1 or method not in {_STORED, _DEFLATED} or (method == _STORED and packed != size):
            self.unsafe(f"holds `{shorten(name)}` encrypted, or packed in an unknown way")
        return Entry(name, header, packed, size, method), end + n_comment

    def _widen(self, extra: bytes, values: list[int]) -> list[int]:
        wide: list[int] = []
        while len(extra) >= 4:
            kind, n = struct.unpack_from("<HH", extra)
            if kind == 1:
                wide = [struct.unpack_from("<Q", extra, 4 + i)[0] for i in range(0, min(n, len(extra) - 4) // 8 * 8, 8)]
            extra = extra[4 + n :]
        missing = sum(value == _WIDE for value in values)
        if missing > len(wide):
            self.damaged("the size of an entry is missing")
        numbers = iter(wide)
        return [next(numbers) if value == _WIDE else value for value in values]

    def _checked_name(self, raw: bytes) -> str:
        try:
            name = raw.decode()
        except UnicodeDecodeError:
            self.damaged("the name of an entry is no text")
        odd = any(ord(letter) < 32 for letter in name) or "\\" in name or ":" in name
        if not name or odd or name.startswith("/") or ".." in PurePosixPath(name).parts:
            self.unsafe(f"holds an entry named `{shorten(name)}`, which points outside the archive")
        return name

    def _check_fit(self, entries: dict[str, Entry], directory: int) -> None:
        last = 0
        ordered = sorted(entries.values(), key=lambda entry: entry.header)
        self.ends = dict(pairwise([*(entry.header for entry in ordered), directory]))
        for entry in ordered:
            if entry.header < last or entry.header + 30 + entry.packed > directory:
                self.unsafe(f"lets `{shorten(entry.name)}` share its bytes with another entry")
            last = entry.header + 30 + len(entry.name.encode()) + entry.packed
