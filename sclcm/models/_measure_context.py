"""Compute arrays of families whose sentences say what a cell is and are padded to one length."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn import functional

from sclcm._sizes import as_int
from sclcm.checkpoints.files import find_one
from sclcm.checkpoints.readers import read_torch
from sclcm.encoding.batches import pad_sentences
from sclcm.encoding.normalize import normalize
from sclcm.encoding.sentences import encode
from sclcm.engine.infer import to_tensors
from sclcm.models._cell_vectors import cell_vectors
from sclcm.models._measure_draws import require_shape
from sclcm.models._measure_input import aligned_input
from sclcm.nn.tokens import TokenTensors
from sclcm.reference import _context_probes as probes
from sclcm.reference._probes import Said
from sclcm.zoo._registry import get_spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from sclcm.encoding.batches import TokenBatch
    from sclcm.encoding.chunks import CellChunk
    from sclcm.encoding.sentences import CellSentences
    from sclcm.models._measure import Measurement
    from sclcm.models._pass import Input
    from sclcm.models._pretrained import Pretrained

NOT_PREDICTED = -100
"""Stands for a token that is not to be predicted among targets."""


def opened(m: Measurement, told: probes.Told, name: str) -> tuple[Pretrained, Input]:
    """Return the model with the encoding of a recipe, and the input as it is told."""
    by_name = {} if told.by_name is None else {told.by_name: name.rpartition("_")[2]}
    given = {key: m.said(value, name) if isinstance(value, Said) else value for key, value in told.conditions.items()}
    conditions = {**given, **by_name}

    def make(_: Measurement) -> tuple[Pretrained, Input]:
        pretrained = m.pretrained.reading(m.pretrained.recipe(told.recipe))
        return pretrained, aligned_input(m.adata, pretrained, conditions)

    return m.once(make, (told.recipe, *sorted(conditions.items())))


def all_cells(m: Measurement, told: probes.Told, name: str) -> tuple[Pretrained, CellChunk]:
    """Return the model and all cells, as they are told."""
    pretrained, data = opened(m, told, name)
    return pretrained, next(data.chunks(pretrained, chunk_size=m.adata.n_obs))


def longest(pretrained: Pretrained) -> int:
    """Return the tokens of the longest sentence."""
    if pretrained.encoding.max_tokens is None:
        msg = f"{pretrained.name!r} has no longest sentence, so that nothing is padded to it."
        raise ValueError(msg)
    return as_int(pretrained.encoding.max_tokens)


def rectangle(pretrained: Pretrained, sentences: CellSentences) -> TokenBatch:
    """Put all cells into a rectangle as wide as the longest sentence."""
    pad = pretrained.vocabulary.specials[pretrained.pad]
    return pad_sentences(sentences, np.arange(sentences.n_cells), pad=pad, width=longest(pretrained))


def features(m: Measurement, probe: probes.Features, name: str) -> np.ndarray:
    """Names of the vocabulary's genes."""
    return m.pretrained.vocabulary.features.astype(str)


def aligned_counts(m: Measurement, probe: probes.AlignedCounts, name: str) -> np.ndarray:
    """Counts over the vocabulary."""
    return all_cells(m, probe.told, name)[1].counts.toarray()


def companion_array(m: Measurement, probe: probes.CompanionArray, name: str) -> np.ndarray:
    """One of the model's arrays."""
    return m.pretrained.arrays[probe.prefix + name.rpartition("_")[2]]


def normalized_counts(m: Measurement, probe: probes.NormalizedCounts, name: str) -> np.ndarray:
    """Values after normalisation."""
    pretrained, chunk = all_cells(m, probe.told, name)
    out = np.zeros(chunk.counts.shape)
    rows = np.repeat(np.arange(chunk.n_cells), np.diff(chunk.counts.indptr))
    out[rows, chunk.counts.indices] = normalize(pretrained.encoding.normalize, chunk, pretrained.arrays)
    return out


