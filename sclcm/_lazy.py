"""Names of a sub-package that are imported when they are first used (PEP 562)."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping


def attach(package: str, modules: Mapping[str, str]) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """Make the `__getattr__` and `__dir__` of a package that re-exports names lazily.

    Parameters
    ----------
    package
        `__name__` of the package.
    modules
        Public name -> module that defines it, by its full name.

    Returns
    -------
    `__getattr__` and `__dir__`, to be assigned in the package's `__init__.py`.
    """

    def load(name: str) -> Any:
        if name not in modules:
            msg = f"module {package!r} has no attribute {name!r}; it offers {', '.join(sorted(modules))}"
            raise AttributeError(msg)
        value = getattr(import_module(modules[name]), name)
        setattr(sys.modules[package], name, value)
        return value

    def names() -> list[str]:
        return sorted(modules)

    return load, names
