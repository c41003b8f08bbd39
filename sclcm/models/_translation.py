"""Values of features of another modality, which a model gives from the genes of a cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sclcm._sizes import as_int
from sclcm.engine.ask import AskedValues
from sclcm.genes.align import align_genes
from sclcm.models._pass import one_pass
from sclcm.nn.decoder_configs import SequenceBridge

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sclcm.models._pass import Input
    from sclcm.models._pretrained import Pretrained
    from sclcm.zoo._modules import Translation


def translation_of(pretrained: Pretrained) -> Translation:
    """Return what a model translates to; `ValueError` if it does not."""
    if pretrained.translation is None:
        msg = f"{pretrained.name!r} predicts no other modality, such as proteins."
        raise ValueError(msg)
    return pretrained.translation


def n_places(pretrained: Pretrained) -> int:
    """Return how many features a model is asked for at a time."""
    decoder = pretrained.architecture.decoder
    if (
        decoder is None
        or not isinstance(decoder.bridge, SequenceBridge)
        or not isinstance(decoder.bridge.widths, tuple)
    ):
        msg = f"{pretrained.name!r} has no decoder that can be asked."
        raise ValueError(msg)
    return as_int(decoder.bridge.widths[-1])


def asked_tokens(names: Sequence[str], pretrained: Pretrained) -> np.ndarray:
    """Return the token of each name, shape `(names,)`, int64; `ValueError` lists names that the model does not know."""
    alignment = align_genes(names, pretrained.vocabulary)
    features = alignment.feature_of_var
    if unknown := [name for name, feature in zip(names, features.tolist(), strict=True) if feature < 0]:
        shown = ", ".join(map(repr, unknown[:5]))
        msg = (
            f"{pretrained.name!r} knows no {translation_of(pretrained).modality} by {len(unknown)} of the {len(names)} "
            f"names ({shown}). Proteins are named by the symbols of their genes; leave out or rename the others."
        )
        raise ValueError(msg)
    return pretrained.vocabulary.token_ids[features].astype(np.int64)


def translate_cells(
    data: Input, pretrained: Pretrained, token_ids: np.ndarray, *, batch_size: int | None
) -> np.ndarray:
    """Return the value of each feature that is asked for, for each cell.

    Parameters
    ----------
    data
        The cells.
    pretrained
        The model.
    token_ids
        The features, in order: as many at a time as the decoder has places. A feature's value depends on its place and
        on those beside it.
    batch_size
        Cells at a time, or `None`.

    Returns
    -------
    Shape `(n_obs, features)`, float32; NaN for a cell without any known gene.
    """
    out = np.zeros((data.source.shape[0], len(token_ids)), dtype=np.float32)
    asked = AskedValues(
        out=out,
        token_ids=token_ids,
        pad=pretrained.vocabulary.specials[pretrained.pad],
        n_places=n_places(pretrained),
        head=translation_of(pretrained).head,
    )
    one_pass(data, pretrained, [asked], batch_size=batch_size, n_blocks=None)
    out[data.empty_cells] = np.nan
    return out
