"""Heads of fine-tuned models: `tl.annotate` says their classes, `tl.impute` the counts that they expect."""

from __future__ import annotations

import json
import pickle
import shutil
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import sclcm
from sclcm._settings import settings
from sclcm.models._verify import _packaged
from sclcm.zoo._recipes import GeneRecipe

GENEFORMER, GENECOMPASS, CELLPLM = (_packaged(family) for family in ("geneformer", "genecompass", "cellplm"))
CLASSIFIER = "cell_classifier"


@pytest.fixture(autouse=True)
def _quiet(monkeypatch):
    monkeypatch.setattr(settings, "progress", False)
    monkeypatch.setattr(settings, "min_genes_matched", 10)


def softmax(logits):
    shares = np.exp(logits.astype(np.float64) - logits.max(1, keepdims=True))
    return shares / shares.sum(1, keepdims=True)


# ---- names of classes ----


@pytest.fixture
def release(tmp_path):
    return Path(shutil.copytree(GENEFORMER / "v1/checkpoint", tmp_path / "release"))


@pytest.fixture
def adata():
    return ad.read_h5ad(GENEFORMER / "v1/input.h5ad")


def labels_of(adata, model):
    return sclcm.tl.annotate(adata, model, copy=True).obs["geneformer_label"].tolist()


def test_classes_without_names_are_numbers_and_a_warning_says_how_to_name_them(adata, release):
    model = sclcm.models.load(release / CLASSIFIER, device="cpu")
    with pytest.warns(UserWarning, match=r"classes of 'geneformer', of which there are 3, .*labels=\[\.\.\.\]"):
        found = sclcm.tl.annotate(adata, model, copy=True).obs
    wanted = np.load(GENEFORMER / "v1/expected.npz")["cellclf_logits"]
    assert found["geneformer_label"].tolist() == wanted.argmax(1).astype(str).tolist()
    np.testing.assert_allclose(found["geneformer_label_score"], softmax(wanted).max(1), rtol=1e-4)


def test_names_are_given_or_lie_in_a_file(adata, release, tmp_path):
    wanted = np.load(GENEFORMER / "v1/expected.npz")["cellclf_logits"].argmax(1)
    names = ["B cell", "T cell", "monocyte"]
    given = sclcm.models.load(release / CLASSIFIER, device="cpu", labels=names)
    assert labels_of(adata, given) == [names[i] for i in wanted]
    given.save(tmp_path / "saved")
    assert labels_of(adata, sclcm.models.load(tmp_path / "saved", device="cpu")) == [names[i] for i in wanted]
    (release / CLASSIFIER / "run_id_class_dict.pkl").write_bytes(pickle.dumps({2: "c", 0: "a", 1: "b"}, protocol=2))
    assert labels_of(adata, sclcm.models.load(release / CLASSIFIER, device="cpu")) == ["abc"[i] for i in wanted]
    assert labels_of(adata, sclcm.models.load(release / CLASSIFIER, device="cpu", labels=names))[0] in names


@pytest.mark.parametrize(
    ("labels", "error", "message"),
    [
        (["a", "b"], ValueError, r"2 names of classes do not fit the model, whose head scores 3\..*labels=\[\.\.\.\]"),
        (["a", "b", "a"], ValueError, "names 'a' twice"),
        ("abc", TypeError, "is 'abc'; expected the names"),
        (["a", 1, "b"], TypeError, "expected the names"),
    ],
)
def test_names_that_do_not_fit_are_refused(release, labels, error, message):
    with pytest.raises(error, match=message):
        sclcm.models.load(release / CLASSIFIER, device="cpu", labels=labels)


def test_a_model_without_classes_takes_no_names(release):
    with pytest.raises(ValueError, match="names 2 classes, but these weights of 'geneformer' score none"):
        sclcm.models.load(release, device="cpu", labels=["a", "b"])
    with pytest.raises(TypeError, match="got `labels`"):
        sclcm.models.load(_packaged("tgpt") / "checkpoint", family="tgpt", device="cpu", labels=["a"])


