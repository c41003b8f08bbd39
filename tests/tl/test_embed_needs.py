"""What a model needs of a matrix: raw counts or expression in any unit, single cells or bulk samples as well."""

from __future__ import annotations

import dataclasses
import json
import warnings

import anndata
import numpy as np
import pytest

from sclcm.models import load
from sclcm.tl import embed


@pytest.fixture
def tolerant(v1):
    """A model that takes expression in any unit, and bulk samples."""
    return dataclasses.replace(v1, needs="expression", accepts_bulk=True)


def logged(adata):
    changed = adata.copy()
    changed.X = changed.X.log1p()
    return changed


def test_model_that_needs_expression_takes_logarithms(adata, v1, tolerant):
    embed(adata, v1)
    changed = logged(adata)
    with pytest.raises(ValueError, match="needs raw counts"):
        embed(changed, v1)
    embed(changed, tolerant)
    assert changed.obsm["X_geneformer"].shape == adata.obsm["X_geneformer"].shape


def test_model_that_needs_expression_refuses_negative_values(adata, tolerant):
    adata.X[0, adata.X[0].indices[0]] = -1.0
    with pytest.raises(ValueError, match=r"which is negative.*needs values that are finite and not negative"):
        embed(adata, tolerant)


def test_bulk_samples_are_no_reason_for_a_warning_where_they_are_accepted():
    random = np.random.default_rng(0)
    model = load("sclcm-mini")
    bulk = anndata.AnnData(random.poisson(random.lognormal(9, 1.0, 3000), (6, 3000)).astype(np.float32))
    bulk.var_names = model.vocabulary.features[:3000]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        embed(bulk, dataclasses.replace(model, accepts_bulk=True))


def test_saved_model_keeps_what_it_needs(tolerant, v1, tmp_path):
    tolerant.save(tmp_path / "tolerant")
    v1.save(tmp_path / "strict")
    found = load(tmp_path / "tolerant")
    assert (found.needs, found.accepts_bulk) == ("expression", True)
    assert (load(tmp_path / "strict").needs, load(tmp_path / "strict").accepts_bulk) == ("counts", False)


@pytest.mark.parametrize(("field", "value"), [("needs", "anything"), ("accepts_bulk", "yes")])
def test_saved_model_with_other_needs_is_damaged(v1, tmp_path, field, value):
    v1.save(tmp_path / "saved")
    file = tmp_path / "saved/config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), field: value}))
    with pytest.raises(ValueError, match=f"has a `{field}` that is not of its type"):
        load(tmp_path / "saved")


def test_model_saved_before_needs_were_known_needs_counts(v1, tmp_path):
    v1.save(tmp_path / "saved")
    file = tmp_path / "saved/config.json"
    config = json.loads(file.read_text())
    file.write_text(json.dumps({k: v for k, v in config.items() if k not in ("needs", "accepts_bulk")}))
    assert load(tmp_path / "saved").needs == "counts"
