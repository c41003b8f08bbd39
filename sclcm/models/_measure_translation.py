"""Compute arrays of models that give the values of proteins from the genes of a cell."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch.nn import functional

from sclcm._sizes import as_int
from sclcm.encoding.batches import TokenBatch, pad_sentences
from sclcm.engine.infer import to_tensors
from sclcm.models._fixture_input import read_fixture_input
from sclcm.models._measure_draws import require_shape
from sclcm.models._measure_input import aligned_input
from sclcm.models._translation import n_places, translate_cells, translation_of
from sclcm.reference import _translation_probes as probes

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData
    from torch import Tensor
    from torch.nn import Embedding

    from sclcm.models._measure import Measurement
    from sclcm.models._pass import Input
    from sclcm.nn.decoder import Decoder, SequenceBridge
    from sclcm.nn.tokens import TokenTensors
    from sclcm.reference._probes import Said


def proteins(m: Measurement) -> Input:
    """Return the measured proteins, which lie beside the input, aligned to the vocabulary."""
    return m.once(_proteins)


def _proteins(m: Measurement) -> Input:
    stored = read_fixture_input(m.folder.parent / "input_protein.h5ad")
    cells = list(m.adata.obs_names)
    if not (stored.obs_names.is_unique and {*cells} <= {*stored.obs_names}):
        msg = "`input_protein.h5ad` lacks cells of `input.h5ad`, or names one twice."
        raise ValueError(msg)
    return aligned_input(stored[cells].copy(), m.pretrained)  # upstream takes them by name


def _side(m: Measurement, of: str) -> Input:
    return m.input if of == "genes" else proteins(m)


def _ids(data: Input, m: Measurement) -> np.ndarray:
    return m.pretrained.vocabulary.token_ids[data.alignment.feature_index].astype(np.int64)


def known_vars(m: Measurement, probe: probes.KnownVars, name: str) -> np.ndarray:
    """Names of the var that are used."""
    return np.array(m.adata.var_names[m.input.alignment.var_index].tolist())


def feature_ids(m: Measurement, probe: probes.FeatureIds, name: str) -> np.ndarray:
    """Ids in the order of var."""
    return _ids(_side(m, probe.of), m)


def _n_given(m: Measurement, names: tuple[str, ...], data: Input, *, longest: int) -> int:
    """Return how many features were given: those of a mask, or of ids, the same for all cells and real ones first."""
    name = next((name for name in names if name in m.draws), None)
    if name is None:
        return len(data.alignment.var_index)
    stored = m.draws[name]
    require_shape(stored, (m.adata.n_obs, longest), name, kinds="biu")
    is_real = stored != m.pretrained.vocabulary.specials[m.pretrained.pad] if stored.dtype.kind != "b" else stored
    n_given = int(is_real[0].sum())
    if not (is_real == (np.arange(longest) < n_given)).all() or not 0 < n_given <= len(data.alignment.var_index):
        msg = f"{name!r} is no mask of the first features of the data."
        raise ValueError(msg)
    return n_given


def _batch(m: Measurement, given: probes.Given, of: str) -> TokenBatch:
    """Return the sentences of what was given; values are scaled over all features, before any is cut."""
    data, encoding = _side(m, of), m.pretrained.encoding
    longest = as_int(cast("int", encoding.max_tokens)) if of == "genes" else n_places(m.pretrained)
    n_given = _n_given(m, given.genes if of == "genes" else given.proteins, data, longest=longest)
    kept = dataclasses.replace(data, alignment=_first(data, n_given) if n_given < longest else data.alignment)
    model = dataclasses.replace(m.pretrained, encoding=dataclasses.replace(encoding, max_tokens=longest))
    sentences = model.encode(next(kept.chunks(model, chunk_size=m.adata.n_obs)))
    return pad_sentences(
        sentences, np.arange(sentences.n_cells), pad=model.vocabulary.specials[model.pad], width=longest
    )


def _first(data: Input, n_given: int) -> Any:
    """Return an alignment of the first known var alone, the others being none of what was given."""
    alignment = data.alignment
    return dataclasses.replace(
        alignment, var_index=alignment.var_index[:n_given], feature_index=alignment.feature_index[:n_given]
    )


def sentence(m: Measurement, probe: probes.Sentence, name: str) -> np.ndarray:
    """A part of the sentences."""
    batch = _batch(m, probe.given, probe.of)
    match probe.part:
        case "values":
            return batch.values["value"]
        case "ids":
            return batch.token_ids
        case "mask":
            return batch.mask


def _tokens(m: Measurement, given: probes.Given) -> TokenTensors:
    asked = _batch(m, given, "proteins")
    return dataclasses.replace(
        to_tensors(_batch(m, given, "genes"), m.device_of),
        asked_ids_bm=torch.as_tensor(asked.token_ids, device=m.device_of),
        asked_mask_bm=torch.as_tensor(asked.mask, device=m.device_of),
    )


def stage(m: Measurement, probe: probes.Stage, name: str) -> Tensor:
    """Vectors on the way."""
    tokens, lcm = _tokens(m, probe.given), m.pretrained.lcm
    if probe.part == "input":
        return cast("Tensor", m.as_many(lcm.embed(tokens), name))
    x_bld = lcm(tokens)
    match probe.part:
        case "encoder":
            out = x_bld
        case "bridge":
            out = cast("SequenceBridge", cast("Decoder", lcm.decoder).bridge).mix(x_bld).transpose(1, 2)
        case "decoder":
            out = lcm.decode(x_bld, tokens)
        case "values":
            out = lcm.read_decoder(translation_of(m.pretrained).head, x_bld, tokens)
    return cast("Tensor", m.as_many(out, name))


def predicted(m: Measurement, probe: probes.Predicted, name: str) -> np.ndarray:
    """Values of proteins."""
    data = m.input if probe.without is None else _without(m, probe.without)
    if probe.ids is not None:
        found = _predicted(m, data, id_input(m, probes.IdInput(), probe.ids))
    else:
        found = _hidden(_predicted(m, data), _truth(m, _measured(m)))
    return _filling(m, found, name, batch_size=probe.batch_size)


def _predicted(m: Measurement, data: Input, ids: np.ndarray | None = None) -> np.ndarray:
    """Return values of proteins, those of the input without any ids."""
    places = n_places(m.pretrained)  # upstream asks once, so that further proteins are cut
    asked = _ids(proteins(m), m)[:places] if ids is None else ids
    return translate_cells(data, m.pretrained, asked, batch_size=None)


def _filling(m: Measurement, found: np.ndarray, name: str, *, batch_size: Said) -> np.ndarray:
    """Return the cells that fill batches, as upstream leaves out the others, or all where all are stored."""
    stored, size = np.atleast_1d(m.draws[name]), int(m.said(batch_size, name))
    return found if len(stored) == len(found) else found[: len(found) // size * size]


def _without(m: Measurement, names: str) -> Input:
    gone = var_input(m, probes.VarInput(), names)
    kept: AnnData = m.adata[:, ~m.adata.var_names.isin(gone)].copy()
    return aligned_input(kept, m.pretrained)


def _truth(m: Measurement, matrix: np.ndarray) -> np.ndarray:
    """Scale values from 0 to 1 within each cell, as upstream does, and cut them; of equal ones they are no numbers."""
    low, high = (by(matrix, axis=1, keepdims=True) for by in (np.min, np.max))
    with np.errstate(invalid="ignore"):
        return (1e-8 + (matrix - low) / (high - low) * (1 - 1e-8))[:, : n_places(m.pretrained)]


def _hidden(values: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return values as upstream keeps them: zero where the truth is no number."""
    return np.where(np.isnan(truth), 0, values)


