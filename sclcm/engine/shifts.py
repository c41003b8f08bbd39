"""How far the vectors of tokens move when their cell is edited."""

from __future__ import annotations

import torch
from torch import Tensor


def deletion_cosines(before_bld: Tensor, after_bld: Tensor, place_b: Tensor) -> Tensor:
    """Return the cosine of each remaining token's vector with its own before one token of the cell was deleted.

    Parameters
    ----------
    before_bld
        Vectors of the whole sentences, shape `(cells, tokens, width)`.
    after_bld
        Vectors of the sentences without the deleted token, shape `(cells, tokens - 1, width)`.
    place_b
        Where the deleted token stood, shape `(cells,)`.

    Returns
    -------
    Shape `(cells, tokens - 1)`, in the order of the remaining tokens, float32 or wider; 1 is no change.
    """
    place_bl = torch.arange(after_bld.shape[1], device=before_bld.device).expand(after_bld.shape[:2])
    source_bl = place_bl + (place_bl >= place_b.unsqueeze(1)).long()
    kept_bld = before_bld.gather(1, source_bl.unsqueeze(-1).expand_as(after_bld))
    exact = torch.promote_types(before_bld.dtype, torch.float32)
    return torch.cosine_similarity(kept_bld.to(exact), after_bld.to(exact), dim=-1)
