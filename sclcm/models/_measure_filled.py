"""Compute arrays on sentences filled up to the longest, whose padding upstream computes too."""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from sclcm.checkpoints.files import find_one
from sclcm.checkpoints.readers import read_pickle, read_tensors
from sclcm.engine.infer import run, to_tensors
from sclcm.engine.places import PlaceMeans
from sclcm.models._classification import class_logits
from sclcm.models._measure_draws import require_shape
from sclcm.nn import losses
from sclcm.nn.priors import JoinedInputs, require_species, require_values
from sclcm.reference import _filled_probes as probes
from sclcm.zoo._registry import get_spec

if TYPE_CHECKING:
    from collections.abc import Callable

    from sclcm.models._measure import Measurement
    from sclcm.models._pretrained import Pretrained
    from sclcm.nn.priors import PriorVectors
    from sclcm.nn.tokens import TokenTensors


def filled(m: Measurement) -> TokenTensors:
    """Return the sentences of all cells, filled up and in order, with a mask of what is no padding."""
    n_obs = m.adata.n_obs
    (batch,) = m.input.batches(m.pretrained, batch_size=n_obs, chunk_size=n_obs, mask_padding=False)
    tokens = to_tensors(batch, m.device_of)
    real_bl = tokens.gene_mask_bl.clone()
    real_bl[:, : n_reserved(m)] = True
    return dataclasses.replace(tokens, mask_bl=real_bl)


def n_reserved(m: Measurement) -> int:
    """Return how many places at the start of a sentence are kept free."""
    return m.pretrained.encoding.n_reserved


def vectors(lcm: torch.nn.Module, tokens: TokenTensors, n_blocks: int | None = None) -> Tensor:
    """Return token vectors, those of padding included, which the fast ways of inference leave out."""
    with torch.inference_mode(mode=False), torch.enable_grad():
        return lcm(tokens, n_blocks=n_blocks).detach()


def part(m: Measurement, probe: probes.Filled, name: str) -> np.ndarray:
    """What stands at each place of filled sentences."""
    tokens, start = m.once(filled), n_reserved(m)
    match probe.part:
        case "tokens":
            found = tokens.token_ids_bl[:, start:]
        case "values":
            found = require_values(tokens.value_bl)[:, start:]
        case "whole_values":
            found = require_values(tokens.value_bl)[:, start:].trunc().long()
        case "real":
            found = tokens.gene_mask_bl[:, start:].long()
        case "length":
            found = tokens.gene_mask_bl.sum(1)
        case "species":
            found = require_species(tokens.species_b).unsqueeze(1)
    return found.cpu().numpy()


def hidden(m: Measurement, probe: probes.FilledHidden, name: str) -> Tensor:
    """Token vectors at all places."""
    tokens, lcm = m.once(filled), m.pretrained.lcm
    if not probe.mask_padding:
        tokens = dataclasses.replace(tokens, mask_bl=None)
    depth = 0 if probe.layer == 0 else lcm.n_blocks + 1 + probe.layer
    return vectors(lcm, tokens, depth)[torch.as_tensor(m.draws[probe.rows], device=m.device_of)]


def read_head(m: Measurement, head: str, tokens: TokenTensors) -> Tensor:
    """Apply a head to all places but those kept free."""
    lcm = m.pretrained.lcm
    if head not in lcm.heads:
        msg = f"The checkpoint has no head {head!r}; it has {sorted(lcm.heads)}."
        raise ValueError(msg)
    x_bld = vectors(lcm, tokens)
    return lcm.read(head, x_bld, tokens, x_bld[:, 0])[:, n_reserved(m) :]


def head_values(m: Measurement, probe: probes.FilledHead, name: str) -> Tensor:
    """What a head gives, for as many cells and places as are stored."""
    n_cells, n_places = (max(length, 1) for length in (*np.shape(m.draws[name]), 1, 1)[:2])
    return read_head(m, probe.head, m.once(filled))[:n_cells, :n_places]


def first_vector(m: Measurement, probe: probes.FirstVector, name: str) -> Tensor:
    """The vector at the first place when all cells are said to be of one species."""
    return vectors(m.pretrained.lcm, of_species(m.once(filled), probe.species))[:, 0]


