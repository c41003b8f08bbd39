"""Models that are built anew: with random weights, over genes of one's own."""

from __future__ import annotations

import dataclasses

import anndata
import numpy as np
import pytest
import torch
from scipy import sparse

from sclcm.models import build, describe, list_models, load
from sclcm.models._describe import UNPUBLISHED
from sclcm.models._verify import _packaged
from sclcm.tl import embed, embed_genes
from sclcm.zoo._registry import get_spec

GENES = [f"GENE{i}" for i in range(220)]
SIZES = {"d_model": 16, "n_blocks": 2, "n_heads": 4, "d_hidden": 24, "activation": "relu", "eps": 1e-5, "dropout": 0.0}


@pytest.fixture
def adata():
    counts = np.random.default_rng(0).poisson(0.5, (5, len(GENES))).astype(np.float32)
    data = anndata.AnnData(sparse.csr_matrix(counts))
    data.var_names = GENES
    return data


def built(**changes):
    return build("tgpt", GENES, device="cpu", dtype="float32", **{**SIZES, **changes})


def test_built_model_has_the_sizes_and_genes_that_were_asked_for():
    model = built(n_blocks=3, name="mine")
    assert (model.name, model.family, model.d_model, model.lcm.n_blocks) == ("mine", "tgpt", 16, 3)
    assert model.vocabulary.features.tolist() == GENES
    assert model.vocabulary.specials == {"<pad>": 0, "</b>": 1, "</s>": 2, "<unk>": 3}
    assert model.encoding.max_tokens == 64
    assert model.lcm.embed.gene.num_embeddings == model.vocabulary.n_tokens == 224
    assert model.lcm.embed.position.num_embeddings == 64
    assert not any(parameter.requires_grad for parameter in model.lcm.parameters())
    assert not model.lcm.training


def test_size_goes_by_its_key_in_the_configuration_as_well():
    sizes = {key: value for key, value in SIZES.items() if key not in ("n_heads", "eps", "dropout")}
    model = build("tgpt", GENES, **sizes, n_head=2, layer_norm_epsilon=1e-3, resid_pdrop=0.5, max_length=30)
    assert model.architecture.backbone.attention.n_heads == 2
    assert model.architecture.backbone.layer_norm.eps == 1e-3
    assert model.encoding.max_tokens == 30


def test_built_model_embeds_is_saved_and_loaded(adata, tmp_path):
    model = built()
    embed(adata, model, key_added="one")
    embed_genes(adata, model)
    assert np.isfinite(adata.obsm["one"]).all()
    assert adata.obsm["one"].std() > 0
    model.save(tmp_path / "saved")
    again = load(tmp_path / "saved", device="cpu", dtype="float32")
    embed(adata, again, key_added="other")
    assert np.array_equal(adata.obsm["one"], adata.obsm["other"])


def test_seed_decides_the_weights_and_the_callers_stream_is_left_alone():
    torch.manual_seed(5)
    before = torch.rand(1)
    torch.manual_seed(5)
    one, same, other = built(), built(), built(random_state=1)
    assert torch.rand(1).equal(before)
    weights = [model.lcm.embed.gene.weight for model in (one, same, other)]
    assert weights[0].equal(weights[1])
    assert not weights[0].equal(weights[2])
    assert one.sha256 == same.sha256 != other.sha256


def test_weights_are_drawn_without_seeding_the_streams_of_devices(monkeypatch):
    def refuse(seed):
        pytest.fail(f"every device was seeded with {seed}")

    monkeypatch.setattr(torch, "manual_seed", refuse)
    built()


def test_kind_and_species_of_genes_are_told_from_them():
    genes = ["ENSMUSG00000051951", "ENSMUSG00000025902", "ENSMUSG00000033845"]
    model = build("tgpt", genes, **SIZES)
    assert model.vocabulary.ids == "ensembl"
    assert model.vocabulary.species == ("mouse",)


def test_numbers_that_an_encoding_reads_are_passed(adata):
    sizes = {**SIZES, "n_segments": 2}
    with pytest.raises(ValueError, match="encoding of 'geneformer' reads `median`, a number for each gene"):
        build("geneformer", GENES, **sizes)
    model = build("geneformer", GENES, **sizes, arrays={"median": np.full(len(GENES), 2.0)})
    embed(adata, model)
    assert np.isfinite(adata.obsm["X_geneformer"]).all()
    for arrays in ({"median": np.ones(3)}, {"median": np.ones(len(GENES)), "mean": np.ones(len(GENES))}):
        with pytest.raises(ValueError, match=r"is none of \['median'\], with a number for each of 220 genes"):
            build("geneformer", GENES, **sizes, arrays=arrays)


