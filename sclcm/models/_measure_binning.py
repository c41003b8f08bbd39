"""Compute arrays of binning, of the preparation of counts before it, and of graphs of genes."""

from __future__ import annotations

from collections import Counter, defaultdict
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.stats import rankdata

from sclcm.encoding.chunks import CellChunk
from sclcm.encoding.draws import CellRandom
from sclcm.encoding.normalize import LogNormalize
from sclcm.encoding.values import Bins, quantile_bins, quantile_edges
from sclcm.engine.graphs import cosine_graph, rank_shares
from sclcm.models._measure_draws import n_bins, require_shape, token_of_var
from sclcm.nn.tokens import TokenTensors
from sclcm.reference import _binning_probes as probes

if TYPE_CHECKING:
    from collections.abc import Callable

    from scipy.sparse import csr_matrix

    from sclcm.models._measure import Measurement

ROUNDING = 1e-5
"""Scores of two implementations differ by as much, of their size."""


def row_input(m: Measurement, probe: probes.RowInput, name: str) -> np.ndarray:
    """Finite numbers."""
    stored = np.asarray(m.draws[name])
    require_shape(stored, (None,), name, kinds="f")
    if not np.isfinite(stored).all():
        msg = f"{name!r} holds {stored.tolist()}; expected finite numbers."
        raise ValueError(msg)
    return stored


def uniform_input(m: Measurement, probe: probes.UniformInput, name: str) -> np.ndarray:
    """One number of [0, 1) for each value that is binned."""
    stored, row = np.asarray(m.draws[name]), np.asarray(m.draws[name.removesuffix("_rand") + "_in"])
    require_shape(stored, (int(np.count_nonzero(row)),), name, kinds="f")
    if not ((stored >= 0) & (stored < 1)).all():
        msg = f"{name!r} holds numbers from {stored.min()} to {stored.max()}; expected 0 to less than 1."
        raise ValueError(msg)
    return stored


def binned(m: Measurement, probe: probes.Binned, name: str) -> np.ndarray:
    """Bins of a row, or what they follow from."""
    stem = name if probe.part == "bins" else name.removesuffix("_" + probe.part)
    case, _, number = stem.rpartition("_")
    if not number.isdigit():
        msg = f"{name!r} does not say how many bins there are, as `<case>_<number>` does."
        raise ValueError(msg)
    row = np.asarray(m.draws[case + "_in"])
    values = row[row != 0]
    match probe.part:
        case "edges":
            return quantile_edges(values, int(number))
        case "left":
            return quantile_bins(values, int(number))[1]
        case "right":
            return quantile_edges(values, int(number)).searchsorted(values, side="left")
    drawn = np.zeros(len(row))
    drawn[row != 0] = m.draws.get(case + "_rand", np.zeros(0))
    return Bins(n_bins=int(number)).apply(row, np.array([0, len(row)]), _given(drawn))


def _given(drawn: np.ndarray) -> CellRandom:
    from scipy.sparse import csr_matrix

    return CellRandom(counts=csr_matrix((1, 0), dtype=np.float32), draws={"bins": drawn})


class PreparedCounts:
    """Counts of all genes that have enough of them, and log1p of counts per 10,000 of those."""

    def __init__(self, m: Measurement, min_counts: int) -> None:
        self._counts = m.input.source.read(0, m.adata.n_obs)
        self.kept = np.flatnonzero(np.asarray(self._counts.sum(0)).ravel() >= min_counts)

    @cached_property
    def values(self) -> csr_matrix:
        """Values, shape `(cells, genes kept)`."""
        counts = self._counts[:, self.kept].tocsr().astype(np.float32)
        counts.sort_indices()
        totals = np.asarray(counts.sum(axis=1, dtype=np.float64)).ravel()
        chunk = CellChunk(start=0, counts=counts, totals=totals, n_genes=np.diff(counts.indptr))
        out = counts.copy()
        out.data = LogNormalize(target_sum=1e4).apply(counts.data, chunk, {})
        return out


def prepared(m: Measurement, probe: probes.Prepared, name: str) -> np.ndarray:
    """What is made of counts before binning."""
    counts = PreparedCounts(m, int(m.said(probe.min_counts, name)))
    if probe.part == "genes":
        return m.adata.var_names.to_numpy().astype(str)[counts.kept]
    values = counts.values
    if probe.part == "sums":
        return np.asarray(values.sum(1)).ravel()
    rows = [values[cell] for cell in range(values.shape[0])]
    if probe.part == "edges":
        out = np.zeros((len(rows), n_bins(m.pretrained)))
        for cell, row in enumerate(rows):
            if row.nnz:  # without a gene that is kept, edges are zeros
                out[cell, 1:] = quantile_edges(row.data, n_bins(m.pretrained))
        return out
    stored = np.asarray(m.draws[name])
    require_shape(stored, values.shape, name, kinds="iu")
    return np.array([_possible_bins(row.toarray().ravel(), drawn, m) for row, drawn in zip(rows, stored, strict=True)])


def _possible_bins(row: np.ndarray, stored: np.ndarray, m: Measurement) -> np.ndarray:
    """Return the bins of a row: the stored ones where several are possible, else the only one."""
    out = np.zeros(len(row))
    lowest, highest = quantile_bins(row[row != 0], n_bins(m.pretrained))
    out[row != 0] = np.clip(np.rint(stored[row != 0]), lowest, highest)
    return out.astype(stored.dtype)


def gene_table(m: Measurement, probe: probes.GeneTable, name: str) -> torch.Tensor:
    """Vector of every token."""
    embed = m.pretrained.lcm.embed
    return embed.genes(torch.arange(embed.gene.num_embeddings, device=m.device_of))


