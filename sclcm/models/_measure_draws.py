"""Check what upstream has drawn: it must be something that our own encoding could have drawn."""

from __future__ import annotations

from collections import Counter, defaultdict
from typing import TYPE_CHECKING, Any

import numpy as np

from sclcm._sizes import as_int
from sclcm.encoding.sentences import NO_LIMIT
from sclcm.encoding.values import Bins, quantile_bins
from sclcm.reference import _collated_probes as probes

if TYPE_CHECKING:
    from collections.abc import Callable

    from sclcm.models._measure import Measurement
    from sclcm.models._pretrained import Pretrained


class Collated:
    """Sentences of a measurement without limit, in the order of var, with what random steps could make of them."""

    def __init__(self, measurement: Measurement) -> None:
        pretrained = measurement.pretrained
        sentences = pretrained.encode(measurement.chunk, limit=NO_LIMIT)
        self.pad = pretrained.vocabulary.specials[pretrained.pad]
        self.special = float(pretrained.encoding.special_value)  # type: ignore[arg-type]
        self.tokens: list[np.ndarray] = []
        self.lowest: list[np.ndarray] = []
        self.highest: list[np.ndarray] = []
        for cell, (tokens, counts) in enumerate(expressed(measurement)):
            ours = sentences.token_ids[sentences.indptr[cell] : sentences.indptr[cell + 1]]
            special, known = (
                ours[sentences.features[sentences.indptr[cell] : sentences.indptr[cell + 1]] < 0],
                tokens >= 0,
            )
            if sorted(ours) != sorted([*special, *tokens[known]]):
                msg = f"Our sentence of cell {cell} has other tokens than the genes that it expresses."
                raise ValueError(msg)
            low, high = quantile_bins(counts[known], n_bins(pretrained))
            self.tokens.append(np.concatenate([special, tokens[known]]))
            self.lowest.append(np.concatenate([np.full(len(special), self.special), low]))
            self.highest.append(np.concatenate([np.full(len(special), self.special), high]))

    def check_tokens(self, stored: np.ndarray, name: str) -> np.ndarray:
        """Return the tokens that a stored sample stands for: ours, but for cells of which only some fit."""
        require_shape(stored, (len(self.tokens), None), name, kinds="iu")
        out = np.full(stored.shape, self.pad, dtype=np.int64)
        for row, sample, tokens in zip(out, stored, self.tokens, strict=True):
            if len(tokens) <= len(row):
                row[: len(tokens)] = tokens
            elif sample[0] != tokens[0] or not Counter(sample.tolist()) <= Counter(tokens.tolist()):
                msg = f"{name!r} is no sample of the genes that its cells express."
                raise ValueError(msg)
            else:
                row[:] = sample
        return out

    def check_values(self, stored: np.ndarray, tokens: np.ndarray, name: str) -> np.ndarray:
        """Return the values of tokens: the stored ones where several are possible, else the only one."""
        require_shape(stored, tokens.shape, name, kinds="f")
        out = np.full(stored.shape, self.special, dtype=np.float32)
        for cell, ids in enumerate(self.tokens):
            low, high = self.lowest[cell], self.highest[cell]
            if len(ids) > tokens.shape[1]:
                chosen = [self._nearest(cell, *pair) for pair in zip(tokens[cell], stored[cell], strict=True)]
                low, high = low[chosen], high[chosen]
            out[cell, : len(low)] = np.clip(np.rint(stored[cell, : len(low)]), low, high)
        return out

    def _nearest(self, cell: int, token: int, value: float) -> int:
        """Return which of a cell's tokens, several of which may be the same gene, a sampled value fits best."""
        same = np.flatnonzero(self.tokens[cell] == token)
        off = np.maximum(self.lowest[cell][same] - value, value - self.highest[cell][same])
        return int(same[off.argmin()])


