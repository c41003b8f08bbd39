"""`tl.translate`: values of proteins from the genes of a cell."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import anndata as ad
import numpy as np
import pytest

import sclcm
from sclcm.models._verify import _packaged

ROOT = _packaged("sctranslator")
PROTEINS = ["CD151", "ALOX5AP", "DUT", "CLK3", "AP2A1"]


@pytest.fixture(scope="module")
def model():
    return sclcm.models.load(ROOT / "checkpoint", family="sctranslator", device="cpu")


@pytest.fixture
def adata():
    return ad.read_h5ad(ROOT / "input.h5ad")


def values(adata, model, features=PROTEINS, **given):
    return sclcm.tl.translate(adata, model, features, copy=True, **given).obsm["sctranslator_protein"]


def test_values_are_written_as_a_table_and_the_call_is_remembered(adata, model):
    assert sclcm.tl.translate(adata, model, PROTEINS) is None
    found = adata.obsm["sctranslator_protein"]
    assert list(found.columns) == PROTEINS
    assert list(found.index) == list(adata.obs_names)
    assert (found.dtypes == np.float32).all()
    assert found.notna().all().all()
    params = adata.uns["sctranslator_protein"]["params"]
    assert params["obsm_key"] == "sctranslator_protein"
    assert params["n_genes_read"] == 160
    assert params["gene_key"] == "gene_symbol"


def test_result_can_be_stored(adata, model, tmp_path):
    sclcm.tl.translate(adata, model, PROTEINS, key_added="k")
    adata.write_h5ad(tmp_path / "a.h5ad")
    again = ad.read_h5ad(tmp_path / "a.h5ad")
    np.testing.assert_array_equal(again.obsm["k"], adata.obsm["k"])


def test_a_cell_does_not_depend_on_others(adata, model):
    wanted = values(adata, model).to_numpy()
    np.testing.assert_allclose(values(adata[::-1].copy(), model, batch_size=1)[::-1], wanted, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(values(adata[3:5].copy(), model), wanted[3:5], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["dense", "csc", "backed"])
def test_kind_of_matrix_does_not_matter(adata, model, kind, tmp_path):
    wanted = values(adata, model).to_numpy()
    if kind == "dense":
        adata.X = adata.X.toarray()
    elif kind == "csc":
        adata.X = adata.X.tocsc()
    else:
        adata.write_h5ad(tmp_path / "a.h5ad")
        adata = ad.read_h5ad(tmp_path / "a.h5ad", backed="r")
    sclcm.tl.translate(adata, model, PROTEINS)
    np.testing.assert_allclose(adata.obsm["sctranslator_protein"], wanted, rtol=1e-6)


def test_a_scale_does_not_matter(adata, model):
    wanted = values(adata, model)
    adata.X = adata.X * 0.37
    np.testing.assert_allclose(values(adata, model), wanted, rtol=1e-4, atol=1e-5)


def test_order_of_var_matters_as_the_documentation_says(adata, model):
    assert not np.allclose(values(adata[:, ::-1].copy(), model), values(adata, model), rtol=1e-2)


def test_order_of_var_does_not_matter_to_the_encoder(adata, model):
    few = adata[:, :120].copy()  # no more than a sentence holds
    wanted = sclcm.tl.embed(few, model, copy=True).obsm["X_sctranslator"]
    found = sclcm.tl.embed(few[:, ::-1].copy(), model, copy=True).obsm["X_sctranslator"]
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-5)


def test_more_features_than_places_are_asked_for_in_turns(adata, model):
    many = [name for name in model.vocabulary.features.tolist() if name not in PROTEINS][:30]
    found = values(adata, model, many)
    np.testing.assert_allclose(found[many[:20]], values(adata, model, many[:20]), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found[many[20:]], values(adata, model, many[20:]), rtol=1e-5, atol=1e-6)


def test_cell_without_a_known_gene_has_no_values(adata, model):
    adata.X[2] = 0
    with pytest.warns(
        UserWarning, match="1 of .* cells express no gene that 'sctranslator' knows.*their values are NaN"
    ):
        found = values(adata, model)
    assert found.isna().all(axis=1).tolist() == [False, False, True] + [False] * 9


def test_cell_whose_counts_are_all_equal_has_no_values_and_is_named(adata, model):
    flat = adata.copy()
    flat.X = flat.X.toarray()
    flat.X[2] = 3
    with pytest.warns(UserWarning, match=f"1 of 12 cells have no values .'{flat.obs_names[2]}'., most likely because"):
        found = values(flat, model)
    wanted = values(adata, model)
    assert found.iloc[2].isna().all()
    np.testing.assert_array_equal(found.drop(found.index[2]), wanted.drop(wanted.index[2]))


def test_saved_model_translates_alike(adata, model, tmp_path):
    model.save(tmp_path / "saved")
    again = sclcm.models.load(tmp_path / "saved", device="cpu")
    assert again.translation == model.translation
    np.testing.assert_array_equal(values(adata, again), values(adata, model))


@pytest.mark.parametrize(
    ("features", "error", "message"),
    [
        ("CD151", TypeError, "is the text 'CD151'; expected a list"),
        ([], ValueError, "is empty"),
        (["CD151", "CD151"], ValueError, "names 'CD151' twice"),
        (["CD151", "CD19-A"], ValueError, r"knows no protein by 1 of the 2 names \('CD19-A'\)"),
    ],
)
def test_what_cannot_be_asked_for_is_said(adata, model, features, error, message):
    with pytest.raises(error, match=message):
        sclcm.tl.translate(adata, model, features)
    assert not adata.obsm
    assert not adata.uns


def test_copy_is_true_or_false(adata, model):
    with pytest.raises(TypeError, match="`copy` is 'yes'; expected `True` or `False`"):
        sclcm.tl.translate(adata, model, PROTEINS, copy="yes")
    assert "sctranslator_protein" not in adata.obsm


def test_models_that_do_not_translate_say_so(adata):
    with pytest.raises(ValueError, match="predicts no other modality"):
        sclcm.tl.translate(adata, "sclcm-mini", PROTEINS)


@pytest.fixture
def of_mice(tmp_path):
    """A release with the homologues of the first genes of the input, and data that name those."""
    release = Path(shutil.copytree(ROOT / "checkpoint", tmp_path / "release"))
    human = sclcm.models.load(release, family="sctranslator", device="cpu").vocabulary.features.tolist()
    names = {f"{name.capitalize()}x": name for name in human}
    file = release / "ID_dic/mouse_gene_symbol_to_human_gene_symbol.pkl"
    file.write_bytes(pickle.dumps(names, protocol=2))
    return release, {name: other for other, name in names.items()}


def test_mouse_genes_are_read_as_their_homologues(adata, model, of_mice, tmp_path):
    release, mouse = of_mice
    mice = sclcm.models.load(release, family="sctranslator", device="cpu")
    column = adata.var["gene_symbol"].astype(str)
    data = adata[:, column.isin(mouse).to_numpy()].copy()
    human = values(data.copy(), model)
    data.var["gene_symbol"] = [mouse[name] for name in data.var["gene_symbol"]]
    asked = [mouse[name] for name in PROTEINS]
    for chosen in (mice, sclcm.models.load(release, family="sctranslator", device="cpu", species="mouse")):
        np.testing.assert_array_equal(values(data, chosen, asked, gene_key="gene_symbol"), human)
    with pytest.raises(ValueError, match="knows 'human', 'mouse'"):
        sclcm.models.load(release, family="sctranslator", device="cpu", species="frog")
    mice.save(tmp_path / "saved")
    again = values(data, sclcm.models.load(tmp_path / "saved", device="cpu"), asked, gene_key="gene_symbol")
    np.testing.assert_array_equal(again, human)
