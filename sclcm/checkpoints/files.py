"""Files of a checkpoint on disk: find them, know them by their sha256, write them so that no half file is ever seen."""

from __future__ import annotations

import hashlib
import os
import tempfile
from contextlib import contextmanager
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence


def sha256_of(path: str | Path) -> str:
    """Return the sha256 of a file's bytes, in hexadecimal digits."""
    with Path(path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def checkpoint_digest(paths: Iterable[str | Path]) -> str:
    """Return one sha256 for the files of a checkpoint.

    One file gives its own sha256. Several give the sha256 of their `sha256sum` lines (digest, two blanks, file name,
    newline), sorted by file name; the order of `paths` and the folder do not matter.
    """
    files = sorted({Path(path) for path in paths}, key=lambda path: path.name)
    if not files:
        msg = "`paths` is empty; a checkpoint has at least one file."
        raise ValueError(msg)
    return combined_digest([(path.name, sha256_of(path)) for path in files])


def combined_digest(digests: Sequence[tuple[str, str]]) -> str:
    """Return the sha256 of files from their names and digests, as `checkpoint_digest` defines it."""
    if len(digests) == 1:
        return digests[0][1]
    text = "".join(f"{digest}  {name}\n" for name, digest in sorted(digests))
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def find_one(folder: str | Path, patterns: Sequence[str], *, also: Sequence[str | Path] = ()) -> Path:
    """Return the one file that the first matching pattern matches.

    Parameters
    ----------
    folder
        Where to look first.
    patterns
        Glob patterns relative to the folder, the best one first.
    also
        Further folders; each pattern is tried in all folders before the next pattern.

    Returns
    -------
    The file. No match is a `FileNotFoundError`, several matches of one pattern in one folder are a `ValueError`.
    """
    folders = [Path(folder), *map(Path, also)]
    for pattern in patterns:
        _check_pattern(pattern)
        for place in folders:
            found = sorted(path for path in place.glob(pattern) if path.is_file())
            if len(found) > 1:
                shown = ", ".join(f"`{path.relative_to(place)}`" for path in found)
                msg = (
                    f"`{place}` holds {len(found)} files like `{pattern}`: {shown}. Keep one, or name the file itself."
                )
                raise ValueError(msg)
            if found:
                return found[0]
    raise FileNotFoundError(_not_found(folders, patterns))


def _check_pattern(pattern: str) -> None:
    absolute = PurePosixPath(pattern).is_absolute() or PureWindowsPath(pattern).drive
    if not pattern or absolute or ".." in PureWindowsPath(pattern).parts:
        msg = f"The pattern {pattern!r} points outside the folder; give one relative to it, such as '*.safetensors'."
        raise ValueError(msg)


def _not_found(folders: Sequence[Path], patterns: Sequence[str]) -> str:
    asked = " or ".join(f"`{pattern}`" for pattern in patterns)
    missing = [f"`{folder}` does not exist" for folder in folders if not folder.is_dir()]
    present = [f"`{folder}` holds {_listing(folder)}" for folder in folders if folder.is_dir()]
    return f"No file like {asked}: {'; '.join(missing + present)}. Put the file there, or name another folder."


def _listing(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir())
    more = f" and {len(names) - 12} more" if len(names) > 12 else ""
    return (", ".join(f"`{name}`" for name in names[:12]) or "nothing") + more


@contextmanager
def named_in_errors(folder: Path, files: Sequence[Path]) -> Iterator[None]:
    """Add to the message of an error which files of a folder were read until then, unless it names one of them."""
    try:
        yield
    except (ValueError, KeyError, TypeError) as error:
        text = error.args[0] if len(error.args) == 1 else None
        if isinstance(text, str) and not any(file.name in text for file in files):
            names = ", ".join(repr(file.name) for file in files[:6]) + (", ..." if len(files) > 6 else "")
            stop = "" if text.rstrip().endswith(".") else "."
            error.args = (f"{text.rstrip()}{stop} Read from {str(folder)!r}: {names}.",)
        raise


def write_atomically(path: str | Path, content: bytes | str | Callable[[Path], object]) -> Path:
    """Write a file so that others see the old one or the new one, never a part; return its path.

    Parameters
    ----------
    path
        The file to write or replace; its folder must exist.
    content
        The bytes, the text (written as UTF-8), or a function that writes to the path it is given.
    """
    path = Path(path)
    with tempfile.TemporaryDirectory(prefix=f".{path.name[:40]}.", dir=path.parent) as folder:
        temporary = Path(folder) / path.name  # the same name, since some writers append a suffix
        if callable(content):
            content(temporary)
        else:
            temporary.write_bytes(content.encode() if isinstance(content, str) else content)
        _flush(temporary)
        temporary.replace(path)
    return path


def _flush(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())
