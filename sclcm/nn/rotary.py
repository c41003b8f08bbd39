"""Places as rotations of queries and keys."""

from __future__ import annotations

import torch
from torch import Tensor


def rotate(x_bhlk: Tensor, place: Tensor, base: float) -> Tensor:
    """Turn the planes of each head's vectors by their place.

    Parameters
    ----------
    x_bhlk
        Queries or keys, shape `(cells, heads, tokens, head width)`; the width is even.
    place
        Place of each token, shape `(tokens,)`, or `(cells, tokens)` where cells differ.
    base
        The longest wave, over that of the first channel.

    Returns
    -------
    Shape and number type as given. Angles are in single precision at least, since half precision has no numbers for
    places beyond a few hundred.
    """
    dtype = torch.promote_types(x_bhlk.dtype, torch.float32)
    half = x_bhlk.shape[-1] // 2
    speed_k = base ** (torch.arange(half, device=x_bhlk.device, dtype=dtype) / -half)
    angle = place.unsqueeze(-1).to(dtype) * speed_k
    if place.ndim > 1:
        angle = angle.unsqueeze(1)
    cos, sin = angle.cos(), angle.sin()
    one_bhlk, other_bhlk = x_bhlk.to(dtype).chunk(2, dim=-1)
    turned = torch.cat([one_bhlk * cos - other_bhlk * sin, other_bhlk * cos + one_bhlk * sin], dim=-1)
    return turned.to(x_bhlk.dtype)


def places(length: int, lengths: list[int] | None, device: torch.device) -> Tensor:
    """Return the place of each token, shape `(tokens,)`: counted from the left, in each of packed cells anew."""
    if lengths is None:
        return torch.arange(length, device=device)
    return torch.cat([torch.arange(own, device=device) for own in lengths])
