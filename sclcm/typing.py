"""Names for the types that public functions share."""

from __future__ import annotations

from typing import Literal, TypeAlias

import numpy as np
from scipy import sparse

DeviceName: TypeAlias = str
"""`"auto"` (the best device there is), `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"`."""

DTypeName: TypeAlias = Literal["auto", "float32", "bfloat16", "float16"]
"""Precision of the forward pass; `"auto"` is `"float32"` unless the recipe of the model says otherwise."""

CountMatrix: TypeAlias = np.ndarray | sparse.spmatrix | sparse.sparray
"""Cells x genes, dense or sparse."""

Species: TypeAlias = Literal["human", "mouse"]
"""Species whose gene names can be translated offline."""
