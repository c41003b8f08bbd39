"""Frozen configurations of decoders and of the bridges that lead to them. No torch here."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sclcm._sizes import Shapes, Size, Text
    from sclcm.nn.configs import BackboneConfig, LayerNorm
    from sclcm.nn.readouts import HeadConfig


@dataclass(frozen=True, kw_only=True)
class ScatterBridge:
    """Bridge to all tokens of the vocabulary, whether a cell's sentence has them or not.

    Each place of the decoder is a token id. Those in the sentence bring the vector that the backbone gave them, all
    others that of their value, which is zero unless a batch says otherwise; to both, the gene's vector is added (for
    those in the sentence once more). A linear layer leads to the width of the decoder.

    Parameters
    ----------
    n_places
        Places of the decoder: the lowest token ids, padding not among them.
    """

    n_places: Size


@dataclass(frozen=True, kw_only=True)
class SequenceBridge:
    """Bridge along the sentence: layers over its places, the same for every channel, lead to those of the decoder.

    To what comes out at a place, the vector of the token is added whose value is asked for there. All sentences have
    one length, padding included, and the order of their tokens matters.

    Parameters
    ----------
    n_places
        Tokens of every sentence.
    widths
        Places after each layer; after the last, those of the decoder.
    n_tokens
        Rows of the table of tokens that may be asked for; the first is that of padding.
    activation
        Name of the non-linearity between layers.
    """

    n_places: Size
    widths: tuple[Size, ...] | Shapes
    n_tokens: Size
    activation: Text = "relu"


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """A second stack of blocks behind the backbone.

    Parameters
    ----------
    d_model
        Its width.
    bridge
        How it comes to its tokens.
    backbone
        Its blocks.
    norm
        Normalisation after the blocks' own final one, or `None`.
    heads
        Heads by name that read it.
    """

    d_model: Size
    bridge: ScatterBridge | SequenceBridge
    backbone: BackboneConfig
    norm: LayerNorm | None = None
    heads: Mapping[str, HeadConfig] = field(default_factory=dict)
