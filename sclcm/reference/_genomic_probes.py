"""Probes of models whose sentences are samples of genes in genomic order, drawn by one stream for all cells.

The stream is NumPy's older generator, seeded as the fixture's `run.json` says, so that no draw needs to be stored.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class GenomicInput:
    """What upstream keeps of the input, in its order.

    Parameters
    ----------
    part
        Names of genes or cells, or of each gene its token, the code of its chromosome, or its first base.
    filtered
        Whether genes of few cells, then cells of few genes, are left out first.
    """

    part: Literal["genes", "cells", "tokens", "chromosomes", "starts"]
    filtered: bool = False


@dataclass(frozen=True, kw_only=True)
class GenomicSentences:
    """Sentences of all cells, padded to the longest that the model takes.

    Parameters
    ----------
    part
        Token ids, a mask of real tokens, lengths, the width of each cell's batch, or the chances of each gene.
    """

    part: Literal["tokens", "mask", "lengths", "widths", "chances"]


@dataclass(frozen=True, kw_only=True)
class GenomicVectors:
    """Token vectors of some cells, each in its batch; zero beyond the width of that.

    Parameters
    ----------
    n_blocks
        After so many blocks; -1 is all of them, `None` the block whose number, from zero, the array's name ends in.
    cells
        Array of `expected.npz` that names the cells.
    padding_bias
        What the model adds to the scores of padding.
    head
        A head applied to every token, or `None`.
    """

    n_blocks: int | None
    cells: str
    padding_bias: float
    head: str | None = None


@dataclass(frozen=True, kw_only=True)
class GenomicEmbedding:
    """Cell vectors by a recipe.

    Parameters
    ----------
    recipe
        Its name.
    padding_bias
        What the model adds to the scores of padding, in batches of the size and order of upstream; `None` hides
        padding, in one batch.
    filtered
        Whether genes of few cells, then cells of few genes, are left out first.
    """

    recipe: str
    padding_bias: float | None
    filtered: bool = False


@dataclass(frozen=True, kw_only=True)
class GenePairs:
    """What a head says of the first genes of the input, as many as are stored, for every cell.

    Parameters
    ----------
    part
        Tokens of the genes, their projected vectors, a logit for each cell and gene, whether the cell expresses the
        gene, or the mean cross-entropy.
    head
        The head.
    rows
        Array of `expected.npz` with the tokens of the genes, which says how many they are where it is stored.
    cells
        Whose cell vectors.
    unit
        Whether vectors of genes are scaled to length one first, as the head does.
    """

    part: Literal["tokens", "vectors", "logits", "targets", "loss"]
    head: str
    rows: str
    cells: GenomicEmbedding
    unit: bool = True
