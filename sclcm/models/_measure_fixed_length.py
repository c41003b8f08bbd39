"""Compute arrays on sentences of a fixed length."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch import Tensor

from sclcm.encoding.batches import iter_batches
from sclcm.encoding.chunks import CellChunk
from sclcm.encoding.normalize import normalize
from sclcm.encoding.sentences import special_ids
from sclcm.engine.infer import CellVectors, run
from sclcm.models._measure_draws import require_shape
from sclcm.models._measure_input import aligned_input
from sclcm.nn import losses
from sclcm.nn.gated_configs import GeneAndDepthBins, GeneBins
from sclcm.nn.tokens import TokenTensors
from sclcm.reference import _fixed_length_probes as probes

if TYPE_CHECKING:
    from collections.abc import Callable

    from sclcm.encoding.sentences import CellSentences, Encoding
    from sclcm.models._measure import Measurement
    from sclcm.models._pretrained import Pretrained
    from sclcm.nn import soft_bins
    from sclcm.nn.backbone import Block


@dataclass(frozen=True, eq=False)
class Knowledge:
    """What a checkpoint knows of the input.

    Parameters
    ----------
    pretrained
        The model.
    chunk
        All cells, after what becomes of counts before all else.
    columns
        Features that the input has, in the order of their names.
    """

    pretrained: Pretrained
    chunk: CellChunk
    columns: np.ndarray


def knowledge(m: Measurement, weights: str | None, compat: str | None = None) -> Knowledge:
    """Return what a checkpoint knows of the input, made once."""
    return m.once(lambda m: _know(m, weights, compat), key=("known genes", weights, compat))


def _know(m: Measurement, weights: str | None, compat: str | None) -> Knowledge:
    file = m.folder if weights is None else m.folder / weights
    pretrained = (
        m.pretrained
        if weights is None and compat is None
        else m.load(file, **({} if compat is None else {"compat": compat}))
    )
    data = aligned_input(m.adata, pretrained)
    chunk = next(data.chunks(pretrained, chunk_size=m.adata.n_obs))
    recount = pretrained.encoding.recount
    features = np.unique(data.alignment.feature_index)
    order = np.argsort(pretrained.vocabulary.features[features].astype(str), kind="stable")
    return Knowledge(pretrained, chunk if recount is None else recount.apply(chunk), features[order])


@dataclass(frozen=True, eq=False)
class Places:
    """What stands at each place: token ids and values, shape `(cells, length)`, zero at padding."""

    tokens: np.ndarray
    values: np.ndarray


def places(m: Measurement, filled: probes.Filled) -> Places:
    """Return sentences of the drawn genes, in the order of the names."""
    known = knowledge(m, filled.weights)
    return m.once(lambda m: _fill(known, _sentences(m, filled), np.asarray(m.draws[filled.genes])), key=filled)


def _sentences(m: Measurement, filled: probes.Filled, encoding: Encoding | None = None) -> CellSentences:
    """Encode the cells as users do, with the stored sample in place of our own where a cell has too many genes."""
    known = knowledge(m, filled.weights)
    pretrained, chunk = known.pretrained, known.chunk
    stored = np.asarray(m.draws[filled.genes])
    require_shape(stored, (chunk.n_cells, None), filled.genes, kinds="iu")
    if filled.length is not None and m.run.get(filled.length, stored.shape[1]) != stored.shape[1]:
        msg = f"{filled.genes!r} has {stored.shape[1]} places, but {filled.length!r} is {m.run[filled.length]!r}."
        raise ValueError(msg)
    numbers = np.full(chunk.counts.nnz, 0.5)  # those that are smallest, and zero is, are taken
    for cell, (start, stop) in enumerate(zip(chunk.counts.indptr[:-1], chunk.counts.indptr[1:], strict=True)):
        tokens = pretrained.vocabulary.token_ids[chunk.counts.indices[start:stop]]
        if len(tokens) > stored.shape[1]:
            taken = np.isin(tokens, stored[cell])
            if len(set(stored[cell].tolist())) < stored.shape[1] or taken.sum() < stored.shape[1]:
                msg = f"{filled.genes!r} is no sample of the genes that cell {cell} expresses."
                raise ValueError(msg)
            numbers[start:stop][taken] = 0.0
    if encoding is not None:
        pretrained = dataclasses.replace(pretrained, encoding=encoding)
    return pretrained.encode(chunk, limit=stored.shape[1], draws={"sample": numbers})


def _fill(known: Knowledge, sentences: CellSentences, stored: np.ndarray) -> Places:
    vocabulary = known.pretrained.vocabulary
    rank = np.full(vocabulary.n_features, -1)
    rank[known.columns] = np.arange(len(known.columns))
    tokens, values = np.zeros(stored.shape, dtype=np.int64), np.zeros(stored.shape, dtype=np.float32)
    for cell, (start, stop) in enumerate(zip(sentences.indptr[:-1], sentences.indptr[1:], strict=True)):
        features = sentences.features[start:stop]
        genes = np.flatnonzero(features >= 0)
        genes = genes[np.argsort(rank[features[genes]])]
        tokens[cell, : len(genes)] = sentences.token_ids[start:stop][genes]
        values[cell, : len(genes)] = sentences.values["value"][start:stop][genes]
    return Places(tokens, values)


def recounted(m: Measurement, probe: probes.Recounted, name: str) -> np.ndarray:
    """Counts of all var."""
    counts = m.input.source.read(0, m.adata.n_obs)
    totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
    chunk = CellChunk(start=0, counts=counts, totals=totals, n_genes=np.diff(counts.indptr))
    recount = m.pretrained.encoding.recount
    return (chunk if recount is None else recount.apply(chunk)).counts.toarray()


def known_genes(m: Measurement, probe: probes.KnownGenes, name: str) -> np.ndarray:
    """Names, token ids or values of the genes that the model knows."""
    known = knowledge(m, probe.weights)
    vocabulary, encoding = known.pretrained.vocabulary, known.pretrained.encoding
    match probe.part:
        case "names":
            return vocabulary.features[known.columns].astype(str)
        case "tokens":
            return vocabulary.token_ids[known.columns]
    values = known.chunk.counts.astype(np.float32)
    values.data = normalize(encoding.normalize, known.chunk, known.pretrained.arrays)
    return values.toarray()[:, known.columns]


def filled_tokens(m: Measurement, probe: probes.FilledTokens, name: str) -> np.ndarray:
    """What stands at each place."""
    found = places(m, probe.filled)
    match probe.part:
        case "tokens":
            return found.tokens
        case "values":
            return found.values
    return np.pad(found.tokens > 0, ((0, 0), (1, 0)), constant_values=True).astype(np.float32)


def target_draw(m: Measurement, probe: probes.TargetDraw, name: str) -> np.ndarray:
    """Return targets: as many of each cell's genes as the share says; upstream takes all where that is none."""
    stored, real = np.asarray(m.draws[name]), places(m, probe.filled).tokens > 0
    require_shape(stored, real.shape, name, kinds="fbiu")
    n_genes, n_targets = real.sum(1), (stored != 0).sum(1)
    wanted = (n_genes * probe.share).astype(int)
    fits = (n_targets == wanted) | ((wanted == 0) & (n_targets == n_genes))
    if not np.isin(stored, (0, 1)).all() or (stored.astype(bool) & ~real).any() or not fits.all():
        msg = f"{name!r} should name {probe.share:.0%} of the genes of each cell, {wanted.tolist()}; found {n_targets}."
        raise ValueError(msg)
    return stored


