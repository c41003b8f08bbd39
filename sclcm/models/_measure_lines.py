"""Compute arrays of sentences that a tokenizer makes of gene names in order of rank, as text."""

from __future__ import annotations

import dataclasses
import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch.nn.functional import cross_entropy

from sclcm._sizes import as_int
from sclcm.data.genes import gene_names
from sclcm.encoding.batches import TokenBatch, iter_batches, pad_sentences
from sclcm.encoding.select import ranked
from sclcm.encoding.sentences import NO_LIMIT, SPECIAL, CellSentences, special_ids
from sclcm.engine.generate import NONE, Decoding, Generated, generate
from sclcm.engine.infer import CellVectors, run, to_tensors
from sclcm.models._build import build_lcm
from sclcm.models._measure_draws import require_shape
from sclcm.models._words import split_words
from sclcm.nn.set_configs import GridPositions
from sclcm.reference import _line_probes as probes

if TYPE_CHECKING:
    from collections.abc import Callable

    from scipy.sparse import csr_matrix

    from sclcm.models._measure import Measurement
    from sclcm.nn.lcm import LCM

NO_LABEL = -100


# ---- inputs ----


def length_limit(m: Measurement, probe: probes.LengthLimit, name: str) -> np.ndarray:
    """A number of tokens; that of the model, where upstream's is not stored."""
    stored = np.asarray(m.draws.get(name, m.pretrained.encoding.max_tokens))
    require_shape(stored, (), name, kinds="iu")
    position, encoding = m.pretrained.architecture.position, m.pretrained.encoding
    n_positions = NO_LIMIT
    if position is not None and not isinstance(position, GridPositions):
        n_positions = as_int(position.n_positions)
    if not len(encoding.prefix) + len(encoding.suffix) < stored <= n_positions:
        msg = f"{name!r} is {stored}, no length of a sentence with a gene for which the model has positions."
        raise ValueError(msg)
    return stored


def text_input(m: Measurement, probe: probes.TextInput, name: str) -> np.ndarray:
    """Texts."""
    stored = np.asarray(m.draws[name])
    require_shape(stored, (None,), name, kinds="U")
    return stored


# ---- words ----


def _word_ids(m: Measurement, text: str, unknown: str) -> list[int]:
    vocabulary = m.pretrained.vocabulary
    known = {**vocabulary.feature_positions, **vocabulary.specials}
    encoding = m.pretrained.encoding
    whole = (m.pretrained.pad, *encoding.prefix, *encoding.suffix, unknown)
    return [vocabulary.token(word if word in known else unknown) for word in split_words(text, whole=whole)]


def text_tokens(m: Measurement, probe: probes.TextTokens, name: str) -> np.ndarray:
    """Tokens of texts; as wide as stored, if that is no less than needed."""
    texts = np.asarray(m.draws[probe.texts]).tolist()
    spelt = map(m.pretrained.vocabulary.respelt, texts) if probe.is_respelt else texts
    rows = [_word_ids(m, text, probe.unknown) for text in spelt]
    stored = np.asarray(m.draws[name])
    width = max(stored.shape[-1] if stored.ndim else 0, *map(len, rows))
    return np.array([row + [NONE] * (width - len(row)) for row in rows], dtype=np.int64)


# ---- sentences ----


@dataclass(frozen=True)
class _Ranked:
    """The tokens of each cell in order of rank, and the var that each is of.

    Parameters
    ----------
    unknown
        Token of a name that the vocabulary lacks.
    """

    unknown: str

    def __call__(self, m: Measurement) -> list[tuple[np.ndarray, np.ndarray]]:
        """Rank the genes of all cells by their values, ties in the order of var."""
        data = m.input
        names = gene_names(data.source.var, data.gene_key)
        ids = [_word_ids(m, m.pretrained.vocabulary.respelt(name), self.unknown) for name in names]
        rows = data.source.read(0, m.adata.n_obs)
        cells = []
        ordered, _ = ranked(rows.data, rows.indices, rows.indptr, limit=rows.nnz)
        for start, stop in itertools.pairwise(rows.indptr.tolist()):
            pairs = [(token, var) for var in ordered[start:stop].tolist() for token in ids[var]]
            tokens, var = np.array(pairs, dtype=np.int64).reshape(-1, 2).T
            cells.append((tokens, var))
        _check_against_ours(m, cells, rows, unknown=m.pretrained.vocabulary.token(self.unknown))
        return cells


