"""From counts to cell sentences and token batches."""

from __future__ import annotations
