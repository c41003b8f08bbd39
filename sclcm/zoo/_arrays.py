"""Declarations of companion arrays that lie in files of their own."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ArrayFile:
    """A file of numpy with one number a gene, in vocabulary order; some may be no number. It may be missing.

    Parameters
    ----------
    files
        Patterns of the file, in order of preference.
    """

    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class RoundedArrayFile:
    """The same, made whole: what is no number becomes 0, halves are rounded up, and then 0 becomes 1.

    Parameters
    ----------
    files
        Patterns of the file, in order of preference.
    """

    files: tuple[str, ...]
