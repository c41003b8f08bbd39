"""Settings that hold for all calls: `sclcm.settings`.

A value is checked when it is assigned. The environment is read once, when the settings are first used, and is never
written.
"""

from __future__ import annotations

import logging
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Callable

Verbosity = Literal["error", "warning", "info", "debug"]

_TRUE = frozenset({"1", "on", "true", "yes"})
_URL = re.compile(r"https?://[^\s/?#]+[^\s?#]*")
_DEVICE = re.compile(r"auto|cpu|mps|cuda(:\d+)?|xpu(:\d+)?")


def _default_cache_dir() -> Path:
    chosen = os.environ.get("SCLCM_CACHE_DIR")
    if chosen:
        return Path(chosen).expanduser()
    parent = os.environ.get("XDG_CACHE_HOME")
    return (Path(parent) if parent else Path("~/.cache").expanduser()) / "sclcm"


def _default_offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").strip().lower() in _TRUE


def _default_endpoint() -> str:
    chosen = os.environ.get("HF_ENDPOINT", "").strip() or "huggingface.co"
    return chosen if "://" in chosen else f"https://{chosen}"


def _as_path(name: str, value: Any) -> Path:
    if not isinstance(value, str | os.PathLike):
        msg = f"`settings.{name}` must be a path, got {value!r} ({type(value).__name__})."
        raise TypeError(msg)
    return Path(value).expanduser()


def _as_url(name: str, value: Any) -> str:
    if not isinstance(value, str) or not _URL.fullmatch(value):
        msg = f"`settings.{name}` must be an address such as 'https://huggingface.co', got {value!r}."
        raise ValueError(msg)
    return value.rstrip("/")


def _as_bool(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        msg = f"`settings.{name}` must be True or False, got {value!r}."
        raise TypeError(msg)
    return value


def _as_device(name: str, value: Any) -> str:
    if not isinstance(value, str) or not _DEVICE.fullmatch(value):
        msg = f"`settings.{name}` must be 'auto', 'cpu', 'cuda', 'cuda:<number>' or 'mps', got {value!r}."
        raise ValueError(msg)
    return value


def _as_count(name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int):
        msg = f"`settings.{name}` must be a whole number, got {value!r}."
        raise TypeError(msg)
    if value < 0:
        msg = f"`settings.{name}` must be 0 or more, got {value!r}."
        raise ValueError(msg)
    return value


def _as_share(name: str, value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        msg = f"`settings.{name}` must be a number, got {value!r}."
        raise TypeError(msg)
    if not 0 <= value <= 1:
        msg = f"`settings.{name}` is a share and must lie between 0 and 1, got {value!r}."
        raise ValueError(msg)
    return float(value)


def _as_verbosity(name: str, value: Any) -> str:
    if value not in get_args(Verbosity):
        msg = f"`settings.{name}` must be one of {', '.join(map(repr, get_args(Verbosity)))}, got {value!r}."
        raise ValueError(msg)
    return str(value)


def _show_log(verbosity: str) -> None:
    """Let the package's log lines through; give them a handler where the program has none."""
    logger = logging.getLogger("sclcm")
    logger.setLevel(verbosity.upper())
    if not logger.hasHandlers():
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        logger.addHandler(handler)


@dataclass(kw_only=True, slots=True)
class Settings:
    """Settings of the package. Assign to a field to change it; the value is checked at once.

    Parameters
    ----------
    cache_dir
        Folder for downloaded files. Default: `SCLCM_CACHE_DIR`, or `sclcm` in the user's cache folder.
    offline
        Never open a connection; a file that is not on this machine is an error. Default: whether
        `HF_HUB_OFFLINE` is set.
    endpoint
        Address of the model hub, or of a mirror. Default: `HF_ENDPOINT`, or the hub itself.
    device
        What `device="auto"` means; `"auto"` takes CUDA if available, then MPS, then the CPU.
    min_genes_matched
        How many genes of the data a model must know at least; otherwise the call is refused.
    min_share
        What share of the genes of the data a model must know at least; otherwise the call is refused.
    progress
        Whether long calls show a progress bar.
    verbosity
        How much is logged: `"error"`, `"warning"`, `"info"` or `"debug"`.
    """

    cache_dir: Path = field(default_factory=_default_cache_dir)
    offline: bool = field(default_factory=_default_offline)
    endpoint: str = field(default_factory=_default_endpoint)
    device: str = "auto"
    min_genes_matched: int = 100
    min_share: float = 0.1
    progress: bool = True
    verbosity: Verbosity = "warning"

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, _checked(name, value))
        if name == "verbosity" and value != "warning":
            _show_log(value)


def _checked(name: str, value: Any) -> Any:
    """Return the value in the field's own type, or raise an error that says what the field takes."""
    check: Callable[[str, Any], Any]
    match name:
        case "cache_dir":
            check = _as_path
        case "endpoint":
            check = _as_url
        case "offline" | "progress":
            check = _as_bool
        case "device":
            check = _as_device
        case "min_genes_matched":
            check = _as_count
        case "min_share":
            check = _as_share
        case "verbosity":
            check = _as_verbosity
        case _:
            msg = f"there is no setting {name!r}; the settings are {', '.join(Settings.__dataclass_fields__)}"
            raise AttributeError(msg)
    return check(name, value)


settings = Settings()