def test_file_of_names_must_name_each_number(release):
    (release / CLASSIFIER / "x_id_class_dict.pkl").write_bytes(pickle.dumps({0: "a", 2: "b"}, protocol=2))
    with pytest.raises(ValueError, match=r"'x_id_class_dict\.pkl' lists no names of classes"):
        sclcm.models.load(release / CLASSIFIER, device="cpu")


# ---- a class head that was trained on something else than embeddings are made of ----


def test_classes_are_read_of_whole_values_as_if_cells_were_human(tmp_path):
    folder = Path(shutil.copytree(GENECOMPASS / "checkpoint", tmp_path / "release")) / "GeneCompass_tiny"
    expected = np.load(GENECOMPASS / "expected.npz")
    (file,) = folder.glob("*.safetensors") if list(folder.glob("*.safetensors")) else folder.glob("*.bin")
    tensors = load_file(file) if file.suffix == ".safetensors" else torch.load(file, weights_only=True)
    heads = {"bert.pooler.dense": "cls_pooler", "classifier": "cls_classifier"}
    for name, array in heads.items():
        tensors |= {f"{name}.{part}": torch.from_numpy(expected[f"{array}_{part}"]) for part in ("weight", "bias")}
    file.unlink()
    save_file({name: t.clone().contiguous() for name, t in tensors.items()}, folder / "model.safetensors")
    model = sclcm.models.load(folder, device="cpu", labels=["a", "b", "c"])
    found = sclcm.tl.annotate(ad.read_h5ad(GENECOMPASS / "input.h5ad"), model, key_added="x", copy=True).obs
    wanted = softmax(expected["cls_logits"])
    assert found["x"].tolist() == ["abc"[i] for i in wanted.argmax(1)]
    np.testing.assert_allclose(found["x_score"], wanted.max(1), rtol=1e-4)
    # Mouse cells keep their genes, and are given the vector of human cells; embeddings by such a model as well.
    mouse = sclcm.tl.embed(ad.read_h5ad(GENECOMPASS / "input_mouse.h5ad"), model, recipe="cls", copy=True)
    np.testing.assert_allclose(mouse.obsm["X_genecompass"], expected["mouse_cls_species_none"], rtol=1e-4, atol=1e-5)


# ---- tokens that are cells ----


@pytest.fixture
def sets():
    return ad.read_h5ad(CELLPLM / "input.h5ad")


@pytest.fixture
def classifier(tmp_path):
    """The packaged model with the authors' untrained class head, written as they would."""
    folder = Path(shutil.copytree(CELLPLM / "checkpoint", tmp_path / "release"))
    (file,) = folder.glob("*.best.ckpt")
    stored, expected = torch.load(file, weights_only=True)["model_state_dict"], np.load(CELLPLM / "expected.npz")
    kept = {name: t for name, t in stored.items() if not name.startswith(("latent.", "decoder."))}
    kept |= {k.removeprefix("ann_w_"): torch.from_numpy(x) for k, x in expected.items() if k.startswith("ann_w_")}
    torch.save({"model_state_dict": kept}, file)
    return folder


def test_cells_of_sets_are_classified(sets, classifier):
    expected, names = np.load(CELLPLM / "expected.npz"), ["B", "T", "NK"]
    model = sclcm.models.load(classifier, device="cpu", labels=names)
    found = sclcm.tl.annotate(sets, model, batch_key="batch", copy=True)
    wanted = softmax(expected["annotation_logits"])
    assert found.obs["cellplm_label"].tolist() == [names[i] for i in wanted.argmax(1)]
    np.testing.assert_allclose(found.obs["cellplm_label_score"], wanted.max(1), rtol=1e-4)
    assert found.uns["cellplm_label"]["params"]["n_sets"] == sets.obs["batch"].nunique()
    two = sclcm.tl.annotate(sets, model, batch_key="batch", labels=["NK", "B"], copy=True).obs["cellplm_label"]
    assert set(two) <= {"B", "NK"}
    with pytest.raises(KeyError, match="no column 'nothing'"):
        sclcm.tl.annotate(sets, model, batch_key="nothing")


