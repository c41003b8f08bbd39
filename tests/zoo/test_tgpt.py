"""tGPT's files and sentences: dialects of its weights, its tokenizer, and what becomes of names and ties."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from scipy import sparse

import sclcm.reference
from sclcm.models import load
from sclcm.models._words import split_words
from sclcm.tl import embed, embed_genes

CHECKPOINT = Path(sclcm.reference.__file__).parent / "tgpt" / "checkpoint"
TABLE = "transformer.wte.weight"


def loaded(folder, **given):
    return load(folder, family="tgpt", device="cpu", dtype="float32", **given)


@pytest.fixture(scope="module")
def model():
    return loaded(CHECKPOINT)


@pytest.fixture
def release(tmp_path):
    """Copy the packaged checkpoint, with weights in one file only, and change tensors, tokenizer or configuration."""

    def make(tensors=lambda state: state, *, tokenizer=lambda content: content, config=None, file="pytorch_model.bin"):
        folder = tmp_path / "release"
        folder.mkdir(exist_ok=True)
        torch.save(tensors(load_file(CHECKPOINT / "model.safetensors")), folder / file)
        content = tokenizer(json.loads((CHECKPOINT / "tokenizer.json").read_text()))
        (folder / "tokenizer.json").write_text(json.dumps(content))
        settings = json.loads((CHECKPOINT / "config.json").read_text())
        (folder / "config.json").write_text(json.dumps({**settings, **(config or {})}))
        return folder

    return make


@pytest.fixture
def adata(model):
    """Six cells over genes in the spelling of data, two of which the model does not know."""
    names = [name.replace("_", "-") for name in model.vocabulary.features]
    rng = np.random.default_rng(0)
    counts = rng.poisson(0.4, (6, 222)).astype(np.float32)
    counts[:, 0] += 1
    var = anndata.AnnData(sparse.csr_matrix(counts))
    var.var_names = [*names, "MADEUP1", "MT-MADEUP"]
    var.obs_names = [f"cell{i}" for i in range(6)]
    return var


def same_weights(one, other):
    state = other.lcm.state_dict()
    return all(tensor.equal(state[name]) for name, tensor in one.lcm.state_dict().items())


# ---- files ----


def with_old_buffers(state):
    mask = torch.ones(1, 1, 4, 4, dtype=torch.uint8).tril()
    buffers = {f"transformer.h.{i}.attn.bias": mask for i in range(3)}
    return {**state, **buffers, **{f"transformer.h.{i}.attn.masked_bias": torch.tensor(-1e4) for i in range(3)}}


@pytest.mark.parametrize(
    "dialect",
    [
        with_old_buffers,
        lambda state: {f"module.{name}": tensor for name, tensor in state.items()},
        lambda state: {**state, "lm_head.weight": state[TABLE].clone()},
        lambda state: {name: tensor for name, tensor in state.items() if name != "lm_head.weight"},
    ],
)
def test_every_dialect_is_the_same_model(release, model, dialect):
    assert same_weights(loaded(release(dialect)), model)


def test_weights_of_an_epoch_of_training_are_read(release, model):
    assert same_weights(loaded(release(file="model_7.pth")), model)


def test_output_layer_that_differs_from_the_table_is_refused(release):
    with pytest.raises(ValueError, match="are one tensor stored twice, but differ"):
        loaded(release(lambda state: {**state, "lm_head.weight": state[TABLE] + 1}))


@pytest.mark.parametrize(
    "config", [{"scale_attn_weights": False}, {"scale_attn_by_inverse_layer_idx": True}, {"tie_word_embeddings": False}]
)
def test_other_kinds_of_the_architecture_are_refused(release, config):
    with pytest.raises(ValueError, match=f"says '{next(iter(config))}' is"):
        loaded(release(config=config))


@pytest.mark.parametrize("name", ["vocab_size", "n_embd", "n_layer", "n_positions", "n_inner"])
def test_configuration_that_contradicts_the_weights_is_refused(release, name):
    with pytest.raises(ValueError, match=f"says '{name}' is 7, but the weights say .*different models"):
        loaded(release(config={name: 7}))


@pytest.mark.parametrize(
    ("part", "value", "message"),
    [
        ("model", {"type": "BPE", "vocab": {}}, r"`model.type` of the tokenizer is 'BPE'"),
        ("pre_tokenizer", {"type": "ByteLevel"}, r"`pre_tokenizer.type` of the tokenizer is 'ByteLevel'"),
        ("pre_tokenizer", None, r"`pre_tokenizer.type` of the tokenizer is None"),
        ("normalizer", {"type": "Lowercase"}, r"`normalizer` of the tokenizer is"),
        ("model", {"type": "WordLevel"}, r"no `model.vocab`"),
        ("model", {"type": "WordLevel", "vocab": {"CD3E": 0}}, r"lacks the token '<pad>'"),
    ],
)
def test_other_tokenizers_are_refused(release, part, value, message):
    with pytest.raises((ValueError, TypeError), match=message):
        loaded(release(tokenizer=lambda content: {**content, part: value}))


def test_words_that_are_no_genes_are_special(release):
    def add(content):
        content["model"]["vocab"] |= {"unused0": 224, "extra_id_0": 225}
        return content

    def longer(state):
        table = torch.cat([state[TABLE], state[TABLE][:2]])
        return {**{n: t for n, t in state.items() if n != "lm_head.weight"}, TABLE: table}

    found = loaded(release(longer, tokenizer=add, config={"vocab_size": 226})).vocabulary
    assert (found.n_tokens, found.n_features) == (226, 220)
    assert {"unused0", "extra_id_0", "</b>", "</s>", "<unk>", "<pad>"} == set(found.specials)


def test_text_is_cut_into_words():
    assert split_words("HLA_A  HLA-B,C7;;x.y") == ["HLA_A", "HLA", "-", "B", ",", "C7", ";;", "x", ".", "y"]


def test_special_tokens_in_text_are_words_of_their_own():
    found = split_words("</s>x <pad></b>..-<unk", whole=("<pad>", "</b>", "</s>", "<unk>"))
    assert found == ["</s>", "x", "<pad>", "</b>", "..-<", "unk"]


def test_longest_sentence_may_be_given(model):
    assert model.encoding.max_tokens == 64
    assert loaded(CHECKPOINT, max_length=128).encoding.max_tokens == 128
    with pytest.raises(ValueError, match="Sentences may have 129 tokens, but the model knows 128 places"):
        loaded(CHECKPOINT, max_length=129)


def test_model_that_knows_fewer_places_has_shorter_sentences(release):
    def cut(state):
        return {name: t[:40].clone() if name == "transformer.wpe.weight" else t for name, t in state.items()}

    folder = release(cut, config={"n_positions": 40})
    assert loaded(folder).encoding.max_tokens == 40
    assert loaded(folder, max_length=30).encoding.max_tokens == 30
    with pytest.raises(ValueError, match="Sentences may have 64 tokens, but the model knows 40 places"):
        loaded(folder, max_length=64)


# ---- sentences ----


def tokens_of(adata, model):
    from sclcm.models._pass import open_input

    data = open_input(adata, model)
    return model.encode(next(data.chunks(model)))


def test_sentence_is_framed_genes_by_rank_ties_in_vocabulary_order(adata, model):
    sentences = tokens_of(adata, model)
    for cell in range(adata.n_obs):
        ids = sentences.token_ids[sentences.indptr[cell] : sentences.indptr[cell + 1]]
        counts = adata.X[cell].toarray().ravel()[:220]
        order = [i for i in np.argsort(-counts, kind="stable") if counts[i] > 0][:62]
        assert ids.tolist() == [1, *(model.vocabulary.token_ids[order].tolist()), 2]


def test_unit_order_of_var_and_unknown_genes_do_not_matter(adata, model):
    embed(adata, model)
    changed = adata[:, np.random.default_rng(1).permutation(adata.n_vars)].copy()
    changed.X = sparse.csr_matrix(np.log1p(changed.X.toarray() / 3))
    changed = changed[:, ~changed.var_names.str.contains("MADEUP")].copy()
    embed(changed, model)
    assert np.array_equal(changed.obsm["X_tgpt"], adata.obsm["X_tgpt"])


def test_only_the_genes_of_highest_rank_count(model):
    deep = anndata.AnnData(sparse.csr_matrix(np.arange(220, 0, -1, dtype=np.float32)[None]))
    deep.var_names = [name.replace("_", "-") for name in model.vocabulary.features]
    embed(deep, model)
    top = deep.copy()
    top.X[:, 62:] = 0
    top.X.eliminate_zeros()
    embed(top, model)
    assert np.array_equal(top.obsm["X_tgpt"], deep.obsm["X_tgpt"])


def test_bulk_samples_are_embedded_without_a_warning(model):
    rng = np.random.default_rng(0)
    bulk = anndata.AnnData(rng.poisson(rng.lognormal(9, 1.0, 220), (4, 220)).astype(np.float32))
    bulk.var_names = [name.replace("_", "-") for name in model.vocabulary.features]
    embed(bulk, model)
    assert np.isfinite(bulk.obsm["X_tgpt"]).all()


def test_vectors_of_genes_are_rows_of_the_table(adata, model):
    embed_genes(adata, model)
    table = model.lcm.embed.gene.weight.numpy()
    assert np.array_equal(adata.varm["tgpt_genes"][:220], table[model.vocabulary.token_ids])
    assert np.isnan(adata.varm["tgpt_genes"][220:]).all()


def test_saved_model_embeds_the_same(adata, model, tmp_path):
    model.save(tmp_path / "saved")
    again = load(tmp_path / "saved", device="cpu", dtype="float32")
    embed(adata, model, key_added="one")
    embed(adata, again, key_added="other")
    assert np.array_equal(adata.obsm["one"], adata.obsm["other"])


def test_files_are_recognised_without_being_told_the_family(tmp_path):
    shutil.copytree(CHECKPOINT, tmp_path / "release")
    assert load(tmp_path / "release", device="cpu").family == "tgpt"
