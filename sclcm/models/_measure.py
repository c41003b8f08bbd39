"""Compute the arrays that probes declare, from a checkpoint and an input, along the ways that users take."""

from __future__ import annotations

import dataclasses
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numpy as np
import torch

from sclcm._sizes import Config, ReleaseFacts, names_given
from sclcm.encoding.batches import TokenBatch, pad_sentences
from sclcm.encoding.sentences import NO_LIMIT, CellSentences, encode
from sclcm.engine.infer import CellVectors, FeatureMeans, run, to_tensors
from sclcm.models import (
    _measure_binning,
    _measure_collated,
    _measure_context,
    _measure_dense,
    _measure_depth,
    _measure_draws,
    _measure_edits,
    _measure_expression,
    _measure_filled,
    _measure_fixed_length,
    _measure_generation,
    _measure_genomic,
    _measure_lines,
    _measure_translation,
)
from sclcm.models._classification import class_logits
from sclcm.models._fixture_input import read_fixture_input
from sclcm.models._load import load
from sclcm.models._measure_input import aligned_input, of_species_of
from sclcm.models._measure_sets import MEASURES as SET_MEASURES
from sclcm.models._release import Release
from sclcm.reference import _probes as probes
from sclcm.zoo._labels import ClassLabels
from sclcm.zoo._registry import get_spec

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from anndata import AnnData

    from sclcm.encoding.chunks import CellChunk
    from sclcm.models._pass import Input
    from sclcm.models._pretrained import Pretrained
    from sclcm.nn.tokens import TokenTensors
    from sclcm.zoo._spec import Recipe

T = TypeVar("T")


class Draws(dict[str, np.ndarray]):
    """The arrays of `expected.npz`; of those that are not there, an error says what they are for."""

    def __missing__(self, name: str) -> np.ndarray:
        msg = f"{name!r} is not stored, from which this array is computed."
        raise KeyError(msg)


