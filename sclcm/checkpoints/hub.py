"""Files of a checkpoint from the model hub: pinned by commit and sha256, written atomically, resumed after a break.

Requests, retries, log-in and progress bars are those of `huggingface_hub`. The unfinished file is kept here, because
its recent releases start a download again from the first byte when the program was ended in the middle of one. The
bytes come by plain HTTP for the same reason: `hf_xet` is faster, and does not resume.
"""

from __future__ import annotations

import errno
import hashlib
import os
import re
import shutil
import sys
import warnings
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import TYPE_CHECKING

from sclcm._compat import package_version
from sclcm._settings import settings
from sclcm.checkpoints.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from huggingface_hub.file_download import HfFileMetadata

_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_NAME = re.compile(r"\w[\w.-]*")
_FULL = {errno.ENOSPC, errno.EDQUOT}
# What the HTTP libraries that `huggingface_hub` has used, one after the other, call a failed request.
_HTTP_ERRORS = {"requests": "RequestException", "httpx": "HTTPError", "httpx2": "HTTPError"}


def file_name(path: str) -> str:
    """Return the name under which a file of a release lies on this machine: the last part of its path."""
    return PurePosixPath(path).name


def fetch_files(
    folder: Path, files: Mapping[str, str | None], *, repository: str, revision: str, by_hand: str = ""
) -> None:
    """Fetch those files of a repository that a folder lacks, and check all of them.

    A file is seen in the folder when it is complete and has the right sha256, not before. What a broken transfer left
    is kept beside it and continued by the next call. Nothing is opened: what the files hold is the readers' business.

    Parameters
    ----------
    folder
        Where to put them, side by side, without the folders they have in the repository. Made if need be.
    files
        Path in the repository -> sha256 of the file, or `None` where it is not known.
    repository
        `owner/name` on the hub.
    revision
        The commit, 40 hexadecimal digits. Branches and tags are refused, since they move.
    by_hand
        What else the user can do; ends the message of every error.

    Raises
    ------
    FileNotFoundError
        A file is not here and the settings forbid a connection, or the hub does not have it.
    PermissionError
        The hub asks for a log-in or for consent.
    ConnectionError
        The hub cannot be reached, is out of order, or the transfer broke.
    OSError
        The file cannot be written.
    ValueError
        A file is not the one that was asked for, or the arguments are none that lead to one.
    """
    source = _Source(repository, revision, by_hand)
    _check_source(source, files)
    targets = {path: folder / file_name(path) for path in files}
    missing = [path for path, target in targets.items() if not target.is_file()]
    if missing and settings.offline:
        raise FileNotFoundError(source.message(_offline(missing, folder)))
    if missing:
        with _one_at_a_time(folder, source), _progress_bars(shown=settings.progress):
            for path in missing:
                _fetch(source, path, targets[path], digest=files[path])
    for path in files.keys() - missing:
        remedy = f"Remove {str(targets[path])!r} to fetch it again."
        _check_digest(source, targets[path], files[path], name=file_name(path), remedy=remedy)


@dataclass(frozen=True)
class _Source:
    """Where files come from, and what to say when they do not."""

    repository: str
    revision: str
    by_hand: str

    def __str__(self) -> str:
        return f"the model hub repository {self.repository!r} at revision {self.revision!r}"

    def message(self, text: str) -> str:
        return f"{text} {self.by_hand}".rstrip()


def _check_source(source: _Source, files: Mapping[str, str | None]) -> None:
    """Refuse, before any request, what is not pinned and what would leave the folder."""
    owner, _, name = source.repository.partition("/")
    if not (_NAME.fullmatch(owner) and _NAME.fullmatch(name)):
        msg = f"{source.repository!r} is no repository of the model hub; expected 'owner/name'."
        raise ValueError(msg)
    if not _COMMIT.fullmatch(source.revision):
        msg = f"The revision {source.revision!r} is not pinned; expected the 40 hexadecimal digits of a commit."
        raise ValueError(msg)
    for path, digest in files.items():
        parts = path.split("/")
        if not all(parts) or {".", ".."} & set(parts) or PureWindowsPath(path).drive or "\\" in path:
            msg = f"{path!r} is no path inside a repository; expected one such as 'folder/config.json'."
            raise ValueError(msg)
        if digest is not None and not _SHA256.fullmatch(digest):
            msg = f"{digest!r} is no sha256 for {path!r}; expected 64 hexadecimal digits, or None."
            raise ValueError(msg)
    names = [file_name(path) for path in files]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        msg = f"Several files are called {twice[0]!r}; they would overwrite each other in one folder."
        raise ValueError(msg)


