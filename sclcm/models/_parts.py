"""The blocks of a model that is otherwise built anew, from a folder of weights."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sclcm._sizes import ReleaseFacts, names_asked, names_to_fill, resolve_sizes
from sclcm.checkpoints.files import find_one
from sclcm.checkpoints.readers import read_tensors
from sclcm.models._release import Release, check_requirements, read_weights

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch
    from torch import Tensor

    from sclcm.zoo._spec import ModelSpec

PREFIX = "backbone."
SHARDS = "model-*-of-*.safetensors"


def with_blocks(
    spec: ModelSpec, folder: str | Path, *, given: Mapping[str, Any], dtype: torch.dtype
) -> tuple[ModelSpec, dict[str, Tensor]]:
    """Read the blocks of a family from a folder; whatever else its files hold is left aside.

    Parameters
    ----------
    spec
        The family, whose names the tensors have.
    folder
        Weights, in one file or in the numbered ones of the model hub, and their configuration.
    given
        Sizes that the caller states. What the folder says itself is refused.
    dtype
        Number type of the blocks, whatever the files have.

    Returns
    -------
    The spec, in which the width and the blocks have the sizes of the folder, and the tensors by our names.
    """
    place = Path(folder)
    if not place.is_dir():
        msg = f"`backbone` is {str(folder)!r}, which is no folder; pass the one with the weights of the blocks."
        raise FileNotFoundError(msg)
    tensors, config = _read(spec, place, given)
    shapes = {name: tuple(tensor.shape) for name, tensor in tensors.items()}
    facts = ReleaseFacts(config=config, shapes=shapes, given=given)
    check_requirements(spec, facts)
    d_model, backbone = spec.architecture.d_model, spec.architecture.backbone
    stated = ({"d_model"} | names_to_fill(backbone)) - names_asked((d_model, backbone))
    if twice := sorted(given.keys() & stated):
        msg = f"`{twice[0]}` is what the blocks in {str(folder)!r} have; leave it out, or leave out `backbone`."
        raise TypeError(msg)
    d_model, backbone = resolve_sizes((d_model, backbone), facts)
    architecture = dataclasses.replace(spec.architecture, d_model=d_model, backbone=backbone)
    state = spec.keys.part(tensors, PREFIX)
    return dataclasses.replace(spec, architecture=architecture), {name: t.to(dtype) for name, t in state.items()}


def _read(spec: ModelSpec, folder: Path, given: Mapping[str, Any]) -> tuple[dict[str, Tensor], Mapping[str, Any]]:
    """Return the tensors, left in their files where these allow it, and the configuration."""
    release = Release(folder, (folder,))
    if isinstance(spec.config, str) and (shards := _shards(folder)):
        return spec.keys.bare(_united(shards)), release.config(spec.config)
    return read_weights(spec, find_one(folder, spec.weights), release, given=given)


def _shards(folder: Path) -> list[Path]:
    """Return the numbered files of a model that is stored in several; `FileNotFoundError` if some are missing."""
    files = sorted(folder.glob(SHARDS))
    stated = {file.stem.rpartition("-")[2] for file in files}
    if files and stated != {f"{len(files):05d}"}:
        msg = f"{str(folder)!r} holds {len(files)} files like {files[-1].name!r}; get the others as well."
        raise FileNotFoundError(msg)
    return files


def _united(files: list[Path]) -> dict[str, Tensor]:
    """Return the tensors of several files, left in them; `ValueError` if two files have one of a name."""
    tensors: dict[str, Tensor] = {}
    for file in files:
        found = read_tensors(file, mapped=True)
        if twice := sorted(found.keys() & tensors.keys()):
            msg = f"{str(file)!r} holds {twice[0]!r}, which another file beside it has as well; get the files again."
            raise ValueError(msg)
        tensors |= found
    return tensors
