"""Models that were pickled whole: their tensors by the names of a state dict, without any of their classes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sclcm.checkpoints.plain import FormatError, Record, UnsafeFileError
from sclcm.checkpoints.readers import read_torch

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator
    from pathlib import Path

    import torch

_MAX_TENSORS = 100_000
_MAX_DEPTH = 64


def read_module(path: str | Path, *, classes: Collection[str], entry: str = "") -> dict[str, torch.Tensor]:
    """Read the tensors of a pickled module, whose classes are kept as plain data and never brought to life.

    Parameters
    ----------
    path
        A file of `torch.save`.
    classes
        Full names of the classes and functions that it mentions.
    entry
        Where the module lies if the file holds a dictionary.

    Returns
    -------
    Tensor of each name, as the module's state dict would name them; those that are shared are there several times.

    Raises
    ------
    FormatError
        The file holds no module.
    UnsafeFileError
        It mentions other classes, or unfolds to far more than it holds.
    """
    content = read_torch(path, inert=classes)
    if isinstance(content, dict) and entry in content:
        content = content[entry]
    if not isinstance(content, Record):
        msg = f"`{path}` holds a {type(content).__name__}; expected a whole model, as `torch.save(model)` writes it."
        raise FormatError(msg)
    tensors: dict[str, torch.Tensor] = {}
    try:
        for name, tensor in _tensors_of(content, "", 0):
            tensors[name] = tensor
            if len(tensors) > _MAX_TENSORS:
                msg = f"`{path}` unfolds to more than {_MAX_TENSORS:,} tensors. Get the file from its authors."
                raise UnsafeFileError(msg)
    except _DamagedError as error:
        msg = f"`{path}` has no readable module at {str(error) or 'its top'!r}. Get the file from its authors."
        raise FormatError(msg) from error
    if not tensors:
        msg = f"`{path}` holds a model without any tensor. Get the file from its authors."
        raise FormatError(msg)
    return tensors


class _DamagedError(Exception):
    """What stands at a place is no module."""


def _tensors_of(module: Any, prefix: str, depth: int) -> Iterator[tuple[str, torch.Tensor]]:
    """Yield the parameters and kept buffers of a module, then those of the modules in it."""
    import torch

    state = module.state if isinstance(module, Record) else None
    if not isinstance(state, dict) or depth > _MAX_DEPTH:
        raise _DamagedError(prefix)
    fleeting = state.get("_non_persistent_buffers_set")
    for part in ("_parameters", "_buffers"):
        for name, tensor in _named(state, part, prefix).items():
            is_kept = part == "_parameters" or not isinstance(fleeting, set) or name not in fleeting
            if isinstance(tensor, torch.Tensor) and is_kept:
                yield prefix + name, tensor
    for name, inner in _named(state, "_modules", prefix).items():
        if inner is not None:
            yield from _tensors_of(inner, f"{prefix}{name}.", depth + 1)


def _named(state: dict[Any, Any], part: str, prefix: str) -> dict[str, Any]:
    found = state.get(part, {})
    if not isinstance(found, dict) or not all(isinstance(name, str) for name in found):
        raise _DamagedError(prefix)
    return found