def gene_tokens(m: Measurement, probe: probes.GeneTokens, name: str) -> np.ndarray:
    """Gene tokens without anything before or after them."""
    pretrained, chunk = all_cells(m, probe.told, name)
    bare = dataclasses.replace(pretrained.encoding, prefix=(), suffix=(), context=())
    sentences = encode(chunk, bare, vocabulary=pretrained.vocabulary, arrays=pretrained.arrays)
    batch = rectangle(pretrained, sentences)
    return np.where(batch.mask, batch.token_ids, probe.fill)


def padded(m: Measurement, told: probes.Told, name: str) -> tuple[Pretrained, TokenBatch]:
    """Return the model and all cells in a rectangle."""
    pretrained, chunk = all_cells(m, told, name)
    return pretrained, rectangle(pretrained, pretrained.encode(chunk))


def padded_tokens(m: Measurement, probe: probes.PaddedTokens, name: str) -> np.ndarray:
    """Token ids of padded sentences, or which are padding."""
    _, batch = padded(m, probe.told, name)
    return m.as_many(batch.token_ids if probe.part == "ids" else ~batch.mask, name)


def place_vectors(m: Measurement, probe: probes.PlaceVectors, name: str) -> torch.Tensor:
    """Vectors of every place."""
    pretrained, batch = padded(m, probe.told, name)
    depth = 0 if probe.layer == 0 else pretrained.lcm.n_blocks + 1 + probe.layer
    x_bld = m.as_many(pretrained.lcm(to_tensors(batch, m.device_of), n_blocks=depth), name)
    return x_bld if probe.head is None else pretrained.lcm.heads[probe.head](x_bld)


def told_embedding(m: Measurement, probe: probes.ToldEmbedding, name: str) -> np.ndarray:
    """Cell vectors by a recipe."""
    pretrained, data = opened(m, probe.told, name)
    recipe = pretrained.recipe(probe.told.recipe)
    if probe.layer_after is not None:
        number = int(name.partition(probe.layer_after)[2].partition("_")[0])
        recipe = dataclasses.replace(recipe, layer=number if number < 0 else number - pretrained.lcm.n_blocks)
    return m.embedding(recipe, pretrained, data)


def fine_tuned(m: Measurement, probe: probes.FineTuned, name: str) -> np.ndarray:
    """Cell vectors by a recipe of a fine-tuned model."""
    tuned = _tuned(m, probe, name)
    _, data = opened(m, probe.told, name)
    return cell_vectors(data, tuned, tuned.recipe(probe.recipe), batch_size=None)


def _tuned(m: Measurement, probe: probes.FineTuned, name: str) -> Pretrained:
    """Write the fine-tuned checkpoint as its authors would, the pre-trained model being a part of it, and load it."""
    file = find_one(m.folder, get_spec(m.family).weights)
    content = read_torch(file)
    head = {
        key: torch.as_tensor(head_weight(m, probes.HeadWeight(), key))
        for key in m.draws
        if key.startswith(probe.weights)
    }
    blocks = [int(number) for number in m.said(probe.blocks, name)]
    state = {f"backbone.{key}": tensor for key, tensor in content["state_dict"].items()}
    state |= {key.removeprefix(probe.weights): tensor for key, tensor in head.items()}
    together = {"extract_layers": blocks, "function_layers": m.said(probe.together, name)}
    settings = {**content["hyper_parameters"], **together}
    with tempfile.TemporaryDirectory() as folder:
        torch.save({"state_dict": state, "hyper_parameters": settings}, Path(folder) / file.name)
        return m.load(Path(folder))


def head_weight(m: Measurement, probe: probes.HeadWeight, name: str) -> np.ndarray:
    """Finite numbers, one for each channel."""
    stored = np.asarray(m.draws[name])
    if stored.dtype.kind != "f" or stored.shape[-1:] != (m.pretrained.d_model,) or not np.isfinite(stored).all():
        msg = f"{name!r} should hold finite numbers for each of {m.pretrained.d_model} channels."
        raise ValueError(msg)
    return stored