def _check_against_ours(
    m: Measurement, cells: list[tuple[np.ndarray, np.ndarray]], rows: csr_matrix, *, unknown: int
) -> None:
    """What users get is the same but for ties, which follow the vocabulary, and unknown names, which are no tokens.

    Spellings of one name are one gene to users, and their counts a sum; of cells with several, nothing is compared.
    """
    ours = m.pretrained.encode(m.chunk, limit=NO_LIMIT)
    for cell, (tokens, var) in enumerate(cells):
        sentence = slice(ours.indptr[cell], ours.indptr[cell + 1])
        features, token_ids = ours.features[sentence], ours.token_ids[sentence]
        known, is_gene = tokens != unknown, features >= 0
        if len(np.unique(tokens[known])) < known.sum():
            continue
        our_counts = np.asarray(m.chunk.counts[cell].toarray()).ravel()[features[is_gene]]
        counts = rows[cell].toarray().ravel()[var[known]].astype(our_counts.dtype)
        if sorted(tokens[known]) != sorted(token_ids[is_gene]) or not np.array_equal(counts, our_counts):
            msg = f"Our sentence of cell {cell} has other genes, or other ranks, than the names in order of rank."
            raise ValueError(msg)


def _sentences(m: Measurement, lines: probes.Lines, *, is_cut: bool = True) -> CellSentences:
    limit = int(length_limit(m, probes.LengthLimit(), lines.limit))
    made = m.once(_Ranked(lines.unknown))
    encoding, vocabulary = m.pretrained.encoding, m.pretrained.vocabulary
    prefix, suffix = (special_ids(names, vocabulary) for names in (encoding.prefix, encoding.suffix))
    room = limit - len(prefix) - len(suffix) if is_cut else NO_LIMIT
    tokens = [np.concatenate([prefix, ids[:room], suffix]) for ids, _ in made]
    before, after = (np.full(len(ids), SPECIAL) for ids in (prefix, suffix))
    features = [np.concatenate([before, var[:room], after]) for _, var in made]
    return CellSentences(
        token_ids=np.concatenate(tokens).astype(np.int32),
        features=np.concatenate(features).astype(np.int32),
        indptr=np.concatenate([[0], np.cumsum(list(map(len, tokens)))]),
        rows=np.arange(len(tokens)),
    )


def _batch(m: Measurement, sentences: CellSentences, *, width: int | None = None) -> TokenBatch:
    pad = m.pretrained.vocabulary.specials[m.pretrained.pad]
    return pad_sentences(sentences, np.arange(sentences.n_cells), pad=pad, width=width)


def _training(m: Measurement, lines: probes.Lines) -> TokenBatch:
    """Return the lines of training, all of the length that they may have."""
    sentences = _sentences(m, lines)
    rows = np.arange(sentences.n_cells)
    if not any(len(np.atleast_1d(m.draws[name])) == len(rows) for name in lines.training if name in m.draws):
        rows = np.flatnonzero(_n_genes(sentences))
    limit = int(length_limit(m, probes.LengthLimit(), lines.limit))
    return pad_sentences(sentences, rows, pad=m.pretrained.vocabulary.specials[m.pretrained.pad], width=limit)


def _n_genes(sentences: CellSentences) -> np.ndarray:
    return np.add.reduceat(sentences.features >= 0, sentences.indptr[:-1])


def line_tokens(m: Measurement, probe: probes.LineTokens, name: str) -> np.ndarray:
    """Sentences in a rectangle."""
    sentences = _sentences(m, probe.lines, is_cut=probe.is_cut)
    batch = _training(m, probe.lines) if probe.width == "limit" else _batch(m, sentences)
    match probe.part:
        case "mask":
            return batch.mask.astype(np.int64)
        case "zeros":
            return np.zeros_like(batch.token_ids)
        case "labels":
            return np.where(batch.mask, batch.token_ids, NO_LABEL)
        case "tokens":
            return batch.token_ids if probe.is_cut else np.where(batch.mask, batch.token_ids, NONE)


# ---- vectors and losses ----


def line_hidden(m: Measurement, probe: probes.LineHidden, name: str) -> np.ndarray:
    """Token vectors, zero at padding."""
    batch, lcm = _batch(m, _sentences(m, probe.lines)), m.pretrained.lcm
    depth = 0 if probe.layer == 0 else lcm.n_blocks + 1 + probe.layer
    x_bld = lcm(to_tensors(batch, m.device_of), n_blocks=depth).float().cpu().numpy()
    return m.as_many(x_bld * batch.mask[..., None], name)


