"""Measure models whose sentences are samples of genes in genomic order; upstream draws them from one stream."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from torch.nn import functional

from sclcm._sizes import as_int
from sclcm.encoding.batches import TokenBatch, pad_sentences
from sclcm.encoding.groups import SampledGroups
from sclcm.engine.infer import CellVectors, run, to_tensors
from sclcm.models._build import build_lcm
from sclcm.models._measure_input import aligned_input
from sclcm.reference import _genomic_probes as probes

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from sclcm.models._measure import Measurement
    from sclcm.models._pretrained import Pretrained
    from sclcm.nn.configs import BackboneConfig, SoftmaxAttention
    from sclcm.nn.layered_heads import CellVectorHead
    from sclcm.nn.lcm import LCM

MIN_CELLS, MIN_GENES = 10, 25
"""Fewest cells of a gene, and genes of a cell, that upstream's filter keeps."""

BATCH_SIZE = 25
"""Cells in a batch of upstream, unless a fixture says otherwise."""


class Genomic:
    """Cells as upstream reads them, with its draws.

    Parameters
    ----------
    m
        The measurement.
    filtered
        Whether genes of few cells, then cells of few genes, are left out first.
    """

    def __init__(self, m: Measurement, *, filtered: bool) -> None:
        self.pretrained = m.pretrained
        self.select = _grouped(m.pretrained)
        self.adata = _filter(m.adata) if filtered else m.adata
        data = aligned_input(self.adata, m.pretrained)
        self.var = data.alignment.var_index
        self.tokens = m.pretrained.vocabulary.token_ids[data.alignment.feature_index]
        self.counts = data.source.read(0, self.adata.n_obs).tocsc()[:, self.var].toarray().astype(np.float32)
        self.chunk = next(data.chunks(m.pretrained, chunk_size=self.adata.n_obs))
        self.chances = np.stack([_chances(row) for row in self.counts])
        self.sentences = m.pretrained.encode(self.chunk, draws=self._draws(int(m.run["np_random_seed"])))
        self.batch_size = int(m.run.get("batch_size", BATCH_SIZE))

    def _draws(self, seed: int) -> dict[str, np.ndarray]:
        """Draw as upstream does, and return the uniform numbers that make our own encoding draw the same."""
        stream = np.random.RandomState(seed)
        n_draws, group_of = as_int(self.select.n_draws), self.pretrained.arrays[self.select.group][self.tokens]
        samples = np.zeros((len(self.counts), n_draws))
        orders = np.zeros((len(self.counts), len(np.unique(group_of))))
        for cell, chances in enumerate(self.chances):
            if not np.isfinite(chances).all():
                continue  # without a known gene: upstream stops here
            drawn = stream.choice(len(chances), size=n_draws, replace=True, p=chances / sum(chances))
            samples[cell] = self._uniforms(cell, self.tokens[drawn])
            present = np.unique(group_of[drawn])
            shuffled = present.copy()
            stream.shuffle(shuffled)
            orders[cell, : len(present)] = shuffled.argsort() / len(present)
        return {"sample": samples, "groups": orders}

    def _uniforms(self, cell: int, tokens: np.ndarray) -> np.ndarray:
        """Return, for each drawn token, a number in the middle of the share that it has in our own draw."""
        row = slice(*self.chunk.counts.indptr[cell : cell + 2])
        sums = np.cumsum(np.log1p(self.chunk.counts.data[row]), dtype=np.float64)
        stored = self.pretrained.vocabulary.token_ids[self.chunk.counts.indices[row]]
        place = stored.searchsorted(tokens)
        return (sums[place] + np.where(place > 0, sums[place - 1], 0)) / 2 / sums[-1]

    def batches(self) -> list[TokenBatch]:
        """Return rectangles of the size and order of upstream, each as wide as its longest sentence."""
        cells = np.arange(self.sentences.n_cells)
        pad = self.pretrained.vocabulary.specials[self.pretrained.pad]
        starts = range(0, len(cells), self.batch_size)
        return [pad_sentences(self.sentences, cells[i : i + self.batch_size], pad=pad) for i in starts]

    def whole(self, width: int | None = None) -> TokenBatch:
        """Return one rectangle of all cells."""
        pad = self.pretrained.vocabulary.specials[self.pretrained.pad]
        return pad_sentences(self.sentences, np.arange(self.sentences.n_cells), pad=pad, width=width)


