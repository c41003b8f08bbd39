"""Files of `torch.save`, both formats: the zip archive and the older one that begins with a magic number."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, Any, Literal, NoReturn, TypeAlias

from sclcm.checkpoints.archives import Archive
from sclcm.checkpoints.plain import Constructor, FormatError, Refusal, Symbol, UnsafeFileError, shorten
from sclcm.checkpoints.rebuild import STORAGES, TABLE, Storage
from sclcm.checkpoints.unpickle import Machine

if TYPE_CHECKING:
    import mmap
    from pathlib import Path

    import torch

    from sclcm.checkpoints.plain import Table

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
_MAGIC_BYTES = b"\x8a\x0a" + LEGACY_MAGIC.to_bytes(10, "little") + b"."
_LEGACY_PROTOCOL = 1001
_MAX_PICKLE = 1 << 30
_LARGE = 1 << 28

Ways: TypeAlias = Literal["read", "mapped", "blank"]
"""What becomes of the numbers of tensors: read; left in the file until they are used, if many; or left out."""


def read_zip(path: Path, *, inert: frozenset[str], ways: Ways = "read") -> Any:
    """Read a zip archive of `torch.save` into plain Python data with tensors."""
    with Archive(path) as archive:
        folder = _folder(archive)
        _check_members(archive, folder)
        storages = _ZipStorages(archive, folder, ways)
        data = archive.read(f"{folder}/data.pkl", limit=_MAX_PICKLE)
        source = f"{path}"
        return Machine(
            data, source=source, table=allowed_names(source), inert=inert, persistent=storages.resolve
        ).load()


def _folder(archive: Archive) -> str:
    pickles = [name for name in archive.entries if name.count("/") == 1 and name.endswith("/data.pkl")]
    if len(pickles) != 1:
        shown = ", ".join(f"`{shorten(name)}`" for name in list(archive.entries)[:5]) or "nothing"
        msg = f"`{archive.path}` is a zip archive, but not one of `torch.save`: it holds {shown} and no `data.pkl`."
        raise FormatError(msg)
    return pickles[0].removesuffix("/data.pkl")


def _check_members(archive: Archive, folder: str) -> None:
    if f"{folder}/constants.pkl" in archive.entries:
        msg = f"`{archive.path}` is a TorchScript program, not a file of tensors. Save its `state_dict()` instead."
        raise FormatError(msg)
    for entry in archive.entries.values():
        if not entry.name.startswith(f"{folder}/"):
            archive.unsafe(f"holds `{shorten(entry.name)}` outside its folder `{shorten(folder)}`")
        if entry.packed != entry.size:
            archive.unsafe(f"holds `{shorten(entry.name)}` compressed ({entry.packed:,} to {entry.size:,} bytes)")
    order = f"{folder}/byteorder"
    if order in archive.entries and archive.read(order, limit=16) != b"little":
        msg = f"`{archive.path}` was written on a big-endian machine. Save it again on a little-endian one."
        raise FormatError(msg)


class _ZipStorages:
    """Hands out the storages of an archive, each read once and shared by its tensors."""

    def __init__(self, archive: Archive, folder: str, ways: Ways) -> None:
        self.archive, self.folder, self.ways = archive, folder, ways
        self.loaded: dict[str, torch.Tensor] = {}

    def resolve(self, pid: Any) -> Storage:
        dtype, size, key = parse_storage_id(pid, f"{self.archive.path}", fields=5)
        if key not in self.loaded:
            name = f"{self.folder}/data/{key}"
            if name not in self.archive.entries:
                self.archive.damaged(f"the storage `{shorten(name)}` is missing")
            self.loaded[key] = self._read(name, size)
        data = self.loaded[key]
        if data.numel() != size:
            self.archive.unsafe(f"gives the storage `{shorten(key)}` two sizes")
        return Storage(f"storage {shorten(key)}", dtype, data)

    def _read(self, name: str, size: int) -> torch.Tensor:
        import torch

        if (stored := self.archive.entries[name].size) != size:
            self.archive.unsafe(f"announces {size:,} bytes for `{shorten(name)}`, which has {stored:,}")
        if self.ways == "blank":
            return torch.empty(size, dtype=torch.uint8, device="meta")
        if self.ways == "mapped" and size >= _LARGE and (mapped := self.archive.map(name)) is not None:
            return torch.from_numpy(mapped)
        data = torch.empty(size, dtype=torch.uint8)
        if size:
            self.archive.read_into(name, data.numpy().data)
        return data


def parse_storage_id(pid: Any, source: str, *, fields: int) -> tuple[str, int, str]:
    """Take a persistent id of `torch.save` apart: torch dtype, size in bytes, key."""
    good = isinstance(pid, tuple) and len(pid) == fields and type(pid[0]) is str and pid[0] == "storage"
    if good:
        kind, key, count = pid[1], pid[2], pid[4]
        good = isinstance(kind, Symbol) and kind.value in STORAGES and type(key) is str and len(key) < 100
        if good and type(count) is int and 0 <= count < 1 << 60:
            dtype, width = STORAGES[kind.value]
            return dtype, count * width, key
    msg = f"`{source}` refers to something other than a torch storage. Nothing was loaded; get it from its authors."
    raise UnsafeFileError(msg)


# ---- the older format ----


def is_legacy(head: bytes) -> bool:
    """Tell whether a file that begins with `head` is of the older format: its first pickle is one known number."""
    return head[:1] == b"\x80" and _MAGIC_BYTES in head[:32]


def read_legacy(
    data: bytes | mmap.mmap, source: str, *, inert: frozenset[str] = frozenset(), nested: bool = False
) -> Any:
    """Read the older format of `torch.save`: three small pickles, the object, the list of storages, their bytes."""
    at = _legacy_head(data, source)
    storages = _LegacyStorages(source, len(data))
    names = TABLE if nested else allowed_names(source)
    machine = Machine(data, source=source, table=names, inert=inert, persistent=storages.resolve, start=at)
    value = machine.load_raw() if nested else machine.load()
    tail = Machine(data, source=source, table={}, start=machine.at)
    storages.fill(data, tail.load(), tail.at)
    return value


def _legacy_head(data: bytes | mmap.mmap, source: str) -> int:
    at, seen = 0, []
    for _ in range(3):
        machine = Machine(data, source=source, table={}, start=at)
        seen.append(machine.load())
        at = machine.at
    if seen[0] != LEGACY_MAGIC or seen[1] != _LEGACY_PROTOCOL or not isinstance(seen[2], dict):
        msg = f"`{source}` is not a file of `torch.save`."
        raise FormatError(msg)
    if seen[2].get("little_endian") is False:
        msg = f"`{source}` was written on a big-endian machine. Save it again on a little-endian one."
        raise FormatError(msg)
    return at


class _LegacyStorages:
    """Makes the storages while the object is read and fills them from the end of the file afterwards."""

    def __init__(self, source: str, size: int) -> None:
        self.source, self.left = source, size
        self.loaded: dict[str, Storage] = {}

    def resolve(self, pid: Any) -> Storage:
        import torch

        dtype, size, key = parse_storage_id(pid, self.source, fields=6)
        if pid[5] is not None:
            self._refuse("uses views of storages, which only releases before 0.4 wrote")
        if key not in self.loaded:
            self.left -= size
            if self.left < 0:
                self._refuse(f"announces {size:,} bytes for storage `{shorten(key)}`, more than the file has left")
            self.loaded[key] = Storage(f"storage {shorten(key)}", dtype, torch.empty(size, dtype=torch.uint8))
        found = self.loaded[key]
        if found.dtype != dtype or found.data.numel() != size:
            self._refuse(f"gives the storage `{shorten(key)}` two sizes")
        return found

    def fill(self, data: bytes | mmap.mmap, keys: Any, at: int) -> None:
        """Copy the bytes of every storage, in the order of `keys`, from position `at` on."""
        if not isinstance(keys, list) or {type(key) for key in keys} - {str} or sorted(keys) != sorted(self.loaded):
            self._refuse("lists other storages than its tensors use")
        for key in keys:
            at = self._fill_one(data, self.loaded[key], at)

    def _fill_one(self, data: bytes | mmap.mmap, storage: Storage, at: int) -> int:
        size = storage.data.numel()
        stop = at + 8 + size
        if stop > len(data):
            msg = f"`{self.source}` is truncated: it ends within {storage.label}. Download or copy the file again."
            raise FormatError(msg)
        width = next(width for dtype, width in STORAGES.values() if dtype == storage.dtype)
        if struct.unpack("<q", data[at : at + 8])[0] * width != size:
            self._refuse(f"gives {storage.label} two sizes")
        if size:
            storage.data.numpy().data[:] = data[at + 8 : stop]
        return stop

    def _refuse(self, what: str) -> NoReturn:
        msg = f"`{self.source}` {what}. Nothing was loaded; load it where it was made and save it again."
        raise UnsafeFileError(msg)


def allowed_names(source: str) -> Table:
    """Return the table of names with torch's nested storages (tensors in a plain pickle), which may not nest again."""

    def load(args: tuple[Any, ...]) -> Storage:
        if len(args) != 1 or type(args[0]) is not bytes or not is_legacy(args[0]):
            what = "takes the bytes of one torch storage"
            raise Refusal(what)
        value = read_legacy(args[0], f"{source} (a storage in it)", nested=True)
        if not isinstance(value, Storage):
            what = "its bytes are no torch storage"
            raise Refusal(what)
        return value

    nested = Constructor("torch.storage._load_from_bytes", load, cost=4096, factor=4)
    return {**TABLE, ("torch.storage", "_load_from_bytes"): nested}
