"""Warnings that point at the line of the user's own that led to them, however deep in the package they arise."""

from __future__ import annotations

import sys
import warnings


def warn_user(message: str) -> None:
    """Warn, in the name of the first caller outside this package.

    Parameters
    ----------
    message
        What happened, and what to do.
    """
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").partition(".")[0] == "sclcm":
        level, frame = level + 1, frame.f_back
    warnings.warn(message, UserWarning, stacklevel=level)
