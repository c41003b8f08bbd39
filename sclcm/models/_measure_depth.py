"""Compute arrays on sentences with depth tokens, on learned bins, and on decoders of every gene."""

from __future__ import annotations

import copy
import dataclasses
import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from scipy.sparse import csr_matrix

from sclcm.data.matrix import choose_matrix
from sclcm.encoding.batches import pad_sentences
from sclcm.encoding.depth import FixedDepth, Log10Total
from sclcm.engine.decode import decode, read_places
from sclcm.engine.infer import to_tensors
from sclcm.models._decode import decode_cells, n_places
from sclcm.models._load import load
from sclcm.models._measure_draws import require_shape
from sclcm.models._measure_rows import misfit, rows_that_fit
from sclcm.nn import losses
from sclcm.nn.configs import SoftBins as SoftBinsConfig
from sclcm.nn.kernel_attention import KernelAttention
from sclcm.nn.soft_bins import AddedBins, SoftBins
from sclcm.reference import _depth_probes as probes
from sclcm.zoo._spec import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from anndata import AnnData

    from sclcm.encoding.batches import TokenBatch
    from sclcm.encoding.depth import DepthValue
    from sclcm.models._measure import Measurement
    from sclcm.models._pass import Input
    from sclcm.models._pretrained import Pretrained
    from sclcm.nn.tokens import TokenTensors
    from sclcm.zoo._recipes import GeneRecipe


def depth_of(word: str) -> DepthValue:
    """Return the depth that a word stands for."""
    kind, number = word[:1], word[1:]
    match kind:
        case "t":
            return FixedDepth(value=float(number))
        case "f":
            return Log10Total(times=float(number))
        case "a":
            return Log10Total(plus=float(number))
    msg = f"{word!r} is no depth; expected a number after 't', 'f' or 'a'."
    raise ValueError(msg)


def submodel(m: Measurement, name: str) -> Pretrained:
    """Return one of the models of the file."""
    made: dict[str, Pretrained] = m.once(_submodels)
    if name not in made:
        where = {"family": m.family, "device": m.device, "dtype": m.dtype}
        made[name] = load(m.folder, **where, submodel=name)
    return made[name]


def _submodels(m: Measurement) -> dict[str, Pretrained]:
    return {}


def model_for(m: Measurement, asked: probes.Asked, name: str) -> Pretrained:
    """Return a submodel that asks for the depth of a probe, or the one that the array's name ends in."""
    named = None if asked.named is None else stored_name(m, (asked.named,))
    word = name if asked.depth is None else named or asked.depth
    return submodel(m, asked.submodel).reading(Recipe(depth=depth_of(word.rsplit("_", 1)[-1])))


def stored_name(m: Measurement, patterns: Sequence[str]) -> str | None:
    """Return the first stored array that one of some patterns fits."""
    return next((name for pattern in patterns for name in m.draws if fnmatchcase(name, pattern)), None)


def cells_of(m: Measurement, asked: probes.Asked) -> list[int]:
    """Return the numbers of the cells of a probe."""
    every = range(m.adata.n_obs)
    if not asked.cells:
        return list(every)
    if (name := stored_name(m, asked.cells)) is None:
        msg = f"None of {', '.join(map(repr, asked.cells))} is stored, of which one has to tell which cells it is of."
        raise ValueError(msg)
    stored = np.asarray(m.draws[name])
    found = submodel(m, asked.submodel)
    if stored.shape[-1:] == (n_places(found),):
        return rows_that_fit(
            values_by_place(batch_of(m, model_for(m, asked, name), every), n_places(found)), stored, name
        )
    return rows_that_fit(beside_total(m, found, every)[:, : stored.shape[-1]], stored, name)


# ---- input ----


def counts_of(m: Measurement) -> np.ndarray:
    """Return counts over the vocabulary, dense, float64."""
    return m.chunk.counts.toarray().astype(np.float64)


def absent_genes(m: Measurement, probe: probes.AbsentGenes, name: str) -> np.ndarray:
    """One where no var is the gene."""
    absent = np.ones(m.pretrained.vocabulary.n_features, dtype=np.int64)
    absent[m.input.alignment.feature_index] = 0
    return absent


