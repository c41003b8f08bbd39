"""Declarations of published weights: where they come from, and under which licence."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping


@dataclass(frozen=True, kw_only=True)
class HubFiles:
    """Files that the authors themselves publish on the model hub.

    Parameters
    ----------
    repository
        `owner/name`.
    revision
        The commit, 40 hexadecimal digits; never a branch or a tag, since they move.
    files
        Path in the repository -> sha256 of the file, or `None` where nobody has published it.
    n_bytes
        Size of the weights file, or `None` where it is not known.
    """

    repository: str
    revision: str
    files: Mapping[str, str | None]
    n_bytes: int | None = None


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """One set of published weights.

    Parameters
    ----------
    description
        Corpus and size, in a line.
    license
        Licence of the weights.
    source
        Where the authors publish them, in words that a person can follow.
    files
        What the user has to get there, because it cannot be fetched; the names decide, folders do not matter.
    hub
        What is fetched from the model hub.
    bundled
        Folder inside the package's `weights`, for weights that come with the package.
    given
        Arguments of `load` that pick it out of its files, where those hold several models.
    folder
        Name of the folder of the files, where several checkpoints share them; `None` is that of the checkpoint.
    n_parameters
        Trained numbers of it, or `None` where nobody has stated or counted them.
    """

    description: str
    license: str
    source: str = ""
    files: tuple[str, ...] = ()
    hub: HubFiles | None = None
    bundled: str | None = None
    given: Mapping[str, str] = field(default_factory=dict)
    folder: str | None = None
    n_parameters: int | None = None
