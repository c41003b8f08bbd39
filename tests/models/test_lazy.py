"""Lazily read AnnData: their tables of cells are no data frames, and are read as such by every family."""

from __future__ import annotations

from pathlib import Path

import anndata as ad
import numpy as np
import pytest

import sclcm.reference
from sclcm._settings import settings
from sclcm.models import load
from sclcm.tl import embed

REFERENCE = Path(sclcm.reference.__file__).parent


@pytest.mark.parametrize("family", ["nicheformer", "genecompass", "scgpt"])
@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::FutureWarning", "ignore::DeprecationWarning")
def test_cells_that_are_read_lazily_have_the_same_vectors(family, tmp_path, monkeypatch):
    pytest.importorskip("xarray")
    monkeypatch.setattr(settings, "progress", False)
    model = load(REFERENCE / family / "checkpoint", family=family, device="cpu", dtype="float32")
    adata = ad.read_h5ad(REFERENCE / family / "input.h5ad")
    adata.write_h5ad(tmp_path / "cells.h5ad")
    lazy = ad.experimental.read_lazy(tmp_path / "cells.h5ad")
    embed(adata, model, key_added="vectors")
    embed(lazy, model, key_added="vectors")
    np.testing.assert_allclose(np.asarray(lazy.obsm["vectors"]), adata.obsm["vectors"], rtol=1e-5, atol=1e-6)
