"""The sha256 of a model's files, computed when somebody asks for it."""

from __future__ import annotations

import hashlib
import os
import weakref
from threading import Lock
from typing import TYPE_CHECKING, Self

import torch

from sclcm.checkpoints.files import checkpoint_digest, combined_digest
from sclcm.checkpoints.readers import require_file

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from io import BufferedReader
    from pathlib import Path

    from torch import Tensor

_AT_ONCE = 32 << 20


class Digest:
    """The digest of files as they were when a model was loaded from them.

    Hashing takes longer than mapping weights into memory, so that of large files waits until it is asked for. The files
    are held open until then: what others delete or replace meanwhile does not matter, and what is changed in place is
    noticed.
    """

    def __init__(self, value: str) -> None:
        self._value: str | None = value
        self._files: list[tuple[str, BufferedReader, tuple[int, int]]] = []
        self._lock = Lock()

    @classmethod
    def of(cls, paths: Iterable[Path]) -> Self:
        """Take the digest of files, of which each is named once."""
        unique = sorted(set(paths), key=lambda path: path.name)
        for path in unique:
            require_file(path)
        if sum(path.stat().st_size for path in unique) <= _AT_ONCE:
            return cls(checkpoint_digest(unique))
        late = cls("")
        late._value = None
        late._files = [(path.name, file, _state(file)) for path in unique for file in [path.open("rb")]]
        weakref.finalize(late, _close, late._files)
        return late

    @classmethod
    def of_tensors(cls, tensors: Mapping[str, Tensor], genes: Iterable[str]) -> Self:
        """Take the digest of a model that comes from no files: of its genes and its weights."""
        digest = hashlib.sha256("\n".join(genes).encode())
        for name, tensor in sorted(tensors.items()):
            digest.update(f"{name} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
        return cls(digest.hexdigest())

    def __reduce__(self) -> tuple[type[Digest], tuple[str]]:
        return Digest, (self.value,)

    @property
    def value(self) -> str:
        """The digest, as `sclcm.checkpoints.files.checkpoint_digest` defines it."""
        with self._lock:
            if self._value is None:
                self._value = self._compute()
            return self._value

    def _compute(self) -> str:
        lines = []
        for name, file, state in self._files:
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            if _state(file) != state:
                msg = f"{file.name!r} was changed after the model was loaded from it; load the model again."
                raise RuntimeError(msg)
            lines.append((name, digest))
        _close(self._files)
        return combined_digest(lines)


def _close(files: list[tuple[str, BufferedReader, tuple[int, int]]]) -> None:
    for _, file, _ in files:
        file.close()
    files.clear()


def _state(file: BufferedReader) -> tuple[int, int]:
    found = os.fstat(file.fileno())
    return found.st_size, found.st_mtime_ns
