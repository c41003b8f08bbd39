"""Loops over batches of cells; the only callers of a model's forward pass."""

from __future__ import annotations
