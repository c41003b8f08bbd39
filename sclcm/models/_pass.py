"""One pass of a model over an AnnData: what every task stands on."""

from __future__ import annotations

import logging
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import groupby
from typing import TYPE_CHECKING

from tqdm import tqdm

from sclcm._settings import settings
from sclcm._sizes import as_int
from sclcm._warnings import warn_user
from sclcm.data.ahead import map_ahead
from sclcm.data.context import said_conditions
from sclcm.data.genes import choose_gene_names, require_overlap
from sclcm.data.matrix import MatrixSource, as_frame, choose_matrix
from sclcm.data.sampling import sample_rows
from sclcm.data.species import number_species, own_genes, species_of_data
from sclcm.data.stream import ChunkReader, RowBlock
from sclcm.data.validation import refuse_counts
from sclcm.data.verdicts import are_counts, judge
from sclcm.encoding.batches import TokenBatch, iter_batches
from sclcm.encoding.draws import check_random_state
from sclcm.encoding.normalize import LogNormalizeToMedian
from sclcm.encoding.sentences import fill_up
from sclcm.engine.infer import Reducer, run, token_budget
from sclcm.models._account import Account, account_of
from sclcm.models._groups import choose_conditions, choose_context, choose_positions, choose_sets

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Iterator, Mapping

    import numpy as np
    import pandas as pd
    from anndata import AnnData

    from sclcm.data.context import Conditions
    from sclcm.encoding.chunks import CellChunk
    from sclcm.encoding.sentences import CellSentences
    from sclcm.genes.align import GeneAlignment
    from sclcm.models._pretrained import Pretrained

logger = logging.getLogger("sclcm")

CHUNK_CELLS = 512
"""Cells read at a time: enough to sort by length, few enough for flat memory."""

THREADS = 1
"""Threads that encode ahead of the model: the steps are many short calls, and two threads wait for each other."""

PIECES_AHEAD = 8
"""Pieces of a chunk, of some hundred thousand values each, that are encoded before they are needed."""

WIDTH_STEP = 32
"""Batches are a multiple of this wide: oneDNN and compilers make, and keep, a kernel for each shape they meet."""


