"""What a decoder says of every gene of a cell: passed on batch by batch, or averaged over cells."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from sclcm.engine.infer import in_pieces, to_tensors, token_budget

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    import numpy as np
    from torch import Tensor

    from sclcm.encoding.batches import TokenBatch
    from sclcm.engine.infer import Step
    from sclcm.nn.lcm import LCM


class DecoderMeans:
    """Average vector that a decoder gives each of its places, over cells.

    Parameters
    ----------
    n_places
        Places of the decoder.
    width
        Its width.
    device
        Where sums are kept.
    """

    def __init__(self, *, n_places: int, width: int, device: torch.device) -> None:
        exact = torch.float32 if device.type == "mps" else torch.float64
        self._sums = torch.zeros(n_places, width, dtype=exact, device=device)
        self._n_cells = 0

    def update(self, step: Step) -> None:
        """Add the cells of a batch."""
        y_bgd = step.lcm.decode(step.x_bld, step.tokens)
        self._sums += y_bgd.sum(0, dtype=self._sums.dtype)
        self._n_cells += len(y_bgd)

    def means(self) -> np.ndarray:
        """Return means, shape `(places, width)`, float32; NaN if there were no cells."""
        return (self._sums / (self._n_cells or float("nan"))).float().cpu().numpy()


def cells_at_once(n_places: int, lcm: LCM, device: torch.device) -> int:
    """Return how many cells a batch may have, each of which the decoder reads whole."""
    return max(1, token_budget(lcm, device) // n_places)


def decode(
    lcm: LCM, batches: Iterable[TokenBatch], *, head: str | None, device: torch.device
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Run encoder and decoder over batches.

    Parameters
    ----------
    lcm
        The model, on `device`.
    batches
        Sentences in rectangles.
    head
        Head of the decoder, or `None` for its vectors.
    device
        Where to compute.

    Yields
    ------
    Row numbers of some cells, and what the decoder says of them, float32: shape `(cells, places, width)`, or with a
    head of one number `(cells, places)`.
    """
    found: list[tuple[np.ndarray, np.ndarray]] = []

    def work(piece: TokenBatch, pending: list[None]) -> None:
        with torch.inference_mode():
            tokens = to_tensors(piece, device)
            out = read_places(lcm, lcm.decode(lcm(tokens), tokens), head)
        found.append((piece.rows, out.float().cpu().numpy()))
        pending.clear()

    for _ in in_pieces(batches, [None], work, device=device):
        yield found.pop()


def read_places(lcm: LCM, y_bgd: Tensor, head: str | None) -> Tensor:
    """Apply a head of the decoder to its vectors; of one number a place, the axis is left out."""
    if head is None or lcm.decoder is None:
        return y_bgd
    out = lcm.decoder.heads[head](y_bgd)
    return out[..., 0] if out.ndim == y_bgd.ndim and out.shape[-1] == 1 else out
