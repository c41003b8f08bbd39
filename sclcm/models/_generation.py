"""What a model says of cells by adding tokens to their sentences: vectors and labels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sclcm._sizes import as_int
from sclcm.engine.generate import Decoding, Generated, generate
from sclcm.models._labels import label_names
from sclcm.models._pass import each_batch
from sclcm.models._prototypes import UNKNOWN
from sclcm.nn.readouts import FromEnd
from sclcm.zoo._labels import GeneratedLabels

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from sclcm.encoding.batches import TokenBatch
    from sclcm.models._pass import Input
    from sclcm.models._pretrained import Pretrained
    from sclcm.nn.readouts import GreedyDecoding
    from sclcm.zoo._spec import Recipe


def to_decoding(declared: GreedyDecoding, pretrained: Pretrained) -> Decoding:
    """Return a decoding in the token ids of a model; its classes are the labels that the model generates."""
    labels = label_names(pretrained.labels) if isinstance(pretrained.labels, GeneratedLabels) else ()
    specials = pretrained.vocabulary.specials
    return Decoding(
        token_head=declared.token_head,
        value_head=declared.value_head,
        n_tokens=as_int(declared.n_tokens),
        stop=specials[declared.stop],
        max_value=as_int(declared.max_value),
        bans_last=declared.ban == "all",
        classes=[specials[name] for name in labels if name in specials],
    )


def embed_by_decoding(data: Input, pretrained: Pretrained, recipe: Recipe, *, batch_size: int | None) -> np.ndarray:
    """Return the vector of each cell by a recipe that decodes, shape `(n_obs, D)`, float32."""
    if recipe.decoding is None or not isinstance(recipe.pooling, FromEnd):
        msg = f"`recipe` is {recipe!r}; expected one with a decoding and the pooling `FromEnd`."
        raise ValueError(msg)
    decoding, places = to_decoding(recipe.decoding, pretrained), recipe.pooling.places
    n_steps = decoding.n_forward([places])
    out = _generate(data, pretrained, decoding, n_steps=n_steps, places=places, batch_size=batch_size).vectors
    if recipe.l2_normalize:
        length = np.linalg.norm(out, axis=1, keepdims=True)
        out = np.divide(out, length, out=np.zeros_like(out), where=length > 0)
    return out


def label_by_decoding(
    data: Input, pretrained: Pretrained, *, batch_size: int | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Let a model say the types of cells.

    Parameters
    ----------
    data
        The cells.
    pretrained
        The model, which has labels that it generates.
    batch_size
        Cells at a time, or `None`.

    Returns
    -------
    Fine label, coarse label, and the probability of the fine one among all labels, each of shape `(n_obs,)`. Where the
    model says no type the label is `"unknown"`; of a cell without any known gene it says nothing.
    """
    labels = _labels_of(pretrained)
    declared = pretrained.recipe(labels.recipe).decoding
    if declared is None:
        msg = f"The recipe {labels.recipe!r} of {pretrained.name!r} adds no tokens, so it gives no labels."
        raise ValueError(msg)
    decoding = to_decoding(declared, pretrained)
    n_steps = decoding.n_forward([labels.fine, labels.coarse])
    found = _generate(data, pretrained, decoding, n_steps=n_steps, places=0, batch_size=batch_size)
    names = named_labels(pretrained)
    (fine, score), (coarse, _) = found.from_end(labels.fine), found.from_end(labels.coarse)
    fine, coarse = (named_or(tokens, names, pretrained, otherwise=UNKNOWN) for tokens in (fine, coarse))
    fine[data.empty_cells] = coarse[data.empty_cells] = UNKNOWN
    return fine, coarse, np.where(fine == UNKNOWN, 0.0, score.astype(np.float64))


def named_labels(pretrained: Pretrained) -> tuple[str, ...]:
    """Return the labels that name a type."""
    labels = _labels_of(pretrained)
    return tuple(name for name in label_names(labels) if name != labels.unnamed)


def _labels_of(pretrained: Pretrained) -> GeneratedLabels:
    if not isinstance(pretrained.labels, GeneratedLabels):
        msg = f"{pretrained.name!r} generates no labels."
        raise ValueError(msg)
    return pretrained.labels


def _generate(
    data: Input,
    pretrained: Pretrained,
    decoding: Decoding,
    *,
    n_steps: int,
    places: int,
    batch_size: int | None,
) -> Generated:
    out = Generated.empty(data.source.shape[0], n_steps, pretrained.d_model)

    def work(batches: Iterable[TokenBatch]) -> Iterator[int]:
        return generate(pretrained.lcm, batches, out, decoding=decoding, places=places, device=pretrained.device)

    each_batch(data, pretrained, work, batch_size=batch_size, continued=True)
    return out


def named_or(tokens: np.ndarray, names: Sequence[str], pretrained: Pretrained, *, otherwise: str) -> np.ndarray:
    """Return the name of each token that is one of those, and something else for all other tokens, as objects."""
    specials = pretrained.vocabulary.specials
    name_of = {specials[name]: name for name in names if name in specials}
    named = np.empty(len(tokens), dtype=object)
    named[:] = [name_of.get(token, otherwise) for token in np.asarray(tokens).tolist()]
    return named