@dataclass(kw_only=True, eq=False)
class Input:
    """A matrix of an AnnData, aligned to a model, and what has been seen of it so far.

    Parameters
    ----------
    source
        The matrix.
    alignment
        Which var is which feature.
    gene_key
        Where the gene names were taken from.
    obs
        The cells' table.
    conditions
    species
        Numbers of the batch and of the species of each cell, for models that need them, shape `(cells,)`, or `None`.
    sets
        Number of the set of each cell, for models whose tokens are cells, shape `(cells,)`, or `None`.
    positions
        Where each cell lies in its set, from 0 to 1, for models that ask for it, shape `(cells, 2)`, or `None`.
    random_state
        Seed of the random steps of an encoding.
    counts_total
    counts_kept
        Counts read, and those of them in genes that the model knows.
    empty_cells
        Row numbers of cells that express no gene of the vocabulary.
    """

    source: MatrixSource
    alignment: GeneAlignment
    gene_key: str
    obs: pd.DataFrame
    conditions: np.ndarray | None = None
    species: np.ndarray | None = None
    sets: np.ndarray | None = None
    positions: np.ndarray | None = None
    random_state: int = 0
    counts_total: float = 0.0
    counts_kept: float = 0.0
    empty_cells: list[int] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.empty_cells = list(self.empty_cells)  # an input that is made of another keeps its own account

    def chunks(self, pretrained: Pretrained, *, chunk_size: int = CHUNK_CELLS) -> Iterator[CellChunk]:
        """Read the matrix once, and keep account."""
        reader = self._reader(pretrained, chunk_size)
        for block in reader.blocks():
            chunk = self._chunk(reader, block, pretrained)
            self._count(account_of(chunk))
            yield chunk

    def batches(
        self,
        pretrained: Pretrained,
        *,
        batch_size: int | None,
        n_places: int | None = None,
        chunk_size: int = CHUNK_CELLS,
        mask_padding: bool = True,
        continued: bool = False,
    ) -> Generator[TokenBatch]:
        """Encode chunk by chunk into batches, by the cells asked for or by a budget of tokens.

        Without masks, sentences are filled up with padding that the model sees; those that are to be `continued` come
        in larger batches. All batches are `n_places` wide, where that is given.

        The consumer may close the iterator at any time.
        """
        budget = 2**62
        if batch_size is None:
            budget = token_budget(pretrained.lcm, pretrained.device, continued=continued)
        pad = pretrained.vocabulary.specials[pretrained.pad]
        longest = pretrained.encoding.max_tokens
        if pretrained.encoding.fills and longest is not None:
            n_places = as_int(longest)
        with closing(self.pieces(pretrained, chunk_size=chunk_size, mask_padding=mask_padding)) as pieces:
            for _, chunk in groupby(pieces, key=lambda piece: piece.chunk):
                yield from iter_batches(
                    [piece.sentences for piece in chunk],
                    pad=pad,
                    max_tokens=budget,
                    max_cells=batch_size,
                    step=n_places or WIDTH_STEP,
                    max_width=n_places or (None if longest is None else as_int(longest)),
                )

    def pieces(
        self,
        pretrained: Pretrained,
        *,
        chunk_size: int = CHUNK_CELLS,
        mask_padding: bool = True,
        more: Callable[[CellChunk], Mapping[str, np.ndarray]] | None = None,
    ) -> Generator[Piece]:
        """Encode pieces of chunks, and keep account, in order.

        Parameters
        ----------
        pretrained
            The model.
        chunk_size
            Cells read at a time.
        mask_padding
            Whether padding is seen by nothing; otherwise it is part of the sentences.
        more
            Further facts of the cells of a piece, which become scalars of their sentences.
        """
        reader = self._reader(pretrained, chunk_size)

        def encode(block: RowBlock) -> Piece:
            chunk = self._chunk(reader, block, pretrained)
            sentences = self._encode(pretrained, chunk)
            if not mask_padding:
                pad = pretrained.vocabulary.specials[pretrained.pad]
                sentences = fill_up(sentences, pretrained.encoding, pad=pad)
            if more is not None:
                sentences = replace(sentences, scalars={**sentences.scalars, **more(chunk)})
            return Piece(chunk=block.chunk, sentences=sentences, account=account_of(chunk))

        with closing(_work_on(reader.pieces(), encode, ahead=pretrained.device.type != "cpu")) as pieces:
            for piece in pieces:
                self._count(piece.account)
                yield piece

    def _encode(self, pretrained: Pretrained, chunk: CellChunk) -> CellSentences:
        sentences = pretrained.encode(chunk, random_state=self.random_state)
        numbers = {"condition": self.conditions, "species": self.species}
        known = {name: number[sentences.rows] for name, number in numbers.items() if number is not None}
        return replace(sentences, scalars={**sentences.scalars, **known})

    def _chunk(self, reader: ChunkReader, block: RowBlock, pretrained: Pretrained) -> CellChunk:
        chunk = reader.make(block)
        if self.species is None:
            return chunk
        species = self.species[chunk.start : chunk.start + chunk.n_cells]
        return own_genes(chunk, pretrained.vocabulary, species)

    def _reader(self, pretrained: Pretrained, chunk_size: int) -> ChunkReader:
        return ChunkReader(
            self.source,
            self.alignment,
            self.obs,
            chunk_size=chunk_size,
            obs_columns=[column for column in pretrained.encoding.obs_columns if column in self.obs],
            check="any" if pretrained.needs == "expression" else pretrained.needs,
            finds_median=any(isinstance(step, LogNormalizeToMedian) for step in pretrained.encoding.normalize),
            by_var=pretrained.encoding.by_var,
            any_order=pretrained.encoding.any_order,
            consumer=repr(pretrained.name),
        )

    def _count(self, account: Account) -> None:
        self.counts_total += account.total
        self.counts_kept += account.kept
        self.empty_cells += account.empty_cells

    def facts(self) -> dict[str, object]:
        """Return what `uns` should remember of the input, after the pass."""
        return {
            "source": self.source.name,
            "gene_key": self.gene_key,
            "matched_genes": self.alignment.report.n_matched,
            "matched_gene_share": float(self.alignment.report.matched_share),
            "matched_count_share": self.counts_kept / self.counts_total if self.counts_total else 0.0,
            "n_empty_cells": len(self.empty_cells),
            **({} if self.sets is None else {"n_sets": int(self.sets.max(initial=-1)) + 1}),
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class Piece:
    """The sentences of some cells of the chunk that begins at row `chunk`."""

    chunk: int
    sentences: CellSentences
    account: Account


def _work_on(blocks: Iterable[RowBlock], encode: Callable[[RowBlock], Piece], *, ahead: bool) -> Generator[Piece]:
    """Encode in a thread while a device computes; a model on the processor itself would only wait for its turn."""
    if ahead:
        yield from map_ahead(encode, blocks, n_threads=THREADS, n_ahead=PIECES_AHEAD)
    else:
        yield from map(encode, blocks)


def open_input(
    adata: AnnData,
    pretrained: Pretrained,
    *,
    layer: str | None = None,
    use_raw: bool = False,
    gene_key: str | None = None,
    batch_key: str | None = None,
    conditions: Conditions | None = None,
    random_state: int = 0,
    check_fit: bool = True,
) -> Input:
    """Choose the matrix and align its genes; of the matrix, a sample of rows is looked at.

    Parameters
    ----------
    adata
        The data set.
    pretrained
        The model.
    layer
    use_raw
        Which matrix.
    gene_key
        Column of var with gene names, or `None` to find it.
    batch_key
        Column of obs with the batch of each cell; models that are bound to batches need it, models whose tokens are
        cells take the cells of a batch for a set, others refuse it.
    conditions
        What the cells are, by the name of each context token or choice that the encoding has. For models of several
        species `"species"` is one or the column of obs that names it; without it, it is told from the genes.
    random_state
        Seed of the random steps of an encoding.
    check_fit
        Whether too few known genes are an error, and bulk samples a warning.
    """
    sets = choose_sets(adata, pretrained, batch_key) if check_fit else None
    batches = choose_conditions(adata, pretrained, batch_key) if check_fit and sets is None else None
    said = said_conditions(conditions)
    species = said.pop("species", None) if pretrained.reads_species else None
    context = choose_context(adata, pretrained, said)
    check_random_state(random_state)
    source, obs = choose_matrix(adata, layer=layer, use_raw=use_raw), as_frame(adata.obs)
    if check_fit and pretrained.needs == "log1p":
        refuse_counts(source, consumer=repr(pretrained.name), instead="use a recipe for counts; `describe` lists them")
    elif check_fit and not pretrained.accepts_bulk:
        _warn_of_bulk(source, pretrained)
    alignment, key = choose_gene_names(
        source.var,
        pretrained.vocabulary,
        gene_key=gene_key,
        preferred=pretrained.gene_columns,
        species=species_of_data(obs, species),
    )
    if check_fit:
        require_overlap(
            alignment,
            model=pretrained.name,
            vocabulary=pretrained.vocabulary,
            names=source.var.index if key == "var_names" else source.var[key],
        )
    logger.info(
        "%s knows %d of the %d genes of %s (named by %s)",
        pretrained.name,
        alignment.report.n_matched,
        alignment.n_var,
        source.name,
        key,
    )
    return Input(
        source=source,
        alignment=alignment,
        gene_key=key,
        obs=obs.assign(**context) if context else obs,
        conditions=batches,
        species=_species(adata, pretrained, species, alignment=alignment),
        sets=sets,
        positions=None if sets is None else choose_positions(adata, pretrained, sets),
        random_state=int(random_state),
    )


def _species(
    adata: AnnData, pretrained: Pretrained, species: str | int | None, *, alignment: GeneAlignment
) -> np.ndarray | None:
    """Return the number of each cell's species, for models that need it."""
    if not pretrained.reads_species:
        return None
    vocabulary = pretrained.vocabulary
    return number_species(as_frame(adata.obs), alignment, vocabulary, species=species, model=pretrained.name)


def _warn_of_bulk(source: MatrixSource, pretrained: Pretrained) -> None:
    """Counts may still be of bulk samples; fractions will be refused anyway where counts are needed."""
    _, rows = sample_rows(source, 256)
    if judge(rows).kind == "bulk" and (pretrained.needs != "counts" or are_counts(rows.data)):
        msg = (
            f"the totals of {source.name} are those of bulk samples (see `sclcm.pp.check_counts`). {pretrained.name!r} "
            "was trained on single cells, so its vectors of bulk samples mean little."
        )
        warn_user(msg)


def one_pass(
    data: Input,
    pretrained: Pretrained,
    reducers: Iterable[Reducer],
    *,
    batch_size: int | None,
    n_blocks: int | None,
    mask_padding: bool = True,
    n_places: int | None = None,
) -> None:
    """Run the model over all cells once, with a progress bar, and feed the reducers."""

    def work(batches: Iterable[TokenBatch]) -> Iterator[int]:
        return run(pretrained.lcm, batches, reducers, device=pretrained.device, n_blocks=n_blocks)

    each_batch(data, pretrained, work, batch_size=batch_size, n_places=n_places, mask_padding=mask_padding)


def each_batch(
    data: Input,
    pretrained: Pretrained,
    work: Callable[[Iterable[TokenBatch]], Iterator[int]],
    *,
    batch_size: int | None,
    mask_padding: bool = True,
    n_places: int | None = None,
    continued: bool = False,
) -> None:
    """Work on all cells once, with a progress bar; the work yields the number of cells it is done with."""
    bar_of = {"unit": "cell", "desc": pretrained.name, "disable": not settings.progress}
    with (
        closing(
            data.batches(
                pretrained,
                batch_size=batch_size,
                n_places=n_places,
                mask_padding=mask_padding,
                continued=continued,
            )
        ) as batches,
        tqdm(total=data.source.shape[0], **bar_of) as bar,
    ):
        for n_cells in work(batches):
            bar.update(n_cells)
        bar.update(len(data.empty_cells) if bar.n < data.source.shape[0] else 0)
