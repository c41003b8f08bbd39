"""scBERT's files: any sizes, sentences as long as the published ones, and labels of fine-tuned models."""

from __future__ import annotations

import pickle
import shutil
from pathlib import Path

import anndata as ad
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import sclcm
import sclcm.reference
from sclcm.encoding.batches import pad_sentences
from sclcm.engine.infer import to_tensors
from sclcm.models import describe, load
from sclcm.models._measure import Measurement
from sclcm.models._measure_dense import n_targets
from sclcm.models._pass import open_input
from sclcm.reference.scbert.arrays import ARRAYS
from sclcm.zoo._registry import get_spec

ROOT = Path(sclcm.reference.__file__).parent / "scbert"
TUNED = "finetune_best.pth"


@pytest.fixture(autouse=True)
def _few_genes(monkeypatch):
    monkeypatch.setattr(sclcm.settings, "min_genes_matched", 1)


@pytest.fixture(scope="module")
def model():
    return load(ROOT / "checkpoint", family="scbert", device="cpu")


@pytest.fixture(scope="module")
def tuned():
    return load(ROOT / "checkpoint" / TUNED, family="scbert", device="cpu")


@pytest.fixture
def adata():
    found = ad.read_h5ad(ROOT / "input.h5ad")
    return found[np.asarray(found.X.sum(1)).ravel() > 200].copy()  # without the cell that expresses no known gene


@pytest.fixture
def release(tmp_path):
    return Path(shutil.copytree(ROOT / "checkpoint", tmp_path / "release"))


def state_of(n_genes, *, width, heads, d_head, n_features, depth):
    """Random tensors of a pre-trained model of any size, by their published names."""
    random = torch.Generator().manual_seed(0)

    def draw(*shape):
        return torch.randn(*shape, generator=random) * 0.3

    inner, stack = heads * d_head, "performer.net.layers.{}."
    state = {
        "token_emb.weight": draw(7, width),
        "pos_emb.emb.weight": torch.cat([draw(n_genes, width), torch.zeros(1, width)]).double(),
        "performer.calls_since_last_redraw": torch.tensor(5),
        "norm.weight": 1 + draw(width),
        "norm.bias": draw(width),
        "to_out.weight": draw(7, width),
        "to_out.bias": draw(7),
    }
    for i in range(depth):
        block = stack.format(i)
        state |= {
            block + "0.norm.weight": 1 + draw(width), block + "0.norm.bias": draw(width),
            block + "1.norm.weight": 1 + draw(width), block + "1.norm.bias": draw(width),
            block + "0.fn.fast_attention.projection_matrix": draw(n_features, d_head) * 3,
            block + "0.fn.to_q.weight": draw(inner, width), block + "0.fn.to_k.weight": draw(inner, width),
            block + "0.fn.to_v.weight": draw(inner, width),
            block + "0.fn.to_out.weight": draw(width, inner), block + "0.fn.to_out.bias": draw(width),
            block + "1.fn.fn.w1.weight": draw(4 * width, width), block + "1.fn.fn.w1.bias": draw(4 * width),
            block + "1.fn.fn.w2.weight": draw(width, 4 * width), block + "1.fn.fn.w2.bias": draw(width),
        }  # fmt: skip
    return state


def written(folder, state, names):
    folder.mkdir()
    torch.save({"epoch": 1, "model_state_dict": state, "losses": 0.5}, folder / "panglao_pretrain.pth")
    var = pd.DataFrame(index=pd.Index(names, dtype=object))
    ad.AnnData(sparse.csr_matrix((2, len(names)), dtype=np.float32), var=var).write_h5ad(folder / "panglao_10000.h5ad")
    return folder