def _chances(counts: np.ndarray) -> np.ndarray:
    """Return the chances of genes as upstream computes them: in float32, by torch."""
    weights = torch.log1p(torch.from_numpy(counts))
    return (weights / weights.sum()).numpy()


def _filter(adata: AnnData) -> AnnData:
    expressed = adata.X > 0
    genes = np.asarray(expressed.sum(0)).ravel() >= MIN_CELLS
    cells = np.asarray(expressed[:, genes].sum(1)).ravel() >= MIN_GENES
    return adata[cells, genes].copy()


def _grouped(pretrained: Pretrained) -> SampledGroups:
    if not isinstance(pretrained.encoding.select, SampledGroups):
        msg = f"{pretrained.name!r} does not sample genes in groups."
        raise TypeError(msg)
    return pretrained.encoding.select


def _genomic(m: Measurement) -> Genomic:
    return Genomic(m, filtered=False)


def _genomic_filtered(m: Measurement) -> Genomic:
    return Genomic(m, filtered=True)


def genomic(m: Measurement, *, filtered: bool = False) -> Genomic:
    """Return the cells of a measurement as upstream reads them, made once."""
    return m.once(_genomic_filtered if filtered else _genomic)


def with_padding_bias(pretrained: Pretrained, bias: float) -> LCM:
    """Return the network of a model, its weights shared, that adds a number to the scores of padding."""
    backbone = cast("BackboneConfig", pretrained.architecture.backbone)
    attention = dataclasses.replace(cast("SoftmaxAttention", backbone.attention), padding_bias=bias)
    changed = dataclasses.replace(backbone, attention=attention)
    return build_lcm(dataclasses.replace(pretrained.architecture, backbone=changed), pretrained.lcm.state_dict())


# ---- probes ----


def genomic_input(m: Measurement, probe: probes.GenomicInput, name: str) -> np.ndarray:
    """Names of genes and cells that are kept, and what is known of the genes."""
    cells = genomic(m, filtered=probe.filtered)
    match probe.part:
        case "genes":
            return cells.adata.var_names[cells.var].to_numpy().astype(str)
        case "cells":
            return cells.adata.obs_names.to_numpy().astype(str)
        case "tokens":
            return cells.tokens.astype(np.int64)
        case "chromosomes":
            specials = m.pretrained.vocabulary.specials
            first = min(row for row in specials.values() if row > max(cells.pretrained.vocabulary.token_ids))
            return m.pretrained.arrays[cells.select.group][cells.tokens] - first
        case "starts":
            return m.pretrained.arrays[cells.select.place][cells.tokens]


def genomic_sentences(m: Measurement, probe: probes.GenomicSentences, name: str) -> np.ndarray:
    """Sentences as the model reads them."""
    cells = genomic(m)
    match probe.part:
        case "tokens":
            return cells.whole(_longest(m.pretrained)).token_ids
        case "mask":
            return cells.whole(_longest(m.pretrained)).mask.astype(np.float32)
        case "lengths":
            return cells.sentences.lengths
        case "widths":
            return np.concatenate([np.full(*batch.mask.shape) for batch in cells.batches()])
        case "chances":
            return cells.chances


def _longest(pretrained: Pretrained) -> int:
    return as_int(cast("int", pretrained.encoding.max_tokens))


