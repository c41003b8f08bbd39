"""Cell sentences: the tokens of each cell of a chunk, as flat ragged arrays."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from sclcm._sizes import Flag, Number, Size, as_int
from sclcm.encoding.depth import DepthTokens, StoredTotal, add_depth_tokens
from sclcm.encoding.draws import CellRandom, Draws
from sclcm.encoding.factors import DivideByChosen, StoreUndefined
from sclcm.encoding.normalize import Arrays, DivideByFactor, LogNormalize, NormalizeStep, library_sizes, normalize
from sclcm.encoding.select import ByRank, InVarOrder, SelectStep
from sclcm.encoding.taken import GENE, StoredValues

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sclcm.encoding.chunks import CellChunk
    from sclcm.encoding.context import ArrayChoice, ContextToken
    from sclcm.encoding.coordinates import FieldCoordinates
    from sclcm.encoding.expand import StoreAll, StoreMeasured
    from sclcm.encoding.recount import CapTotal
    from sclcm.encoding.values import ValueStep
    from sclcm.genes.vocabulary import GeneVocabulary

NO_LIMIT = 2**31 - 1
"""More tokens than any sentence has."""

ABSENT = -2
"""Stands in `features` for the place of a context token that a cell does not have: no token, and masked."""

SPECIAL = -1
"""Stands in `features` for a token that is no feature of the vocabulary, such as `<cls>`."""


@dataclass(frozen=True, kw_only=True)
class Encoding:
    """How counts become sentences.

    Parameters
    ----------
    normalize
        Steps from counts to values, in order.
    select
        Which genes become tokens, and in which order.
    value
        What stands for expression at a token, or `None` for order alone.
    special_value
        Value of special tokens.
    prefix
    suffix
        Special tokens before and after the genes. Those that the release's vocabulary lacks are left out.
    context
        Tokens after the prefix that say what the cell is.
    expand
        Genes that are stored in every cell before anything else, or `None`.
    max_tokens
        Longest sentence, special tokens included; genes beyond it are cut. `None` cuts none.
    reserved
        Whether a place before all tokens is kept free, which the model fills itself, such as by a vector of the
        species. It does not count towards `max_tokens`.
    fills
        Whether each sentence is filled up to the longest with padding, which is then part of it.
    total_key
        Column of `obs` with the library size, which the authors' input contract names.
    recount
        What becomes of the counts before all else, or `None`.
    depth
        Special tokens after all others whose values are made of the total of the cell, or `None`.
    coordinates
        Where cells lie in space, for models whose tokens are cells, or `None`.
    """

    normalize: tuple[NormalizeStep, ...] = ()
    select: SelectStep
    value: ValueStep | None = None
    special_value: Number = 0.0
    prefix: tuple[str, ...] = ()
    suffix: tuple[str, ...] = ()
    context: tuple[ContextToken, ...] = ()
    expand: StoreAll | StoreMeasured | StoreUndefined | None = None
    max_tokens: Size | None
    reserved: Flag = False
    fills: bool = False
    total_key: str | None = None
    recount: CapTotal | None = None
    depth: DepthTokens | None = None
    coordinates: FieldCoordinates | None = None

    @property
    def n_reserved(self) -> int:
        """Number of places kept free before all tokens."""
        return 1 if self.reserved is True else 0

    @property
    def by_var(self) -> bool:
        """Whether sentences follow the order of var in the data, and not that of the vocabulary."""
        return isinstance(self.select, InVarOrder)

    @property
    def any_order(self) -> bool:
        """Whether rows may store their genes in any order: their tokens follow from each value and its gene alone."""
        return (
            isinstance(self.select, ByRank)
            and all(isinstance(step, DivideByFactor) for step in self.normalize)
            and (self.value, self.expand, self.recount, self.depth) == (None, None, None, None)
        )

    @property
    def obs_columns(self) -> tuple[str, ...]:
        """Columns of `obs` that the steps read, where they exist."""
        keys = [self.total_key, *(step.total_key for step in self.normalize if isinstance(step, LogNormalize))]
        if self.depth is not None and isinstance(self.depth.total, StoredTotal):
            keys.append(self.depth.total.column)
        keys += [token.name for token in self.context_used] + [choice.name for choice in self.choices]
        return tuple(dict.fromkeys(key for key in keys if key is not None))

    @property
    def context_used(self) -> tuple[ContextToken, ...]:
        """Context tokens that the sentences of this release have."""
        return tuple(token for token in self.context if token.used)

    @property
    def choices(self) -> tuple[ArrayChoice, ...]:
        """Choices of companion arrays that the steps read."""
        return tuple(step.choice for step in self.normalize if isinstance(step, DivideByChosen))


@dataclass(frozen=True, kw_only=True, eq=False)
class CellSentences:
    """The tokens of some cells.

    Parameters
    ----------
    token_ids
        Tokens of all cells, one after the other, shape `(tokens,)`, int32.
    features
        Which feature of the vocabulary each token stands for, `-1` for special tokens, shape `(tokens,)`, int32:
        the way back to var.
    indptr
        Cell `i` has the tokens `indptr[i]:indptr[i + 1]`, shape `(cells + 1,)`.
    rows
        Row number of each cell in the data set, shape `(cells,)`.
    values
        Value channels by name, each of shape `(tokens,)`, float32.
    scalars
        Facts of a cell by name, each with the cells along its first axis.
    """

    token_ids: np.ndarray
    features: np.ndarray
    indptr: np.ndarray
    rows: np.ndarray
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    scalars: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.rows)

    @property
    def lengths(self) -> np.ndarray:
        """Tokens of each cell, shape `(cells,)`."""
        return np.diff(self.indptr)


def encode(
    chunk: CellChunk,
    encoding: Encoding,
    *,
    vocabulary: GeneVocabulary,
    arrays: Arrays,
    limit: int | None = None,
    random_state: int = 0,
    draws: Draws | None = None,
) -> CellSentences:
    """Turn the counts of a chunk into sentences.

    Parameters
    ----------
    chunk
        Aligned counts.
    encoding
        The steps.
    vocabulary
        Gives features their token ids.
    arrays
        Companion arrays that the steps name.
    limit
        Most gene tokens a sentence may have; `None` follows from `encoding.max_tokens`.
    random_state
        Seed of the random steps, which are keyed by the counts of each cell besides.
    draws
        Uniform numbers that random steps take instead of their own, by the name of the step: `"bins"` and `"sample"`,
        one for each stored count; where a sample is grouped, `"sample"` and `"groups"`, a row for each cell.

    Returns
    -------
    Sentences in the order of the chunk. A cell that expresses no gene of the vocabulary has special tokens only.
    """
    prefix_bp = _before_genes(encoding, chunk, vocabulary)
    suffix = special_ids(encoding.suffix, vocabulary)
    n_before, n_special = prefix_bp.shape[1], prefix_bp.shape[1] + len(suffix)
    limit = _room(encoding, n_special - encoding.n_reserved) if limit is None else limit
    chunk = stored_counts(chunk, encoding, arrays)
    random = CellRandom(counts=chunk.counts, random_state=random_state, draws=draws or {})
    data = normalize(encoding.normalize, chunk, arrays)
    stored = StoredValues(
        values=data,
        columns=chunk.counts.indices,
        indptr=chunk.counts.indptr,
        random=random,
        vocabulary=vocabulary,
        arrays=arrays,
        keeps_places=encoding.value is not None,
        start=chunk.start,
    )
    taken = encoding.select.take(stored, limit)
    lengths = taken.lengths
    features = chunk.features_of(taken.columns)
    token_ids = vocabulary.token_ids.take(features)
    channels, fill = {}, float(encoding.special_value)  # type: ignore[arg-type]
    if encoding.value is not None:
        channels["value"] = encoding.value.apply(data, chunk.counts.indptr, random)[taken.places]
    if taken.special_ids is not None:
        inner = taken.special_ids != GENE
        features, token_ids = np.where(inner, SPECIAL, features), np.where(inner, taken.special_ids, token_ids)
        channels = {name: np.where(inner, fill, channel) for name, channel in channels.items()}
    if n_special:
        frame, place = _frame(lengths, prefix_bp, suffix), _gene_places(lengths, n_before, len(suffix))
        frame[place], token_ids = token_ids, frame
        features = _scatter(features, place, len(frame), fill=SPECIAL)
        _mark_absent(features, token_ids, lengths + n_special, encoding=encoding, vocabulary=vocabulary)
        channels = {name: _scatter(channel, place, len(frame), fill=fill) for name, channel in channels.items()}
    sentences = CellSentences(
        token_ids=token_ids,
        features=features,
        indptr=np.concatenate([[0], np.cumsum(lengths + n_special)]),
        rows=np.arange(chunk.start, chunk.start + chunk.n_cells),
        values=channels,
        scalars={"total": library_sizes(chunk, encoding.total_key)},
    )
    if encoding.depth is None:
        return sentences
    return add_depth_tokens(sentences, encoding.depth, data=data, chunk=chunk, vocabulary=vocabulary)


def stored_counts(chunk: CellChunk, encoding: Encoding, arrays: Arrays) -> CellChunk:
    """Return the counts of which sentences are made: recounted, and with genes stored that are not expressed."""
    if encoding.recount is not None:
        chunk = encoding.recount.apply(chunk)
    return chunk if encoding.expand is None else encoding.expand.apply(chunk, arrays)


def fill_up(sentences: CellSentences, encoding: Encoding, *, pad: int) -> CellSentences:
    """Fill each sentence up to the longest with the padding token, of value zero, as tokens that a model does see."""
    if encoding.max_tokens is None:
        msg = "Sentences of this model have no longest length, up to which padding could be seen; mask the padding."
        raise ValueError(msg)
    width = as_int(encoding.max_tokens) + encoding.n_reserved
    n_cells, n_stored = sentences.n_cells, len(sentences.token_ids)
    place = np.arange(n_stored) + np.repeat(np.arange(n_cells) * width - sentences.indptr[:-1], sentences.lengths)

    def filled(flat: np.ndarray, fill: float) -> np.ndarray:
        out = np.full(n_cells * width, fill, dtype=flat.dtype)
        out[place] = flat
        return out

    return replace(
        sentences,
        token_ids=filled(sentences.token_ids, pad),
        features=filled(sentences.features, SPECIAL),
        indptr=np.arange(n_cells + 1) * width,
        values={name: filled(channel, 0) for name, channel in sentences.values.items()},
    )


def _room(encoding: Encoding, n_special: int) -> int:
    """Return how many genes fit into the longest sentence, beside other special tokens than those of depth."""
    if encoding.max_tokens is None:
        return NO_LIMIT
    n_special += 0 if encoding.depth is None else len(encoding.depth.tokens)
    longest = as_int(encoding.max_tokens)
    if longest < n_special:
        msg = f"`max_tokens` is {longest}, too few for the {n_special} special tokens of every sentence; raise it."
        raise ValueError(msg)
    return longest - n_special


def special_ids(names: tuple[str, ...], vocabulary: GeneVocabulary) -> np.ndarray:
    """Return the token ids of those special tokens that the vocabulary has, int32."""
    return np.array([vocabulary.specials[name] for name in names if name in vocabulary.specials], dtype=np.int32)


def _before_genes(encoding: Encoding, chunk: CellChunk, vocabulary: GeneVocabulary) -> np.ndarray:
    """Token ids before the genes of each cell: the prefix, then its context, shape `(cells, tokens)`, int32."""
    # What stands at a reserved place is not read; the id only has to be one of the table.
    reserved = np.zeros(encoding.n_reserved, dtype=np.int32)
    prefix = np.concatenate([reserved, special_ids(encoding.prefix, vocabulary)])
    names = [token.name for token in encoding.context_used]
    if missing := [name for name in names if name not in chunk.obs]:
        msg = f"The cells come without {missing[0]!r}, which is a token of their sentences."
        raise ValueError(msg)
    context = [np.asarray(chunk.obs[name], dtype=np.int32)[:, None] for name in names]
    return np.concatenate([np.broadcast_to(prefix, (chunk.n_cells, len(prefix))), *context], axis=1)


def _mark_absent(
    features: np.ndarray, token_ids: np.ndarray, lengths: np.ndarray, *, encoding: Encoding, vocabulary: GeneVocabulary
) -> None:
    """Mark the places of context tokens that hold none of the tokens which a cell may have there."""
    n_prefix = encoding.n_reserved + len(special_ids(encoding.prefix, vocabulary))
    starts = np.cumsum(lengths) - lengths
    for place, token in enumerate(encoding.context_used, start=n_prefix):
        known = [vocabulary.specials[name] for name in token.tokens]
        features[(starts + place)[~np.isin(token_ids[starts + place], known)]] = ABSENT


def _gene_places(lengths: np.ndarray, before: int, after: int) -> np.ndarray:
    """Positions of the gene tokens among all tokens, when each sentence has `before` and `after` special ones."""
    offset = np.arange(len(lengths)) * (before + after) + before
    return np.arange(lengths.sum()) + np.repeat(offset, lengths)


def _frame(lengths: np.ndarray, prefix_bp: np.ndarray, suffix: np.ndarray) -> np.ndarray:
    """Token ids with the special tokens in place and zeros where genes go, int32."""
    n_before = prefix_bp.shape[1]
    stops = np.cumsum(lengths + n_before + len(suffix))
    frame = np.zeros(stops[-1] if len(stops) else 0, dtype=np.int32)
    starts = stops - lengths - n_before - len(suffix)
    frame[starts[:, None] + np.arange(n_before)] = prefix_bp
    frame[stops[:, None] - len(suffix) + np.arange(len(suffix))] = suffix
    return frame


def _scatter(data: np.ndarray, place: np.ndarray, n_tokens: int, *, fill: float) -> np.ndarray:
    """Put values at gene tokens and another at special ones, shape `(tokens,)`, of the values' type."""
    values = np.full(n_tokens, fill, dtype=data.dtype)
    values[place] = data
    return values