def hidden_channels(m: Measurement, probe: probes.HiddenChannels, name: str) -> np.ndarray:
    """One and the value where a value is visible, zeros elsewhere."""
    visible = _visible(m, probe.filled, name)
    found, targets = places(m, probe.filled), np.asarray(m.draws[probe.targets]) != 0
    hidden = (found.tokens > 0) & ~visible
    wanted = (targets.sum(1) * probe.share).astype(int)
    some = np.where(targets.sum(1) == (found.tokens > 0).sum(1), 0, wanted)  # all are targets, and none is hidden
    n_hidden = hidden.sum(1)
    if (hidden & ~targets).any() or not ((n_hidden == wanted) | (n_hidden == some)).all():
        msg = f"{name!r} should hide {wanted.tolist()} of the targets of each cell; it hides {n_hidden.tolist()}."
        raise ValueError(msg)
    return np.stack([visible, found.values * visible], axis=-1).astype(np.float32)


def _visible(m: Measurement, filled: probes.Filled, name: str) -> np.ndarray:
    """Return which values a stored array of two channels leaves visible; padding is not."""
    stored, real = np.asarray(m.draws[name]), places(m, filled).tokens > 0
    require_shape(stored, (*real.shape, 2), name, kinds="f")
    return (stored[..., 0] != 0) & real


def total_channels(m: Measurement, probe: probes.TotalChannels, name: str) -> np.ndarray:
    """Values of tokens for totals; the first may be that of fewer counts."""
    pretrained = knowledge(m, probe.filled.weights).pretrained
    encoding = pretrained.recipe(probe.recipe).encoding
    ours = _sentences(m, probe.filled, encoding).scalars["depth_values"]
    stored = np.asarray(m.draws[name])
    require_shape(stored, ours.shape, name, kinds="f")
    drawn = np.clip(stored[:, 0], 0, ours[:, 0])
    return np.column_stack([drawn, ours[:, 1]]).astype(np.float32)


