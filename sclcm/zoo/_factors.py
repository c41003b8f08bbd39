"""Declarations of companion arrays that a release may have in part only."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class PartialFactors:
    """Companion files with one number a gene, such as a file for each species; any may be missing, and any gene.

    Parameters
    ----------
    files
        Patterns of each file, in order of preference: gene -> number as JSON or a pickled dictionary.
    default
        Number of a gene that no file names.
    absence
        What it means that a file is missing, for the warning at loading.
    """

    files: tuple[tuple[str, ...], ...]
    default: float
    absence: str
