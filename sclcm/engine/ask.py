"""Values of tokens that a decoder is asked for: a reducer of the one pass over token batches."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    import numpy as np

    from sclcm.engine.infer import Step


@dataclass(frozen=True, kw_only=True, eq=False)
class AskedValues:
    """Asks the decoder for the values of some tokens of each cell, as many at a time as it has places.

    Parameters
    ----------
    out
        Where rows go, shape `(cells of the data set, tokens asked for)`, float32.
    token_ids
        The tokens, in the decoder's table, shape `(tokens asked for,)`.
    pad
        Token of the places that are left.
    n_places
        Places of the decoder.
    head
        Head of the decoder with one number for each place.
    """

    out: np.ndarray
    token_ids: np.ndarray
    pad: int
    n_places: int
    head: str

    def update(self, step: Step) -> None:
        """Write the values of the cells of a batch into their rows."""
        for start in range(0, len(self.token_ids), self.n_places):
            values_bm = asked_values(step, self.token_ids[start : start + self.n_places], self)
            self.out[step.rows, start : start + values_bm.shape[1]] = values_bm.float().cpu().numpy()


def asked_values(step: Step, token_ids: np.ndarray, asked: AskedValues) -> torch.Tensor:
    """Return the values of so many tokens as the decoder has places at most, shape `(cells, tokens)`."""
    device, n_cells, n_asked = step.x_bld.device, step.x_bld.shape[0], len(token_ids)
    ids_m = torch.full((asked.n_places,), asked.pad, dtype=torch.int64)
    ids_m[:n_asked] = torch.from_numpy(token_ids)
    real_m = torch.arange(asked.n_places) < n_asked
    tokens = dataclasses.replace(
        step.tokens,
        asked_ids_bm=ids_m.to(device).expand(n_cells, -1),
        asked_mask_bm=None if n_asked == asked.n_places else real_m.to(device).expand(n_cells, -1),
    )
    return step.lcm.read_decoder(asked.head, step.x_bld, tokens)[:, :n_asked]
