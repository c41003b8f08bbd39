"""Compute arrays of models whose sentences hold every gene of a fixed list."""

from __future__ import annotations

import copy
import dataclasses
import re
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from scipy.sparse import csr_matrix
from torch.nn import functional

from sclcm.checkpoints.files import find_one
from sclcm.checkpoints.keymap import Cast
from sclcm.checkpoints.readers import read_tensors
from sclcm.encoding.batches import pad_sentences
from sclcm.encoding.normalize import normalize
from sclcm.encoding.sentences import stored_counts
from sclcm.engine.infer import to_tensors
from sclcm.models._classification import class_logits, class_names, label_by_head, softmax
from sclcm.models._measure_draws import require_shape
from sclcm.nn.kernel_attention import KernelAttention
from sclcm.nn.pooling import pool
from sclcm.reference import _dense_probes as probes
from sclcm.reference._probes import Embedding
from sclcm.zoo._registry import get_spec
from sclcm.zoo._spec import UnderKey

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from sclcm.encoding.batches import TokenBatch
    from sclcm.encoding.chunks import CellChunk
    from sclcm.models._measure import Measurement
    from sclcm.models._pretrained import Pretrained
    from sclcm.nn.backbone import Block
    from sclcm.nn.lcm import LCM
    from sclcm.nn.tokens import TokenTensors


def kept_rows(m: Measurement, name: str) -> np.ndarray:
    """Return the row numbers of the cells that a filter by expressed genes keeps, checked."""
    stored = m.draws[name]
    require_shape(stored, (None,), name, kinds="U")
    kept = m.adata.obs_names.isin(stored)
    n_genes = np.diff(m.chunk.counts.indptr)
    if list(m.adata.obs_names[kept]) != stored.tolist() or n_genes[kept].min() <= n_genes[~kept].max(initial=-1):
        msg = f"{name!r} does not name the cells of the input that express more genes than the others, in their order."
        raise ValueError(msg)
    return np.flatnonzero(kept)


def cell_filter(m: Measurement, probe: probes.CellFilter, name: str) -> np.ndarray:
    """The names of the kept cells."""
    return np.array(m.adata.obs_names[kept_rows(m, name)].tolist())


def _chunk(m: Measurement, cells: probes.Cells, name: str) -> CellChunk:
    """Return the counts of some cells."""
    rows = kept_rows(m, cells.kept)
    counts = m.chunk.counts[rows]
    n_empty = _n_empty(m, cells, len(rows))
    empty = csr_matrix((n_empty, counts.shape[1]), dtype=counts.dtype)
    stacked = csr_matrix(np.concatenate([counts.toarray(), empty.toarray()]))
    numbers = _numbers(m, cells, name, n_cells=stacked.shape[0])
    totals = np.concatenate([m.chunk.totals[rows], np.zeros(n_empty)])
    n_genes = np.concatenate([m.chunk.n_genes[rows], np.zeros(n_empty, dtype=np.int64)])
    return dataclasses.replace(
        m.chunk, start=0, counts=stacked[numbers], totals=totals[numbers], n_genes=n_genes[numbers], obs={}
    )


def _n_empty(m: Measurement, cells: probes.Cells, n_kept: int) -> int:
    """Return how many cells without expression there are beside those of the input."""
    n_rows = n_kept if cells.every is None else len(np.atleast_1d(m.draws[cells.every]))
    if n_rows < n_kept:
        msg = f"{cells.every!r} has {n_rows} rows for {n_kept} cells."
        raise ValueError(msg)
    return n_rows - n_kept


def _numbers(m: Measurement, cells: probes.Cells, name: str, *, n_cells: int) -> list[int]:
    """Return which cells are meant."""
    match cells.rows:
        case None:
            return list(range(n_cells))
        case probes.NumberedRow():
            found = re.search(r"\d+$", name)
            numbers = [n_cells if found is None else int(found[0])]
        case probes.FirstRows(of=of, then_last=then_last):
            numbers = list(range(max(len(np.atleast_1d(m.draws[of])), 1)))
            numbers[-1:] = [n_cells - 1] if then_last else numbers[-1:]
    if max(numbers) >= n_cells:
        msg = f"{name!r} is of more cells than the {n_cells} there are, or does not end in the number of one."
        raise ValueError(msg)
    return numbers


def _batch(m: Measurement, cells: probes.Cells, name: str) -> TokenBatch:
    sentences = m.pretrained.encode(_chunk(m, cells, name))
    pad = m.pretrained.vocabulary.specials[m.pretrained.pad]
    return pad_sentences(sentences, np.arange(sentences.n_cells), pad=pad)


def _tokens(m: Measurement, cells: probes.Cells, name: str) -> TokenTensors:
    return to_tensors(_batch(m, cells, name), m.device_of)


