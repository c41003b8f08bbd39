"""Large cellular models on AnnData: published Transformers for single-cell expression behind one interface.

The names below are loaded when they are first used (PEP 562): `import sclcm` itself loads neither torch nor scanpy.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sclcm import datasets, genes, get, models, pl, pp, tl
    from sclcm._settings import settings

    __version__: str

__all__ = ["__version__", "datasets", "genes", "get", "models", "pl", "pp", "settings", "tl"]

_SUBPACKAGES = frozenset({"datasets", "genes", "get", "models", "pl", "pp", "tl"})


def _load(name: str) -> Any:
    if name in _SUBPACKAGES:
        return import_module(f"sclcm.{name}")
    if name == "settings":
        return import_module("sclcm._settings").settings
    if name == "__version__":
        return import_module("sclcm._compat").package_version()
    msg = f"module 'sclcm' has no attribute {name!r}; it offers {', '.join(__all__)}"
    raise AttributeError(msg)


def __getattr__(name: str) -> Any:
    value = _load(name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
