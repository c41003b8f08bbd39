"""Weights of the default model, with their model card."""

from __future__ import annotations