def gene_input(m: Measurement, probe: probes.GeneInput, name: str) -> np.ndarray:
    """Genes of the vocabulary, each once."""
    genes = np.asarray(m.draws[name]).astype(str)
    if not len(genes) or len(set(genes)) < len(genes) or not set(genes) <= set(m.pretrained.vocabulary.features):
        msg = f"{name!r} should name genes of the vocabulary, each once."
        raise ValueError(msg)
    return genes


def gene_edges(m: Measurement, probe: probes.GeneEdges, name: str) -> np.ndarray:
    """Pairs of genes with similar vectors."""
    genes = [str(gene) for gene in m.draws[probe.genes]]
    position = m.pretrained.vocabulary.feature_positions
    similar = cosine_graph(m.pretrained.gene_vectors()[[position[gene] for gene in genes]]) >= m.said(
        probe.threshold, name
    )
    pairs = zip(*np.nonzero(np.triu(similar)), strict=True)
    return np.array(sorted("|".join(sorted((genes[i], genes[j]))) for i, j in pairs))


def gene_set_tokens(m: Measurement, probe: probes.GeneSetTokens, name: str) -> np.ndarray:
    """Return the same genes for each cell, after `<cls>`."""
    stored = np.asarray(m.draws[name])
    require_shape(stored, (None, None), name, kinds="iu")
    genes = stored[0, 1:].tolist()
    if not Counter(genes) <= Counter(token_of_var(m).tolist()) or -1 in genes:
        msg = f"{name!r} should name genes that the input has and the vocabulary knows, each as often as the input."
        raise ValueError(msg)
    return np.tile([m.pretrained.vocabulary.specials["<cls>"], *genes], (len(stored), 1))


def gene_set_values(m: Measurement, probe: probes.GeneSetValues, name: str) -> np.ndarray:
    """Bins among a set of genes, expressed or not."""
    stored, tokens = np.asarray(m.draws[name]), m.draws[probe.tokens]
    require_shape(stored, tokens.shape, name, kinds="f")
    columns: dict[int, list[int]] = defaultdict(list)
    for column, token in enumerate(token_of_var(m).tolist()):
        columns[token].append(column)
    # Of columns with one gene, each time the next.
    var = [columns[token].pop(0) for token in tokens[0, 1:].tolist()]
    rows = m.input.source.read(0, len(stored)).tocsc()[:, var].toarray()
    out = np.zeros(stored.shape, dtype=np.float32)
    out[:, 1:] = [_possible_bins(counts, drawn, m) for counts, drawn in zip(rows, stored[:, 1:], strict=True)]
    return out


def attention_graph(m: Measurement, probe: probes.AttentionGraph, name: str) -> Any:
    """Scores of the last block's attention, or ranks of them."""
    tokens = torch.as_tensor(m.draws[probe.drawn.tokens], device=m.device_of)
    batch = TokenTensors(
        token_ids_bl=tokens,
        mask_bl=None,
        gene_mask_bl=torch.ones_like(tokens, dtype=torch.bool),
        value_bl=torch.as_tensor(m.draws[probe.drawn.values], device=m.device_of),
    )
    scores = m.pretrained.lcm.attention_scores(batch, m.pretrained.lcm.n_blocks - 1).float().cpu().numpy()
    if probe.part == "scores":
        return m.as_many(scores, name)
    if probe.part == "rows":
        return possible_shares(scores, m.draws[name], name)
    return possible_sum(rank_shares(scores, axis=-1), m.draws[name], name)


def possible_shares(scores: np.ndarray, stored: np.ndarray, name: str) -> np.ndarray:
    """Return ranks by row, mean over heads: the stored ones as far as scores that differ by a rounding allow them."""
    require_shape(stored, (*scores.shape[:1], *scores.shape[2:]), name, kinds="f")
    keys, rounding = scores[..., None, :], ROUNDING * (1 + np.abs(scores))
    low = (keys < (scores - rounding)[..., None]).sum(-1)
    high = (keys <= (scores + rounding)[..., None]).sum(-1) - 1
    bounds = (low.mean(1) / scores.shape[-1], high.mean(1) / scores.shape[-1])
    return _where_drawn(stored, rank_shares(scores, axis=-1).mean(1), bounds)


def possible_sum(by_row: np.ndarray, stored: np.ndarray, name: str) -> np.ndarray:
    """Return ranks by column, mean over heads and sum over cells: the stored ones as far as ties allow them."""
    require_shape(stored, by_row.shape[2:], name, kinds="f")
    # Shares of rows are often equal within a column, and upstream's sort is unstable.
    low, high = ((rankdata(by_row, axis=-2, method=tie) - 1) / by_row.shape[-2] for tie in ("min", "max"))
    ours = rank_shares(by_row, axis=-2).mean(1).sum(0)
    return _where_drawn(stored, ours, (low.mean(1).sum(0), high.mean(1).sum(0)))


def _where_drawn(stored: np.ndarray, ours: np.ndarray, bounds: tuple[np.ndarray, np.ndarray]) -> np.ndarray:
    """Return our numbers, and stored ones within their bounds where several are possible."""
    return np.where(bounds[0] == bounds[1], ours, np.clip(stored, *bounds))


MEASURES: dict[type, Callable[[Measurement, Any, str], Any]] = {
    probes.RowInput: row_input,
    probes.UniformInput: uniform_input,
    probes.Binned: binned,
    probes.Prepared: prepared,
    probes.GeneTable: gene_table,
    probes.GeneInput: gene_input,
    probes.GeneEdges: gene_edges,
    probes.GeneSetTokens: gene_set_tokens,
    probes.GeneSetValues: gene_set_values,
    probes.AttentionGraph: attention_graph,
}