def plain(state, value_l, *, depth):
    """The published computation for one cell, written out in float64 with a full attention matrix."""
    state = {name: tensor.double() for name, tensor in state.items()}

    def norm(x, name):
        return torch.nn.functional.layer_norm(x, x.shape[-1:], state[name + "weight"], state[name + "bias"])

    x = state["token_emb.weight"][value_l] + state.get("pos_emb.emb.weight", 0)
    for i in range(depth):
        block = f"performer.net.layers.{i}."
        p = state[block + "0.fn.fast_attention.projection_matrix"]
        y, m = norm(x, block + "0.norm."), p.shape[1]
        q, k, v = ((y @ state[f"{block}0.fn.to_{part}.weight"].T).unflatten(-1, (-1, m)) for part in "qkv")
        q, k = (t.transpose(0, 1) * m**-0.25 for t in (q, k))
        u, w = q @ p.T, k @ p.T
        q = torch.exp(u - q.square().sum(-1, keepdim=True) / 2 - u.amax(-1, keepdim=True)) + 1e-4
        k = torch.exp(w - k.square().sum(-1, keepdim=True) / 2 - w.amax()) + 1e-4
        mixed = q @ (k.transpose(1, 2) @ v.transpose(0, 1)) / (q @ k.sum(1).unsqueeze(-1))
        x = x + mixed.transpose(0, 1).flatten(1) @ state[block + "0.fn.to_out.weight"].T
        x = x + state[block + "0.fn.to_out.bias"]
        y = norm(x, block + "1.norm.") @ state[block + "1.fn.fn.w1.weight"].T + state[block + "1.fn.fn.w1.bias"]
        x = x + torch.nn.functional.gelu(y) @ state[block + "1.fn.fn.w2.weight"].T + state[block + "1.fn.fn.w2.bias"]
    return norm(x, "norm.")


def test_a_sentence_of_16_907_tokens_is_computed_as_published(tmp_path):
    names = [f"GENE{i}" for i in range(16_906)]
    state = state_of(len(names), width=6, heads=2, d_head=3, n_features=5, depth=2)
    model = load(written(tmp_path / "long", state, names), family="scbert", device="cpu")
    random = np.random.default_rng(0)
    counts = sparse.random(2, 3_000, density=0.2, random_state=0, format="csr", dtype=np.float32)
    counts.data = random.integers(1, 50, counts.nnz).astype(np.float32)
    order = random.permutation(16_906)[:3_000]
    adata = ad.AnnData(counts, var=pd.DataFrame(index=pd.Index([names[i] for i in order], dtype=object)))
    found = sclcm.tl.embed(adata, model, copy=True).obsm["X_scbert"]
    values = np.zeros((2, 16_907))
    share = counts.toarray() / counts.toarray().sum(1, keepdims=True) * 1e4
    values[:, order] = np.minimum(np.floor(np.log2(1 + share)), 5)
    for cell in range(2):
        wanted = plain(state, torch.as_tensor(values[cell]).long(), depth=2).mean(0)
        np.testing.assert_allclose(found[cell], wanted, rtol=1e-4, atol=1e-4)


def test_a_model_without_vectors_of_genes_is_computed_as_published(tmp_path, adata):
    names = [f"GENE{i}" for i in range(30)]
    state = state_of(len(names), width=6, heads=2, d_head=3, n_features=5, depth=2)
    del state["pos_emb.emb.weight"]
    model = load(written(tmp_path / "bare", state, names), family="scbert", device="cpu")
    counts = np.random.default_rng(0).poisson(1.0, (4, 30)).astype(np.float32)
    adata = ad.AnnData(counts, var=pd.DataFrame(index=pd.Index(names, dtype=object)))
    values = np.minimum(np.floor(np.log2(1 + counts / counts.sum(1, keepdims=True) * 1e4)), 5)
    wanted = [plain(state, torch.as_tensor([*row, 0]).long(), depth=2).mean(0) for row in values]
    found = sclcm.tl.embed(adata, model, copy=True).obsm["X_scbert"]
    np.testing.assert_allclose(found, np.stack(wanted), rtol=1e-4, atol=1e-5)
    model.save(tmp_path / "saved")
    again = sclcm.tl.embed(adata, load(tmp_path / "saved", device="cpu"), copy=True).obsm["X_scbert"]
    np.testing.assert_array_equal(again, found)
    half = model.to("cpu", "bfloat16")
    assert half.dtype == torch.bfloat16
    assert np.abs(sclcm.tl.embed(adata, half, copy=True).obsm["X_scbert"] - found).max() < 0.1
    with pytest.raises(ValueError, match="has no vectors of genes"):
        sclcm.tl.embed_genes(adata, model)


