"""What training on values, classes and cells minimises, as plain functions of tensors."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def masked_mse(predicted_bl: Tensor, target_bl: Tensor, mask_bl: Tensor) -> Tensor:
    """Return the mean squared difference over the tokens that the mask names; all of shape `(cells, tokens)`."""
    return functional.mse_loss(predicted_bl[mask_bl], target_bl[mask_bl])


def masked_relative_error(predicted_bl: Tensor, target_bl: Tensor, mask_bl: Tensor) -> Tensor:
    """Return the mean absolute difference over the target, plus 1e-6, over the tokens that the mask names."""
    target_n = target_bl[mask_bl]
    return ((predicted_bl[mask_bl] - target_n).abs() / (target_n + 1e-6)).mean()


def masked_expressed(logit_bl: Tensor, target_bl: Tensor, mask_bl: Tensor) -> Tensor:
    """Return the cross-entropy of being expressed, a target above zero, over the tokens that the mask names."""
    return functional.binary_cross_entropy_with_logits(logit_bl[mask_bl], (target_bl[mask_bl] > 0).to(logit_bl.dtype))


def elastic_similarity(cell_bd: Tensor, threshold: float) -> Tensor:
    """Return how far similarities of cells are from a threshold: those above grow, those below fall.

    Mean of `1 - (cosine - threshold)^2` over all pairs, with negative cosines and that of a cell with itself as zero.
    """
    unit_bd = functional.normalize(cell_bd, dim=-1)
    cosine_bb = functional.relu((unit_bd @ unit_bd.T).fill_diagonal_(0))
    return (1 - (cosine_bb - threshold) ** 2).mean()


def cell_contrast(one_bd: Tensor, other_bd: Tensor, temperature: float) -> Tensor:
    """Return the cross-entropy of finding each cell again among others, by its vector from another pass."""
    cosine_bb = functional.normalize(one_bd, dim=-1) @ functional.normalize(other_bd, dim=-1).T
    return functional.cross_entropy(cosine_bb / temperature, torch.arange(len(one_bd), device=one_bd.device))