def expressed(m: Measurement) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return token (-1: not of the vocabulary) and count of each expressed gene of each cell, in the order of var."""
    tokens = token_of_var(m)
    rows = m.input.source.read(0, m.adata.n_obs)
    return [(tokens[rows[cell].indices], rows[cell].data) for cell in range(rows.shape[0])]


def token_of_var(m: Measurement) -> np.ndarray:
    """Return the token of each var of the input, -1 where the vocabulary has none."""
    features = m.input.alignment.feature_of_var
    return np.where(features >= 0, m.pretrained.vocabulary.token_ids[features], -1)


def n_bins(pretrained: Pretrained) -> int:
    """Return the number of bins of a model's encoding."""
    if not isinstance(pretrained.encoding.value, Bins):
        msg = f"{pretrained.name!r} does not bin its values, so that its draws cannot be checked."
        raise TypeError(msg)
    return as_int(pretrained.encoding.value.n_bins)


def require_shape(array: np.ndarray, shape: tuple[int | None, ...], name: str, *, kinds: str) -> None:
    """Refuse an input of another kind or shape; `None` stands for any length but zero."""
    fits = array.ndim == len(shape) and all(
        length > 0 and wanted in (None, length) for length, wanted in zip(array.shape, shape, strict=True)
    )
    if not fits or array.dtype.kind not in kinds:
        msg = f"{name!r} has the shape {array.shape} and the type {array.dtype}, which do not fit the other arrays."
        raise ValueError(msg)


def collated(m: Measurement) -> Collated:
    """Return the collated sentences of a measurement, made once."""
    return m.once(Collated)


def token_input(m: Measurement, probe: probes.TokenInput, name: str) -> np.ndarray:
    """Token ids of the vocabulary, each once a row, padding at the right."""
    stored, vocabulary = np.asarray(m.draws[name]), m.pretrained.vocabulary
    require_shape(stored, (None, None), name, kinds="iu")
    pad = vocabulary.specials[m.pretrained.pad]
    vocabulary.labels(stored)
    for row in stored:
        length = int((row != pad).sum())
        starts = probe.first is None or row[0] == vocabulary.specials[probe.first]
        if (row[:length] == pad).any() or len(set(row[:length].tolist())) < length or not starts:
            msg = f"{name!r} should hold each token once a row, with padding at the right; found {row.tolist()}."
            raise ValueError(msg)
    return stored


def bin_input(m: Measurement, probe: probes.BinInput, name: str) -> np.ndarray:
    """Bins at genes, the value of special tokens elsewhere."""
    stored, tokens = np.asarray(m.draws[name]), m.draws[probe.tokens]
    require_shape(stored, tokens.shape, name, kinds="f")
    is_gene = np.isin(tokens, m.pretrained.vocabulary.token_ids)
    bins = (stored == np.rint(stored)) & (stored >= 1) & (stored < n_bins(m.pretrained))
    if not np.where(is_gene, bins, stored == float(m.pretrained.encoding.special_value)).all():  # type: ignore[arg-type]
        msg = f"{name!r} should hold bins at genes and the value of special tokens elsewhere."
        raise ValueError(msg)
    return stored


def hidden_input(m: Measurement, probe: probes.HiddenInput, name: str) -> np.ndarray:
    """Return a mask over tokens that hides something, but no padding."""
    mask, tokens = np.asarray(m.draws[name]), m.draws[probe.drawn.tokens]
    require_shape(mask, tokens.shape, name, kinds="b")
    if not mask.any() or (mask & (tokens == m.pretrained.vocabulary.specials[m.pretrained.pad])).any():
        msg = f"{name!r} should hide some tokens, and no padding."
        raise ValueError(msg)
    return mask


def condition_input(m: Measurement, probe: probes.ConditionInput, name: str) -> np.ndarray:
    """Batches that the checkpoint knows."""
    stored, condition = np.asarray(m.draws[name]), m.model(probe.folder).architecture.condition
    require_shape(stored, (m.adata.n_obs,), name, kinds="iu")
    if condition is None or stored.min() < 0 or stored.max() >= as_int(condition.n_conditions):
        msg = f"{name!r} names batches {sorted(set(stored.tolist()))}, which the fine-tuned checkpoint does not know."
        raise ValueError(msg)
    return stored


def tensor_input(m: Measurement, probe: probes.TensorInput, name: str) -> np.ndarray:
    """One finite number for each channel, or a count."""
    stored = np.asarray(m.draws[name])
    if stored.shape not in ((), (m.pretrained.d_model,)) or not np.isfinite(stored).all():
        msg = f"{name!r} should hold a finite number for each of {m.pretrained.d_model} channels, or a count."
        raise ValueError(msg)
    return stored