def _lcm(m: Measurement, cells: probes.Cells) -> LCM:
    """Return the model; where cells are taken together, a copy whose stabilisers are those of the batch."""
    if not cells.together:
        return m.pretrained.lcm
    lcm = copy.deepcopy(m.pretrained.lcm)
    for module in lcm.modules():
        if isinstance(module, KernelAttention):
            module.stabilizer = "batch"
    return lcm


def normalized_genes(m: Measurement, probe: probes.NormalizedGenes, name: str) -> np.ndarray:
    """Normalised values, zeros included."""
    encoding, arrays = m.pretrained.encoding, m.pretrained.arrays
    chunk = stored_counts(_chunk(m, probes.Cells(kept=probe.kept), name), encoding, arrays)
    return normalize(encoding.normalize, chunk, arrays).reshape(chunk.counts.shape)


def value_tokens(m: Measurement, probe: probes.ValueTokens, name: str) -> np.ndarray:
    """Values of all tokens."""
    return _batch(m, probe.cells, name).values["value"].astype(np.int64)


def dense_vectors(m: Measurement, probe: probes.DenseVectors, name: str) -> Tensor:
    """Token vectors."""
    n_blocks = 0 if probe.part == "input" else None
    return cast("Tensor", m.as_many(_lcm(m, probe.cells)(_tokens(m, probe.cells, name), n_blocks=n_blocks), name))


def dense_embedding(m: Measurement, probe: probes.DenseEmbedding, name: str) -> np.ndarray:
    """Cell vectors: of the input's cells along the way of `tl.embed`, which leaves out those without expression."""
    recipe, cells = m.pretrained.recipe(probe.recipe), probe.cells
    tokens = _tokens(m, cells, name)
    alone = pool(recipe.pooling, _lcm(m, cells)(tokens), tokens).float().cpu().numpy()
    if not cells.together:
        rows = kept_rows(m, cells.kept)
        alone[: len(rows)] = m.take(Embedding(recipe=probe.recipe), name)[rows]
    return alone


def _mask_value(m: Measurement, mask: int) -> int:
    """Return the value that hides another, from its place in the table of values."""
    return range(cast("Any", m.pretrained.architecture.value).n_values)[mask]


def dense_head(m: Measurement, probe: probes.DenseHead, name: str) -> Tensor:
    """What a head gives."""
    out = _head(m, probe, name)
    if probe.among is not None:
        first, last = (range(out.shape[-1])[place] for place in probe.among)
        out = out[..., first : last + 1].argmax(-1) + first
        return cast("Tensor", m.as_many(out.cpu().numpy(), name))
    return cast("Tensor", m.as_many(out, name))


def _head(m: Measurement, probe: probes.DenseHead, name: str) -> Tensor:
    tokens = _tokens(m, probe.cells, name)
    if probe.hidden is not None:
        value = _mask_value(m, probe.hidden.mask)
        hide = torch.as_tensor(np.asarray(m.draws[probe.hidden.tokens]) == value, device=m.device_of)
        tokens = dataclasses.replace(tokens, value_bl=cast("Tensor", tokens.value_bl).masked_fill(hide, value))
    return m.pretrained.lcm.heads[probe.head](_lcm(m, probe.cells)(tokens)).float()


def target_draw(m: Measurement, probe: probes.TargetDraw, name: str) -> np.ndarray:
    """Our own tokens at the places that were drawn."""
    stored, ours = m.draws[name], _batch(m, probe.cells, name).values["value"].astype(np.int64)
    require_shape(stored, ours.shape, name, kinds="iu")
    mask = _mask_value(m, probe.mask)
    drawn = stored != mask
    wanted = n_targets(probe.share, (ours > 0).sum(1))
    if (drawn & (ours == 0)).any() or (drawn.sum(1) != wanted).any():
        msg = f"{name!r} does not hold {probe.share:.0%} of the expressed tokens of each cell, rounded up."
        raise ValueError(msg)
    return np.where(drawn, ours, mask)


def n_targets(share: float, n_tokens: np.ndarray) -> np.ndarray:
    """Return the share of tokens, rounded up, in upstream's single precision: 15% of 100 are above 15, and thus 16."""
    return np.ceil(np.float32(share) * n_tokens.astype(np.float32)).astype(np.int64)


def hidden_draw(m: Measurement, probe: probes.HiddenDraw, name: str) -> np.ndarray:
    """Our own tokens, hidden where they were drawn to be."""
    stored, ours = m.draws[name], _batch(m, probe.cells, name).values["value"].astype(np.int64)
    require_shape(stored, ours.shape, name, kinds="iu")
    mask = _mask_value(m, probe.mask)
    hide = stored == mask
    if (hide & (m.draws[probe.targets] == mask)).any():
        msg = f"{name!r} hides tokens that are no targets."
        raise ValueError(msg)
    return np.where(hide, mask, ours)


