"""SpaFormer, of which no weights are published: built, saved and loaded, and its network against plain formulas."""

from __future__ import annotations

import json
import math

import anndata
import numpy as np
import pytest
import torch
from scipy import sparse
from torch.nn import functional

from sclcm._settings import settings
from sclcm.models import build, describe, load
from sclcm.models._pass import open_input
from sclcm.models._set_pass import read_cells
from sclcm.tl import embed, embed_genes
from sclcm.zoo._registry import get_spec

KEY = "X_spaformer"
GENES = ["CD3E", "MS4A1", "NKG7", "LYZ", "PPBP", "HLA-DRA", "ACTA2", "EPCAM", "KRT8", "VIM", "COL1A1", "PECAM1"]
WIDTH, N_BLOCKS, N_HEADS, HEAD, FEATURES, LATENT = 8, 2, 2, 4, 6, 3
N_CELLS = 9


@pytest.fixture(autouse=True)
def _few_genes():
    before = settings.min_genes_matched
    settings.min_genes_matched = 5
    yield
    settings.min_genes_matched = before


@pytest.fixture
def adata():
    """Two fields of view; genes in another order than the model's, one that it does not know, an empty cell."""
    rng = np.random.default_rng(0)
    counts = rng.poisson(2, (N_CELLS, 12)).astype(np.float32)
    counts[4] = 0
    order = rng.permutation(12)
    data = anndata.AnnData(sparse.csr_matrix(np.hstack([counts[:, order], np.full((N_CELLS, 1), 7, np.float32)])))
    data.var_names = [*(GENES[i] for i in order), "XIST"]
    data.obs["fov"] = list("abababaab")
    data.obsm["spatial"] = rng.uniform(-50, 900, (N_CELLS, 2))
    data.uns["counts"] = counts
    return data


def make_state(seed=0):
    """Tensors of the names and shapes that upstream's training saves."""
    inner = N_HEADS * HEAD
    shapes = {
        "enc_mask_token": (1, 12),
        "encoder.emb.weight": (WIDTH, 12),
        "encoder.emb.bias": (WIDTH,),
        "encoder.pe_enc.weight": (11_000, WIDTH),
        "encoder.norm0.weight": (WIDTH,),
        "encoder.norm0.bias": (WIDTH,),
        "encoder.head.weight": (LATENT, WIDTH),
        "encoder.head.bias": (LATENT,),
        "decoder.0.weight": (WIDTH, LATENT),
        "decoder.0.bias": (WIDTH,),
        "decoder.1.weight": (1,),
        "decoder.3.weight": (12, WIDTH),
        "decoder.3.bias": (12,),
    }
    for i in range(N_BLOCKS):
        attention, forward = f"encoder.attlayers.{i}.", f"encoder.fflayers.{i}."
        shapes |= {f"{attention}{name}.weight": (inner, WIDTH) for name in ("to_q", "to_k", "to_v")}
        shapes |= {attention + "to_out.weight": (WIDTH, inner), attention + "to_out.bias": (WIDTH,)}
        shapes |= {attention + "fast_attention.projection_matrix": (FEATURES, HEAD)}
        shapes |= {forward + "0.weight": (4 * WIDTH, WIDTH), forward + "0.bias": (4 * WIDTH,)}
        shapes |= {forward + "3.weight": (WIDTH, 4 * WIDTH), forward + "3.bias": (WIDTH,)}
        shapes |= {f"encoder.norm{n}.{i}.{part}": (WIDTH,) for n in (1, 2) for part in ("weight", "bias")}
    random = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=random) * 0.4 for name, shape in shapes.items()}


@pytest.fixture
def release(tmp_path):
    torch.save(make_state(), tmp_path / "lung5.ckpt")
    (tmp_path / "genes.json").write_text(json.dumps({"genes": GENES}))
    return tmp_path


@pytest.fixture
def model(release):
    return load(release, family="spaformer", device="cpu", dtype="float32")


