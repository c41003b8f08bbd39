"""Graphs of genes, as networks are read off a model: by the vectors of genes, and by attention between them."""

from __future__ import annotations

import numpy as np
from scipy.stats import rankdata


def cosine_graph(vectors: np.ndarray) -> np.ndarray:
    """Return the cosine of each pair of vectors.

    Parameters
    ----------
    vectors
        Shape `(genes, width)`.

    Returns
    -------
    Shape `(genes, genes)`, float64; zeros for a vector of zeros.
    """
    rows = np.asarray(vectors, dtype=np.float64)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    unit = np.divide(rows, length, out=np.zeros_like(rows), where=length > 0)
    return unit @ unit.T


def rank_shares(scores: np.ndarray, *, axis: int) -> np.ndarray:
    """Replace scores by their rank along an axis, from zero, over its length: scores of different heads compare then.

    Equal scores have the mean of their ranks, so that the order of genes does not matter.

    Parameters
    ----------
    scores
        Of any shape.
    axis
        The axis to rank along.

    Returns
    -------
    Same shape, float64, from 0 to less than 1.
    """
    return (rankdata(scores, axis=axis) - 1) / scores.shape[axis]