@pytest.mark.parametrize("batch_size", [1, 3, None])
def test_a_cell_does_not_depend_on_its_batch(adata, model, batch_size):
    wanted = sclcm.tl.embed(adata, model, copy=True).obsm["X_scbert"]
    found = sclcm.tl.embed(adata[::-1].copy(), model, batch_size=batch_size, copy=True).obsm["X_scbert"][::-1]
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-6)


def test_order_of_var_does_not_matter(adata, model):
    wanted = sclcm.tl.embed(adata, model, copy=True).obsm["X_scbert"]
    found = sclcm.tl.embed(adata[:, ::-1].copy(), model, copy=True).obsm["X_scbert"]
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-7)


def test_recipes_differ_as_they_say(adata, model):
    found = {name: sclcm.tl.embed(adata, model, recipe=name, copy=True).obsm["X_scbert"] for name in model.recipes}
    n_genes = model.vocabulary.n_features
    np.testing.assert_allclose(found["sum"], found["mean"] * n_genes, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found["embed"] * (n_genes + 1), found["sum"] + found["cls"], rtol=1e-4, atol=1e-3)


def test_fine_tuned_model_annotates_and_abstains(adata, tuned):
    got = sclcm.tl.annotate(adata, tuned, copy=True)
    assert set(got.obs["scbert_label"]) <= set(tuned.labels.names)
    score = got.obs["scbert_label_score"]
    assert ((score >= 1 / len(tuned.labels.names)) & (score <= 1)).all()
    bound = float(score.median())
    strict = sclcm.tl.annotate(adata, tuned, min_score=bound, copy=True).obs["scbert_label"]
    assert ((strict == "unknown") == (score < bound)).all()
    two = sclcm.tl.annotate(adata, tuned, labels=["CD19+ B", "CD14+ Monocyte"], copy=True)
    assert set(two.obs["scbert_label"]) <= {"CD19+ B", "CD14+ Monocyte"}
    assert two.uns["scbert_label"]["params"]["labels"] == ["CD14+ Monocyte", "CD19+ B"]


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"labels": ["B cell"]}, ValueError, "names 'B cell'; 'scbert' knows 'CD14"),
        ({"labels": "CD19+ B"}, TypeError, "is the text 'CD19"),
        ({"labels": []}, ValueError, "is empty"),
        ({"use_rep": "X"}, ValueError, "classifies by more than an embedding holds"),
        ({"min_score": 2}, ValueError, "expected a share between 0 and 1"),
    ],
)
def test_what_cannot_be_annotated_is_said(adata, tuned, given, error, message):
    before = adata.copy()
    with pytest.raises(error, match=message):
        sclcm.tl.annotate(adata, tuned, **given)
    assert list(adata.obs) == list(before.obs)
    assert not adata.uns


def test_pretrained_model_has_no_labels(adata, model):
    with pytest.raises(ValueError, match="has no label prototypes and gives no labels"):
        sclcm.tl.annotate(adata, model)


def test_labels_go_with_a_saved_model(adata, tuned, tmp_path):
    tuned.save(tmp_path / "saved")
    again = load(tmp_path / "saved", device="cpu")
    assert again.labels == tuned.labels
    wanted = sclcm.tl.annotate(adata, tuned, key_added="x", copy=True).obs["x_score"]
    assert sclcm.tl.annotate(adata, again, key_added="x", copy=True).obs["x_score"].equals(wanted)