def linear(x, state, name):
    bias = state.get(name + ".bias")
    return x @ state[name + ".weight"].t() + (0 if bias is None else bias)


def norm(x, state, name):
    return functional.layer_norm(x, (WIDTH,), state[name + ".weight"], state[name + ".bias"])


def positive_features(x, projection, *, is_query):
    """Features of FAVOR+, with a stabiliser of each query, or of all keys of a head."""
    x = x * HEAD**-0.25
    exponent = x @ projection.t()
    largest = exponent.amax(-1, keepdim=True) if is_query else exponent.amax()
    return ((exponent - x.square().sum(-1, keepdim=True) / 2 - largest).exp() + 1e-4) / math.sqrt(FEATURES)


def attention(x, state, name):
    q, k, v = (linear(x, state, f"{name}.{part}") for part in ("to_q", "to_k", "to_v"))
    projection, heads = state[name + ".fast_attention.projection_matrix"], []
    for head in range(N_HEADS):
        part = slice(head * HEAD, (head + 1) * HEAD)
        queries = positive_features(q[:, part], projection, is_query=True)
        keys = positive_features(k[:, part], projection, is_query=False)
        weights = queries @ keys.t()
        heads.append(weights / weights.sum(-1, keepdim=True) @ v[:, part])
    return linear(torch.cat(heads, dim=-1), state, name + ".to_out")


def scaled(xy):
    above = xy - xy.min(0)
    return above / above.max()


def plain(counts, xy):
    """Vectors of the cells of one field of view, and what is read of them."""
    state = {name: tensor.double() for name, tensor in make_state().items()}
    totals = counts.sum(1, keepdims=True)
    values = np.log(counts / np.where(totals > 0, totals, 1) * 250 + 1)
    square = np.minimum((scaled(xy) * 100).astype(int), [109, 99])
    h = linear(torch.tensor(values).double(), state, "encoder.emb")
    h = norm(h + state["encoder.pe_enc.weight"][square[:, 0] * 100 + square[:, 1]], state, "encoder.norm0")
    for i in range(N_BLOCKS):
        h = norm(h + attention(h, state, f"encoder.attlayers.{i}"), state, f"encoder.norm1.{i}")
        forward = functional.gelu(linear(h, state, f"encoder.fflayers.{i}.0"))
        h = norm(h + functional.gelu(linear(forward, state, f"encoder.fflayers.{i}.3")), state, f"encoder.norm2.{i}")
    z = functional.gelu(linear(h, state, "encoder.head"))
    hidden = functional.prelu(linear(z, state, "decoder.0"), state["decoder.1.weight"])
    return h, z, linear(hidden, state, "decoder.3").relu()


def fields(adata):
    return [(adata.obs["fov"] == name).to_numpy() for name in "ab"]