@pytest.mark.parametrize(
    ("genes", "sizes", "kind", "message"),
    [
        (GENES, {"d_model": 16}, ValueError, "No size is known of `activation`, `d_hidden`, .*; pass them, as in"),
        (GENES, {**SIZES, "width": 3}, TypeError, "got `width`, which says nothing here: 'tgpt' takes `activation`"),
        (GENES, {**SIZES, "n_heads": 5}, ValueError, "5 heads do not divide a width of 16"),
        (GENES, {**SIZES, "n_positions": 10}, ValueError, "may have 64 tokens, but the model knows 10 places"),
        (["A", "B", "A"], SIZES, ValueError, "names 'A' twice"),
        (["A", ""], SIZES, ValueError, "one of them empty"),
        ([], SIZES, ValueError, "`gene_ids` is empty"),
        ("CD3E", SIZES, TypeError, "expected a list of gene names"),
        (["<pad>", "A"], SIZES, ValueError, "names '<pad>', a special token"),
    ],
)
def test_what_makes_no_model_is_refused(genes, sizes, kind, message):
    with pytest.raises(kind, match=message):
        build("tgpt", genes, **sizes)


def test_unknown_family_and_one_with_lists_of_its_own_are_refused():
    with pytest.raises(ValueError, match="'nothing' is unknown"):
        build("nothing", GENES)
    with pytest.raises(ValueError, match="comes with its authors' lists of genes and words"):
        build("scmulan", GENES)


# ---- families without published weights ----


@pytest.fixture
def unpublished(monkeypatch):
    """A family of which its authors publish no weights, with sizes that they chose."""
    sizes = {key: value for key, value in SIZES.items() if key != "d_hidden"}
    spec = dataclasses.replace(get_spec("tgpt"), name="planted", checkpoints={}, sizes=sizes)

    class Offered:
        name = "planted"

        def load(self):
            return spec

    def offered(*, group, name=None):
        return [Offered()] if name in (None, "planted") else []

    monkeypatch.setattr("sclcm.zoo._registry.entry_points", offered)
    return spec.name


def test_family_without_weights_is_described_but_not_listed_as_one_to_load(unpublished):
    found = describe(unpublished)
    assert found["name"] == unpublished
    assert found["description"] == UNPUBLISHED.description
    assert (found["files"], found["folder"], found["fetchable"], found["bundled"]) == ([], None, False, False)
    assert not any(name.startswith(unpublished) for name in list_models())


@pytest.mark.parametrize("name", ["planted", "planted.first"])
def test_loading_a_family_without_weights_says_how_to_build_one(unpublished, name):
    with pytest.raises(ValueError, match=r"No weights of 'planted' are published. `sclcm.models.build\('planted'"):
        load(name)


def test_sizes_that_the_authors_chose_are_taken_where_none_is_given(unpublished):
    assert build(unpublished, GENES, d_hidden=8).d_model == 16
    assert build(unpublished, GENES, d_hidden=8, d_model=32).d_model == 32
    with pytest.raises(ValueError, match=r"No size is known of `d_hidden`; pass it, as in `d_hidden=...`"):
        build(unpublished, GENES)


def test_blocks_of_a_release_go_over_genes_of_ones_own(adata):
    folder = _packaged("tgpt") / "checkpoint"
    theirs = load(folder, family="tgpt", device="cpu", dtype="float32")
    model = build("tgpt", GENES, backbone=folder, device="cpu", dtype="float32")
    assert model.architecture.backbone == theirs.architecture.backbone
    state = theirs.lcm.backbone.state_dict()
    assert all(tensor.equal(state[name]) for name, tensor in model.lcm.backbone.state_dict().items())
    assert model.vocabulary.features.tolist() == GENES
    embed(adata, model)
    assert np.isfinite(adata.obsm["X_tgpt"]).all()
    with pytest.raises(FileNotFoundError, match="No file like"):
        build("tgpt", GENES, backbone=folder.parent.parent)