def test_fine_tuned_model_without_names_of_its_classes_still_embeds(adata, release):
    (release / "label_dict").unlink()
    model = load(release / TUNED, family="scbert", device="cpu")
    with pytest.warns(UserWarning, match=r"names the classes .* there are 4, .*`load\(\.\.\., labels=\[\.\.\.\]\)`"):
        found = sclcm.tl.annotate(adata, model, copy=True).obs["scbert_label"]
    assert set(found) <= {"0", "1", "2", "3", "unknown"}
    named = load(release / TUNED, family="scbert", device="cpu", labels=list("wxyz"))
    name_of = dict(zip([*"0123", "unknown"], [*"wxyz", "unknown"], strict=True))
    assert sclcm.tl.annotate(adata, named, copy=True).obs["scbert_label"].tolist() == [name_of[name] for name in found]
    assert sclcm.tl.embed(adata, model, copy=True).obsm["X_scbert"].any()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (np.array(["a", "b", "c"], dtype=object), "3 names of classes do not fit the model, whose head scores 4"),
        (np.array(["a", "b", "b", "c"], dtype=object), "names a class twice"),
        (np.arange(4), "lists no names of classes"),
        ({"a": 1}, "lists no names of classes"),
    ],
)
def test_names_of_classes_that_do_not_fit_are_refused(release, content, message):
    (release / "label_dict").write_bytes(pickle.dumps(content))
    with pytest.raises(ValueError, match=message):
        load(release / TUNED, family="scbert", device="cpu")


def test_without_the_order_of_genes_nothing_is_loaded(release):
    (release / "panglao_10000.h5ad").unlink()
    with pytest.raises(FileNotFoundError, match="panglao_"):
        load(release, family="scbert", device="cpu")


def test_another_list_of_genes_is_refused(release):
    stored = ad.read_h5ad(release / "panglao_10000.h5ad")
    stored[:, 1:].copy().write_h5ad(release / "panglao_10000.h5ad")
    with pytest.raises(ValueError, match="140 tokens, the model's table 141 rows"):
        load(release, family="scbert", device="cpu")


def test_a_list_that_names_a_gene_twice_is_refused(release):
    stored = ad.read_h5ad(release / "panglao_10000.h5ad")
    stored.var_names = [*stored.var_names[:-1], stored.var_names[0]]
    stored.write_h5ad(release / "panglao_10000.h5ad")
    with pytest.raises(ValueError, match="names a gene twice"):
        load(release, family="scbert", device="cpu")


def test_what_upstream_writes_comes_back(tuned):
    spec = get_spec("scbert")
    keys = spec.keys + spec.variants[1].keys
    stored = torch.load(ROOT / "checkpoint" / TUNED, weights_only=False)["model_state_dict"]
    back = keys.backward(dict(tuned.lcm.state_dict()))
    assert set(stored) - set(back) == {"performer.calls_since_last_redraw"}
    for name, tensor in back.items():
        assert tensor.dtype == stored[name].dtype
        torch.testing.assert_close(tensor, stored[name], rtol=0, atol=0)


def test_attention_of_genes_sums_to_one(adata, model):
    data = open_input(adata, model, check_fit=False)
    chunk = next(data.chunks(model, chunk_size=3))
    batch = pad_sentences(model.encode(chunk), np.arange(3), pad=0)
    with torch.inference_mode():
        received = model.lcm.attention_received(to_tensors(batch, torch.device("cpu")))
    assert received.shape == (3, 141)
    torch.testing.assert_close(received.sum(1), torch.ones(3))


def test_description_names_the_files_and_where_they_are():
    found = describe("scbert")
    assert "panglao_10000.h5ad" in str(found)
    assert found["recipes"].keys() == {"embed", "cls", "mean", "sum"}
    assert found["heads"] == ["bin", "cell_class"]


def test_share_of_targets_is_rounded_up_in_single_precision():
    numbers = np.array([0, 1, 7, 20, 100, 101, 180])
    upstream = (torch.from_numpy(numbers) * 0.15).ceil()
    assert n_targets(0.15, numbers).tolist() == upstream.int().tolist() == [0, 1, 2, 3, 16, 16, 28]


def test_fine_tuned_weights_are_found_by_any_name_that_upstream_gives(release):
    (release / TUNED).rename(release / "zheng68k_best.pth")
    facts = {name: np.load(ROOT / "expected.npz")[name] for name in ("kept_cells", "finetuned_prob")}
    adata = ad.read_h5ad(ROOT / "input.h5ad")
    measured = Measurement(adata, release, family="scbert", draws=facts, dtype="float32", device="cpu")
    found = measured.take(ARRAYS["finetuned_prob"], "finetuned_prob")
    np.testing.assert_allclose(found, facts["finetuned_prob"], rtol=1e-5, atol=1e-5)
