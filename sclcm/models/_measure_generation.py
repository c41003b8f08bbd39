"""Compute arrays of what a causal model adds to sentences, and of data brought to a wider list of genes."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix

from sclcm.data.stream import align_rows
from sclcm.encoding.batches import TokenBatch, iter_batches, pad_sentences
from sclcm.encoding.draws import CellRandom
from sclcm.encoding.normalize import normalize
from sclcm.encoding.sentences import SPECIAL, CellSentences
from sclcm.encoding.values import EqualWidthBins
from sclcm.engine.generate import NONE, Decoding, Generated, generate
from sclcm.engine.infer import to_tensors
from sclcm.genes.align import align_genes
from sclcm.models._generation import embed_by_decoding, named_or, to_decoding
from sclcm.models._labels import label_names
from sclcm.models._measure_draws import require_shape
from sclcm.reference import _generation_probes as probes
from sclcm.zoo._labels import GeneratedLabels

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from sclcm.encoding.chunks import CellChunk
    from sclcm.genes.align import GeneAlignment
    from sclcm.genes.vocabulary import GeneVocabulary
    from sclcm.models._measure import Measurement
    from sclcm.models._pretrained import Pretrained
    from sclcm.nn.readouts import GreedyDecoding


# ---- data brought to the wider list ----


def name_input(m: Measurement, probe: probes.NameInput, name: str) -> np.ndarray:
    """Gene names."""
    stored = np.asarray(m.draws[name])
    require_shape(stored, (None,), name, kinds="U")
    return stored


def count_input(m: Measurement, probe: probes.CountInput, name: str) -> np.ndarray:
    """Counts, a column for each gene name."""
    stored = np.asarray(m.draws[name])
    require_shape(stored, (None, len(m.draws[probe.names])), name, kinds="fiu")
    if not (np.isfinite(stored) & (stored >= 0) & (stored == np.rint(stored))).all():
        msg = f"{name!r} holds numbers from {stored.min()} to {stored.max()} that are not all counts."
        raise ValueError(msg)
    return stored


def _wider(pretrained: Pretrained) -> GeneVocabulary:
    if pretrained.vocabulary.universe is None:
        msg = f"The vocabulary of {pretrained.name!r} brings no wider list of genes."
        raise ValueError(msg)
    return pretrained.vocabulary.universe


def _aligned(m: Measurement, names: str) -> GeneAlignment:
    return align_genes(m.draws[names].tolist(), _wider(m.pretrained))


def unified_names(m: Measurement, probe: probes.UnifiedNames, name: str) -> np.ndarray:
    """What the alignment reports of each name."""
    wider, report = _wider(m.pretrained), _aligned(m, probe.names).report
    said = []
    for gene in m.draws[probe.names].tolist():
        if gene in report.renamed:
            said.append(("Changed", report.renamed[gene]))
        elif gene in report.ambiguous:
            said.append(("Multiple Candidates", "|".join((wider.synonyms or {})[gene])))
        else:
            said.append(("Abandoned" if gene in report.dropped else "No Change", ""))
    return np.array([status if probe.part == "status" else gene for status, gene in said], dtype=str)


def unified_counts(m: Measurement, probe: probes.UnifiedCounts, name: str) -> np.ndarray:
    """Counts merged as the alignment says, without genes that nobody expresses."""
    rows = csr_matrix(np.asarray(m.draws[probe.counts], dtype=np.float64))
    counts = align_rows(rows, _aligned(m, probe.names)).toarray()
    expressed = counts.any(0)
    return _wider(m.pretrained).features[expressed].astype(str) if probe.part == "genes" else counts[:, expressed]


def wider_list(m: Measurement, probe: probes.WiderList, name: str) -> np.ndarray:
    """The wider list."""
    return _wider(m.pretrained).features.astype(str)


def features(m: Measurement, probe: probes.Features, name: str) -> np.ndarray:
    """The vocabulary's genes."""
    return m.pretrained.vocabulary.features.astype(str)


def number_input(m: Measurement, probe: probes.NumberInput, name: str) -> np.ndarray:
    """Numbers above zero, as expressed values are."""
    stored = np.asarray(m.draws[name])
    require_shape(stored, (None,), name, kinds="f")
    if not (np.isfinite(stored) & (stored > 0)).all():
        msg = f"{name!r} holds numbers from {stored.min()} to {stored.max()}; expected finite ones above zero."
        raise ValueError(msg)
    return stored


