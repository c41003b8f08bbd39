"""Coordinates of cells within their field of view."""

from __future__ import annotations

import numpy as np

from sclcm.encoding.coordinates import FieldCoordinates

FIELDS = FieldCoordinates(key="spatial")


def test_coordinates_are_over_the_larger_range_of_each_set():
    xy = np.array([[10.0, 100], [-5, 0], [30, 150], [-5, 8], [20, 110]])
    found = FIELDS.scale(xy, np.array([0, 1, 0, 1, 0]))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, [[0, 0], [0, 0], [0.4, 1], [0, 1], [0.2, 0.2]], rtol=1e-6)


def test_cells_at_one_place_lie_at_zero():
    assert not FIELDS.scale(np.array([[3.0, 4], [3, 4], [9, 9]]), np.array([0, 0, 1])).any()


def test_no_cells_have_no_coordinates():
    assert FIELDS.scale(np.zeros((0, 2)), np.zeros(0, dtype=np.int64)).shape == (0, 2)
