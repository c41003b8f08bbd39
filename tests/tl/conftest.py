"""Small data sets for the packaged Geneformer checkpoints."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import sclcm.reference
from sclcm._settings import settings
from sclcm.models import load

REFERENCE = Path(sclcm.reference.__file__).parent / "geneformer"


@pytest.fixture(autouse=True)
def _quiet():
    before = settings.progress
    settings.progress = False
    yield
    settings.progress = before


@pytest.fixture(scope="session")
def v1():
    """Mean of the genes; no special tokens."""
    return load(REFERENCE / "v1/checkpoint", device="cpu", dtype="float32")


@pytest.fixture(scope="session")
def v2():
    """The `<cls>` token."""
    return load(REFERENCE / "v2/checkpoint", device="cpu", dtype="float32")


@pytest.fixture(params=["v1", "v2"])
def model(request):
    return request.getfixturevalue(request.param)


@pytest.fixture(scope="session")
def cells(v1, v2):
    """12 cells: long and short, one beyond the longest sentence, one of one or two genes; CSR counts, Ensembl ids."""
    rng = np.random.default_rng(0)
    names = np.unique([*v1.vocabulary.features, *v2.vocabulary.features, "ENSG00000999991", "ENSG00000999992"])
    share = np.array([0.02, 0.05, 0.05, 0.1, 0.1, 0.1, 0.15, 0.2, 0.2, 0.25, 0.6, 0.0])
    counts = rng.poisson(3, (12, len(names))) * (rng.random((12, len(names))) < share[:, None])
    for vocabulary in (v1.vocabulary, v2.vocabulary):
        counts[:, np.isin(names, vocabulary.features).argmax()] += 1
    x = sparse.csr_matrix(counts.astype(np.float32))
    obs = pd.DataFrame({"batch": list("aabbccaabbcc")}, index=[f"cell{i}" for i in range(12)])
    return anndata.AnnData(x, obs=obs, var=pd.DataFrame(index=names))


@pytest.fixture
def adata(cells):
    return cells.copy()
