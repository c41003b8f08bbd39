"""Comparing everything that an AnnData holds."""

from __future__ import annotations

import numpy as np
import pandas as pd
from scipy import sparse


def snapshot(adata):
    """Copy every slot, so that a later change of any shows."""
    return {
        "X": adata.X.copy(),
        "raw": None if adata.raw is None else (adata.raw.X.copy(), adata.raw.var.copy()),
        "obs": adata.obs.copy(),
        "var": adata.var.copy(),
        **{name: dict(getattr(adata, name).copy()) for name in ("layers", "obsm", "varm", "obsp", "varp", "uns")},
        "is_view": adata.is_view,
    }


def is_same(a, b):
    """Whether two snapshots hold the same values in the same types."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(is_same(a[key], b[key]) for key in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(is_same, a, b))
    if isinstance(a, (pd.DataFrame, pd.Index)):
        return a.equals(b)
    if sparse.issparse(a):
        parts = ("data", "indices", "indptr")
        return a.format == b.format and all(is_same(getattr(a, part), getattr(b, part)) for part in parts)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    return a == b
