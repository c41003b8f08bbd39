"""Special tokens with a value of their own, made of the total of a cell: how deep it was sequenced, or should be."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

import numpy as np

from sclcm.encoding.normalize import known_totals

if TYPE_CHECKING:
    from sclcm._sizes import Number
    from sclcm.encoding.chunks import CellChunk
    from sclcm.encoding.sentences import CellSentences
    from sclcm.genes.vocabulary import GeneVocabulary


@dataclass(frozen=True, kw_only=True)
class FixedDepth:
    """The same value for every cell.

    Parameters
    ----------
    value
        The value, such as 4 for the log10 of ten thousand counts.
    """

    value: Number

    def apply(self, total: np.ndarray) -> np.ndarray:
        """Return the value of each cell, shape `(cells,)`, float64."""
        return np.full(len(total), float(self.value))  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Log10Total:
    """log10 of the cell's total times a factor, plus a shift.

    Parameters
    ----------
    times
        Factor of the total: 2 asks for twice the depth.
    plus
        Added to the logarithm: 1 asks for ten times the depth.
    """

    times: Number = 1.0
    plus: Number = 0.0

    def apply(self, total: np.ndarray) -> np.ndarray:
        """Return the value of each cell, shape `(cells,)`, float64; minus infinity where the total is zero."""
        with np.errstate(divide="ignore"):
            return np.log10(total * float(self.times)) + float(self.plus)  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class Log1pTotal:
    """Natural logarithm of one plus the cell's total in units of so many counts.

    Parameters
    ----------
    per
        Counts of a unit.
    """

    per: Number

    def apply(self, total: np.ndarray) -> np.ndarray:
        """Return the value of each cell, shape `(cells,)`, float64."""
        return np.log1p(total / float(self.per))  # type: ignore[arg-type]


@dataclass(frozen=True, kw_only=True)
class PlainTotal:
    """The cell's total itself."""

    def apply(self, total: np.ndarray) -> np.ndarray:
        """Return the value of each cell, shape `(cells,)`, float64."""
        return total


DepthValue: TypeAlias = FixedDepth | Log10Total | Log1pTotal | PlainTotal


@dataclass(frozen=True, kw_only=True)
class CountTotal:
    """Sum of what the matrix holds of a cell, over the genes that the model knows."""

    def of(self, data: np.ndarray, chunk: CellChunk) -> np.ndarray:
        """Return the total of each cell, shape `(cells,)`, float64."""
        return known_totals(chunk)


@dataclass(frozen=True, kw_only=True)
class ValueTotal:
    """Sum of the normalised values of a cell, over the genes that the model knows."""

    def of(self, data: np.ndarray, chunk: CellChunk) -> np.ndarray:
        """Return the total of each cell, shape `(cells,)`, float64."""
        cells = np.repeat(np.arange(chunk.n_cells), np.diff(chunk.counts.indptr))
        return np.bincount(cells, weights=data, minlength=chunk.n_cells)


@dataclass(frozen=True, kw_only=True)
class StoredTotal:
    """A column of `obs` with the total of each cell, for matrices that hold no counts any more.

    Parameters
    ----------
    column
        Its name.
    """

    column: str

    def of(self, data: np.ndarray, chunk: CellChunk) -> np.ndarray:
        """Return the total of each cell, shape `(cells,)`, float64; `ValueError` if there is no such column."""
        if self.column not in chunk.obs:
            msg = (
                f"`.obs` has no column {self.column!r}, from which this recipe takes the total counts of each cell; "
                f"add it, or name another, as in `replace(encoding.depth, total=StoredTotal(column='n_counts'))`."
            )
            raise ValueError(msg)
        try:
            total = np.asarray(chunk.obs[self.column], dtype=np.float64)
        except (TypeError, ValueError) as error:
            msg = (
                f"`.obs[{self.column!r}]` should hold the total counts of each cell, but not all are numbers: {error}."
            )
            raise ValueError(msg) from error
        if wrong := total[~(np.isfinite(total) & (total >= 0))].tolist():
            msg = f"`.obs[{self.column!r}]` holds {wrong[0]}; expected the total counts of each cell, 0 or more."
            raise ValueError(msg)
        return total


@dataclass(frozen=True, kw_only=True)
class DepthToken:
    """A special token with a value.

    Parameters
    ----------
    token
        Its name.
    value
        What its value is made of.
    """

    token: str
    value: DepthValue


@dataclass(frozen=True, kw_only=True)
class DepthTokens:
    """Special tokens at the end of a sentence whose values are made of the total of the cell.

    A token whose value is not above zero is left out, as a gene without expression is; so are all tokens of a cell
    that expresses no gene.

    Parameters
    ----------
    tokens
        The tokens, in order.
    total
        What the total of a cell is.
    target
        The one of them that says which depth is asked for; a recipe may set it.
    """

    tokens: tuple[DepthToken, ...]
    total: CountTotal | ValueTotal | StoredTotal
    target: str | None = None

    def aiming_at(self, value: DepthValue) -> DepthTokens:
        """Return tokens of which the target has another value."""
        changed = (
            dataclasses.replace(each, value=value) if each.token == self.target else each for each in self.tokens
        )
        return dataclasses.replace(self, tokens=tuple(changed))


def add_depth_tokens(
    sentences: CellSentences, depth: DepthTokens, *, data: np.ndarray, chunk: CellChunk, vocabulary: GeneVocabulary
) -> CellSentences:
    """Return sentences with their depth tokens.

    Parameters
    ----------
    sentences
        Sentences with values, in the order of the chunk.
    depth
        The tokens.
    data
        Normalised values of the stored counts, shape `(stored,)`.
    chunk
        The counts.
    vocabulary
        Gives tokens their ids.

    Returns
    -------
    Longer sentences. What a token's value would be stays with the cell even where the token is left out, as the scalars
    `"depth_ids"` and `"depth_values"`, each of shape `(cells, depth tokens)`: a decoder reads those of all tokens.
    """
    ids_n = np.array([vocabulary.specials[each.token] for each in depth.tokens], dtype=np.int32)
    total = depth.total.of(data, chunk)
    values_cn = np.stack([each.value.apply(total) for each in depth.tokens], axis=1).astype(np.float32)
    kept_cn = (values_cn > 0) & (np.diff(chunk.counts.indptr) > 0)[:, None]
    n_more = kept_cn.sum(1)
    lengths = np.where(np.diff(chunk.counts.indptr) > 0, sentences.lengths, 0)
    indptr = np.concatenate([[0], np.cumsum(lengths + n_more)])
    old = np.repeat(lengths > 0, sentences.lengths)
    place = np.arange(lengths.sum()) + np.repeat(np.cumsum(n_more) - n_more, lengths)
    added = (indptr[:-1] + lengths)[:, None] + np.cumsum(kept_cn, axis=1) - 1

    def widen(flat: np.ndarray, more_cn: np.ndarray) -> np.ndarray:
        out = np.empty(indptr[-1], dtype=flat.dtype)
        out[place], out[added[kept_cn]] = flat[old], np.broadcast_to(more_cn, kept_cn.shape)[kept_cn]
        return out

    stored: dict[str, np.ndarray] = {
        "depth_ids": np.tile(ids_n.astype(np.int64), (len(total), 1)),
        "depth_values": values_cn,
    }
    return dataclasses.replace(
        sentences,
        token_ids=widen(sentences.token_ids, ids_n),
        features=widen(sentences.features, np.array(-1, dtype=np.int32)),
        indptr=indptr,
        values={name: widen(channel, values_cn) for name, channel in sentences.values.items()},
        scalars={**sentences.scalars, **stored},
    )