def line_embedding(m: Measurement, probe: probes.LineEmbedding, name: str) -> np.ndarray:
    """Pooled cells; nothing of a cell without genes can be averaged."""
    pretrained, sentences = m.pretrained, _sentences(m, probe.lines)
    recipe = pretrained.recipe(probe.recipe)
    out = np.zeros((sentences.n_cells, pretrained.width(recipe)), dtype=np.float32)
    vectors = CellVectors(out=out, pooling=recipe.pooling, head=recipe.head, l2_normalize=recipe.l2_normalize)
    batches = iter_batches(sentences, pad=pretrained.vocabulary.specials[pretrained.pad], max_tokens=2_048)
    lcm = pretrained.lcm if probe.has_segment else _without_segment(pretrained.lcm)
    list(run(lcm, batches, [vectors], device=m.device_of, n_blocks=pretrained.depth(recipe)))
    out[_n_genes(sentences) == 0] = np.nan
    return out


def _without_segment(lcm: LCM) -> LCM:
    return build_lcm(dataclasses.replace(lcm.config, segment=None), lcm.state_dict())


def _logits(m: Measurement, batch: TokenBatch, head: str) -> torch.Tensor:
    return m.pretrained.lcm.heads[head](m.pretrained.lcm(to_tensors(batch, m.device_of))).float()


def line_logits(m: Measurement, probe: probes.LineLogits, name: str) -> np.ndarray:
    """Scores of the first tokens of the first cells; at least one, as none would prove nothing."""
    logits = _logits(m, _batch(m, _sentences(m, probe.lines)), probe.head)
    stored = np.asarray(m.draws[name])
    n_places = max(stored.shape[1] if stored.ndim > 1 else 0, 1)
    return m.as_many(logits[:, :n_places].cpu().numpy(), name)


def next_token_loss(m: Measurement, probe: probes.NextTokenLoss, name: str) -> np.ndarray:
    """Cross-entropy of the next token at all tokens but the last."""
    batch = _training(m, probe.lines)
    logits = _logits(m, batch, probe.head)
    labels = torch.as_tensor(np.where(batch.mask, batch.token_ids, NO_LABEL), device=logits.device).long()[:, 1:]
    loss_bl = cross_entropy(logits[:, :-1].transpose(1, 2), labels, reduction="none", ignore_index=NO_LABEL)
    n_labels_b = (labels != NO_LABEL).sum(1)
    per_cell = (loss_bl.sum(1) / n_labels_b).cpu().numpy()
    return per_cell if probe.per_cell else (loss_bl.sum() / n_labels_b.sum()).cpu().numpy()


def token_table(m: Measurement, probe: probes.TokenTable, name: str) -> np.ndarray:
    """The vectors of all tokens."""
    every = torch.arange(m.pretrained.vocabulary.n_tokens, device=m.device_of)
    return m.pretrained.lcm.embed.genes(every).float().cpu().numpy()


# ---- what is added ----


def line_continued(m: Measurement, probe: probes.LineContinued, name: str) -> np.ndarray:
    """The first tokens with those that are added, as many as are stored; at least one."""
    stored = np.asarray(m.draws[name])
    require_shape(stored, (None, None), name, kinds="iu")
    n_given = int(m.said(probe.n_given, name))
    # Of a shorter sentence, padding is given as well, as upstream's rectangle has it there.
    given = _batch(m, _sentences(m, probe.lines)).token_ids[: max(len(stored), 1), :n_given]
    n_more = max(stored.shape[1] - given.shape[1], 1)
    prompts = CellSentences(
        token_ids=given.ravel().astype(np.int32),
        features=np.full(given.size, SPECIAL, dtype=np.int32),
        indptr=np.arange(len(given) + 1) * given.shape[1],
        rows=np.arange(len(given)),
    )
    decoding = Decoding(
        token_head=probe.head,
        value_head=None,
        n_tokens=n_more,
        stop=NONE,
        max_value=0,
        bans_last=True,
        repeats=probe.repeats,
    )
    pretrained, out = m.pretrained, Generated.empty(len(given), n_more, m.pretrained.d_model)
    list(generate(pretrained.lcm, [_batch(m, prompts)], out, decoding=decoding, places=0, device=pretrained.device))
    return np.concatenate([given, out.token_ids], axis=1)


MEASURES: dict[type, Callable[[Measurement, Any, str], Any]] = {
    probes.LengthLimit: length_limit,
    probes.TextInput: text_input,
    probes.TextTokens: text_tokens,
    probes.LineTokens: line_tokens,
    probes.LineHidden: line_hidden,
    probes.LineEmbedding: line_embedding,
    probes.LineLogits: line_logits,
    probes.NextTokenLoss: next_token_loss,
    probes.TokenTable: token_table,
    probes.LineContinued: line_continued,
}
"""What computes each probe."""