def counts_by_formula(adata, model, features):
    """What the head says of the vectors that `tl.embed` gives, scaled to the counts of known genes."""
    z = sclcm.tl.embed(adata, model, batch_key="batch", copy=True).obsm["X_cellplm"]
    mean = model.lcm.heads["counts"](torch.from_numpy(z)).double().numpy()[:, features]
    return mean / mean.sum(1, keepdims=True)


def test_counts_are_imputed_from_cell_vectors(sets):
    model = sclcm.models.load(CELLPLM / "checkpoint", device="cpu")
    place = {gene: i for i, gene in enumerate(model.vocabulary.features)}
    known = sets.var_names.isin(place)
    sets.X = sets.X.toarray()
    sets.X[2] = 0
    with pytest.warns(UserWarning, match="1 of 13 cells express no gene .* their rows are NaN"):
        found = sclcm.tl.impute(sets, model, batch_key="batch", copy=True)
    layer = found.layers["cellplm_imputed"]
    assert np.isnan(layer[2]).all()
    assert np.isnan(layer[:, ~known]).all()
    full = np.delete(np.arange(sets.n_obs), 2)
    counts = sets[:, known].X.sum(1)
    np.testing.assert_allclose(layer[full][:, known].sum(1), counts[full], rtol=1e-5)
    with pytest.warns(UserWarning, match="carry no information"):
        shares = counts_by_formula(sets, model, [place[gene] for gene in sets.var_names[known]])
    np.testing.assert_allclose(layer[full][:, known], (shares * counts[:, None])[full], rtol=1e-4)
    assert found.uns["cellplm_imputed"]["params"]["n_empty_cells"] == 1


def test_other_cell_vectors_may_be_decoded(sets, unchanged):
    model = sclcm.models.load(CELLPLM / "checkpoint", device="cpu")

    def imputed(recipe):
        return sclcm.tl.impute(sets, model, recipe=recipe, batch_key="batch", copy=True).layers["cellplm_imputed"]

    weighted = imputed(GeneRecipe(head="counts", cells="weighted"))
    assert np.nanmax(np.abs(weighted - imputed("expression"))) > 1e-4
    assert np.isfinite(imputed("expression_drawn")[:, ~np.isnan(weighted[0])]).all()
    for recipe, message in (
        (GeneRecipe(head="mixture", cells="embed"), "gives no counts of genes"),
        (GeneRecipe(head="value", cells="embed"), r"reads the head 'value'; the model of 'cellplm' has"),
        (GeneRecipe(head="counts"), "reads the head 'counts'; the model"),
        (GeneRecipe(head="counts", cells="none"), "`recipe` is 'none'; 'cellplm' has"),
    ):
        with unchanged(sets), pytest.raises((ValueError, TypeError), match=message):
            sclcm.tl.impute(sets, model, recipe=recipe, batch_key="batch")
    with pytest.raises(ValueError, match=r"which is of cells .*`sclcm\.tl\.impute` reads it"):
        sclcm.models.decode_genes(sets, model, recipe="expression")
    with pytest.raises(ValueError, match="gives numbers and no vectors"):
        sclcm.tl.embed_genes(sets, model, how="decoder", recipe="expression")


def test_a_model_without_the_head_says_so(sets, classifier):
    model = sclcm.models.load(classifier, device="cpu", labels=["B", "T", "NK"])
    with pytest.raises(ValueError, match="reads the head 'counts'; the model of 'cellplm' has"):
        sclcm.tl.impute(sets, model)
    json.dumps(sclcm.models.describe("cellplm"))
