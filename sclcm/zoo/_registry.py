"""Name -> spec, found by file name and imported on demand."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sclcm.zoo._spec import ModelSpec

ENTRY_POINTS = "sclcm.zoo"


def family_names() -> list[str]:
    """Return the names of all families: files of the zoo, and specs that other packages offer."""
    return sorted({*_own_modules(), *(point.name for point in entry_points(group=ENTRY_POINTS))})


def _own_modules() -> dict[str, str]:
    """Family name -> module of the zoo; a hyphen in a name is an underscore in its file."""
    found = [
        module.name for module in pkgutil.iter_modules([str(Path(__file__).parent)]) if not module.name.startswith("_")
    ]
    return {name.replace("_", "-"): name for name in found}


def get_spec(family: str) -> ModelSpec:
    """Return the spec of a family; `ValueError` lists those that exist."""
    if module := _own_modules().get(family):
        return import_module(f"sclcm.zoo.{module}").SPEC
    for point in entry_points(group=ENTRY_POINTS, name=family):
        return point.load()
    msg = f"The family {family!r} is unknown; known are {', '.join(map(repr, family_names()))}."
    raise ValueError(msg)