def bins_of(m: Measurement, probe: probes.BinsOf, name: str) -> np.ndarray:
    """The bins of one cell with these values."""
    step, values = m.pretrained.encoding.value, np.asarray(m.draws[probe.values])
    if not isinstance(step, EqualWidthBins):
        msg = f"{m.pretrained.name!r} has no bins of equal width."
        raise TypeError(msg)
    return step.apply(values, np.array([0, len(values)]), CellRandom(counts=csr_matrix((1, 1)))).astype(np.int64)


# ---- sentences and what is added to them ----


def _reading(m: Measurement, prompts: probes.Prompts) -> Pretrained:
    """Return the model as upstream feeds it: a matrix of small values counts as normalised."""
    data = m.input
    wider = data.alignment if data.alignment.detour is None else data.alignment.detour[0]
    counts = align_rows(data.source.read(0, m.adata.n_obs), wider)
    if counts.data.max(initial=0.0) > prompts.as_is_up_to:
        return m.pretrained
    encoding = dataclasses.replace(m.pretrained.encoding, normalize=())
    return dataclasses.replace(m.pretrained, encoding=encoding, needs="expression")


def _chunk(m: Measurement, reading: Pretrained) -> CellChunk:
    return next(m.input.chunks(reading, chunk_size=m.adata.n_obs))


def _sentences(m: Measurement, prompts: probes.Prompts) -> CellSentences:
    reading = _reading(m, prompts)
    return reading.encode(_chunk(m, reading))


def normalized_matrix(m: Measurement, probe: probes.NormalizedMatrix, name: str) -> np.ndarray:
    """Values of all features."""
    pretrained = _reading(m, probe.prompts)
    chunk = _chunk(m, pretrained)
    counts, data = chunk.counts, normalize(pretrained.encoding.normalize, chunk, pretrained.arrays)
    return csr_matrix((data, counts.indices, counts.indptr), shape=counts.shape).toarray()


def prompt_tokens(m: Measurement, probe: probes.PromptTokens, name: str) -> np.ndarray:
    """Sentences in a rectangle."""
    sentences = _sentences(m, probe.prompts)
    batch = pad_sentences(sentences, np.arange(sentences.n_cells), pad=NONE)
    return batch.token_ids if probe.part == "tokens" else np.where(batch.mask, _values(batch), NONE)


def _values(batch: TokenBatch) -> np.ndarray:
    return batch.values["value"].astype(np.int64)


def prompt_vectors(m: Measurement, probe: probes.PromptVectors, name: str) -> torch.Tensor:
    """Token vectors of one cell, or what a head makes of them."""
    number = re.search(r"\d+$", name)
    if number is None or int(number[0]) >= m.adata.n_obs:
        msg = f"{name!r} does not end in the number of a cell of the input."
        raise ValueError(msg)
    tokens = pad_sentences(_sentences(m, probe.prompts), np.array([int(number[0])]), pad=0)
    x_ld = m.pretrained.lcm(to_tensors(tokens, m.pretrained.device))[0]
    if probe.only_last:
        x_ld = x_ld[-1]
    return x_ld if probe.head is None else m.pretrained.lcm.heads[probe.head](x_ld)


def _declared(m: Measurement, recipe: str) -> GreedyDecoding:
    declared = m.pretrained.recipe(recipe).decoding
    if declared is None:
        msg = f"The recipe {recipe!r} of {m.pretrained.name!r} adds no tokens."
        raise ValueError(msg)
    return declared


def _generated(m: Measurement, sentences: CellSentences, decoding: Decoding) -> Generated:
    """Decode to the end, along the way that users take."""
    pretrained = m.pretrained
    out = Generated.empty(sentences.n_cells, decoding.n_tokens, pretrained.d_model)
    batches = iter_batches(sentences, pad=pretrained.vocabulary.specials[pretrained.pad], max_tokens=2_048)
    list(generate(pretrained.lcm, batches, out, decoding=decoding, places=0, device=pretrained.device))
    return out