def sampled_tokens(m: Measurement, probe: probes.SampledTokens, name: str) -> np.ndarray:
    """Tokens of expressed genes in the order of var, of which only those of longer sentences are a draw."""
    stored = np.asarray(m.draws[name])
    require_shape(stored, (None, None), name, kinds="iu")
    out = np.full(stored.shape, collated(m).pad, dtype=np.int64)
    for cell, (sample, (tokens, _)) in enumerate(zip(stored, m.once(_expressed), strict=False)):
        out[cell, 0] = m.pretrained.vocabulary.specials["<cls>"]
        if len(tokens) < len(sample):
            out[cell, 1 : len(tokens) + 1] = tokens
        elif Counter(sample[1:].tolist()) <= Counter(tokens.tolist()):
            out[cell, 1:] = sample[1:]
        else:
            msg = f"{name!r} is no sample of the genes that cell {cell} expresses."
            raise ValueError(msg)
    return out


def sampled_values(m: Measurement, probe: probes.SampledValues, name: str) -> np.ndarray:
    """Counts of sampled tokens, a draw only where several genes have one token."""
    stored, tokens = np.asarray(m.draws[name]), m.draws[probe.tokens]
    require_shape(stored, tokens.shape, name, kinds="f")
    out = np.full(stored.shape, collated(m).special, dtype=np.float32)
    for cell, (genes, counts) in enumerate(m.once(_expressed)[: len(stored)]):
        out[cell, 0] = 0
        if len(genes) < stored.shape[1]:
            out[cell, 1 : len(genes) + 1] = counts
            continue
        left: dict[int, list[float]] = defaultdict(list)
        for token, count in zip(genes.tolist(), counts.tolist(), strict=True):
            left[token].append(count)
        for column in range(1, stored.shape[1]):
            possible = left[int(tokens[cell, column])]
            value = float(stored[cell, column])
            if not possible:
                msg = f"{name!r} gives {value} for a gene that cell {cell} does not express."
                raise ValueError(msg)
            out[cell, column] = possible.pop(possible.index(value) if value in possible else 0)
    return out


def hidden_values(m: Measurement, probe: probes.HiddenValues, name: str) -> np.ndarray:
    """Values of which a share is hidden: which is a draw."""
    stored, values = np.asarray(m.draws[name]), np.asarray(m.draws[probe.values])
    require_shape(stored, values.shape, name, kinds="f")
    value = m.configured(probe.hidden)
    hidden = stored == value
    wanted = ((values != collated(m).special).sum(1) * m.said(probe.share, name)).astype(int)
    if (hidden.sum(1) != wanted).any():
        msg = f"{name!r} hides {hidden.sum(1).tolist()} values, expected {wanted.tolist()}."
        raise ValueError(msg)
    return np.where(hidden, stored.dtype.type(value), values)


def _expressed(m: Measurement) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return the same with the padding token for genes outside the vocabulary."""
    return [(np.where(tokens < 0, collated(m).pad, tokens), counts) for tokens, counts in expressed(m)]


def collated_tokens(m: Measurement, probe: probes.CollatedTokens, name: str) -> np.ndarray:
    """Tokens in the order of var, of which only those of long sentences are a draw."""
    return collated(m).check_tokens(m.draws[probe.drawn.tokens], name)


def collated_values(m: Measurement, probe: probes.CollatedValues, name: str) -> np.ndarray:
    """Values of tokens, of which only those with several possible bins are a draw."""
    return collated(m).check_values(m.draws[probe.drawn.values], m.draws[probe.drawn.tokens], name)


MEASURES: dict[type, Callable[[Measurement, Any, str], Any]] = {
    probes.CollatedTokens: collated_tokens,
    probes.CollatedValues: collated_values,
    probes.TokenInput: token_input,
    probes.BinInput: bin_input,
    probes.HiddenInput: hidden_input,
    probes.ConditionInput: condition_input,
    probes.TensorInput: tensor_input,
    probes.SampledTokens: sampled_tokens,
    probes.SampledValues: sampled_values,
    probes.HiddenValues: hidden_values,
}