def filled_embedding(m: Measurement, probe: probes.FilledEmbedding, name: str) -> np.ndarray:
    """Cell vectors by a recipe, in batches of cells of similar length."""
    pretrained = knowledge(m, probe.filled.weights).pretrained
    recipe = pretrained.recipe(probe.recipe)
    sentences = _sentences(m, probe.filled, recipe.encoding)
    out = np.zeros((m.adata.n_obs, pretrained.width(recipe)), dtype=np.float32)
    vectors = CellVectors(out=out, pooling=recipe.pooling, head=recipe.head, l2_normalize=recipe.l2_normalize)
    pad = pretrained.vocabulary.specials[pretrained.pad]
    batches = iter_batches(sentences, pad=pad, max_tokens=1000)
    list(run(pretrained.lcm, batches, [vectors], device=m.device_of, n_blocks=pretrained.depth(recipe)))
    return _where_a_number(m, probes.FilledPass(filled=probe.filled), out, name=name)


@dataclass(frozen=True, eq=False)
class Passed:
    """A pass: the model, its tokens, what enters the blocks, and which tokens inform others in each.

    The first `n_special` tokens are no genes. Of the cells in `lost_b` the last vectors are the mean of the others.
    """

    pretrained: Pretrained
    tokens: TokenTensors
    x_bld: Tensor
    keys: list[Tensor | None]
    n_special: int
    lost_b: Tensor

    def after(self, n_blocks: int | None) -> Tensor:
        """Return the token vectors after so many blocks; `None` is all of them."""
        x_bld = self.x_bld
        for block, keys in zip(list(self.pretrained.lcm.backbone.blocks)[:n_blocks], self.keys, strict=False):
            x_bld = cast("Block", block)(x_bld, keys)
        if n_blocks is None and self.lost_b.any():
            x_bld = torch.where(self.lost_b[:, None, None], x_bld[~self.lost_b].mean(0), x_bld)
        return x_bld


def run_pass(m: Measurement, given: probes.FilledPass) -> Passed:
    """Return a pass, made once."""
    return m.once(lambda m: _run_pass(m, given), key=given)


def _run_pass(m: Measurement, given: probes.FilledPass) -> Passed:
    pretrained = knowledge(m, given.filled.weights, given.compat).pretrained
    found = places(m, given.filled)
    values = found.values
    if given.hiding is not None:
        hidden = (found.tokens > 0) & ~_visible(m, given.filled, given.hiding)
        values = np.where(hidden, np.float32(_hidden_mark(pretrained)), values)
    tokens, n_special = _with_specials(m, given, pretrained, tokens=found.tokens, values=values)
    lcm, real_bl = pretrained.lcm, cast("Tensor", tokens.mask_bl)
    open_bl = None if given.leaky else real_bl & ~cast("Any", lcm.embed).hidden(tokens)
    keys = [open_bl if number < lcm.backbone.n_blind else real_bl for number in range(lcm.n_blocks)]
    lost = np.zeros(len(values), dtype=bool)
    if given.mended is not None:
        stored = np.asarray(m.draws[given.mended])
        require_shape(stored, (len(values), None), given.mended, kinds="f")
        lost = ((found.tokens > 0).sum(1) < given.least_genes) & np.isnan(stored).all(1)
    x_bld = lcm.embed(tokens) * real_bl.unsqueeze(-1)
    return Passed(pretrained, tokens, x_bld, keys, n_special, torch.as_tensor(lost, device=m.device_of))


def _hidden_mark(pretrained: Pretrained) -> float:
    value = pretrained.architecture.value
    if not isinstance(value, GeneBins | GeneAndDepthBins) or not value.genes.marked:
        msg = f"{pretrained.name!r} has no vector for a hidden value."
        raise TypeError(msg)
    return float(value.genes.marked[0])  # type: ignore[arg-type]


