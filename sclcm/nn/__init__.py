"""Tensors in, tensors out: the components that a model is assembled from."""

from __future__ import annotations