def _measured(m: Measurement) -> np.ndarray:
    data = proteins(m)
    return data.source.read(0, m.adata.n_obs)[:, data.alignment.var_index].toarray()


def scaled_truth(m: Measurement, probe: probes.ScaledTruth, name: str) -> np.ndarray:
    """Measured values."""
    truth = _truth(m, _measured(m))
    return _filling(m, _hidden(truth, truth), name, batch_size=probe.batch_size)


def masked_by_nothing(m: Measurement, probe: probes.MaskedByNothing, name: str) -> np.ndarray:
    """Values where the truth is a number, which it nowhere is."""
    truth = _truth(m, np.zeros_like(_measured(m)))
    return _filling(m, _hidden(_predicted(m, m.input), truth), name, batch_size=probe.batch_size)


def agreement(m: Measurement, probe: probes.Agreement, name: str) -> float:
    """Agreement with the truth, batch by batch."""
    measured = _truth(m, _measured(m))
    found, truth = (torch.as_tensor(_hidden(x, measured)) for x in (_predicted(m, m.input), measured))
    by_batch, size = [], int(m.said(probe.batch_size, name))
    for start in range(0, len(found) - size + 1, size):
        ours, theirs = (x[start : start + size].double().flatten() for x in (found, truth))
        score = functional.mse_loss if probe.by == "mse" else _cosine
        by_batch.append(float(score(ours, theirs)))
    return float(np.mean(by_batch))


def _cosine(one_n: Tensor, other_n: Tensor) -> Tensor:
    return functional.cosine_similarity(one_n, other_n, dim=0)


def id_input(m: Measurement, probe: probes.IdInput, name: str) -> np.ndarray:
    """The stored ids, checked."""
    stored = m.draws[name]
    require_shape(stored, (None,), name, kinds="iu")
    n_ids = len(_asked_table(m).weight)
    if not ((stored >= 0) & (stored < n_ids) & (stored != m.pretrained.vocabulary.specials[m.pretrained.pad])).all():
        msg = f"{name!r} holds ids that the table of {n_ids} proteins does not have, or that of padding."
        raise ValueError(msg)
    return stored.astype(np.int64)


def var_input(m: Measurement, probe: probes.VarInput, name: str) -> np.ndarray:
    """The stored names, checked."""
    stored = m.draws[name]
    require_shape(stored, (None,), name, kinds="U")
    if not np.isin(stored, m.adata.var_names[m.input.alignment.var_index]).all():
        msg = f"{name!r} names genes that the data or the vocabulary lack."
        raise ValueError(msg)
    return stored


def table_rows(m: Measurement, probe: probes.TableRows, name: str) -> Tensor:
    """Rows of a table."""
    ids = torch.as_tensor(_ids(_side(m, probe.of), m), device=m.device_of)
    lcm = m.pretrained.lcm
    if probe.of == "genes":
        return lcm.embed.genes(ids)
    return cast("Tensor", _asked_table(m)(ids))


def _asked_table(m: Measurement) -> Embedding:
    return cast("SequenceBridge", cast("Decoder", m.pretrained.lcm.decoder).bridge).asked


MEASURES: dict[type, Callable[[Measurement, Any, str], Any]] = {
    probes.KnownVars: known_vars,
    probes.FeatureIds: feature_ids,
    probes.Sentence: sentence,
    probes.Stage: stage,
    probes.Predicted: predicted,
    probes.ScaledTruth: scaled_truth,
    probes.MaskedByNothing: masked_by_nothing,
    probes.Agreement: agreement,
    probes.IdInput: id_input,
    probes.VarInput: var_input,
    probes.TableRows: table_rows,
}
"""What computes each probe."""