class Measurement:
    """A checkpoint, an input and the draws of upstream, of which probes take arrays.

    Parameters
    ----------
    adata
        The input.
    folder
        The checkpoint.
    family
        Its family.
    draws
        The arrays of `expected.npz`; only those that a probe declares as a draw are read.
    dtype
    device
        How to compute.
    run
        What `run.json` says of how the arrays were made: settings that the checkpoint's files do not state are taken
        from it, and seeds.
    facts
        What `expected.json` says of each array: settings that stand nowhere else are read from its words.
    """

    def __init__(
        self,
        adata: AnnData,
        folder: Path,
        *,
        family: str,
        draws: Mapping[str, np.ndarray],
        dtype: str,
        device: str,
        run: Mapping[str, Any] | None = None,
        facts: Mapping[str, Any] | None = None,
    ) -> None:
        self.adata, self.folder, self.family = adata, folder, family
        self.run, self.facts = run or {}, facts or {}
        self.draws, self.dtype, self.device = Draws(draws), dtype, device
        self.pretrained = of_species_of(adata, self.load(folder))
        self._made: dict[Any, Any] = {}

    def load(self, folder: Path, **asked: Any) -> Pretrained:
        """Return the checkpoint in a folder; dictionaries are those of the pre-trained one."""
        where = {"family": self.family, "device": self.device, "dtype": self.dtype}
        return load(folder, **where, vocabulary=self.folder, **stated(self.family, self.run), **asked)

    def once(self, make: Callable[[Measurement], T], key: object = None) -> T:
        """Return what a function makes of this measurement, made at the first call only (by a key for lasting ones)."""
        kept = make if key is None else key
        if kept not in self._made:
            self._made[kept] = make(self)
        return self._made[kept]

    def model(self, folder: str) -> Pretrained:
        """Return a fine-tuned checkpoint, its folder relative to that of the pre-trained one."""
        if folder == ".":
            return self.pretrained
        if folder not in self._made:
            self._made[folder] = self.load(self.folder / folder)
        return self._made[folder]

    def on(self, name: str) -> Measurement:
        """Return the measurement of the same checkpoint on another input of the fixture."""
        if name not in self._made:
            adata = read_fixture_input(self.folder.parent / f"{name}.h5ad")
            how: dict[str, Any] = {"dtype": self.dtype, "device": self.device, "run": self.run, "facts": self.facts}
            self._made[name] = Measurement(adata, self.folder, family=self.family, draws=self.draws, **how)
        return self._made[name]

    def of_cells(self, cells: probes.CellsWithGenes) -> Measurement:
        """Return the measurement of those cells that upstream reads."""
        kept = np.diff(self.chunk.counts.indptr) > 0
        if cells.passing in self.adata.obs:
            kept &= (self.adata.obs[cells.passing] == 1).to_numpy()
        stored = next((self.draws[name] for name in cells.rows if name in self.draws), None)
        if kept.all() or (stored is not None and np.shape(stored)[:1] == kept.shape):
            return self
        how: dict[str, Any] = {"dtype": self.dtype, "device": self.device, "run": self.run, "facts": self.facts}
        return Measurement(self.adata[kept].copy(), self.folder, family=self.family, draws=self.draws, **how)

    def as_many(self, array: Any, name: str) -> Any:
        """Return the first rows of an array, as many as are stored; at least one, as none would prove nothing."""
        stored = self.draws[name]
        return array[: max(stored.shape[0] if stored.ndim else 0, 1)]

    def said(self, setting: probes.Said, name: str) -> Any:
        """Return a setting of upstream's from what is said of an array."""
        return said(setting, self.facts.get(setting.of or name))

    def configured(self, setting: Config | float) -> float:
        """Return a number, read from the configuration of the checkpoint where that says it."""
        if not isinstance(setting, Config):
            return setting
        config = Release(self.folder, (self.folder,)).config(cast("str", get_spec(self.family).config))
        return float(ReleaseFacts(config=config).value(setting))

    def take(self, probe: probes.Probe, name: str) -> Any:
        """Return the array that a probe declares; `name` is that of the array."""
        with torch.inference_mode():
            found = self._take(probe, name)
        return found.float().cpu().numpy() if isinstance(found, torch.Tensor) else found

    def _take(self, probe: probes.Probe, name: str) -> Any:  # noqa: PLR0911, PLR0912
        match probe:
            case probes.Tokens(cropped=cropped, fill=fill):
                return self._tokens(cropped=cropped, fill=fill)
            case probes.Lengths():
                return self.sentences.lengths
            case probes.RealTokens():
                return self.batch.mask.astype(np.int64)
            case probes.CountsPer(target_sum=target_sum):
                return self._counts_per(target_sum)
            case probes.Hidden(layer=layer, rows=rows):
                return self._hidden(layer)[self.draws[rows]]
            case probes.Embedding(recipe=recipe):
                return self._embedding(recipe)
            case probes.GroupMean(column=column, recipe=recipe):
                return self._group_mean(column, recipe, name)
            case probes.GeneMeans(layer=layer):
                return self._gene_means(layer)[1]
            case probes.GeneLabels():
                return self._gene_means(-1)[0]
            case probes.MaskedLogits(mask=mask, head=head):
                return self._masked_logits(self.draws[mask], head).cpu().numpy()
            case probes.MaskedLoss(mask=mask, head=head):
                return self._masked_loss(self.draws[mask], head)
            case probes.HeadOutput():
                return self._head_output(probe)
            case probes.AttentionMean(block=block, cell=cell):
                return self._attention_mean(block, cell)
            case probes.RowDraw():
                return self._checked_rows(name)
            case probes.MaskDraw():
                return self._checked_mask(name)
            case probes.On(input=other, probe=inner):
                return self.on(other).take(inner, name)
        if type(probe) in MEASURES:
            return MEASURES[type(probe)](self, probe, name)
        msg = f"The probe {probe!r} cannot be measured."
        raise TypeError(msg)

    @cached_property
    def input(self) -> Input:
        """The input, aligned to the vocabulary as the authors do."""
        return aligned_input(self.adata, self.pretrained)

    @cached_property
    def chunk(self) -> CellChunk:
        """All cells."""
        return next(self.input.chunks(self.pretrained, chunk_size=self.adata.n_obs))

    @cached_property
    def sentences(self) -> CellSentences:
        """The sentences of all cells."""
        return self.pretrained.encode(self.chunk)

    @cached_property
    def batch(self) -> TokenBatch:
        """All cells in one rectangle, in input order."""
        return self._rectangle(self.sentences)

    def _rectangle(self, sentences: CellSentences) -> TokenBatch:
        pad = self.pretrained.vocabulary.specials[self.pretrained.pad]
        return pad_sentences(sentences, np.arange(sentences.n_cells), pad=pad)

    @property
    def device_of(self) -> torch.device:
        """Where tensors have to be."""
        return self.pretrained.device

    def _tokens(self, *, cropped: bool, fill: int | None) -> np.ndarray:
        batch = self.batch
        if not cropped:
            bare = dataclasses.replace(self.pretrained.encoding, prefix=(), suffix=())
            vocabulary, arrays = self.pretrained.vocabulary, self.pretrained.arrays
            batch = self._rectangle(encode(self.chunk, bare, vocabulary=vocabulary, arrays=arrays, limit=NO_LIMIT))
        return batch.token_ids if fill is None else np.where(batch.mask, batch.token_ids, fill)

    def _counts_per(self, target_sum: float) -> np.ndarray:
        rows, columns = np.nonzero(self.batch.features >= 0)
        counts = np.asarray(self.chunk.counts[rows, self.batch.features[rows, columns]]).ravel()
        out = np.zeros(self.batch.features.shape)
        out[rows, columns] = counts / self.batch.scalars["total"][rows] * target_sum
        return out

    def _hidden(self, layer: int) -> np.ndarray:
        depth = 0 if layer == 0 else self.pretrained.lcm.n_blocks + 1 + layer
        with torch.inference_mode():
            x_bld = self.pretrained.lcm(to_tensors(self.batch, self.device_of), n_blocks=depth)
        return x_bld.float().cpu().numpy() * self.batch.mask[..., None]

    def _embedding(self, recipe: str) -> np.ndarray:
        return self.embedding(self.pretrained.recipe(recipe), self.pretrained, self.input)

    def embedding(self, chosen: Recipe, pretrained: Pretrained, data: Input) -> np.ndarray:
        """Return cell vectors by a recipe."""
        out = np.zeros((self.adata.n_obs, pretrained.width(chosen)), dtype=np.float32)
        vectors = CellVectors(out=out, pooling=chosen.pooling, head=chosen.head, l2_normalize=chosen.l2_normalize)
        how: dict[str, Any] = {"n_places": pretrained.places(chosen), "mask_padding": chosen.mask_padding}
        batches = data.batches(pretrained, batch_size=None, **how)
        n_blocks = pretrained.depth(chosen)
        list(run(pretrained.lcm, batches, [vectors], device=self.device_of, n_blocks=n_blocks))
        return out

    def _group_mean(self, column: str, recipe: str, name: str) -> np.ndarray:
        """Average the cells of the longest group that the name ends in: of the column, or else of any other."""
        others = self.adata.obs.drop(columns=column, errors="ignore")
        for table in (self.adata.obs.filter([column]), others.select_dtypes(exclude="number")):
            groups = [(str(value), key) for key in table for value in table[key].unique() if name.endswith(f"_{value}")]
            if groups:
                group, key = max(groups, key=lambda found: len(found[0]))
                return self._embedding(recipe)[(table[key].astype(str) == group).to_numpy()].mean(0)
        msg = f"{name!r} ends in no group of `.obs[{column!r}]`, nor of another column of `.obs`."
        raise ValueError(msg)

    def _gene_means(self, layer: int) -> tuple[np.ndarray, np.ndarray]:
        pretrained = self.pretrained
        reducer = FeatureMeans(
            n_tokens=pretrained.vocabulary.n_tokens, width=pretrained.d_model, device=pretrained.device
        )
        depth = pretrained.lcm.n_blocks + 1 + layer
        list(run(pretrained.lcm, [self.batch], [reducer], device=self.device_of, n_blocks=depth))
        means, counts = reducer.means()
        seen = np.flatnonzero(counts)
        labels = pretrained.vocabulary.labels(seen).astype(str)
        order = np.argsort(labels)
        return labels[order], means[seen[order]]

    def _masked_logits(self, mask: np.ndarray, head: str) -> torch.Tensor:
        hide = torch.as_tensor(np.asarray(mask, dtype=bool), device=self.device_of)
        tokens = to_tensors(self.batch, self.device_of)
        mask_id = self.pretrained.vocabulary.token(self.pretrained.mask or "<mask>")
        hidden = tokens.token_ids_bl.masked_fill(hide, mask_id)
        with torch.inference_mode():
            x_bld = self.pretrained.lcm(dataclasses.replace(tokens, token_ids_bl=hidden))
            return self.pretrained.lcm.heads[head](x_bld[hide]).float()

    def _masked_loss(self, mask: np.ndarray, head: str) -> float:
        targets = torch.as_tensor(self.batch.token_ids[np.asarray(mask, dtype=bool)], device=self.device_of).long()
        return float(torch.nn.functional.cross_entropy(self._masked_logits(mask, head), targets))

    def _head_output(self, probe: probes.HeadOutput) -> np.ndarray:
        tuned = self.load(self.folder / probe.folder)
        if isinstance(tuned.labels, ClassLabels) and tuned.labels.head == probe.head:
            return class_logits(self.input, tuned, batch_size=None)
        tokens: TokenTensors = to_tensors(self.batch, self.device_of)
        with torch.inference_mode():
            out = tuned.lcm.heads[probe.head](tuned.lcm(tokens)).float().cpu().numpy()
        if out.ndim == self.batch.mask.ndim + 1:
            out = out * self.batch.mask[..., None]
        return out if probe.rows is None else out[self.draws[probe.rows]]

    def _attention_mean(self, block: int, cell: int) -> np.ndarray:
        row = np.arange(self.sentences.n_cells)[cell]
        pad = self.pretrained.vocabulary.specials[self.pretrained.pad]
        tokens = to_tensors(pad_sentences(self.sentences, np.array([row]), pad=pad), self.device_of)
        with torch.inference_mode():
            weights = self.pretrained.lcm.attention_weights(tokens, range(self.pretrained.lcm.n_blocks)[block])
        return weights[0].mean(0).float().cpu().numpy()

    def _checked_rows(self, name: str) -> np.ndarray:
        rows = np.asarray(self.draws[name])
        if (
            rows.dtype.kind not in "iu"
            or len(np.unique(rows)) != len(rows)
            or rows.min(initial=0) < 0
            or rows.max(initial=0) >= self.adata.n_obs
        ):
            msg = f"{name!r} must name cells of the input, each once; found {rows.tolist()!r}."
            raise ValueError(msg)
        return rows

    def _checked_mask(self, name: str) -> np.ndarray:
        mask = np.asarray(self.draws[name])
        if mask.dtype.kind not in "biu" or mask.shape != self.batch.mask.shape or (mask & ~self.batch.mask).any():
            msg = (
                f"{name!r} ({mask.dtype}, shape {mask.shape!r}) is no mask over the tokens, of shape "
                f"{self.batch.mask.shape!r}, that hides no padding."
            )
            raise ValueError(msg)
        return mask


