"""Reference numbers of GenePT: the same as those of scELMo, which uses its vectors besides its own."""

from __future__ import annotations

from sclcm.reference.scelmo.arrays import ARRAYS

__all__ = ["ARRAYS"]