def continued(m: Measurement, probe: probes.Continued, name: str) -> np.ndarray:
    """Sentences with what is added; as wide as stored, if that is no less than needed and no more than possible."""
    declared = _declared(m, probe.recipe)
    declared = declared if probe.ban is None else dataclasses.replace(declared, ban=probe.ban)
    decoding, sentences = to_decoding(declared, m.pretrained), _sentences(m, probe.prompts)
    found = _generated(m, sentences, decoding)
    if probe.part == "steps":
        return found.n_steps
    final = sentences.lengths + found.n_steps
    stored, longest = m.draws[name].shape[-1], int(sentences.lengths.max()) + decoding.n_tokens
    out = np.full((sentences.n_cells, int(np.clip(stored, final.max(), longest))), NONE, dtype=np.int64)
    given, added = (
        (sentences.token_ids, found.token_ids) if probe.part == "tokens" else (sentences.values["value"], found.values)
    )
    for cell, (start, stop) in enumerate(zip(sentences.indptr[:-1], sentences.indptr[1:], strict=True)):
        out[cell, : stop - start] = given[start:stop]
        out[cell, stop - start : final[cell]] = added[cell, : found.n_steps[cell]]
    return out


def token_ids(m: Measurement, probe: probes.TokenIds, name: str) -> np.ndarray:
    """Token ids of words."""
    return np.array([m.pretrained.vocabulary.token(word) for word in m.said(probe.words, name)], dtype=np.int64)


def _n_tokens(m: Measurement, probe: probes.GenesAfter, name: str) -> int:
    return int(m.said(probe.n_tokens, name))


def genes_after(m: Measurement, probe: probes.GenesAfter, name: str) -> np.ndarray:
    """The words, then genes until the end is said."""
    words = token_ids(m, probes.TokenIds(words=probe.words), name).astype(np.int32)
    decoding = to_decoding(_declared(m, probe.recipe), m.pretrained)
    others = sorted(set(m.pretrained.vocabulary.specials.values()) - {decoding.stop})
    decoding = dataclasses.replace(decoding, n_tokens=_n_tokens(m, probe, name) - len(words), ignored=others)
    sentence = CellSentences(
        token_ids=words,
        features=np.full(len(words), SPECIAL, dtype=np.int32),
        indptr=np.array([0, len(words)]),
        rows=np.zeros(1, dtype=np.int64),
        values={"value": np.zeros(len(words), dtype=np.float32)},
    )
    found = _generated(m, sentence, decoding)
    n_added = int(found.n_steps[0])
    if probe.part == "tokens":
        return np.concatenate([words.astype(np.int64), found.token_ids[0, :n_added]])
    return np.concatenate([np.zeros(len(words), dtype=np.int64), found.values[0, :n_added]])


def decoded_embedding(m: Measurement, probe: probes.DecodedEmbedding, name: str) -> np.ndarray:
    """Cell vectors as `tl.embed` computes them."""
    return embed_by_decoding(m.input, _reading(m, probe.prompts), m.pretrained.recipe(probe.recipe), batch_size=None)


def _labels(m: Measurement) -> GeneratedLabels:
    if not isinstance(m.pretrained.labels, GeneratedLabels):
        msg = f"{m.pretrained.name!r} generates no labels."
        raise ValueError(msg)
    return m.pretrained.labels


def generated_type(m: Measurement, probe: probes.GeneratedType, name: str) -> np.ndarray:
    """The fine label of each cell."""
    labels = _labels(m)
    decoding = to_decoding(_declared(m, labels.recipe), m.pretrained)
    tokens, _ = _generated(m, _sentences(m, probe.prompts), decoding).from_end(labels.fine)
    return named_or(tokens, label_names(labels), m.pretrained, otherwise=labels.unnamed).astype(str)


def names_of_labels(m: Measurement, probe: probes.LabelNames, name: str) -> np.ndarray:
    """The labels."""
    return np.array(sorted(label_names(_labels(m))))


MEASURES: dict[type, Callable[[Measurement, Any, str], Any]] = {
    probes.NameInput: name_input,
    probes.CountInput: count_input,
    probes.UnifiedNames: unified_names,
    probes.UnifiedCounts: unified_counts,
    probes.WiderList: wider_list,
    probes.Features: features,
    probes.NumberInput: number_input,
    probes.BinsOf: bins_of,
    probes.NormalizedMatrix: normalized_matrix,
    probes.PromptTokens: prompt_tokens,
    probes.PromptVectors: prompt_vectors,
    probes.Continued: continued,
    probes.TokenIds: token_ids,
    probes.GenesAfter: genes_after,
    probes.DecodedEmbedding: decoded_embedding,
    probes.GeneratedType: generated_type,
    probes.LabelNames: names_of_labels,
}
"""What computes each probe."""