def opened(m: Measurement, form: str, *, total_of_one: bool = False) -> Input:
    """Return the input in another form: counts (`F`), logarithms (`T`), logarithms with totals in obs (`A`)."""
    if form == "F":
        return m.input
    counts = counts_of(m)
    total = counts.sum(1)
    adata: AnnData = m.adata.copy()
    factor = np.divide(1e4, total, out=np.zeros_like(total), where=total > 0)
    logs = np.zeros(adata.shape)
    logs[:, m.input.alignment.var_index] = np.log1p(counts * factor[:, None])[:, m.input.alignment.feature_index]
    adata.X = csr_matrix(logs)
    adata.obs["total_counts"] = np.ones_like(total) if total_of_one else total
    return dataclasses.replace(m.input, source=choose_matrix(adata), obs=adata.obs)


def embedding(m: Measurement, probe: probes.NamedEmbedding, name: str) -> np.ndarray:
    """Cell vectors, along the way of `tl.embed`."""
    _, pooling, *depth, form, which = name.split("_")
    pretrained = submodel(m, probe.submodels[which])
    recipe = pretrained.recipe(probe.forms[form])
    recipe = dataclasses.replace(recipe, pooling=pretrained.recipe(probe.poolings[pooling]).pooling)
    if probe.has_depth:
        recipe = dataclasses.replace(recipe, depth=depth_of(depth[0]))
    pretrained = pretrained.reading(pretrained.recipe(recipe))
    found = m.embedding(recipe, pretrained, opened(m, form))
    if form != probe.totals:
        return found
    stored, of_one = np.asarray(m.draws[name]), m.embedding(recipe, pretrained, opened(m, form, total_of_one=True))
    if stored.shape != found.shape:
        return found
    return np.where((misfit(of_one, stored) < misfit(found, stored))[:, None], of_one, found)


# ---- sentences ----


def batch_of(m: Measurement, pretrained: Pretrained, rows: Sequence[int]) -> TokenBatch:
    """Return some cells in one rectangle, as wide as the longest of them, in the order given."""
    sentences = pretrained.encode(m.chunk)
    return pad_sentences(sentences, np.array(rows), pad=pretrained.vocabulary.specials[pretrained.pad])


def place_values(m: Measurement, probe: probes.PlaceValues, name: str) -> np.ndarray:
    """Value of every place."""
    pretrained = model_for(m, probe.asked, name)
    return values_by_place(batch_of(m, pretrained, cells_of(m, probe.asked)), n_places(pretrained))


def values_by_place(batch: TokenBatch, n: int) -> np.ndarray:
    """Return the values of a batch by token id, those of tokens that are left out of sentences included."""
    out = np.zeros((batch.n_cells, n), dtype=np.float32)
    cells = np.arange(batch.n_cells)[:, None]
    out[cells, batch.scalars["depth_ids"]] = batch.scalars["depth_values"]
    row, place = np.nonzero(batch.mask)
    out[row, batch.token_ids[row, place]] = batch.values["value"][row, place]
    return out


def sentence_part(m: Measurement, probe: probes.SentencePart, name: str) -> np.ndarray:
    """Values, ids or padding of a rectangle."""
    pretrained = model_for(m, probe.asked, name)
    batch = batch_of(m, pretrained, cells_of(m, probe.asked))
    if probe.part == "padding":
        return ~batch.mask
    if probe.part == "ids":
        return batch.token_ids if probe.fill is None else np.where(batch.mask, batch.token_ids, int(probe.fill))
    fill = pad_value(pretrained) if probe.fill is None else probe.fill
    return np.where(batch.mask, batch.values["value"], np.float32(fill))


def marked(pretrained: Pretrained) -> list[float]:
    """Return the values that are marks."""
    bins = pretrained.architecture.value
    return [float(value) for value in bins.marked] if isinstance(bins, SoftBinsConfig) else []  # type: ignore[arg-type]


def pad_value(pretrained: Pretrained) -> float:
    """Return the value that marks padding: the last of those that are marked."""
    return marked(pretrained)[-1]


