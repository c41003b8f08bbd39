"""Reference numbers of CellPLM: which probe computes which array.

Made by the authors' code at OmicsML/CellPLM@b59ee768 on a tiny random checkpoint; torch 2.13.0 on a CPU, scanpy 1.11.5,
anndata 0.12.19. Arrays that start with `nobatch_` are of all cells as one set, the others of sets by `batch`.
"""

from __future__ import annotations

from functools import partial

from sclcm.reference._set_probes import (
    CountMaskInput,
    CovariateInput,
    Decoded,
    FineTuned,
    FullCounts,
    GeneRows,
    KnownGenes,
    Mixture,
    NoiseInput,
    OneHotPerCluster,
    Pretraining,
    PretrainingDraws,
    SetVectors,
    UniformPerCluster,
    WeightInput,
)

in_sets = partial(Mixture, column="batch", uniforms="gumbel_uniform")
at_once = partial(Mixture, column=None, uniforms="nobatch_gumbel_uniform")
imputed = partial(Decoded, column="batch", clusters="imputation_onehot")
annotation = partial(FineTuned, prefix="ann_w_", without=("latent.", "decoder."), column="batch")
DRAWN = PretrainingDraws(
    mask="pre_mask",
    uniforms="pre_gumbel_uniform",
    noise="pre_gauss_noise",
    labels=(("batch", "pre_batch"), ("dataset", "pre_dataset"), ("platform", "pre_platform")),
)

ARRAYS = {
    "gene_weighted_sum": SetVectors(part="bag", column="batch"),
    "input_embedding": SetVectors(part="input", column="batch"),
    "layer*": SetVectors(part="block", column="batch"),
    "pre_latent_norm": SetVectors(part="last", column="batch"),
    "cluster_logits": in_sets(part="logits"),
    "gumbel_uniform": UniformPerCluster(),
    "cluster_onehot": in_sets(part="drawn"),
    "latent_var": in_sets(part="variance"),
    "cell_embedding": in_sets(part="mean"),
    "embedding_given_cluster": in_sets(part="each_mean"),
    "prior_mean": in_sets(part="prior_mean"),
    "kept_genes": KnownGenes(),
    "nobatch_gene_weighted_sum": SetVectors(part="bag", column=None),
    "nobatch_input_embedding": SetVectors(part="input", column=None),
    "nobatch_layer*": SetVectors(part="block", column=None),
    "nobatch_pre_latent_norm": SetVectors(part="last", column=None),
    "nobatch_cluster_logits": at_once(part="logits"),
    "nobatch_gumbel_uniform": UniformPerCluster(),
    "nobatch_cluster_onehot": at_once(part="drawn"),
    "nobatch_latent_var": at_once(part="variance"),
    "nobatch_cell_embedding": at_once(part="mean"),
    "nobatch_embedding_given_cluster": at_once(part="each_mean"),
    "nobatch_prior_mean": at_once(part="prior_mean"),
    "imputation_pred": imputed(part="imputed"),
    "imputation_onehot": OneHotPerCluster(),
    "decoder_mean": imputed(part="mean"),
    "decoder_disp_row": imputed(part="dispersion"),
    "decoder_latent": imputed(part="latent"),
    "ann_w_*": WeightInput(),
    "annotation_logits": annotation(part="classes"),
    "annotation_latent": annotation(part="vectors"),
    "pre_gaussian_term": Pretraining(part="gaussian", drawn=DRAWN),
    "pre_categorical_term": Pretraining(part="categorical", drawn=DRAWN),
    "pre_soft_assignment": Pretraining(part="shares", drawn=DRAWN),
    "pre_counts": FullCounts(),
    "pre_mask": CountMaskInput(),
    "pre_batch": CovariateInput(covariate="batch"),
    "pre_dataset": CovariateInput(covariate="dataset"),
    "pre_platform": CovariateInput(covariate="platform"),
    "pre_gumbel_uniform": UniformPerCluster(),
    "pre_gauss_noise": NoiseInput(),
    "pre_loss": Pretraining(part="loss", drawn=DRAWN),
    "pre_latent_loss": Pretraining(part="latent_loss", drawn=DRAWN),
    "pre_target_loss": Pretraining(part="counts_loss", drawn=DRAWN),
    "pre_latent": Pretraining(part="latent", drawn=DRAWN),
    "pre_mean": Pretraining(part="mean", drawn=DRAWN),
    "gene_embedding": GeneRows(),
}