def gene_vectors(m: Measurement, probe: probes.GeneVectors, name: str) -> np.ndarray:
    """Rows of the gene table."""
    return m.pretrained.gene_vectors()


# ---- tokens that are to be predicted ----


def corrupted(m: Measurement, given: probes.Corrupted) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Return the tokens, the corrupted ids and which tokens are to be predicted, once the draw is checked."""
    stored, mask = np.asarray(m.draws[given.ids]), np.asarray(m.draws[given.mask])
    vocabulary = m.pretrained.vocabulary
    tokens = padded_tokens(m, given.tokens, given.ids)
    require_shape(stored, tokens.shape, given.ids, kinds="iu")
    require_shape(mask, tokens.shape, given.mask, kinds="biu")
    never = (tokens == vocabulary.specials[m.pretrained.pad]) | (tokens == vocabulary.token(given.kept))
    predicted = mask == 0
    if not np.isin(mask, (0, 1)).all() or (predicted & never).any() or not predicted.any():
        msg = f"{given.mask!r} should be 0 at some tokens, neither padding nor {given.kept!r}, and 1 elsewhere."
        raise ValueError(msg)
    hidden = stored == vocabulary.token(m.pretrained.mask or "")
    random = (stored >= given.first_random) & (stored < vocabulary.n_tokens)
    if not np.where(predicted, hidden | random | (stored == tokens), stored == tokens).all():
        msg = f"{given.ids!r} should be the tokens, save where they are to be predicted: hidden, replaced or kept."
        raise ValueError(msg)
    return tokens, stored, predicted


def corrupted_ids(m: Measurement, probe: probes.CorruptedIds, name: str) -> np.ndarray:
    """The corrupted ids."""
    tokens, stored, predicted = corrupted(m, probe.given)
    return np.where(predicted, stored, tokens)


def predicted_mask(m: Measurement, probe: probes.PredictedMask, name: str) -> np.ndarray:
    """Zero where a token is to be predicted."""
    return (~corrupted(m, probe.given)[2]).astype(np.int64)


def predicted_targets(m: Measurement, probe: probes.PredictedTargets, name: str) -> np.ndarray:
    """The tokens that are to be predicted."""
    tokens, _, predicted = corrupted(m, probe.given)
    return np.where(predicted, tokens, NOT_PREDICTED)


def corrupted_loss(m: Measurement, probe: probes.CorruptedLoss, name: str) -> float:
    """Mean cross-entropy at the tokens that are to be predicted."""
    tokens, stored, predicted = corrupted(m, probe.given)
    ids = torch.as_tensor(stored.astype(np.int64), device=m.device_of)
    real = ids != m.pretrained.vocabulary.specials[m.pretrained.pad]
    given = TokenTensors(token_ids_bl=ids, mask_bl=real, gene_mask_bl=real)
    hide = torch.as_tensor(predicted, device=m.device_of)
    scores = m.pretrained.lcm.heads[probe.head](m.pretrained.lcm(given)[hide])
    return float(
        functional.cross_entropy(scores.float(), torch.as_tensor(tokens[predicted], device=m.device_of).long())
    )


MEASURES: dict[type, Callable[[Measurement, Any, str], Any]] = {
    probes.Features: features,
    probes.AlignedCounts: aligned_counts,
    probes.CompanionArray: companion_array,
    probes.NormalizedCounts: normalized_counts,
    probes.GeneTokens: gene_tokens,
    probes.PaddedTokens: padded_tokens,
    probes.PlaceVectors: place_vectors,
    probes.ToldEmbedding: told_embedding,
    probes.FineTuned: fine_tuned,
    probes.HeadWeight: head_weight,
    probes.GeneVectors: gene_vectors,
    probes.CorruptedIds: corrupted_ids,
    probes.PredictedMask: predicted_mask,
    probes.PredictedTargets: predicted_targets,
    probes.CorruptedLoss: corrupted_loss,
}
