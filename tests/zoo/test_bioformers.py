"""BioFormers, of which no weights are published: its tokens and its network against formulas written out plainly."""

from __future__ import annotations

import math

import anndata
import numpy as np
import pytest
import torch
from scipy import sparse
from torch.nn import functional

from sclcm._settings import settings
from sclcm.encoding.batches import pad_sentences
from sclcm.engine.infer import to_tensors
from sclcm.models import build, describe, load
from sclcm.models._pass import open_input
from sclcm.tl import embed, embed_genes
from sclcm.zoo._registry import get_spec

GENES = ["CD3E", "MS4A1", "NKG7", "LYZ", "PPBP", "HLA-DRA"]
N_BINS, WIDTH, N_HEADS, N_BLOCKS, HIDDEN = 14, 8, 2, 2, 12
N_TOKENS = N_BINS * len(GENES) + 1
COUNTS = np.array([[0, 1, 8, 9, 16, 40], [3, 0, 0, 0, 7, 10], [1, 2, 3, 4, 5, 6]])


@pytest.fixture
def adata():
    """Genes in another order than the model's; one more that it does not know, and one less."""
    order = [4, 2, 0, 1, 3]
    counts = np.hstack([COUNTS[:, order], [[5], [0], [9]]]).astype(np.float32)
    data = anndata.AnnData(sparse.csr_matrix(counts))
    data.var_names = [*(GENES[i] for i in order), "FTL"]
    return data


def bin_of(count):
    return count if count <= 8 else math.ceil((math.log2(count) - 3) / 0.3333333) + 8


def expected_tokens():
    """One for each gene of each cell, zeros included; the data have no HLA-DRA."""
    bins = [[bin_of(int(count)) for count in row] for row in COUNTS]
    return torch.tensor([[i * N_BINS + (b if i < 5 else 0) for i, b in enumerate(row)] for row in bins])


def make_state(seed=0):
    """Tensors of the names and shapes that upstream's training saves."""
    shapes = {
        "Bert.embeddings.word_embeddings.weight": (N_TOKENS, WIDTH),
        "Bert.embeddings.position_embeddings.weight": (len(GENES), WIDTH),
        "Bert.embeddings.token_type_embeddings.weight": (2, WIDTH),
        "Bert.pooler.dense.weight": (WIDTH, WIDTH),
        "Bert.pooler.dense.bias": (WIDTH,),
        "ClassificationHead.3.weight": (N_TOKENS, WIDTH),
        "ClassificationHead.3.bias": (N_TOKENS,),
    }
    norms = ["Bert.embeddings.LayerNorm", "ClassificationHead.1"]
    for i in range(N_BLOCKS):
        layer = f"Bert.encoder.layer.{i}."
        for part in ("attention.self.query", "attention.self.key", "attention.self.value", "attention.output.dense"):
            shapes |= {f"{layer}{part}.weight": (WIDTH, WIDTH), f"{layer}{part}.bias": (WIDTH,)}
        shapes |= {f"{layer}intermediate.dense.weight": (HIDDEN, WIDTH), f"{layer}intermediate.dense.bias": (HIDDEN,)}
        shapes |= {f"{layer}output.dense.weight": (WIDTH, HIDDEN), f"{layer}output.dense.bias": (WIDTH,)}
        norms += [f"{layer}attention.output.LayerNorm", f"{layer}output.LayerNorm"]
    shapes |= {f"{norm}.{part}": (WIDTH,) for norm in norms for part in ("weight", "bias")}
    generator = torch.Generator().manual_seed(seed)
    return {name: torch.randn(shape, generator=generator) * 0.5 for name, shape in shapes.items()}


@pytest.fixture
def release(tmp_path):
    torch.save(make_state(), tmp_path / "8_2_2_epoch_3_loss_1.25")
    np.save(tmp_path / "gene_names.npy", GENES)
    return tmp_path


@pytest.fixture
def model(release):
    return load(release, family="bioformers", n_bins=N_BINS, n_heads=N_HEADS, device="cpu", dtype="float32")


@pytest.fixture(autouse=True)
def _few_genes(monkeypatch):
    monkeypatch.setattr(settings, "min_genes_matched", 3)


def norm(state, name, x):
    return functional.layer_norm(x, (WIDTH,), state[f"{name}.weight"], state[f"{name}.bias"], eps=1e-12)


def dense(state, name, x):
    return x @ state[f"{name}.weight"].T + state[f"{name}.bias"]


