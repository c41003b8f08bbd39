"""Probes: how an array of reference numbers is computed from a checkpoint and an input, by declaration.

A reference folder's `arrays.py` maps each name of `expected.npz` to a probe. Tests and `sclcm verify` share it.
"""

from __future__ import annotations

from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TypeAlias


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """Token ids, padded at the right.

    Parameters
    ----------
    cropped
        Cut and framed as the model reads them; otherwise all genes in order, without special tokens.
    fill
        What stands at padding; `None` is the padding token.
    """

    cropped: bool = True
    fill: int | None = None


@dataclass(frozen=True)
class Lengths:
    """Tokens of each cell."""


@dataclass(frozen=True)
class RealTokens:
    """One at a token, zero at padding."""


@dataclass(frozen=True, kw_only=True)
class CountsPer:
    """Counts per so many of the library at each gene token, zero elsewhere.

    Parameters
    ----------
    target_sum
        The sum they are scaled to.
    """

    target_sum: float


@dataclass(frozen=True, kw_only=True)
class Hidden:
    """Token vectors, zero at padding.

    Parameters
    ----------
    layer
        Which block's output: -1 the last, -2 the one before; `0` is what enters the first block.
    rows
        Array of `expected.npz` that names the cells.
    """

    layer: int
    rows: str


@dataclass(frozen=True, kw_only=True)
class Embedding:
    """Cell vectors by a recipe, rows in input order.

    Parameters
    ----------
    recipe
        Its name.
    """

    recipe: str


@dataclass(frozen=True, kw_only=True)
class GroupMean:
    """Mean cell vector of the cells whose column of obs equals the last part of the array's name.

    Parameters
    ----------
    column
        The column; where it is missing or has no such group, the other columns of text are searched.
    recipe
        Which cell vectors.
    """

    column: str
    recipe: str


@dataclass(frozen=True, kw_only=True)
class GeneMeans:
    """Contextual vector of each token, averaged over the cells that have it; rows in the order of `GeneLabels`.

    Parameters
    ----------
    layer
        Which block's output.
    """

    layer: int


@dataclass(frozen=True)
class GeneLabels:
    """Names of the tokens that occur, special ones included, sorted."""


@dataclass(frozen=True, kw_only=True)
class MaskedLogits:
    """Scores of the vocabulary at hidden tokens, row by row; compared with as many as are stored.

    Parameters
    ----------
    mask
        Array of `expected.npz` that says which tokens are hidden.
    head
        The token head.
    """

    mask: str
    head: str


@dataclass(frozen=True, kw_only=True)
class MaskedLoss:
    """Mean cross-entropy over hidden tokens.

    Parameters
    ----------
    mask
        Array of `expected.npz` that says which tokens are hidden.
    head
        The token head.
    """

    mask: str
    head: str


@dataclass(frozen=True, kw_only=True)
class HeadOutput:
    """Output of a head of a fine-tuned checkpoint, zero at padding.

    Parameters
    ----------
    head
        The head.
    folder
        Folder of the fine-tuned checkpoint, below the pre-trained one.
    rows
        Array of `expected.npz` that names the cells; `None` for all.
    """

    head: str
    folder: str
    rows: str | None = None


@dataclass(frozen=True, kw_only=True)
class AttentionMean:
    """Attention weights of one cell, averaged over heads.

    Parameters
    ----------
    block
        Which block: -1 the last.
    cell
        Which cell: -2 the last but one.
    """

    block: int
    cell: int


@dataclass(frozen=True, kw_only=True)
class RowDraw:
    """Cells that upstream picked: an input. It must name cells of the input, each once."""


@dataclass(frozen=True, kw_only=True)
class MaskDraw:
    """Tokens that upstream hid: an input. It must have the shape of the tokens, and hide no padding."""


@dataclass(frozen=True, kw_only=True)
class CellsWithGenes:
    """Cells that upstream reads; it leaves out those with no gene that the model knows, so that these have no row.

    Parameters
    ----------
    rows
        Names of arrays with a row for each cell. Where the first that is stored has one for every cell of the input,
        none was left out.
    passing
        Column of obs that is one for cells that upstream is to read, where there is such a column.
    """

    rows: tuple[str, ...]
    passing: str | None = None


@dataclass(frozen=True)
class Deferred:
    """Not computed yet.

    Parameters
    ----------
    reason
        Why.
    """

    reason: str


@dataclass(frozen=True, kw_only=True)
class Said:
    """A setting of upstream's that `expected.json` gives in words, in what it says of an array.

    Parameters
    ----------
    pattern
        Regular expression whose group is the number, or the numbers or words between commas.
    otherwise
        What it is where nothing of the kind is said; its type is that of the setting.
    of
        Array that it is said of; `None`: the one that is computed.
    """

    pattern: str
    otherwise: int | float | str | tuple[str, ...]
    of: str | None = None


@dataclass(frozen=True, kw_only=True)
class On:
    """An array of another input of the fixture.

    Parameters
    ----------
    input
        Name of its file, without `.h5ad`.
    probe
        How the array is computed from that input.
    """

    input: str
    probe: object


Probe: TypeAlias = object
"""Any of these classes, or one of the other modules of probes."""


def find_probe(name: str, probes: dict[str, Probe]) -> Probe | None:
    """Return the probe of an array, by its name or by the pattern with `*` that fits and says most of the name."""
    if name in probes:
        return probes[name]
    fitting = [key for key in probes if "*" in key and fnmatchcase(name, key)]
    return probes[max(fitting, key=len)] if fitting else None
