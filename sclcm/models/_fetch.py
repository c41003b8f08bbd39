"""Where the files of a named checkpoint lie: in the package, fetched from the model hub, or put there by the user."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sclcm._settings import settings
from sclcm.checkpoints.hub import fetch_files, file_name

if TYPE_CHECKING:
    from collections.abc import Iterable

    from sclcm.zoo._spec import Checkpoint, HubFiles


def checkpoint_folder(family: str, key: str, checkpoint: Checkpoint) -> Path:
    """Return the one folder that holds all files of a checkpoint; fetch those that can be and are not there."""
    if checkpoint.bundled is not None:
        return Path(str(files("sclcm.weights"))) / checkpoint.bundled
    name, folder = f"{family}.{key}", _cache_folder(family, checkpoint.folder or key)
    if missing := [path for path in checkpoint.files if not (folder / file_name(path)).is_file()]:
        msg = (
            f"The weights of {name!r} do not come with the package and cannot be fetched automatically. "
            f"{_by_hand(name, checkpoint.source, missing, folder=folder)}"
        )
        raise FileNotFoundError(msg)
    if (hub := checkpoint.hub) is not None:
        by_hand = "By hand: " + _by_hand(name, _hub_page(hub), hub.files, folder=folder)
        fetch_files(folder, hub.files, repository=hub.repository, revision=hub.revision, by_hand=by_hand)
    return folder


def describe_files(family: str, key: str, checkpoint: Checkpoint) -> dict[str, Any]:
    """Say where the files of a checkpoint come from, how large the weights are, and where the files lie."""
    hub = checkpoint.hub
    sources = [checkpoint.source] if checkpoint.source else []
    sources += [] if hub is None else [_hub_page(hub)]
    return {
        "bundled": checkpoint.bundled is not None,
        "fetchable": hub is not None and not checkpoint.files,
        "source": "; ".join(sources),
        "files": [*({} if hub is None else hub.files), *checkpoint.files],
        "weights_mb": None if hub is None or hub.n_bytes is None else round(hub.n_bytes / 1e6),
        "folder": None
        if checkpoint.bundled is not None or not sources
        else str(_cache_folder(family, checkpoint.folder or key)),
    }


def _cache_folder(family: str, key: str) -> Path:
    """Return where the files of a checkpoint lie once they are on this machine."""
    return settings.cache_dir / family / key


def _hub_page(hub: HubFiles) -> str:
    """Return the address at which a person sees the pinned files."""
    return f"{settings.endpoint}/{hub.repository}/tree/{hub.revision}"


def _by_hand(name: str, source: str, paths: Iterable[str], *, folder: Path) -> str:
    wanted = "\n".join(f"  {path}" for path in paths)
    return (
        f"Get these files from {source}:\n{wanted}\nand put them, without any folders they are in, into "
        f"{str(folder)!r}; `sclcm.models.load({name!r})` finds them there. Or keep them in a folder of your own and "
        "pass its path."
    )