def plain(state, token_ids):
    """The network written out in float64: vectors of tokens and scores of the vocabulary."""
    state = {name: tensor.double() for name, tensor in state.items()}
    x = state["Bert.embeddings.word_embeddings.weight"][token_ids]
    x = (
        x
        + state["Bert.embeddings.position_embeddings.weight"]
        + state["Bert.embeddings.token_type_embeddings.weight"][0]
    )
    x = norm(state, "Bert.embeddings.LayerNorm", x)
    for i in range(N_BLOCKS):
        layer = f"Bert.encoder.layer.{i}."
        query, key, value = (
            dense(state, f"{layer}attention.self.{part}", x).unflatten(-1, (N_HEADS, -1)).transpose(1, 2)
            for part in ("query", "key", "value")
        )
        weights = (query @ key.transpose(-1, -2) / math.sqrt(WIDTH / N_HEADS)).softmax(-1)
        mixed = (weights @ value).transpose(1, 2).flatten(-2)
        x = norm(state, f"{layer}attention.output.LayerNorm", x + dense(state, f"{layer}attention.output.dense", mixed))
        hidden = functional.gelu(dense(state, f"{layer}intermediate.dense", x))
        x = norm(state, f"{layer}output.LayerNorm", x + dense(state, f"{layer}output.dense", hidden))
    return x, dense(state, "ClassificationHead.3", norm(state, "ClassificationHead.1", functional.gelu(x)))


def batch_of(adata, model):
    data = open_input(adata, model)
    sentences = model.encode(next(data.chunks(model)))
    return pad_sentences(sentences, np.arange(adata.n_obs), pad=model.vocabulary.specials[model.pad])


def test_token_is_the_bin_on_top_of_the_genes_first(adata, model):
    batch = batch_of(adata, model)
    assert (batch.token_ids + batch.values["value"]).tolist() == expected_tokens().tolist()
    assert batch.mask.all()
    assert model.vocabulary.specials == {"<mask>": N_TOKENS - 1}


@torch.inference_mode()
def test_network_is_the_one_of_the_names_in_the_file(adata, model):
    tokens = to_tensors(batch_of(adata, model), model.device)
    x_bld = model.lcm(tokens)
    wanted, scores = plain(make_state(), expected_tokens())
    torch.testing.assert_close(x_bld.double(), wanted, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(model.lcm.heads["token"](x_bld).double(), scores, rtol=1e-4, atol=1e-4)


def test_cells_are_means_of_their_tokens_and_genes_of_their_bins(adata, model):
    embed(adata, model)
    wanted, _ = plain(make_state(), expected_tokens())
    assert adata.obsm["X_bioformers"] == pytest.approx(wanted.mean(1).numpy(), rel=1e-4, abs=1e-5)
    embed_genes(adata, model)
    table = make_state()["Bert.embeddings.word_embeddings.weight"][:-1].reshape(len(GENES), N_BINS, WIDTH).mean(1)
    for gene, vector in zip(adata.var_names[:5], adata.varm["bioformers_genes"], strict=False):
        assert vector == pytest.approx(table[GENES.index(gene)].numpy(), rel=1e-4, abs=1e-5)
    assert np.isnan(adata.varm["bioformers_genes"][5]).all()


def test_key_map_goes_both_ways(model):
    written = get_spec("bioformers").keys.backward(model.lcm.state_dict())
    state = make_state()
    assert set(state) - set(written) == {"Bert.pooler.dense.weight", "Bert.pooler.dense.bias"}
    assert all(tensor.equal(state[name]) for name, tensor in written.items())


def test_files_of_ones_own_training_state_neither_bins_nor_heads(release):
    with pytest.raises(ValueError, match="does not state `n_bins`"):
        load(release, family="bioformers", n_heads=N_HEADS)
    with pytest.raises(ValueError, match="does not state `n_heads`"):
        load(release, family="bioformers", n_bins=N_BINS)
    with pytest.raises(ValueError, match=r"vocabulary .* has 79 tokens, the model's table 85 rows"):
        load(release, family="bioformers", n_bins=13, n_heads=N_HEADS)
    np.save(release / "gene_names.npy", np.ones(3))
    with pytest.raises(ValueError, match="is no list of gene names"):
        load(release, family="bioformers", n_bins=N_BINS, n_heads=N_HEADS)


def test_model_is_built_saved_and_loaded(adata, tmp_path):
    model = build("bioformers", GENES, d_model=8, n_blocks=1, n_heads=2, d_hidden=16, n_bins=N_BINS, device="cpu")
    assert model.lcm.embed.gene.num_embeddings == N_TOKENS
    assert model.lcm.embed.position.num_embeddings == len(GENES)
    embed(adata, model, key_added="one")
    assert np.isfinite(adata.obsm["one"]).all()
    model.save(tmp_path / "saved")
    embed(adata, load(tmp_path / "saved", device="cpu", dtype="float32"), key_added="other")
    assert np.array_equal(adata.obsm["one"], adata.obsm["other"])
    embed(adata[[2, 0, 1]].copy(), model, batch_size=1)


def test_sizes_of_the_paper_are_taken_where_none_is_given():
    model = build("bioformers", GENES, n_bins=N_BINS, n_blocks=1)
    assert (model.d_model, model.architecture.backbone.attention.n_heads) == (768, 12)
    with pytest.raises(ValueError, match=r"No size is known of `n_bins`; pass it"):
        build("bioformers", GENES)


def test_loading_by_name_says_that_there_are_no_weights():
    with pytest.raises(ValueError, match="No weights of 'bioformers' are published"):
        load("bioformers")
    assert describe("bioformers")["description"].startswith("no weights are published")
