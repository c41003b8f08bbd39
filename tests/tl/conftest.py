"""Small data sets for the packaged Geneformer checkpoints."""

from __future__ import annotations

from contextlib import contextmanager
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


@pytest.fixture
def unchanged():
    """A context that checks, at its end, that an AnnData holds what it held; `but` names slots that may differ."""

    @contextmanager
    def check(adata, but=()):
        before = _snapshot(adata)
        yield
        after = _snapshot(adata)
        assert [name for name in before if name not in but and not _is_same(before[name], after[name])] == []

    return check


def _snapshot(adata):
    """Copy every slot, so that a later change of any shows."""
    return {
        "X": adata.X.copy(),
        "raw": None if adata.raw is None else (adata.raw.X.copy(), adata.raw.var.copy()),
        "obs": adata.obs.copy(),
        "var": adata.var.copy(),
        **{name: dict(getattr(adata, name).copy()) for name in ("layers", "obsm", "varm", "obsp", "varp", "uns")},
        "is_view": adata.is_view,
    }


def _is_same(a, b):
    """Whether two snapshots hold the same values in the same types."""
    if type(a) is not type(b):
        return False
    if isinstance(a, dict):
        same = a.keys() == b.keys() and all(_is_same(a[key], b[key]) for key in a)
    elif isinstance(a, (list, tuple)):
        same = len(a) == len(b) and all(map(_is_same, a, b))
    elif isinstance(a, (pd.DataFrame, pd.Index)):
        same = a.equals(b)
    elif sparse.issparse(a):
        parts = ("format", "data", "indices", "indptr")
        same = all(_is_same(getattr(a, part), getattr(b, part)) for part in parts)
    elif isinstance(a, np.ndarray):
        same = a.dtype == b.dtype and np.array_equal(a, b, equal_nan=a.dtype.kind == "f")
    else:
        same = a == b
    return same