def _with_specials(
    m: Measurement, given: probes.FilledPass, pretrained: Pretrained, *, tokens: np.ndarray, values: np.ndarray
) -> tuple[TokenTensors, int]:
    """Put special tokens before the genes; return their number, too."""
    names, first = list(pretrained.encoding.prefix), [np.zeros((len(tokens), len(pretrained.encoding.prefix)))]
    if given.totals is not None:
        array, recipe = given.totals
        depth = pretrained.recipes[recipe].encoding.depth  # type: ignore[union-attr]
        names += [each.token for each in depth.tokens]  # type: ignore[union-attr]
        first.append(np.asarray(m.draws[array]))
    ids = np.broadcast_to(special_ids(tuple(names), pretrained.vocabulary), (len(tokens), len(names)))
    is_gene = np.concatenate([np.zeros(ids.shape, dtype=bool), tokens > 0], axis=1)
    is_real = np.concatenate([np.ones(ids.shape, dtype=bool), tokens > 0], axis=1)

    def move(array: np.ndarray) -> Tensor:
        return torch.as_tensor(array, device=m.device_of)

    placed = TokenTensors(
        token_ids_bl=move(np.concatenate([ids, tokens], axis=1)),
        mask_bl=move(is_real),
        gene_mask_bl=move(is_gene),
        value_bl=move(np.concatenate([*first, values], axis=1, dtype=np.float32)),
    )
    return placed, len(names)


def pass_vectors(m: Measurement, probe: probes.PassVectors, name: str) -> Any:
    """Token vectors of a pass."""
    passed = run_pass(m, probe.given)
    if probe.part == "values":
        value = cast("soft_bins.GeneBins", passed.pretrained.lcm.embed.value)
        x_bld = value.genes(passed.tokens.value_bl)[:, passed.n_special :]
    else:
        x_bld = passed.after(probe.n_blocks)
        if probe.attention:
            block = cast("Block", passed.pretrained.lcm.backbone.blocks[probe.n_blocks or 0])
            x_bld = block.attn(block.attended(x_bld), passed.keys[probe.n_blocks or 0])
        match probe.part:
            case "cell":
                x_bld = x_bld[:, 0]
            case "tokens":
                x_bld = torch.cat([x_bld[:, :1], x_bld[:, passed.n_special :]], dim=1)
            case "genes":
                x_bld = x_bld[:, passed.n_special :]
    rows = None if probe.rows is None else np.asarray(m.draws[probe.rows])
    found = x_bld.float().cpu().numpy()
    found = _where_a_number(m, probe.given, found, name=name, rows=rows)
    return found if rows is None else found[rows]


def _predicted(m: Measurement, given: probes.FilledPass, head: str) -> Tensor:
    passed = run_pass(m, given)
    x_bld = passed.after(None)
    genes = dataclasses.replace(
        passed.tokens, token_ids_bl=passed.tokens.token_ids_bl[:, passed.n_special :], value_bl=None
    )
    return passed.pretrained.lcm.read(head, x_bld[:, passed.n_special :], genes, x_bld[:, 0]).float()


def pass_values(m: Measurement, probe: probes.PassValues, name: str) -> np.ndarray:
    """Values that a head predicts."""
    return _where_a_number(m, probe.given, _predicted(m, probe.given, probe.head).cpu().numpy(), name=name)


def pass_loss(m: Measurement, probe: probes.PassLoss, name: str) -> float:
    """Mean squared error over the targets."""
    wanted = torch.as_tensor(places(m, probe.given.filled).values, device=m.device_of)
    mask = torch.as_tensor(np.asarray(m.draws[probe.targets]) != 0, device=m.device_of)
    found = float(losses.masked_mse(_predicted(m, probe.given, probe.head), wanted, mask))
    few = (places(m, probe.given.filled).tokens > 0).sum(1) < probe.given.least_genes
    return float("nan") if few.any() and np.isnan(m.draws[name]) else found


def _where_a_number(
    m: Measurement, given: probes.FilledPass, found: np.ndarray, *, name: str, rows: np.ndarray | None = None
) -> np.ndarray:
    """Take over that a cell is not a number, of those with so few genes that upstream scales values by such."""
    few = (places(m, given.filled).tokens > 0).sum(1) < given.least_genes
    if not few.any():
        return found
    stored = np.asarray(m.draws[name])
    lost = np.zeros(len(found), dtype=bool)
    lost[slice(None) if rows is None else rows] = np.isnan(stored).reshape(len(stored), -1).all(1)
    found = found.copy()
    found[lost & few] = np.nan
    return found


def table_rows(m: Measurement, probe: probes.TableRows, name: str) -> Tensor:
    """First rows of the table of genes."""
    lcm = knowledge(m, probe.weights).pretrained.lcm
    return m.as_many(lcm.embed.gene.weight, name)


MEASURES: dict[type, Callable[[Measurement, Any, str], Any]] = {
    probes.Recounted: recounted,
    probes.KnownGenes: known_genes,
    probes.FilledTokens: filled_tokens,
    probes.TargetDraw: target_draw,
    probes.HiddenChannels: hidden_channels,
    probes.TotalChannels: total_channels,
    probes.FilledEmbedding: filled_embedding,
    probes.PassVectors: pass_vectors,
    probes.PassValues: pass_values,
    probes.PassLoss: pass_loss,
    probes.TableRows: table_rows,
}
