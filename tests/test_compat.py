"""What differs between releases of the packages that this one stands on."""

from __future__ import annotations

from types import SimpleNamespace

import anndata as ad
import numpy as np

from sclcm._compat import layer_names


def test_layers_are_those_that_have_a_name():
    adata = ad.AnnData(np.ones((2, 3), np.float32), layers={"counts": np.ones((2, 3), np.float32)})
    assert layer_names(adata) == ["counts"]
    assert layer_names(SimpleNamespace(layers={None: adata.X, "counts": adata.X})) == [
        "counts"
    ]  # as anndata 0.13 has it
