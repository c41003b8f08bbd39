"""Declarations of cell types that a model gives: those that it says as tokens, and those that a head scores."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sclcm.encoding.sentences import Encoding


@dataclass(frozen=True, kw_only=True)
class NamesInFile:
    """Names that a file of the release lists.

    Parameters
    ----------
    files
        Patterns of the file, in order of preference; JSON or a pickled dictionary.
    entries
        Its entries with names, which are united.
    """

    files: tuple[str, ...]
    entries: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class GeneratedLabels:
    """Cell types that a model says by adding tokens to a cell's sentence.

    Parameters
    ----------
    names
        Tokens that are cell types; any other token is no label.
    unnamed
        One of them that stands for cells without a type.
    recipe
        The recipe whose decoding adds them.
    fine
    coarse
        Where the two labels stand, counted from the end of the finished sentence; 0 is its last token.
    """

    names: NamesInFile | tuple[str, ...]
    unnamed: str
    recipe: str
    fine: int
    coarse: int


@dataclass(frozen=True, kw_only=True)
class LabelFile:
    """A file of the release that names classes; it may be missing.

    Parameters
    ----------
    files
        Patterns of the file, in order of preference: a pickled array or list of names, in their order, or a dictionary
        number -> name.
    """

    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class ClassLabels:
    """Cell types that a head of the model scores.

    Parameters
    ----------
    head
        The head, which gives one logit a class.
    names
        Names of the classes, in its order. Where no file names them, and `load` is not told their names, they are named
        by their numbers.
    min_score
        Cells whose most probable class has less than this probability are given no label.
    recipe
        The recipe whose cell vectors the head reads; `None`: it reads token vectors.
    encoding
        How a matrix becomes sentences for the head, or `None` where that is as for embeddings.
    """

    head: str
    names: LabelFile | tuple[str, ...] = ()
    min_score: float = 0.0
    recipe: str | None = None
    encoding: Encoding | None = None
