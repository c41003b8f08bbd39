"""Token batches: sentences of similar length, padded to a rectangle."""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np

from sclcm.encoding.sentences import ABSENT, SPECIAL, CellSentences

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence


@dataclass(frozen=True, kw_only=True, eq=False)
class TokenBatch:
    """Sentences of several cells in a rectangle, padded at the right.

    Parameters
    ----------
    rows
        Row number of each cell in the data set, shape `(cells,)`.
    token_ids
        Shape `(cells, tokens)`, int32.
    features
        Feature of each token, `-1` for special tokens and padding, shape `(cells, tokens)`.
    mask
        `True` is a real token, shape `(cells, tokens)`.
    values
        Value channels by name, zero at padding, each of shape `(cells, tokens)`, float32.
    scalars
        Facts of a cell by name, each with the cells along its first axis.
    """

    rows: np.ndarray
    token_ids: np.ndarray
    features: np.ndarray
    mask: np.ndarray
    values: Mapping[str, np.ndarray] = field(default_factory=dict)
    scalars: Mapping[str, np.ndarray] = field(default_factory=dict)

    @property
    def n_cells(self) -> int:
        """Number of cells."""
        return len(self.rows)

    def halves(self) -> tuple[TokenBatch, TokenBatch]:
        """Return the first and the second half of the cells, each as a batch of the same width."""
        middle = self.n_cells // 2
        return self._take(slice(0, middle)), self._take(slice(middle, None))

    def _take(self, cells: slice) -> TokenBatch:
        return TokenBatch(
            rows=self.rows[cells],
            token_ids=self.token_ids[cells],
            features=self.features[cells],
            mask=self.mask[cells],
            values={name: channel[cells] for name, channel in self.values.items()},
            scalars={name: scalar[cells] for name, scalar in self.scalars.items()},
        )


def iter_batches(
    sentences: CellSentences | Sequence[CellSentences],
    *,
    pad: int,
    max_tokens: int,
    max_cells: int | None = None,
    step: int = 1,
    max_width: int | None = None,
) -> Iterator[TokenBatch]:
    """Group sentences of similar length, longest first, so that little is padded.

    Parameters
    ----------
    sentences
        The cells, or pieces of them in their order; those without any token are left out.
    pad
        Token id of the padding.
    max_tokens
        Largest number of tokens in a batch, padding included. A longer sentence is a batch of its own.
    max_cells
        Largest number of cells in a batch.
    step
        Widths are rounded up to a multiple of this: fewer shapes, for which kernels are made and kept only once.
    max_width
        Widest rectangle that the model takes; rounding stops there.
    """
    cells = _Cells([sentences] if isinstance(sentences, CellSentences) else sentences)
    lengths = cells.lengths
    order = np.argsort(-lengths, kind="stable")
    order = order[lengths[order] > 0]
    start = 0
    while start < len(order):
        length = int(lengths[order[start]])
        width = max(length, min(-(-length // step) * step, max_width or length + step))
        n_cells = max(1, min(max_tokens // width, max_cells or len(order)))
        yield cells.pad(order[start : start + n_cells], pad=pad, width=width)
        start += n_cells


def pad_sentences(sentences: CellSentences, cells: np.ndarray, *, pad: int, width: int | None = None) -> TokenBatch:
    """Put some sentences into a rectangle, by default as wide as the longest of them."""
    if width is None:
        width = int(sentences.lengths[cells].max(initial=0))
    return _Cells([sentences]).pad(cells, pad=pad, width=width)


class _Cells:
    """The cells of some pieces, numbered through; what is long stays where it is until it is put into a rectangle."""

    def __init__(self, pieces: Sequence[CellSentences]) -> None:
        self._pieces = pieces
        self.lengths = np.concatenate([piece.lengths for piece in pieces])
        self._rows = np.concatenate([piece.rows for piece in pieces])
        names = pieces[0].scalars
        self._scalars = {name: np.concatenate([piece.scalars[name] for piece in pieces]) for name in names}
        self._spans = [(piece, *span) for piece in pieces for span in pairwise(piece.indptr.tolist())]
        self._has_absent = any((piece.features == ABSENT).any() for piece in pieces)

    def pad(self, cells: np.ndarray, *, pad: int, width: int) -> TokenBatch:
        """Put some cells into a rectangle."""
        shape = (len(cells), width)
        channels = self._pieces[0].values
        token_ids, features = np.empty(shape, dtype=np.int32), np.empty(shape, dtype=np.int32)
        values = {name: np.zeros(shape, dtype=flat.dtype) for name, flat in channels.items()}
        mask = np.zeros(shape, dtype=bool)
        # Cell by cell: copying a sentence costs less than gathering its tokens one by one.
        for i, cell in enumerate(cells.tolist()):
            piece, start, stop = self._spans[cell]
            length = stop - start
            token_ids[i, :length], token_ids[i, length:] = piece.token_ids[start:stop], pad
            features[i, :length], features[i, length:] = piece.features[start:stop], SPECIAL
            mask[i, :length] = True
            for name, rectangle in values.items():
                rectangle[i, :length] = piece.values[name][start:stop]
        if self._has_absent:
            mask &= features != ABSENT
        return TokenBatch(
            rows=self._rows[cells],
            token_ids=token_ids,
            features=features,
            mask=mask,
            values=values,
            scalars={name: scalar[cells] for name, scalar in self._scalars.items()},
        )
