"""Probes of models whose tokens are cells: sets, a mixture latent, decoded counts and their pre-training."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, kw_only=True)
class SetVectors:
    """Vectors of cells.

    Parameters
    ----------
    part
        The sum of the genes' vectors; what enters the first block; what a block gives, its number at the end of the
        array's name; what the last norm gives.
    column
        Column of obs that names the sets; all cells are one without it, or where it is `None`.
    """

    part: Literal["bag", "input", "block", "last"]
    column: str | None


@dataclass(frozen=True, kw_only=True)
class UniformPerCluster:
    """Uniform numbers that upstream drew, as an input: one of [0, 1) for each cell and cluster."""


@dataclass(frozen=True, kw_only=True)
class OneHotPerCluster:
    """Clusters that upstream drew, as an input: one for each cell."""


@dataclass(frozen=True, kw_only=True)
class Mixture:
    """What a mixture latent says of cells.

    Parameters
    ----------
    part
        Logits of clusters; the cluster that is drawn; mean and variance given it, and the mean that the mixture itself
        gives it; the mean given each cluster.
    column
        As for `SetVectors`.
    uniforms
        Array with the uniform numbers by which clusters are drawn.
    """

    part: Literal["logits", "drawn", "mean", "variance", "prior_mean", "each_mean"]
    column: str | None
    uniforms: str


@dataclass(frozen=True, kw_only=True)
class Decoded:
    """Counts decoded from latent vectors, nothing else being known of the cells.

    Parameters
    ----------
    part
        The latent vector; the mean of each gene of the vocabulary; the dispersion of each; means of the genes that the
        input has, in its order, scaled to the counts of a cell in them.
    column
        As for `SetVectors`.
    clusters
        Array with the clusters.
    """

    part: Literal["latent", "mean", "dispersion", "imputed"]
    column: str | None
    clusters: str


@dataclass(frozen=True, kw_only=True)
class KnownGenes:
    """Genes of the input that the model knows, in the input's order."""


@dataclass(frozen=True, kw_only=True)
class GeneRows:
    """Vectors of the genes of the vocabulary, in its order."""


@dataclass(frozen=True, kw_only=True)
class WeightInput:
    """Weights of a fine-tuned model, as an input: finite numbers. The array's name ends in that of the tensor."""


@dataclass(frozen=True, kw_only=True)
class FineTuned:
    """What heads of a fine-tuned model give, whose further weights are stored as arrays.

    Parameters
    ----------
    prefix
        What the names of those arrays start with, before the name of the tensor.
    without
        What the names of tensors start with that the fine-tuned model has no more.
    part
        Cell vectors, or scores of classes.
    column
        As for `SetVectors`.
    """

    prefix: str
    without: tuple[str, ...]
    part: Literal["vectors", "classes"]
    column: str | None


@dataclass(frozen=True, kw_only=True)
class CountMaskInput:
    """Counts that upstream hid, as an input: a mask over cells and genes that hides something."""


@dataclass(frozen=True, kw_only=True)
class CovariateInput:
    """Labels that upstream gave to cells, as an input: numbers that the decoder knows.

    Parameters
    ----------
    covariate
        What they are labels of.
    """

    covariate: str


@dataclass(frozen=True, kw_only=True)
class NoiseInput:
    """Normal numbers that upstream drew, as an input: a finite one for each cell and latent channel."""


@dataclass(frozen=True, kw_only=True)
class FullCounts:
    """Counts over all genes of the vocabulary."""


@dataclass(frozen=True, kw_only=True)
class PretrainingDraws:
    """Arrays with what was drawn in a step of pre-training.

    Parameters
    ----------
    mask
        Which counts are hidden.
    uniforms
        Uniform numbers for clusters.
    noise
        Normal numbers for latent vectors.
    labels
        Labels of cells by covariate; those that are not stored are unknown.
    """

    mask: str
    uniforms: str
    noise: str
    labels: tuple[tuple[str, str], ...]


@dataclass(frozen=True, kw_only=True)
class Pretraining:
    """A step of pre-training on all cells as one set, without dropout.

    Parameters
    ----------
    part
        Shares of clusters; latent vectors; means of some cells; the two terms of the latent space, before floor
        and weight; its loss; that of the counts; their sum.
    drawn
        What was drawn.
    weights
        Keys of the release's configuration with the weights of the two terms, and what upstream takes without them.
    floor
        Its key with the floor of both, likewise.
    hidden
        Its key for whether hidden counts are scored by themselves as well, likewise.
    """

    part: Literal["shares", "latent", "mean", "gaussian", "categorical", "latent_loss", "counts_loss", "loss"]
    drawn: PretrainingDraws
    weights: tuple[tuple[str, float], ...] = (("w_li", 1.0), ("w_en", 1.0))
    floor: tuple[str, float] = ("lamda", 0.5)
    hidden: tuple[str, bool] = ("dae", True)