def hidden_loss(m: Measurement, probe: probes.HiddenLoss, name: str) -> float:
    """Mean cross-entropy over targets, which are our own tokens."""
    hidden = probe.given.hidden
    if hidden is None:
        msg = f"{name!r} needs hidden tokens."
        raise ValueError(msg)
    ours = torch.as_tensor(_batch(m, probe.given.cells, name).values["value"], device=m.device_of).long()
    drawn = torch.as_tensor(np.asarray(m.draws[probe.targets]) != _mask_value(m, hidden.mask), device=m.device_of)
    return float(functional.cross_entropy(_head(m, probe.given, name)[drawn], ours[drawn]))


def gene_places(m: Measurement, probe: probes.GenePlaces, name: str) -> np.ndarray:
    """The table of the file, in its own precision; the model's must be the same but for rounding."""
    spec, ours = get_spec(m.family), m.pretrained.lcm.embed.gene.weight
    key = spec.config.tensors if isinstance(spec.config, UnderKey) else None
    state = read_tensors(find_one(m.folder, spec.weights), key=key)
    rule = next(rule for rule in spec.keys.rules if isinstance(rule, Cast) and rule.target == "embed.gene.weight")
    stored = state[rule.source]
    if not ours.cpu().equal(stored.to(ours.dtype)):
        msg = "The model's table is not that of its file."
        raise ValueError(msg)
    return stored.numpy()


def residual_stream(m: Measurement, probe: probes.ResidualStream, name: str) -> Tensor:
    """What each part adds up to."""
    tokens, stream = _tokens(m, probe.cells, name), []
    x_bld = m.pretrained.lcm.embed(tokens)
    for block in m.pretrained.lcm.backbone.blocks:
        stream.append(cast("Block", block).halfway(x_bld, tokens.mask_bl))
        x_bld = block(x_bld, tokens.mask_bl)
        stream.append(x_bld)
    return torch.cat(stream)


def attention_map(m: Measurement, probe: probes.AttentionMap, name: str) -> Tensor:
    """The map of one cell."""
    tokens, lcm = _tokens(m, probe.cells, name), m.pretrained.lcm
    asked = lcm.backbone.attention_inputs(lcm.embed(tokens), tokens.mask_bl, halfway=probe.halfway)
    maps = [block.attention_weights(x_bld, tokens.mask_bl)[0].mean(0) for block, x_bld in asked]
    return cast("Tensor", m.as_many(torch.stack(maps).mean(0), name))


def attention_share(m: Measurement, probe: probes.AttentionShare, name: str) -> Tensor:
    """Shares of attention."""
    received_bl = m.pretrained.lcm.attention_received(_tokens(m, probe.cells, name), halfway=probe.halfway)
    return cast("Tensor", m.as_many(received_bl / received_bl.sum(1, keepdim=True), name))


def _tuned(m: Measurement, pattern: str) -> Pretrained:
    """Return the fine-tuned checkpoint beside the pre-trained one."""
    return m.model(find_one(m.folder, (pattern,)).name)


def class_scores(m: Measurement, probe: probes.ClassScores, name: str) -> np.ndarray:
    """Scores of the kept cells."""
    logits = class_logits(m.input, _tuned(m, probe.file), batch_size=None)[kept_rows(m, probe.kept)]
    return softmax(logits) if probe.probability else logits


def class_name(m: Measurement, probe: probes.ClassNames, name: str) -> np.ndarray:
    """Labels of the kept cells."""
    tuned = _tuned(m, probe.file)
    names, bound = class_names(tuned)
    label, score = label_by_head(m.input, tuned, names, batch_size=None)
    label[score < (bound if probe.bound is None else float(m.draws[probe.bound]))] = probe.unnamed
    return label[kept_rows(m, probe.kept)].astype(str)


def bound_input(m: Measurement, probe: probes.BoundInput, name: str) -> np.ndarray:
    """The stored bound, checked."""
    stored = np.asarray(m.draws[name])
    if stored.dtype.kind != "f" or stored.ndim or not 0 <= float(stored) <= 1:
        msg = f"{name!r} is {stored!r}; expected a probability."
        raise ValueError(msg)
    return stored


MEASURES: dict[type, Callable[[Measurement, Any, str], Any]] = {
    probes.CellFilter: cell_filter,
    probes.NormalizedGenes: normalized_genes,
    probes.ValueTokens: value_tokens,
    probes.DenseVectors: dense_vectors,
    probes.DenseEmbedding: dense_embedding,
    probes.DenseHead: dense_head,
    probes.HiddenDraw: hidden_draw,
    probes.TargetDraw: target_draw,
    probes.HiddenLoss: hidden_loss,
    probes.GenePlaces: gene_places,
    probes.ResidualStream: residual_stream,
    probes.AttentionMap: attention_map,
    probes.AttentionShare: attention_share,
    probes.ClassScores: class_scores,
    probes.ClassNames: class_name,
    probes.BoundInput: bound_input,
}
"""What computes each probe."""