def stated(family: str, run: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments of `load` that the files of a family state nowhere, from what `run.json` says."""
    return {name: run[name] for name in names_given(get_spec(family)) & run.keys()}


def said(setting: probes.Said, fact: Any) -> Any:
    """Return a setting from the words about an array, or what it is otherwise."""
    words = [fact[key] for key in ("meaning", "produced_by") if isinstance(fact.get(key), str)] if fact else []
    found = re.search(setting.pattern, " ".join(words))
    if found is None:
        return setting.otherwise
    if isinstance(setting.otherwise, tuple):
        return tuple(word.strip() for word in found[1].split(","))
    return type(setting.otherwise)(found[1])


MEASURES: dict[type, Callable[[Measurement, Any, str], Any]] = {
    **SET_MEASURES,
    **_measure_draws.MEASURES,
    **_measure_filled.MEASURES,
    **_measure_edits.MEASURES,
    **_measure_collated.MEASURES,
    **_measure_binning.MEASURES,
    **_measure_fixed_length.MEASURES,
    **_measure_context.MEASURES,
    **_measure_generation.MEASURES,
    **_measure_dense.MEASURES,
    **_measure_expression.MEASURES,
    **_measure_lines.MEASURES,
    **_measure_genomic.MEASURES,
    **_measure_depth.MEASURES,
    **_measure_translation.MEASURES,
}
"""What computes the arrays of further probes, by the type of the probe."""