@pytest.mark.filterwarnings("ignore:1 of .* cells express no gene")
def test_vectors_equal_the_formulas_field_by_field(adata, model):
    for recipe, part in (("backbone", 0), ("embed", 1)):
        embed(adata, model, recipe=recipe, batch_key="fov")
        for field in fields(adata):
            wanted = plain(adata.uns["counts"][field], adata.obsm["spatial"][field])[part]
            np.testing.assert_allclose(adata.obsm[KEY][field], wanted, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_decoder_equals_the_formula(adata, model):
    h, z, wanted = plain(adata.uns["counts"][:4], adata.obsm["spatial"][:4])
    found = model.lcm.read_cells("expression", model.lcm.read_cells("latent", h.float()))
    torch.testing.assert_close(found.double(), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.lcm.read_cells("latent", h.float()).double(), z, rtol=1e-4, atol=1e-5)


@pytest.mark.filterwarnings("ignore:1 of .* cells express no gene")
def test_order_and_other_fields_do_not_matter_but_places_do(adata, model):
    embed(adata, model, batch_key="fov")
    wanted = adata.obsm[KEY].copy()
    order = np.random.default_rng(1).permutation(N_CELLS)
    shuffled = embed(adata[order], model, batch_key="fov", batch_size=2, copy=True)
    np.testing.assert_allclose(shuffled.obsm[KEY], wanted[order], rtol=1e-4, atol=1e-5)
    inside = fields(adata)[1]
    alone = embed(adata[inside], model, copy=True)
    np.testing.assert_allclose(alone.obsm[KEY], wanted[inside], rtol=1e-4, atol=1e-5)
    moved = adata.copy()
    moved.obsm["spatial"] = moved.obsm["spatial"] * 3 + 1e4  # another unit and origin
    np.testing.assert_allclose(embed(moved, model, batch_key="fov", copy=True).obsm[KEY], wanted, rtol=1e-4, atol=1e-5)
    moved.obsm["spatial"][0] += 5e3
    assert np.abs(embed(moved, model, batch_key="fov", copy=True).obsm[KEY] - wanted).max() > 1e-3


def test_coordinates_that_lack_or_are_none_are_refused(adata, model):
    bare = adata.copy()
    del bare.obsm["spatial"]
    with pytest.raises(KeyError, match=r"'spaformer' needs to know where cells lie, but `.obsm` has no 'spatial'"):
        embed(bare, model)
    for wrong in (np.full((N_CELLS, 2), np.nan), np.zeros((N_CELLS, 1)), np.full((N_CELLS, 2), "a")):
        bare.obsm["spatial"] = wrong
        with pytest.raises(ValueError, match="should hold two finite coordinates of each cell"):
            embed(bare, model)
    assert KEY not in bare.obsm


def test_third_coordinates_are_not_read(adata, model):
    adata.obsm["spatial"] = np.hstack([adata.obsm["spatial"], np.full((N_CELLS, 1), np.nan)])
    before, _ = read_cells(open_input(adata, model), model)
    assert torch.isfinite(before).all()


def test_names_are_written_back_as_upstream_has_them(model):
    written = get_spec("spaformer").keys.backward(model.lcm.state_dict())
    state = make_state()
    assert set(written) == set(state) - {"enc_mask_token"}
    for name, tensor in written.items():
        assert tensor.equal(state[name]), name


@pytest.mark.parametrize(
    "name", ["encoder.pe_enc.weight", "encoder.emb.bias", "encoder.norm2.1.bias", "decoder.1.weight"]
)
def test_missing_tensor_is_an_error(release, name):
    state = make_state()
    del state[name]
    torch.save(state, release / "lung5.ckpt")
    with pytest.raises(ValueError, match=r"lack|Missing"):
        load(release, family="spaformer", device="cpu")


def test_other_decoders_are_refused_by_name(release):
    torch.save({**make_state(), "decoder.dec_1.weight": torch.zeros(4, 3)}, release / "lung5.ckpt")
    with pytest.raises(ValueError, match=r"no rule names: 'decoder\.dec_1\.weight'"):
        load(release, family="spaformer", device="cpu")


@pytest.mark.filterwarnings("ignore:1 of .* cells express no gene")
def test_it_is_built_saved_and_loaded(adata, tmp_path):
    model = build("spaformer", GENES, device="cpu")
    assert (model.d_model, model.lcm.n_blocks, model.token_unit) == (128, 2, "cell")
    assert model.width(model.recipe("embed")) == 20
    embed(adata, model, batch_key="fov")
    assert np.isfinite(adata.obsm[KEY]).all()
    model.save(tmp_path / "saved")
    again = embed(adata, load(tmp_path / "saved", device="cpu"), batch_key="fov", copy=True)
    assert np.array_equal(again.obsm[KEY], adata.obsm[KEY])
    embed_genes(adata, model)
    assert np.isfinite(adata.varm["spaformer_genes"][:12]).all()
    with pytest.raises(ValueError, match="No weights of 'spaformer' are published"):
        load("spaformer")
    assert describe("spaformer")["description"].startswith("no weights are published")
