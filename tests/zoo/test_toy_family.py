"""A family takes one file: with a declaration alone it is listed, described, loaded strictly, used and saved."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch.nn import functional

import sclcm

FILE = Path(__file__).with_name("toycell.py")
GENES = ["CD3E", "CD8A", "MS4A1", "NKG7", "LYZ", "GNLY", "PPBP"]
WIDTH, HIDDEN = 8, 12


@pytest.fixture(autouse=True)
def _offered(monkeypatch):
    spec = importlib.util.spec_from_file_location("toycell", FILE)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    class Point:
        name = "toycell"

        def load(self):
            return module.SPEC

    monkeypatch.setattr(
        "sclcm.zoo._registry.entry_points", lambda *, group, name="toycell": [Point()] if name == "toycell" else []
    )


@pytest.fixture
def release(tmp_path):
    """A folder as the authors would publish it."""
    generator = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(shape, generator=generator) * 0.5

    state = {"step": torch.zeros(1), "encoder.weight": draw(len(GENES) + 3, WIDTH)}
    state |= {"value.0.weight": draw(5, 1), "value.0.bias": draw(5)}
    state |= {"value.2.weight": draw(WIDTH, 5), "value.2.bias": draw(WIDTH)}
    for layer in ("layers.0.", "layers.1."):
        for part in "qkvo":
            state |= {f"{layer}{part}.weight": draw(WIDTH, WIDTH), f"{layer}{part}.bias": draw(WIDTH)}
        state |= {f"{layer}up.weight": draw(HIDDEN, WIDTH), f"{layer}up.bias": draw(HIDDEN)}
        state |= {f"{layer}down.weight": draw(WIDTH, HIDDEN), f"{layer}down.bias": draw(WIDTH)}
        for norm in ("norm1", "norm2"):
            state |= {f"{layer}{norm}.weight": draw(WIDTH), f"{layer}{norm}.bias": draw(WIDTH)}
    save_file(state, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps({"embsize": WIDTH, "nheads": 2, "max_len": 6}))
    tokens = ["<pad>", "<cls>", "<mask>", *GENES]
    (tmp_path / "toy_genes.json").write_text(json.dumps({token: i for i, token in enumerate(tokens)}))
    return tmp_path


@pytest.fixture
def adata():
    counts = np.array([[3, 0, 1, 0, 0, 7, 0], [0, 0, 0, 2, 0, 0, 0], [1, 5, 0, 0, 4, 0, 0]], dtype=np.float32)
    adata = ad.AnnData(counts)
    adata.var_names = GENES
    adata.obs_names = ["a", "b", "c"]
    return adata


def plain(state, ids, values):
    """The vector of `<cls>` of one cell, written out in float64."""
    p = {name: tensor.double() for name, tensor in state.items()}
    hidden = functional.relu(values[:, None] @ p["value.0.weight"].T + p["value.0.bias"])
    x = p["encoder.weight"][ids] + hidden @ p["value.2.weight"].T + p["value.2.bias"]

    def norm(x, name):
        return functional.layer_norm(x, (WIDTH,), p[f"{name}.weight"], p[f"{name}.bias"])

    for layer in ("layers.0.", "layers.1."):
        h = norm(x, f"{layer}norm1")
        q, k, v = (
            (h @ p[f"{layer}{part}.weight"].T + p[f"{layer}{part}.bias"]).unflatten(-1, (2, -1)).transpose(0, 1)
            for part in "qkv"
        )
        mixed = torch.softmax(q @ k.transpose(1, 2) / (WIDTH / 2) ** 0.5, dim=-1) @ v
        x = x + mixed.transpose(0, 1).flatten(1) @ p[f"{layer}o.weight"].T + p[f"{layer}o.bias"]
        h = functional.gelu(norm(x, f"{layer}norm2") @ p[f"{layer}up.weight"].T + p[f"{layer}up.bias"])
        x = x + h @ p[f"{layer}down.weight"].T + p[f"{layer}down.bias"]
    return x[0].numpy()


def test_one_file_makes_a_family_that_is_listed_and_described():
    assert "toycell.none" in sclcm.models.list_models()
    assert sclcm.models.describe("toycell")["value_encoding"] == "log counts, through an MLP"


def test_its_files_load_and_give_the_numbers_of_its_formulas(release, adata):
    sclcm.tl.embed(adata, sclcm.models.load(release, family="toycell", device="cpu"))
    state = load_file(release / "model.safetensors")
    for cell, counts in enumerate(adata.X):
        genes = np.flatnonzero(counts)
        values = np.concatenate([[0], np.log1p(counts[genes] / counts.sum() * 1e4)])
        ids = torch.tensor([1, *(genes + 3).tolist()])
        wanted = plain(state, ids, torch.tensor(values, dtype=torch.float64))
        np.testing.assert_allclose(adata.obsm["X_toycell"][cell], wanted, rtol=1e-4, atol=1e-5)


def test_it_is_found_by_its_files_saved_and_loaded_to_the_same_bits(release, adata, tmp_path):
    model = sclcm.models.load(release, device="cpu")
    assert model.family == "toycell"
    model.save(tmp_path / "saved")
    again = sclcm.models.load(tmp_path / "saved", device="cpu")
    sclcm.tl.embed(adata, model, recipe="mean", key_added="one")
    sclcm.tl.embed(adata, again, recipe="mean", key_added="two")
    assert np.array_equal(adata.obsm["one"], adata.obsm["two"])
    np.testing.assert_allclose(np.linalg.norm(adata.obsm["one"], axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda state: state.update({"extra.weight": torch.zeros(2)}), r"extra\.weight"),
        (lambda state: state.pop("layers.1.norm2.bias"), r"blocks\.1\.norm2\.bias"),
        (lambda state: state.update({"value.2.bias": torch.zeros(3)}), r"value\.mlp\.down\.bias"),
    ],
    ids=["a tensor without a rule", "a parameter left empty", "another shape"],
)
def test_its_files_load_strictly(release, change, message):
    state = load_file(release / "model.safetensors")
    change(state)
    save_file(state, release / "model.safetensors")
    with pytest.raises(ValueError, match=message):
        sclcm.models.load(release, family="toycell")
