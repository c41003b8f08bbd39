"""Graphs of genes from their vectors and from attention."""

from __future__ import annotations

import numpy as np
import pytest

from sclcm.engine.graphs import cosine_graph, rank_shares


def test_cosine_of_each_pair():
    found = cosine_graph(np.array([[3, 0], [3, 4], [0, -2], [0, 0]]))
    wanted = [[1, 0.6, 0, 0], [0.6, 1, -0.8, 0], [0, -0.8, 1, 0], [0, 0, 0, 0]]
    assert found == pytest.approx(np.array(wanted))
    assert found.dtype == np.float64


def test_length_of_vectors_does_not_matter_to_their_cosine():
    vectors = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    stretched = vectors * np.array([1, 1e-6, 3, 1e6, 7])[:, None]
    assert cosine_graph(stretched) == pytest.approx(cosine_graph(vectors), abs=1e-6)


def test_ranks_are_shares_along_the_axis():
    scores = np.array([[0.1, 5.0, -2.0, 0.2], [4.0, 3.0, 2.0, 1.0]])
    assert rank_shares(scores, axis=-1).tolist() == [[0.25, 0.75, 0, 0.5], [0.75, 0.5, 0.25, 0]]
    assert rank_shares(scores, axis=0).tolist() == [[0, 0.5, 0, 0], [0.5, 0, 0.5, 0.5]]


def test_equal_scores_share_the_mean_of_their_ranks_whatever_their_order():
    scores = np.array([[2.0, 1.0, 2.0, 2.0, 3.0]])
    assert rank_shares(scores, axis=-1).tolist() == [[0.4, 0, 0.4, 0.4, 0.8]]
    order = [4, 2, 0, 1, 3]
    assert rank_shares(scores[:, order], axis=-1).tolist() == rank_shares(scores, axis=-1)[:, order].tolist()


def test_heads_and_cells_are_ranked_apart():
    scores = np.random.default_rng(0).normal(size=(2, 3, 4, 4))
    found = rank_shares(scores, axis=-1)
    assert found[1, 2].tolist() == rank_shares(scores[1, 2], axis=-1).tolist()
    assert np.sort(found, axis=-1) == pytest.approx(np.broadcast_to([0, 0.25, 0.5, 0.75], found.shape))
