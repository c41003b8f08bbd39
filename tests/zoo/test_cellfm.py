"""CellFM: layouts, dialects, lists of genes, and what users see."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
import torch
from safetensors.torch import save_file

import sclcm
import sclcm.reference
from sclcm.checkpoints.readers import read_tensors
from sclcm.encoding.depth import Log1pTotal
from sclcm.models import describe, load
from sclcm.nn.gated_configs import GeneAndDepthBins, GeneBins, GeneProductHead
from sclcm.nn.tokens import TokenTensors
from sclcm.zoo._registry import get_spec

FOLDER = Path(sclcm.reference.__file__).parent / "cellfm"
LARGE, BASE = "CellFM_80M_weight.ckpt", "base_weight.ckpt"
SIZES = {"enc_num_heads": 4, "nonz_len": 150}
WIDTH = 32


def tensors_of(file):
    return {
        name: tensor
        for name, tensor in read_tensors(FOLDER / "checkpoint" / file).items()
        if not name.startswith("moment") and ("." in name or name.endswith(("emb", "token")))
    }


@pytest.fixture
def release(tmp_path):
    """A folder with changed tensors, and the lists of genes."""

    def write(change, file=LARGE):
        shutil.copytree(FOLDER / "checkpoint" / "csv", tmp_path / "csv")
        changed = {name: tensor.contiguous() for name, tensor in change(tensors_of(file)).items()}
        save_file(changed, tmp_path / file)
        return tmp_path

    return write


def loaded(folder, file=LARGE, **given):
    return load(folder / file, family="cellfm", device="cpu", **{**SIZES, **given})


@pytest.fixture(scope="module")
def large():
    return loaded(FOLDER / "checkpoint")


@pytest.fixture(scope="module")
def base():
    return loaded(FOLDER / "checkpoint", BASE)


@pytest.fixture
def adata():
    return ad.read_h5ad(FOLDER / "input.h5ad")


# ---- layouts and dialects ----


def test_layouts_are_told_by_their_tensors(large, base):
    assert isinstance(large.architecture.value, GeneAndDepthBins)
    assert isinstance(base.architecture.value, GeneBins)
    assert set(large.recipes) == {"embed", "cls", "genes", "totals"}
    assert set(base.recipes) == {"embed", "cls", "genes"}
    assert large.vocabulary.specials == {"<pad>": 0, "<cls>": 248, "<source>": 249, "<target>": 250}
    assert base.vocabulary.specials == {"<pad>": 0, "<cls>": 232}
    assert (large.lcm.n_blocks, base.lcm.n_blocks) == (2, 6)
    assert [block.residual_scale for block in base.lcm.backbone.blocks] == [pytest.approx(12**0.25)] * 6
    assert base.lcm.backbone.n_blind == 3


def test_numbers_of_the_optimiser_are_no_part_of_the_model(large):
    stored = read_tensors(FOLDER / "checkpoint" / LARGE)
    assert {"moment1.cls_token", "global_step", "learning_rate"} <= set(stored)
    spec = get_spec("cellfm")
    assert set(spec.keys.bare(stored)) == set(tensors_of(LARGE))
    assert large.n_parameters == sum(tensor.numel() for tensor in tensors_of(LARGE).values()) - WIDTH  # zero_emb


def test_rows_of_special_tokens_follow_the_table(large):
    stored, table = tensors_of(LARGE), large.lcm.embed.gene.weight
    assert table[:248].equal(stored["gene_emb"])
    assert table[248].equal(stored["cls_token"][0, 0])
    assert table[249:].equal(stored["ST_emb"][0])


def as_port(tensors):
    for old, new in (("gamma", "weight"), ("beta", "bias")):
        tensors = {re.sub(rf"(post_norm\d\.){old}$", rf"\g<1>{new}", name): tensor for name, tensor in tensors.items()}
    return tensors


def constants(model):
    norm = {block.norm1.eps for block in model.lcm.backbone.blocks}
    return model.architecture.value.genes.slope, norm, model.architecture.heads["value"].activation


def test_port_has_constants_of_its_own_by_its_names_or_when_asked(release, large):
    port = loaded(release(as_port))
    asked = loaded(FOLDER / "checkpoint", compat="torch-port")
    assert constants(large) == (0.2, {1e-7}, "leaky_relu_0.2")
    assert constants(port) == constants(asked) == (0.01, {1e-5}, "leaky_relu")
    assert isinstance(port.architecture.value, GeneBins)
    assert port.lcm.state_dict().keys() == asked.lcm.state_dict().keys()
    for name, tensor in port.lcm.state_dict().items():
        assert tensor.equal(asked.lcm.state_dict()[name])


def test_word_that_means_nothing_is_refused():
    with pytest.raises(ValueError, match=r"`compat` is 'pytorch'; expected 'torch-port', or leave it out"):
        loaded(FOLDER / "checkpoint", compat="pytorch")


def test_low_rank_additions_are_merged(release, large):
    def add(tensors):
        generator = torch.Generator().manual_seed(0)
        for part, names in (("attn", "qkvuo"), ("ffn", "uvo")):
            for name in names:
                stem = f"encoder.1.{part}.lora_{name}."
                tensors[stem + "A.weight"] = torch.randn(3, WIDTH, generator=generator)
                tensors[stem + "B.weight"] = torch.randn(WIDTH, 3, generator=generator)
        return tensors

    folder = release(add)
    merged, stored = loaded(folder).lcm.backbone.blocks, read_tensors(folder / LARGE)
    plain = large.lcm.backbone.blocks
    for part, module in (("attn", "out"), ("ffn", "down")):
        stem = f"encoder.1.{part}.lora_o."
        product = stored[stem + "B.weight"] @ stored[stem + "A.weight"]
        ours = {"attn": "attn", "ffn": "ff"}[part]
        found = getattr(getattr(merged[1], ours), module).weight
        torch.testing.assert_close(found, getattr(getattr(plain[1], ours), module).weight + product)
    assert merged[0].attn.qkvu.weight.equal(plain[0].attn.qkvu.weight)
    up = stored["encoder.1.attn.lora_k.B.weight"] @ stored["encoder.1.attn.lora_k.A.weight"]
    rows = slice(WIDTH, 2 * WIDTH)
    torch.testing.assert_close(merged[1].attn.qkvu.weight[rows], plain[1].attn.qkvu.weight[rows] + up)


def test_models_that_tell_expressed_genes_have_heads_for_it(release):
    def add(tensors):
        for layer, shape in ((0, (WIDTH, WIDTH)), (2, (WIDTH, WIDTH)), (4, (1, WIDTH))):
            tensors[f"value_dec.zero_logit.{layer}.weight"] = torch.randn(shape)
            tensors[f"value_dec.zero_logit.{layer}.bias"] = torch.randn(shape[0])
        tensors["cellwise_dec.zero_logit.weight"] = torch.randn(WIDTH, WIDTH)
        tensors["cellwise_dec.zero_logit.bias"] = torch.randn(WIDTH)
        return tensors

    model = loaded(release(add))
    assert set(model.lcm.heads) == {"value", "cell_gene", "expressed", "cell_gene_expressed"}
    assert model.architecture.heads["expressed"].n_layers == 3
    assert model.architecture.heads["cell_gene_expressed"] == GeneProductHead(activation="identity", bias=True)
    tokens = some_tokens(model)
    x, cell = model.lcm(tokens), torch.randn(2, WIDTH)
    linear = model.lcm.heads["cell_gene_expressed"].query
    wanted = torch.einsum("bld,bd->bl", linear(model.lcm.embed.genes(tokens.token_ids_bl)), cell)
    torch.testing.assert_close(model.lcm.read("cell_gene_expressed", x, tokens, cell), wanted)


@pytest.mark.parametrize(
    "name", ["encoder.0.attn.k_proj.weight", "value_enc.mask_emb", "ST_enc.a", "cls_token", "value_dec.w2.weight"]
)
def test_missing_tensor_is_an_error_that_names_it(release, name):
    with pytest.raises(ValueError, match=re.escape(name)):
        loaded(release(lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name}))


def test_tensor_without_a_rule_is_an_error_that_names_it(release):
    with pytest.raises(ValueError, match=r"no rule names: 'cluster_emb'"):
        loaded(release(lambda tensors: {**tensors, "cluster_emb": torch.zeros(5, WIDTH)}))


# ---- lists of genes and sizes ----


def test_list_of_genes_is_the_one_that_fills_the_table(release, base):
    folder = release(lambda tensors: tensors, BASE)
    shutil.copy(folder / "csv" / "gene_info.csv", folder / "csv" / "expand_gene_info.csv")
    (folder / "csv" / "gene_info.csv").write_text("symbol\nA1BG\n")
    assert loaded(folder, BASE).vocabulary.features.tolist() == base.vocabulary.features.tolist()


def test_of_two_lists_that_fit_the_layout_decides(release, large, base):
    folder = release(lambda tensors: tensors, BASE)
    rows = (folder / "csv" / "gene_info.csv").read_text().splitlines()
    (folder / "csv" / "expand_gene_info.csv").write_text("\n".join([rows[0], *rows[:0:-1]]))
    assert loaded(folder, BASE).vocabulary.features.tolist() == base.vocabulary.features.tolist()


def test_lists_of_another_model_are_refused(release):
    folder = release(lambda tensors: tensors)
    (folder / "csv" / "expand_gene_info.csv").unlink()
    with pytest.raises(ValueError, match=r"table of genes has 248 rows, but 'gene_info\.csv' needs 232"):
        loaded(folder)
    shutil.rmtree(folder / "csv")
    with pytest.raises(FileNotFoundError, match="gene_info"):
        loaded(folder)


def test_list_that_names_a_gene_twice_is_refused(release):
    folder = release(lambda tensors: tensors)
    rows = (folder / "csv" / "expand_gene_info.csv").read_text().splitlines()
    (folder / "csv" / "expand_gene_info.csv").write_text("\n".join([*rows[:-1], rows[1]]))
    with pytest.raises(ValueError, match="names a gene twice"):
        loaded(folder)


def test_sizes_that_no_file_states_are_the_published_ones_unless_said():
    with pytest.raises(ValueError, match="48 heads do not divide a width of 32"):
        load(FOLDER / "checkpoint", family="cellfm")
    model = load(FOLDER / "checkpoint", family="cellfm", enc_num_heads=4, device="cpu")
    assert model.encoding.max_tokens == 2049


# ---- what the model computes ----


def some_tokens(model, *, values=(2.0, 1.0, -1.0, 0.5)):
    """Two sentences: one with four genes, one of them hidden if its value is -1, and one with two."""
    cls = model.vocabulary.specials["<cls>"]
    ids = torch.tensor([[cls, 5, 9, 3, 7], [cls, 8, 2, 0, 0]])
    mask = torch.tensor([[True] * 5, [True] * 3 + [False] * 2])
    gene = mask & (ids != cls)
    value = torch.tensor([[0.0, *values], [0.0, 1.5, 0.3, 0.0, 0.0]])
    return TokenTensors(token_ids_bl=ids, mask_bl=mask, gene_mask_bl=gene, value_bl=value)


@torch.inference_mode()
def test_hidden_value_is_the_vector_for_hidden_ones_and_informs_later_blocks_only(base):
    tokens, embed = some_tokens(base), base.lcm.embed
    x = embed(tokens)
    hidden = embed.gene.weight[3] + tensors_of(BASE)["value_enc.mask_emb"][0, 0]
    torch.testing.assert_close(x[0, 3], hidden)
    torch.testing.assert_close(x[:, 0], embed.gene.weight[tokens.token_ids_bl[:, 0]])
    visible = tokens.mask_bl.clone()
    visible[0, 3] = False
    for number, block in enumerate(base.lcm.backbone.blocks):
        x = block(x, visible if number < 3 else tokens.mask_bl)
    torch.testing.assert_close(base.lcm(tokens)[tokens.mask_bl], x[tokens.mask_bl])


@torch.inference_mode()
def test_order_of_genes_and_padding_do_not_matter(large):
    tokens = some_tokens(large, values=(2.0, 1.0, 0.7, 0.5))
    whole = large.lcm(tokens)
    short = TokenTensors(
        **{
            name: None if tensor is None else tensor[1:, :3]
            for name, tensor in vars(tokens).items()
            if name != "condition_b"
        }
    )
    torch.testing.assert_close(large.lcm(short)[0], whole[1, :3], rtol=1e-4, atol=1e-5)
    order = torch.tensor([0, 4, 2, 1, 3])
    turned = TokenTensors(
        **{
            name: None if tensor is None else tensor[:1, order]
            for name, tensor in vars(tokens).items()
            if name != "condition_b"
        }
    )
    torch.testing.assert_close(large.lcm(turned)[0], whole[0, order], rtol=1e-4, atol=1e-5)


def test_sentences_of_the_recipe_with_totals_have_two_more_tokens(large):
    encoding = large.recipes["totals"].encoding
    assert encoding.max_tokens == 153
    assert large.encoding.max_tokens == 151
    assert [token.value for token in encoding.depth.tokens] == [Log1pTotal(per=1000.0)] * 2


# ---- what users see ----


def test_cells_are_embedded_whatever_their_order_batch_and_genes(adata, large):
    sclcm.tl.embed(adata, large, key_added="cells")
    wanted = adata.obsm["cells"]
    assert wanted.shape == (13, WIDTH)
    assert np.isfinite(wanted).all()
    rng = np.random.default_rng(0)
    cells, genes = rng.permutation(adata.n_obs), rng.permutation(adata.n_vars)
    turned = adata[cells, genes].copy()
    sclcm.tl.embed(turned, large, key_added="cells", batch_size=3)
    np.testing.assert_allclose(turned.obsm["cells"], wanted[cells], rtol=1e-3, atol=1e-4)


def test_sample_of_a_long_cell_follows_the_seed(adata, large):
    for seed in (0, 0, 1):
        sclcm.tl.embed(adata, large, key_added=f"seed{seed}", random_state=seed)
    differ = np.abs(adata.obsm["seed0"] - adata.obsm["seed1"]).max(1) > 1e-6
    assert differ.tolist() == [False] * 12 + [True]


def test_totals_matter_to_the_recipe_that_reads_them_alone(adata, large):
    sclcm.tl.embed(adata, large, recipe="totals", key_added="with")
    sclcm.tl.embed(adata, large, recipe="cls", key_added="without")
    assert np.abs(adata.obsm["with"] - adata.obsm["without"]).max() > 0.01
    twice = adata.copy()
    twice.X = adata.X * 2
    for recipe, differs in (("totals", True), ("cls", False)):
        sclcm.tl.embed(twice, large, recipe=recipe, key_added=recipe)
        found = twice.obsm[recipe][:12] - adata.obsm["with" if differs else "without"][:12]
        assert (np.abs(found).max() > 1e-3) == differs


def test_vectors_of_genes_are_rows_of_the_table(adata, large):
    sclcm.tl.embed_genes(adata, large)
    found = adata.varm["cellfm_genes"]
    row = adata.var_names.get_loc("ABI3")
    np.testing.assert_array_equal(found[row], tensors_of(LARGE)["gene_emb"][1].numpy())
    assert np.isnan(found[adata.var_names.get_loc("NOVELGENE9")]).all()


@torch.inference_mode()
def test_vectors_of_measured_genes_are_those_of_whole_cells_without_a_first_token(adata, base):
    sclcm.tl.embed_genes(adata, base, how="measured", key_added="genes")
    known = [name for name in base.vocabulary.features if name in set(adata.var_names)]
    counts = np.asarray(adata[:, known].X.todense())
    totals = np.asarray(adata.X.sum(1))
    counts = np.round(counts / np.maximum(totals / 1e5, 1))
    values = np.log1p(1e4 * counts / counts.sum(1, keepdims=True))
    ids = torch.tensor([base.vocabulary.token(name) for name in known]).expand(len(values), -1)
    value = torch.tensor(values, dtype=torch.float32)
    mask = torch.ones_like(ids, dtype=torch.bool)
    x = base.lcm(TokenTensors(token_ids_bl=ids, mask_bl=None, gene_mask_bl=mask, value_bl=value)).mean(0)
    rows = adata.var_names.get_indexer(known)
    np.testing.assert_allclose(adata.varm["genes"][rows], x.numpy(), rtol=1e-3, atol=1e-4)
    assert np.isfinite(adata.varm["genes"]).all(1).sum() == len(known)


def test_other_names_of_genes_are_read(adata, large):
    renamed = adata.copy()
    names = renamed.var_names.to_series()
    for name, other in (("COA3", "CCDC56"), ("FUOM", "C10orf125")):
        names[names == name] = other
    renamed.var_names = names.to_numpy()
    renamed.var = renamed.var.drop(columns=["gene_symbol", "ensembl_id"])
    sclcm.tl.embed(adata, large, key_added="cells")
    sclcm.tl.embed(renamed, large, key_added="cells")
    np.testing.assert_allclose(renamed.obsm["cells"], adata.obsm["cells"], rtol=1e-4, atol=1e-5)


def test_description_says_what_it_needs_and_gives():
    found = describe("cellfm")
    assert found["name"] == "cellfm.80m"
    assert found["n_parameters"] == 86_193_666
    assert "NC" in found["license"]
    assert found["files"] == ["CellFM_80M_weight.ckpt", "expand_gene_info.csv"]
    assert describe("cellfm.800m")["files"] == ["base_weight.ckpt", "gene_info.csv"]
    assert {"embed", "cls", "totals"} <= set(found["recipes"])
    assert set(found["heads"]) == {"value", "cell_gene", "expressed", "cell_gene_expressed"}


def test_families_without_sentences_of_all_genes_say_so(adata):
    with pytest.raises(ValueError, match="make no sentences of all genes of the data"):
        sclcm.tl.embed_genes(adata, "sclcm-mini", how="measured")