def _offline(missing: list[str], folder: Path) -> str:
    names = ", ".join(repr(file_name(path)) for path in missing)
    return (
        f"{str(folder)!r} lacks {names}, and the package is set to stay offline; unset HF_HUB_OFFLINE or set "
        "`sclcm.settings.offline = False` to fetch what is missing."
    )


@contextmanager
def _one_at_a_time(folder: Path, source: _Source) -> Iterator[None]:
    """Make the folder, and let no second program write to the same unfinished file."""
    from huggingface_hub.utils import WeakFileLock

    with ExitStack() as stack:
        with _translated(source, "", folder):
            folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(WeakFileLock(folder / ".lock"))
        yield


@contextmanager
def _progress_bars(*, shown: bool) -> Iterator[None]:
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    if shown or are_progress_bars_disabled():
        yield
        return
    with warnings.catch_warnings():  # HF_HUB_DISABLE_PROGRESS_BARS=0 has the last word, and says so
        warnings.simplefilter("ignore", UserWarning)
        disable_progress_bars()
    try:
        yield
    finally:
        enable_progress_bars()


def _fetch(source: _Source, path: str, target: Path, *, digest: str | None) -> None:
    """Fetch one file; continue where an earlier call stopped."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_url
    from huggingface_hub.utils import build_hf_headers

    if target.is_file():  # another program was faster
        return
    url = hf_hub_url(source.repository, path, revision=source.revision, endpoint=settings.endpoint)
    headers = build_hf_headers(library_name="sclcm", library_version=package_version())
    with _translated(source, path, target.parent):
        metadata = get_hf_file_metadata(url, headers=headers)
    size = _checked_size(source, path, metadata)
    with _translated(source, path, target.parent):
        partial = _unfinished(target, f"{source.revision} {metadata.etag}", size)
        _transfer(url, partial, headers=headers, size=size, shown_name=target.name)
    # The digest that the hub states for large files guards the transfer where the declaration has none.
    digest = digest or (metadata.etag if _SHA256.fullmatch(metadata.etag or "") else None)
    try:
        _check_digest(source, partial, digest, name=target.name, remedy="What arrived was removed; try again later.")
    except ValueError:
        partial.unlink()
        raise
    partial.replace(target)


def _transfer(url: str, partial: Path, *, headers: dict[str, str], size: int, shown_name: str) -> None:
    """Append what an unfinished file lacks."""
    from huggingface_hub.file_download import http_get

    with partial.open("ab") as file:
        done = file.tell()
        free = shutil.disk_usage(partial.parent).free
        if size - done > free:
            raise OSError(errno.ENOSPC, f"{size - done:,} bytes are needed and {free:,} are free")
        # Compressed on its way, a file could not be continued.
        headers = {**headers, "Accept-Encoding": "identity"}
        http_get(url, file, resume_size=done, headers=headers, expected_size=size, displayed_filename=shown_name)
        file.flush()
        os.fsync(file.fileno())


def _checked_size(source: _Source, path: str, metadata: HfFileMetadata) -> int:
    if metadata.commit_hash is None or metadata.etag is None or metadata.size is None:
        msg = (
            f"{settings.endpoint!r} does not answer like a model hub when asked for {path!r}; a proxy or a log-in page "
            "may be in between. Check the network, HF_ENDPOINT and `sclcm.settings.endpoint`."
        )
        raise ConnectionError(source.message(msg))
    if metadata.commit_hash != source.revision:
        msg = f"Asked for {path!r} of {source}, the hub gave revision {metadata.commit_hash!r}; it is not used."
        raise ValueError(source.message(msg))
    return metadata.size


def _unfinished(target: Path, version: str, size: int) -> Path:
    """Return the unfinished file of this version of a file; remove those that cannot be continued."""
    tag = hashlib.sha256(version.encode()).hexdigest()[:12]
    partial = target.with_name(f".{target.name}.{tag}.incomplete")
    for other in target.parent.iterdir():
        if re.fullmatch(rf"\.{re.escape(target.name)}\.[0-9a-f]{{12}}\.incomplete", other.name) and (
            other != partial or other.stat().st_size > size
        ):
            other.unlink()
    return partial


def _check_digest(source: _Source, file: Path, digest: str | None, *, name: str, remedy: str) -> None:
    if digest is not None and (found := sha256_of(file)) != digest:
        msg = (
            f"{name!r} has the sha256 {found}, where {source} has {digest}; it is not the file that was published. "
            f"{remedy}"
        )
        raise ValueError(source.message(msg))


@contextmanager
def _translated(source: _Source, path: str, folder: Path) -> Iterator[None]:
    """Raise what goes wrong below in words that say what to do."""
    http_errors = [getattr(sys.modules[name], error) for name, error in _HTTP_ERRORS.items() if name in sys.modules]
    try:
        yield
    except (OSError, *http_errors) as error:
        kind, text = _http_problem(error, source, path) or _local_problem(error, folder) or _network_problem(error)
        raise kind(source.message(text)) from error


def _http_problem(error: Exception, source: _Source, path: str) -> tuple[type[OSError], str] | None:
    """Say what the hub means by its answer, if it gave one."""
    from huggingface_hub import errors

    status = getattr(getattr(error, "response", None), "status_code", None)
    page = f"{settings.endpoint}/{source.repository}"
    if isinstance(error, errors.GatedRepoError):
        return PermissionError, (
            f"{page} is open on request only: accept its terms there, then log in with `hf auth login` or set HF_TOKEN."
        )
    if status in {401, 403}:
        return PermissionError, (
            f"{page} is closed to you, or does not exist (status {status}). If it is open to you, log in with `hf auth "
            "login` or set HF_TOKEN; if you are logged in, the token may have expired."
        )
    if status == 404:
        return FileNotFoundError, _absence(error, source, path)
    if status is not None:
        return ConnectionError, f"{page} answers with status {status}; that is its own trouble, so try again later."
    return None


def _absence(error: Exception, source: _Source, path: str) -> str:
    from huggingface_hub import errors

    match error:
        case errors.RevisionNotFoundError():
            return f"{source.repository!r} has no revision {source.revision!r} any more, and no other one is taken."
        case errors.EntryNotFoundError():
            return f"There is no file {path!r} in {source}."
    return f"There is no repository {source.repository!r} at {settings.endpoint}; it was removed or renamed."


def _local_problem(error: Exception, folder: Path) -> tuple[type[OSError], str] | None:
    """Say what is wrong on this machine."""
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled):
        return FileNotFoundError, "HF_HUB_OFFLINE was set when Python started, which no setting overrides; unset it."
    if not isinstance(error, OSError) or error.errno is None or isinstance(error, ConnectionError):
        return None
    if error.errno in _FULL:
        return OSError, (
            f"There is no room for the files in {str(folder)!r}: {error.strerror}. Make room, or name another folder "
            "as `sclcm.settings.cache_dir` or SCLCM_CACHE_DIR."
        )
    return PermissionError if isinstance(error, PermissionError) else OSError, (
        f"Cannot write to {str(folder)!r}: {error.strerror}. Name another folder as `sclcm.settings.cache_dir` or "
        "SCLCM_CACHE_DIR."
    )


def _network_problem(error: Exception) -> tuple[type[OSError], str]:
    return ConnectionError, (
        f"{settings.endpoint} cannot be reached, or the transfer broke off ({type(error).__name__}). Check the network "
        "and try again: what has arrived is kept and continued."
    )