def vectors_at(m: Measurement, probe: probes.CellVectorsAt, name: str) -> torch.Tensor:
    """Vectors of the tokens of one cell."""
    found = re.search(r"_cell(\d+)_", name)
    if found is None:
        msg = f"{name!r} does not say of which cell it is."
        raise ValueError(msg)
    pretrained = model_for(m, probe.asked, name)
    tokens = to_tensors(batch_of(m, pretrained, [int(found[1])]), m.device_of)
    return pretrained.lcm(tokens, n_blocks=0 if probe.entering else None)[0]


# ---- learned bins ----


def grid_input(m: Measurement, probe: probes.GridInput, name: str) -> np.ndarray:
    """Check numbers that upstream has chosen."""
    require_shape(m.draws[name], (None,), name, kinds="f")
    return m.draws[name]


def grid_values(m: Measurement, probe: probes.GridValues, name: str) -> torch.Tensor:
    """What the value encoder makes of numbers."""
    encoder = submodel(m, probe.submodel).lcm.embed.value
    if not isinstance(encoder, AddedBins):
        msg = f"The values of this model have no bins, but {type(encoder).__name__}."
        raise TypeError(msg)
    bins: SoftBins = encoder.bins
    grid = torch.as_tensor(grid_input(m, probes.GridInput(), probe.grid), device=m.device_of)
    return bins.weights(grid) if probe.part == "weights" else bins(grid)


# ---- decoders ----


def genes(m: Measurement, probe: probes.NamedGenes, name: str) -> np.ndarray:
    """What the decoder says of every gene, along the way of `decode_genes`; or of several cells at once."""
    *_, depth, form = name.split("_")
    pretrained = submodel(m, probe.submodel)
    if form not in probe.forms:
        msg = f"{form!r} in the name is no form of the input that is read here; {', '.join(probe.forms)} are."
        raise ValueError(msg)
    recipe = dataclasses.replace(pretrained.gene_recipe(probe.forms[form]), depth=depth_of(depth), head=probe.head)
    pretrained = pretrained.reading(pretrained.gene_recipe(recipe))
    data, stored = opened(m, form), np.asarray(m.draws[name])
    every = decoded(data, pretrained, recipe, batch_size=1)
    rows = rows_that_fit(every, stored, name)
    if not probe.together:
        return every[rows]
    chosen = (m.adata if form == "F" else data.source.adata)[rows]
    data = dataclasses.replace(data, source=choose_matrix(chosen.copy()), obs=chosen.obs)
    return decoded(data, sharing(pretrained), recipe, batch_size=len(rows))


def decoded(data: Input, pretrained: Pretrained, recipe: GeneRecipe, *, batch_size: int) -> np.ndarray:
    """Return what the decoder says of every gene, in the order of the cells; NaN of a cell without any known gene."""
    found = list(decode_cells(data, pretrained, recipe.head, batch_size=batch_size))
    vectors = np.concatenate([out for _, out in found])
    every = np.full((data.source.shape[0], *vectors.shape[1:]), np.nan, dtype=vectors.dtype)
    every[np.concatenate([numbers for numbers, _ in found])] = vectors
    return every


def sharing(pretrained: Pretrained) -> Pretrained:
    """Return a model whose decoder takes one stabiliser for all cells that are computed at once, as upstream's does."""
    lcm = copy.deepcopy(pretrained.lcm)
    for module in lcm.decoder.modules() if lcm.decoder is not None else ():
        if isinstance(module, KernelAttention):
            module.stabilizer = "batch"
    return dataclasses.replace(pretrained, lcm=lcm)


def mask_input(m: Measurement, probe: probes.PlaceMaskInput, name: str) -> np.ndarray:
    """Check hidden places that upstream has chosen."""
    pretrained = submodel(m, probe.asked.submodel)
    mask = m.draws[name]
    require_shape(mask, (len(cells_of(m, probe.asked)), n_places(pretrained)), name, kinds="b")
    hidden = mask[:, pretrained.vocabulary.token_ids].sum(1)
    if (hidden != mask.sum(1)).any() or (hidden == 0).any():
        msg = f"{name!r} hides no gene in some cell, or what is none."
        raise ValueError(msg)
    return mask


