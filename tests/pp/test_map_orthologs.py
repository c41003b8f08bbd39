"""`pp.map_orthologs`: genes of one species under the ids of the other, nothing guessed, nothing lost in silence."""

from __future__ import annotations

import logging

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

from sclcm.pp import map_orthologs

CD3E, SNAP25, GAD1 = "ENSG00000198851", "ENSG00000132639", "ENSG00000128683"
GENES = ["Cd3e", "Snap25", "Ly6c2", "H2-D1", "Gad1", "NotAGene"]


@pytest.fixture
def adata():
    x = np.arange(18, dtype=np.float32).reshape(3, 6)
    made = anndata.AnnData(sparse.csr_matrix(x), var=pd.DataFrame({"n": range(6)}, index=GENES))
    made.layers["more"] = made.X * 2
    made.obs["batch"] = list("aab")
    return made


def test_genes_with_one_orthologue_get_its_id_and_others_are_reported(adata):
    before = adata.copy()
    found = map_orthologs(adata)
    assert list(found.var_names) == [CD3E, SNAP25, GAD1]
    assert list(found.var["original_name"]) == ["Cd3e", "Snap25", "Gad1"]
    np.testing.assert_array_equal(found.X.toarray(), adata.X.toarray()[:, [0, 1, 4]])
    np.testing.assert_array_equal(found.layers["more"].toarray(), 2 * found.X.toarray())
    report = found.uns["map_orthologs"]
    assert report["several_orthologs"].tolist() == ["H2-D1"]
    assert report["no_ortholog"].tolist() == ["Ly6c2"]
    assert report["unread"].tolist() == ["NotAGene"]
    assert report["n_mapped"] == 3
    assert report["counts_lost"] == pytest.approx(adata.X.toarray()[:, [2, 3, 5]].sum() / adata.X.sum())
    assert report["table"] == "105"
    assert list(adata.var_names) == list(before.var_names)
    assert not adata.uns


def test_others_may_be_kept_under_their_own_ids(adata):
    found = map_orthologs(adata, unmapped="keep")
    wanted = [CD3E, SNAP25, "ENSMUSG00000022584", "ENSMUSG00000073411", GAD1, "NotAGene"]
    assert list(found.var_names) == wanted
    assert found.uns["map_orthologs"]["counts_lost"] == 0
    np.testing.assert_array_equal(found.X.toarray(), adata.X.toarray())


def test_way_back_gives_the_names_of_mouse(adata):
    back = map_orthologs(map_orthologs(adata), to="mouse")
    assert list(back.var_names) == ["ENSMUSG00000032093", "ENSMUSG00000027273", "ENSMUSG00000070880"]
    np.testing.assert_array_equal(back.X.toarray(), adata.X.toarray()[:, [0, 1, 4]])


def test_columns_of_one_gene_are_summed(adata):
    adata.var_names = ["Cd3e", "ENSMUSG00000032093.7", "Ly6c2", "H2-D1", "Gad1", "NotAGene"]
    found = map_orthologs(adata)
    assert list(found.var_names) == [CD3E, GAD1]
    np.testing.assert_array_equal(found.X.toarray()[:, 0], adata.X.toarray()[:, :2].sum(1))
    assert found.uns["map_orthologs"]["merged"]["from"].tolist() == ["Cd3e", "ENSMUSG00000032093.7"]


def test_result_can_be_written(adata, tmp_path):
    map_orthologs(adata).write_h5ad(tmp_path / "a.h5ad")
    read = anndata.read_h5ad(tmp_path / "a.h5ad")
    assert read.uns["map_orthologs"]["params"]["to"] == "human"


def test_genes_of_the_wanted_species_are_refused(adata):
    human = map_orthologs(adata)
    with pytest.raises(ValueError, match=r"are human genes already; pass `to='mouse'`"):
        map_orthologs(human)


def test_names_that_are_no_genes_are_refused(adata):
    adata.var_names = [f"x{i}" for i in range(6)]
    with pytest.raises(ValueError, match=r"none of the 6 names in 'var_names'.*is a mouse gene with one orthologue"):
        map_orthologs(adata)


@pytest.mark.parametrize(
    ("given", "message"),
    [({"to": "rat"}, "`to` is 'rat'"), ({"unmapped": "sum"}, "`unmapped` is 'sum'"), ({"layers": ["x"]}, "`layers`")],
)
def test_wrong_arguments_are_named(adata, given, message):
    with pytest.raises(ValueError, match=message):
        map_orthologs(adata, **given)


def test_few_mapped_genes_are_a_warning(adata, caplog):
    names = [*GENES[:1], *(f"NotAGene{i}" for i in range(30))]
    made = anndata.AnnData(np.ones((2, 31), dtype=np.float32), var=pd.DataFrame(index=names))
    with caplog.at_level(logging.INFO, "sclcm"), pytest.warns(UserWarning, match="only 1 of 31 names"):
        map_orthologs(made)
    assert "1 of 31 genes in 'var_names' have one human orthologue" in caplog.text
