"""Frozen configurations of attention by kernels, and of places within softmax attention. No torch here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sclcm._sizes import Flag, Number, Size


@dataclass(frozen=True, kw_only=True)
class RotaryPositions:
    """Places as rotations of queries and keys (RoPE, doi:10.48550/arXiv.2104.09864); nothing is added to tokens.

    Channel `i` of the first half of a head and the same of the second half are a plane, turned by the place times
    `base ** (-2 i / head width)`. A product of query and key then depends on how far apart they are.

    Parameters
    ----------
    base
        The longest wave, over that of the first channel.
    """

    base: Number = 1e4


@dataclass(frozen=True, kw_only=True)
class KernelAttention:
    """Multi-head attention by positive random features (FAVOR+, doi:10.48550/arXiv.2009.14794), linear in length.

    The features are drawn once, when a model is made, and belong to its weights.

    Parameters
    ----------
    n_heads
        Heads.
    d_head
        Width of each; heads times width need not be the width of the model.
    n_features
        Random features.
    qkv_bias
        Whether queries, keys and values have a bias.
    out_bias
        Whether the output projection has one.
    stabilizer
        Over what the largest exponent of the keys is taken: `"cell"`, all heads of a cell; `"head"`, each head of a
        cell; `"batch"`, all that is computed at once, which makes a cell depend on those beside it and is for
        comparisons only. Since a constant is added to features, it matters to the result.
    padding
        `"excluded"`: a cell is what it is without padding. `"counted"`: padding is part of the sentence, as a key
        whose value is zero.
    """

    n_heads: Size
    d_head: Size
    n_features: Size
    qkv_bias: Flag = False
    out_bias: Flag = True
    stabilizer: Literal["cell", "head", "batch"] = "cell"
    padding: Literal["excluded", "counted"] = "excluded"