def of_species(tokens: TokenTensors, number: int) -> TokenTensors:
    """Return the same tokens of cells that are all of one species."""
    return dataclasses.replace(tokens, species_b=torch.full_like(require_species(tokens.species_b), number))


def place_mean(m: Measurement, probe: probes.PlaceMean, name: str) -> np.ndarray:
    """Average over cells at each place."""
    reducer = PlaceMeans(device=m.device_of)
    batches = m.input.batches(m.pretrained, batch_size=None, mask_padding=False)
    list(run(m.pretrained.lcm, batches, [reducer], device=m.device_of, n_blocks=None))
    return reducer.means()[n_reserved(m) :]


# ---- hidden tokens ----


def check_masking(m: Measurement, masking: probes.Masking) -> dict[str, np.ndarray]:
    """Return what upstream hid, as far as it could be drawn; elsewhere what the sentences hold."""
    own, values = (part(m, probes.Filled(part=which), "") for which in ("tokens", "values"))
    drawn = {name: np.asarray(m.draws[name]) for name in (masking.tokens, masking.values, masking.labels)}
    for name, kinds in ((masking.tokens, "iu"), (masking.values, "f"), (masking.labels, "iu")):
        require_shape(drawn[name], own.shape, name, kinds=kinds)
    chosen = (drawn[masking.labels] != masking.ignored) & (part(m, probes.Filled(part="real"), "") > 0)
    known = (drawn[masking.tokens] >= 0) & (drawn[masking.tokens] < m.pretrained.vocabulary.n_tokens)
    tokens = np.where(chosen & known, drawn[masking.tokens], own)
    keeps_value = (tokens == own) & (drawn[masking.values] != masking.hidden)
    return {
        "tokens": tokens,
        "values": np.where(chosen & ~keeps_value, np.float32(masking.hidden), values),
        "labels": np.where(chosen, own, masking.ignored),
    }


def masked(m: Measurement, probe: probes.Masked, name: str) -> np.ndarray:
    """One of the arrays of a masking."""
    return check_masking(m, probe.masking)[probe.part]


def masking_loss(m: Measurement, probe: probes.MaskingLoss, name: str) -> float | np.ndarray:
    """Cross-entropy of hidden tokens and squared error of their values."""
    if not fusion(m).has_value:
        if not probe.token:
            return np.zeros(1 if np.ndim(m.draws[name]) else ())  # upstream has it in a list
        probe = dataclasses.replace(probe, token=1, value=0)
    drawn, tokens, start = check_masking(m, probe.masking), m.once(filled), n_reserved(m)
    ids_bl, value_bl = tokens.token_ids_bl.clone(), require_values(tokens.value_bl).clone()
    chosen_bl = torch.as_tensor(drawn["labels"] != probe.masking.ignored, device=m.device_of)
    wanted_bl = value_bl[:, start:].clone()
    ids_bl[:, start:] = torch.as_tensor(drawn["tokens"], device=m.device_of)
    value_bl[:, start:] = torch.as_tensor(drawn["values"], device=m.device_of)
    seen = dataclasses.replace(tokens, token_ids_bl=ids_bl, value_bl=value_bl)
    loss = torch.zeros((), device=m.device_of)
    if probe.token:
        logits_nt = read_head(m, "token", seen)[chosen_bl].float()
        loss += probe.token * functional.cross_entropy(logits_nt, tokens.token_ids_bl[:, start:][chosen_bl])
    if probe.value:
        loss += probe.value * losses.masked_mse(read_head(m, "value", seen).float(), wanted_bl, chosen_bl)
    return float(loss)


# ---- a head of a fine-tuned model ----


def tuned(m: Measurement, head: probes.TunedHead) -> Pretrained:
    """Return the checkpoint with the tensors of a head."""
    spec = get_spec(m.family)
    weights = find_one(m.folder, spec.weights)
    tensors = read_tensors(weights)
    tensors |= {tensor: torch.as_tensor(np.asarray(m.draws[name])) for name, tensor in head.tensors}
    with tempfile.TemporaryDirectory() as folder:
        save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, Path(folder) / weights.name)
        if isinstance(spec.config, str):
            shutil.copy(find_one(weights.parent, (spec.config,)), folder)
        return m.load(Path(folder))


def tuned_tensor(m: Measurement, probe: probes.TunedTensor, name: str) -> Tensor:
    """Return a tensor of the head, as it was loaded."""
    return tuned(m, probe.head).lcm.heads[probe.head.name].get_parameter(probe.parameter)