def genomic_vectors(m: Measurement, probe: probes.GenomicVectors, name: str) -> np.ndarray:
    """Token vectors of some cells in the company of their batch."""
    cells, lcm = genomic(m), with_padding_bias(m.pretrained, probe.padding_bias)
    asked = int(re.sub(r".*?(\d+)$", r"\1", name)) + 1 if probe.n_blocks is None else probe.n_blocks
    n_blocks = lcm.n_blocks if asked < 0 else asked
    rows = np.asarray(m.draws[probe.cells])
    of_cell: dict[int, np.ndarray] = {}
    for batch in cells.batches():
        x_bld = lcm(to_tensors(batch, m.device_of), n_blocks=n_blocks)
        x_bld = x_bld if probe.head is None else lcm.heads[probe.head](x_bld)
        of_cell |= dict(zip(batch.rows.tolist(), x_bld.float().cpu().numpy(), strict=True))
    found = [of_cell[row] for row in rows.tolist()]
    width = max([len(vectors) for vectors in found] + [*m.draws[name].shape[1:2]])  # zeros fill what is wider
    return np.stack([np.pad(vectors, ((0, width - len(vectors)), (0, 0))) for vectors in found])


def genomic_embedding(m: Measurement, probe: probes.GenomicEmbedding, name: str) -> np.ndarray:
    """Cell vectors by a recipe, in the order of the cells."""
    cells, pretrained = genomic(m, filtered=probe.filtered), m.pretrained
    recipe = pretrained.recipe(probe.recipe)
    out = np.zeros((cells.sentences.n_cells, pretrained.width(recipe)), dtype=np.float32)
    vectors = CellVectors(out=out, pooling=recipe.pooling, head=recipe.head, l2_normalize=recipe.l2_normalize)
    if probe.padding_bias is None:
        lcm, batches = pretrained.lcm, [cells.whole()]
    else:
        lcm, batches = with_padding_bias(pretrained, probe.padding_bias), cells.batches()
    list(run(lcm, batches, [vectors], device=m.device_of, n_blocks=pretrained.depth(recipe)))
    return out


def _n_genes(m: Measurement, probe: probes.GenePairs, name: str) -> int:
    """Return of how many genes an array is; without their tokens beside it, its own shape says it, but for a loss."""
    if probe.rows in m.draws or probe.part == "loss":
        return len(m.draws[probe.rows])
    return m.draws[name].shape[0 if probe.part == "vectors" else -1]


def gene_pairs(m: Measurement, probe: probes.GenePairs, name: str) -> Any:
    """What a head says of cells and genes."""
    cells, lcm = genomic(m), m.pretrained.lcm
    if probe.part == "tokens":
        return m.as_many(cells.tokens.astype(np.int64), name)
    head = cast("CellVectorHead", lcm.heads[probe.head])
    n_genes = max(_n_genes(m, probe, name), 1)
    targets = cells.counts[:, :n_genes] > 0
    if probe.part == "targets":
        return targets.astype(np.float32)
    rows = torch.as_tensor(cells.tokens[:n_genes].astype(np.int64), device=m.device_of)
    vectors = lcm.embed.gene(rows)
    gene_ld = head.gene(functional.normalize(vectors, dim=-1) if probe.unit else vectors)
    if probe.part == "vectors":
        return gene_ld
    cell_bd = torch.as_tensor(genomic_embedding(m, probe.cells, name), device=m.device_of, dtype=gene_ld.dtype)
    logits_bl = head.compare(gene_ld.expand(len(cell_bd), -1, -1), cell_bd)
    if probe.part == "logits":
        return logits_bl
    return functional.binary_cross_entropy_with_logits(logits_bl.float().cpu(), torch.as_tensor(targets).float())


MEASURES: dict[type, Callable[[Measurement, Any, str], Any]] = {
    probes.GenomicInput: genomic_input,
    probes.GenomicSentences: genomic_sentences,
    probes.GenomicVectors: genomic_vectors,
    probes.GenomicEmbedding: genomic_embedding,
    probes.GenePairs: gene_pairs,
}
