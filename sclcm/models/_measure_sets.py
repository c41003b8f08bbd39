"""Arrays of models whose tokens are cells: vectors within sets, latent mixtures, decoded counts and pre-training."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from scipy.sparse import csr_matrix

from sclcm.checkpoints.files import find_one
from sclcm.checkpoints.readers import read_json, read_tensors
from sclcm.data.conditions import number_sets
from sclcm.engine.sets import Pieces, SetStep, run_sets, through_blocks, to_cells
from sclcm.models._cell_vectors import cell_vectors
from sclcm.models._classification import class_logits
from sclcm.models._imputation import counts_of
from sclcm.models._measure_draws import require_shape
from sclcm.models._measure_rows import rows_that_fit
from sclcm.models._set_pass import members, read_cells
from sclcm.nn.count_decoder import CountDecoder, masked_counts_loss, whole_counts_loss
from sclcm.nn.mixture_latent import MixtureLatent, categorical_term, floored, gaussian_term, gumbel, one_hot, sample
from sclcm.reference import _set_probes as probes
from sclcm.zoo._registry import get_spec
from sclcm.zoo._spec import BesideWeights

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import Tensor

    from sclcm.models._measure import Measurement
    from sclcm.models._pretrained import Pretrained


# ---- sets ----


def read_sets(
    m: Measurement,
    column: str | None,
    read: Callable[[SetStep], Tensor],
    *,
    n_blocks: int | None = None,
    pretrained: Pretrained | None = None,
) -> np.ndarray:
    """Return what is read of each cell, rows in input order; each set is one step."""
    model = pretrained or m.pretrained
    key = column if column in m.adata.obs else None
    data = dataclasses.replace(m.input, sets=number_sets(m.adata.obs, key, model=model.name))
    x_nd, _ = read_cells(data, model)
    kept: list[tuple[np.ndarray, np.ndarray]] = []

    class Keep:
        def update(self, step: SetStep) -> None:
            kept.append((step.rows, read(step).float().cpu().numpy()))

    list(run_sets(model.lcm, x_nd, members(data), reducers=[Keep()], n_blocks=n_blocks, n_at_once=len(x_nd)))
    rows, found = (np.concatenate(parts) for parts in zip(*kept, strict=True))
    return found[np.argsort(rows)]


def set_vectors(m: Measurement, probe: probes.SetVectors, name: str) -> Any:
    """Vectors of cells after some stage."""
    lcm = m.pretrained.lcm
    match probe.part:
        case "bag":
            return lcm.cell_embedder.sums(to_cells(m.sentences, m.device_of))
        case "input":
            return read_sets(m, probe.column, lambda step: step.x_nd, n_blocks=0)
        case "last":
            return read_sets(m, probe.column, lambda step: step.x_nd)
    number = name.removeprefix(name.rstrip("0123456789"))
    if not number or int(number) >= lcm.n_blocks:
        msg = f"{name!r} does not end in the number of one of the {lcm.n_blocks} blocks."
        raise ValueError(msg)
    block = lcm.backbone.blocks[int(number)]
    return read_sets(m, probe.column, lambda step: block(step.x_nd.unsqueeze(0), None)[0], n_blocks=int(number))


# ---- the latent mixture ----


def latent_of(m: Measurement) -> MixtureLatent:
    """Return the mixture of the model."""
    return cast("MixtureLatent", m.pretrained.lcm.heads["mixture"])


def uniform_per_cluster(m: Measurement, probe: probes.UniformPerCluster, name: str) -> np.ndarray:
    """One number of [0, 1) for each cell and cluster."""
    stored = np.asarray(m.draws[name])
    require_shape(stored, (m.adata.n_obs, latent_of(m).n_clusters), name, kinds="f")
    if not ((stored >= 0) & (stored < 1)).all():
        msg = f"{name!r} holds numbers from {stored.min()} to {stored.max()}; expected 0 to less than 1."
        raise ValueError(msg)
    return stored


def one_hot_per_cluster(m: Measurement, probe: probes.OneHotPerCluster, name: str) -> np.ndarray:
    """One cluster for each cell."""
    stored = np.asarray(m.draws[name])
    require_shape(stored, (m.adata.n_obs, latent_of(m).n_clusters), name, kinds="fiu")
    if not (np.isin(stored, (0, 1)).all() and (stored.sum(1) == 1).all()):
        msg = f"{name!r} should say one cluster for each cell, by a one among zeros."
        raise ValueError(msg)
    return stored


def _of_rows(m: Measurement, name: str, step: SetStep) -> Tensor:
    return torch.as_tensor(np.asarray(m.draws[name])[step.rows], device=m.device_of).float()


def mixture(m: Measurement, probe: probes.Mixture, name: str) -> np.ndarray:
    """What the mixture says of each cell."""
    latent = latent_of(m)

    def read(step: SetStep) -> Tensor:
        logits_nk = latent.clusters(step.x_nd)
        if probe.part == "logits":
            return logits_nk
        if probe.part == "each_mean":
            return latent.means(step.x_nd)
        drawn_nk = one_hot(logits_nk + gumbel(_of_rows(m, probe.uniforms, step)))
        match probe.part:
            case "drawn":
                return drawn_nk
            case "mean":
                return step.lcm.read_cells("latent_drawn", step.x_nd, _of_rows(m, probe.uniforms, step))
            case "variance":
                return latent.posterior(step.x_nd, drawn_nk)[1]
            case _:
                return latent.prior(drawn_nk)[0]

    return read_sets(m, probe.column, read)


# ---- decoded counts ----


def decoder_of(m: Measurement) -> CountDecoder:
    """Return the decoder of the model."""
    return cast("CountDecoder", m.pretrained.lcm.heads["counts"])


def decoded(m: Measurement, probe: probes.Decoded, name: str) -> Any:
    """Counts decoded from the latent vector given clusters."""
    latent, decoder = latent_of(m), decoder_of(m)
    if probe.part == "dispersion":
        return decoder.dispersion()

    def posterior(step: SetStep) -> Tensor:
        return latent.posterior(step.x_nd, _of_rows(m, probe.clusters, step))[0]

    if probe.part != "imputed":
        return read_sets(
            m, probe.column, posterior if probe.part == "latent" else lambda step: decoder(posterior(step))
        )
    known, place = np.unique(_known_features(m), return_inverse=True)
    totals = np.asarray(m.chunk.counts.sum(1)).ravel()
    latent_nz = torch.from_numpy(read_sets(m, probe.column, posterior)).to(m.device_of)
    return counts_of(m.pretrained, "counts", latent_nz, known=known, totals=totals)[:, place]


def _known_features(m: Measurement) -> np.ndarray:
    """Return the features of the input's genes, in the input's order."""
    features = m.input.alignment.feature_of_var
    return features[features >= 0]


def known_genes(m: Measurement, probe: probes.KnownGenes, name: str) -> np.ndarray:
    """Genes of the input that the model knows."""
    return m.pretrained.vocabulary.features[_known_features(m)].astype(str)


def gene_rows(m: Measurement, probe: probes.GeneRows, name: str) -> np.ndarray:
    """Vectors of genes."""
    return m.pretrained.gene_vectors()


# ---- fine-tuned models ----


def weight_input(m: Measurement, probe: probes.WeightInput, name: str) -> np.ndarray:
    """Finite weights."""
    stored = np.asarray(m.draws[name])
    if stored.dtype.kind != "f" or not stored.size or not np.isfinite(stored).all():
        msg = f"{name!r} should hold weights, all of them finite."
        raise ValueError(msg)
    return stored


def fine_tuned(m: Measurement, probe: probes.FineTuned, name: str) -> np.ndarray:
    """Cell vectors of a fine-tuned model, or its scores of classes as `tl.annotate` has them."""
    model = _fine_tuned_model(m, probe)
    key = probe.column if probe.column in m.adata.obs else None
    data = dataclasses.replace(m.input, sets=number_sets(m.adata.obs, key, model=model.name))
    if probe.part == "classes":
        return class_logits(data, model, batch_size=None)
    return cell_vectors(data, model, model.recipe("embed"), batch_size=None)


def _fine_tuned_model(m: Measurement, probe: probes.FineTuned) -> Pretrained:
    """Write the fine-tuned checkpoint as its authors would, and load it."""
    spec = get_spec(m.family)
    entry = spec.config.tensors if isinstance(spec.config, BesideWeights) else None
    file = find_one(m.folder, spec.weights)
    tensors = {k: t for k, t in read_tensors(file, key=entry).items() if not k.startswith(probe.without)}
    for name in m.draws:
        if name.startswith(probe.prefix):
            tensors[name.removeprefix(probe.prefix)] = torch.from_numpy(np.asarray(m.draws[name]))
    with tempfile.TemporaryDirectory() as folder:
        torch.save(tensors if entry is None else {entry: tensors}, Path(folder) / file.name)
        return m.load(Path(folder))


# ---- pre-training ----


def count_mask_input(m: Measurement, probe: probes.CountMaskInput, name: str) -> np.ndarray:
    """Return a mask over cells and genes that hides something."""
    stored = np.asarray(m.draws[name])
    require_shape(stored, (m.adata.n_obs, m.pretrained.vocabulary.n_features), name, kinds="b")
    if not stored.any():
        msg = f"{name!r} hides nothing."
        raise ValueError(msg)
    return stored


def covariate_input(m: Measurement, probe: probes.CovariateInput, name: str) -> np.ndarray:
    """Labels that the decoder knows."""
    stored = np.asarray(m.draws[name])
    require_shape(stored, (m.adata.n_obs,), name, kinds="iu")
    known = decoder_of(m).n_labels(probe.covariate)
    if not 0 <= stored.min() <= stored.max() < known:
        msg = f"{name!r} holds numbers from {stored.min()} to {stored.max()}; the decoder knows {known} labels."
        raise ValueError(msg)
    return stored


def noise_input(m: Measurement, probe: probes.NoiseInput, name: str) -> np.ndarray:
    """One finite number for each cell and latent channel."""
    stored = np.asarray(m.draws[name])
    require_shape(stored, (m.adata.n_obs, latent_of(m).mean.out_features), name, kinds="f")
    if not np.isfinite(stored).all():
        msg = f"{name!r} should hold finite numbers."
        raise ValueError(msg)
    return stored


def full_counts(m: Measurement, probe: probes.FullCounts, name: str) -> np.ndarray:
    """Counts over the vocabulary."""
    return m.chunk.counts.toarray()


def pretraining(m: Measurement, probe: probes.Pretraining, name: str) -> Any:
    """Return a part of a step of pre-training."""
    found = _pretraining_step(m, probe)[probe.part]
    if probe.part != "mean":
        return found
    means = found.cpu().numpy()
    return means[rows_that_fit(means, np.atleast_2d(m.draws[name]), name)]


def _pretraining_step(m: Measurement, probe: probes.Pretraining) -> Mapping[str, Tensor]:
    latent, decoder = latent_of(m), decoder_of(m)

    def drawn(name: str) -> Tensor:
        return torch.as_tensor(np.asarray(m.draws[name]), device=m.device_of)

    counts, mask = torch.as_tensor(m.chunk.counts.toarray(), device=m.device_of), drawn(probe.drawn.mask)
    x_nd = _masked_vectors(m, np.asarray(m.draws[probe.drawn.mask]))
    logits = latent.clusters(x_nd)
    shares = (logits + gumbel(drawn(probe.drawn.uniforms))).softmax(-1)
    posterior, prior = latent.posterior(x_nd, shares), latent.prior(shares)
    z_nz = sample(*posterior, drawn(probe.drawn.noise))
    labels = {key: drawn(name).long() for key, name in probe.drawn.labels if name in m.draws}
    mean = decoder(z_nz, labels)
    gaussian, categorical = gaussian_term(z_nz, posterior, prior), categorical_term(logits)
    settings = _loss_settings(m)
    weights, floor = [float(settings.get(*weight)) for weight in probe.weights], float(settings.get(*probe.floor))
    latent_loss = floored([gaussian, categorical], weights=weights, floor=floor)
    loss = masked_counts_loss if settings.get(*probe.hidden) else whole_counts_loss
    counts_loss = loss(counts, mean, decoder.dispersion(), mask)
    return {
        "shares": shares,
        "latent": z_nz,
        "mean": mean,
        "gaussian": gaussian,
        "categorical": categorical,
        "latent_loss": latent_loss,
        "counts_loss": counts_loss,
        "loss": latent_loss + counts_loss,
    }


def _masked_vectors(m: Measurement, mask: np.ndarray) -> Tensor:
    """Return vectors after the last norm, of all cells as one set, some counts being hidden."""
    visible = csr_matrix(np.where(mask, 0, m.chunk.counts.toarray()))
    sentences = m.pretrained.encode(dataclasses.replace(m.chunk, counts=visible))
    lcm = m.pretrained.lcm
    x_nd = lcm.cells(to_cells(sentences, m.device_of))
    return through_blocks(lcm, x_nd, n_blocks=None, pieces=Pieces(len(x_nd)))


def _loss_settings(m: Measurement) -> Mapping[str, Any]:
    config = get_spec(m.family).config
    if not isinstance(config, BesideWeights):
        msg = f"{m.family!r} keeps no configuration beside its weights, in which the loss is described."
        raise TypeError(msg)
    return read_json(find_one(m.folder, (config.file,)))


MEASURES: dict[type, Callable[[Measurement, Any, str], Any]] = {
    probes.SetVectors: set_vectors,
    probes.UniformPerCluster: uniform_per_cluster,
    probes.OneHotPerCluster: one_hot_per_cluster,
    probes.Mixture: mixture,
    probes.Decoded: decoded,
    probes.KnownGenes: known_genes,
    probes.GeneRows: gene_rows,
    probes.WeightInput: weight_input,
    probes.FineTuned: fine_tuned,
    probes.CountMaskInput: count_mask_input,
    probes.CovariateInput: covariate_input,
    probes.NoiseInput: noise_input,
    probes.FullCounts: full_counts,
    probes.Pretraining: pretraining,
}