def masked_places(m: Measurement, probe: probes.MaskedPlaces, name: str) -> np.ndarray | torch.Tensor | float:
    """Values, prediction or loss of cells at once, of which some places are hidden."""
    pretrained = sharing(model_for(m, probe.asked, name))
    batch = batch_of(m, pretrained, cells_of(m, probe.asked))
    values = values_by_place(batch, n_places(pretrained))
    tokens, read = to_tensors(batch, m.device_of), values
    mask = None
    if probe.mask is not None:
        mask = mask_input(m, probes.PlaceMaskInput(asked=probe.asked), probe.mask)
        hidden = marked(pretrained)[0]
        read = np.where(mask, np.float32(hidden), values)
        tokens = hiding(tokens, mask, hidden)
    if probe.part == "values":
        return read
    predicted = read_places(pretrained.lcm, pretrained.lcm.decode(pretrained.lcm(tokens), tokens), probe.head)
    if probe.part == "prediction" or mask is None:
        return predicted
    where = torch.as_tensor(mask, device=m.device_of)
    return float(losses.masked_mse(predicted.float(), torch.as_tensor(values, device=m.device_of), where))


def hiding(tokens: TokenTensors, mask: np.ndarray, value: float) -> TokenTensors:
    """Return tokens of which those of hidden places are left out; the decoder reads a marked value there."""
    hidden_bg = torch.as_tensor(mask, device=tokens.token_ids_bl.device)
    n = hidden_bg.shape[1]
    inside_bl = tokens.token_ids_bl < n
    is_hidden_bl = hidden_bg.gather(1, tokens.token_ids_bl.clamp(max=n - 1)) & inside_bl
    ids_bg = torch.arange(n, device=hidden_bg.device).expand_as(hidden_bg)
    value_bg = torch.zeros_like(hidden_bg, dtype=torch.float32).masked_fill(hidden_bg, value)
    if tokens.unread_ids_bm is not None and tokens.unread_value_bm is not None:
        value_bg = value_bg.scatter(1, tokens.unread_ids_bm, tokens.unread_value_bm)
    real_bl = inside_bl if tokens.mask_bl is None else tokens.mask_bl
    return dataclasses.replace(tokens, mask_bl=real_bl & ~is_hidden_bl, unread_ids_bm=ids_bg, unread_value_bm=value_bg)


def values_beside_total(m: Measurement, probe: probes.ValuesBesideTotal, name: str) -> np.ndarray:
    """Values of genes, and totals."""
    both = beside_total(m, submodel(m, probe.asked.submodel), cells_of(m, probe.asked))
    return both if probe.total else both[:, :-1]


def beside_total(m: Measurement, pretrained: Pretrained, rows: Sequence[int]) -> np.ndarray:
    """Return the values of genes of some cells, and the total of each as a further column."""
    values = values_by_place(batch_of(m, pretrained, rows), n_places(pretrained))
    totals = counts_of(m).sum(1)[list(rows), None].astype(np.float32)
    return np.concatenate([values[:, pretrained.vocabulary.token_ids], totals], axis=1)


def unscaled_genes(m: Measurement, probe: probes.UnscaledGenes, name: str) -> np.ndarray:
    """Vectors of genes with another weight of the direct way."""
    pretrained = sharing(model_for(m, probe.asked, name))
    encoder = pretrained.lcm.embed.value
    if not isinstance(encoder, AddedBins):
        msg = f"The values of this model have no bins, but {type(encoder).__name__}."
        raise TypeError(msg)
    encoder.bins.direct = probe.direct
    rows = cells_of(m, probe.asked)
    batch = batch_of(m, pretrained, rows)
    ((_, out),) = decode(pretrained.lcm, [batch], head=None, device=m.device_of)
    return out[:, pretrained.vocabulary.token_ids]


MEASURES: dict[type, Callable[[Measurement, Any, str], Any]] = {
    probes.AlignedCounts: lambda m, probe, name: counts_of(m),
    probes.AbsentGenes: absent_genes,
    probes.NamedEmbedding: embedding,
    probes.NamedGenes: genes,
    probes.PlaceValues: place_values,
    probes.SentencePart: sentence_part,
    probes.CellVectorsAt: vectors_at,
    probes.GridInput: grid_input,
    probes.GridValues: grid_values,
    probes.PlaceMaskInput: mask_input,
    probes.MaskedPlaces: masked_places,
    probes.ValuesBesideTotal: values_beside_total,
    probes.UnscaledGenes: unscaled_genes,
}