def tuned_logits(m: Measurement, probe: probes.TunedLogits, name: str) -> np.ndarray:
    """Logits of a head of a fine-tuned model, along the way of `tl.annotate`."""
    return class_logits(m.input, tuned(m, probe.head), batch_size=None)


def tuned_loss(m: Measurement, probe: probes.TunedLoss, name: str) -> float:
    """Mean cross-entropy of these logits."""
    labels = label_input(m, probes.LabelInput(head=probe.logits.head), probe.labels)
    logits_bc = torch.as_tensor(tuned_logits(m, probe.logits, name))
    return float(functional.cross_entropy(logits_bc, torch.as_tensor(labels)))


def label_input(m: Measurement, probe: probes.LabelInput, name: str) -> np.ndarray:
    """Classes that the head knows, one a cell."""
    stored = np.asarray(m.draws[name])
    require_shape(stored, (m.adata.n_obs,), name, kinds="iu")
    n_classes = tuned(m, probe.head).architecture.heads[probe.head.name].n_classes  # type: ignore[union-attr]
    if not 0 <= stored.min() <= stored.max() < n_classes:
        msg = f"{name!r} has classes {sorted(set(stored.tolist()))}, but the head knows {n_classes}."
        raise ValueError(msg)
    return stored


# ---- what a model knows besides counts ----


def prior_rows(m: Measurement, probe: probes.PriorRows, name: str) -> Tensor:
    """First rows of a table of prior vectors, which the authors' files must have as well where they are there."""
    priors = fusion(m).priors
    if probe.prior not in priors:
        return m.as_many(prior_table(m, probe), name)
    rows = m.as_many(cast("PriorVectors", priors[probe.prior]).table.weight, name)
    if all(any(m.folder.glob(file)) for file in (probe.names, *probe.files)):
        differs = (rows.cpu() != m.as_many(prior_table(m, probe), name)).any(1)
        if differs.any():
            token = int(differs.nonzero()[0])
            msg = f"The prior vector {probe.prior!r} of the token {token} is another in the authors' files."
            raise ValueError(msg)
    return rows


def prior_table(m: Measurement, probe: probes.PriorRows) -> Tensor:
    """Return the prior vectors of all tokens from the authors' files; zeros for special tokens."""
    vocabulary = m.pretrained.vocabulary
    names, *tables = (read_pickle(find_one(m.folder, (file,))) for file in (probe.names, *probe.files))
    of_gene = zip(vocabulary.features.tolist(), vocabulary.species_of_features.tolist(), strict=True)
    vectors = np.stack([tables[species][names[gene]] for gene, species in of_gene])
    out = np.zeros((vocabulary.n_tokens, vectors.shape[1]), dtype=np.float32)
    out[vocabulary.token_ids] = vectors
    return torch.as_tensor(out)


def partner_tokens(m: Measurement, probe: probes.PartnerTokens, name: str) -> np.ndarray:
    """Tokens with a partner, or the partners."""
    index = fusion(m).partners.index.cpu().numpy()
    stored, tokens = np.asarray(m.draws[probe.keys]), np.flatnonzero(index != np.arange(len(index)))
    if stored.shape == tokens.shape and (np.sort(stored) == tokens).all():
        tokens = stored  # their order is that of a dictionary of upstream
    return tokens if probe.part == "tokens" else index[tokens]


def fusion(m: Measurement) -> JoinedInputs:
    """Return the part of the model that joins what it knows of a gene."""
    found = m.pretrained.lcm.sentence_embedder.fusion
    if found is None:
        msg = "The model has no prior vectors."
        raise ValueError(msg)
    return found


MEASURES: dict[type, Callable[[Measurement, Any, str], Any]] = {
    probes.Filled: part,
    probes.FilledHidden: hidden,
    probes.FilledHead: head_values,
    probes.FirstVector: first_vector,
    probes.PlaceMean: place_mean,
    probes.Masked: masked,
    probes.MaskingLoss: masking_loss,
    probes.TunedTensor: tuned_tensor,
    probes.TunedLogits: tuned_logits,
    probes.TunedLoss: tuned_loss,
    probes.LabelInput: label_input,
    probes.PriorRows: prior_rows,
    probes.PartnerTokens: partner_tokens,
}
