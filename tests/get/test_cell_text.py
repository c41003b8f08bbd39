"""Cells as text."""

from __future__ import annotations

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sclcm.get import cell_text


@pytest.fixture
def adata():
    counts = np.array([[0, 3, 1, 3], [0, 0, 0, 0], [9, 0, 0.5, 1]], dtype=np.float32)
    var = pd.DataFrame({"symbol": ["CD3E", "LYZ", "MS4A1", np.nan]}, index=["a", "b", "c", "d"])
    return anndata.AnnData(sparse.csr_matrix(counts), obs=pd.DataFrame(index=["x", "y", "z"]), var=var)


def test_genes_are_written_by_rank_equal_ones_in_the_order_of_var(adata):
    found = cell_text(adata)
    start = "A cell with genes ranked by expression: "
    assert found.tolist() == [start + "b d c", start, start + "a d c"]
    assert found.index.tolist() == ["x", "y", "z"]


def test_names_may_be_another_column_and_genes_without_one_are_left_out(adata):
    assert cell_text(adata, gene_key="symbol", prefix="", n_genes=1).tolist() == ["LYZ", "", "CD3E"]


@pytest.mark.parametrize("form", ["dense", "csc", "layer"])
def test_storage_and_unit_do_not_matter(adata, form):
    wanted = cell_text(adata)
    if form == "layer":
        adata.layers["log"] = adata.X.log1p()
        assert cell_text(adata, layer="log").equals(wanted)
        return
    adata.X = adata.X.toarray() if form == "dense" else adata.X.tocsc()
    assert cell_text(adata).equals(wanted)


def test_more_cells_than_are_read_at_a_time(adata):
    many = anndata.concat([adata] * 300, index_unique="-")
    assert cell_text(many).tolist() == cell_text(adata).tolist() * 300


def test_what_cannot_be_ranked_is_refused(adata):
    with pytest.raises(ValueError, match="`n_genes` is 0"):
        cell_text(adata, n_genes=0)
    adata.X[0, 1] = -1
    with pytest.raises(ValueError, match="`cell_text` needs values that are finite and not negative"):
        cell_text(adata)
