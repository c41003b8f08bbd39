"""Fixtures that lack something: a cell without genes, a model that reads no values or no prior vectors of one kind."""

from __future__ import annotations

import json
import pickle
import shutil

import anndata as ad
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from scipy import sparse

from sclcm.checkpoints.readers import read_tensors
from sclcm.models._measure import Measurement
from sclcm.models._measure_filled import prior_table
from sclcm.models._verify import _arrays, _packaged
from sclcm.reference._probes import find_probe


def stored(family):
    return dict(np.load(_packaged(family) / "expected.npz"))


def taker(family, adata, folder, draws, run=None):
    measured = Measurement(adata, folder, family=family, draws=draws, dtype="float32", device="cpu", run=run)
    return measured, lambda name: np.asarray(measured.take(find_probe(name, _arrays(family)), name))


# ---- lines of text ----

TRAINING = ("train_input_ids", "train_labels", "clm_loss", "clm_loss_per_cell")


@pytest.fixture
def emptied():
    adata = ad.read_h5ad(_packaged("tgpt") / "input.h5ad")
    counts = adata.X.toarray()
    counts[3] = 0
    adata.X = sparse.csr_matrix(counts)
    return adata


@pytest.mark.parametrize("other", TRAINING[:2])
def test_cell_without_genes_is_no_line_of_training(emptied, other):
    kept = np.delete(np.arange(9), 3)
    wanted = {name: stored("tgpt")[name] for name in TRAINING}
    wanted = {name: array[kept] if array.ndim else array for name, array in wanted.items()}
    draws = {"max_len": stored("tgpt")["max_len"], other: wanted[other], "clm_loss": wanted["clm_loss"]}
    _, take = taker("tgpt", emptied, _packaged("tgpt") / "checkpoint", draws)
    for name in (*TRAINING[:2], "clm_loss_per_cell"):
        np.testing.assert_allclose(take(name), wanted[name], rtol=1e-5, atol=1e-5)
    n_predicted = (wanted["train_labels"][:, 1:] != -100).sum(1)
    mean = (wanted["clm_loss_per_cell"] * n_predicted).sum() / n_predicted.sum()
    assert float(take("clm_loss")) == pytest.approx(mean, abs=1e-5)


def test_cell_without_genes_has_a_row_where_upstream_wrote_one(emptied):
    _, take = taker("tgpt", emptied, _packaged("tgpt") / "checkpoint", stored("tgpt"))
    assert take("train_input_ids")[3].tolist() == [1, 2] + [0] * 38
    assert take("clm_loss_per_cell").shape == (9,)


def test_longest_line_is_that_of_the_model_where_none_is_stored(emptied):
    _, take = taker("tgpt", emptied, _packaged("tgpt") / "checkpoint", {})
    assert take("input_ids").shape == (9, 64)


def test_any_unit_in_any_precision_gives_the_same_lines():
    adata = ad.read_h5ad(_packaged("tgpt") / "input.h5ad")
    adata.X = np.log1p(adata.X.toarray().astype(np.float64) / 3)
    _, take = taker("tgpt", adata, _packaged("tgpt") / "checkpoint", stored("tgpt"))
    assert np.array_equal(take("input_ids"), stored("tgpt")["input_ids"])


def test_lines_shorter_than_what_is_continued_are_given_whole():
    adata = ad.read_h5ad(_packaged("tgpt") / "input.h5ad")[-1:].copy()  # a cell of three genes
    draws = {"max_len": np.array(40), "greedy_generation": np.zeros((1, 5 + 10), dtype=int)}
    _, take = taker("tgpt", adata, _packaged("tgpt") / "checkpoint", draws)
    found = take("greedy_generation")  # six tokens would be given
    assert found.shape == (1, 15)
    assert np.array_equal(found[:, :5], take("input_ids"))


def test_two_spellings_of_one_gene_are_two_words_of_a_line():
    adata = ad.read_h5ad(_packaged("tgpt") / "input.h5ad")
    name = adata.var_names[adata.var_names.str.match("HLA-DRA")][0]
    other = adata[:, name].copy()
    other.var_names = [name.replace("-", ".")]
    twice = ad.concat([adata, other], axis=1)
    _, take = taker("tgpt", twice, _packaged("tgpt") / "checkpoint", stored("tgpt"))
    wanted, token = stored("tgpt")["input_ids_untruncated"], 16
    n_more = (take("input_ids_untruncated") == token).sum(1) - (wanted == token).sum(1)
    assert n_more.tolist() == (other.X.toarray().ravel() > 0).astype(int).tolist()
    assert n_more.any()


# ---- prior vectors and values ----

NAMES, FILES = "gene_list/Gene_id_name_dict_human_mouse.pickle", ("human_emb_768.pickle", "mouse_emb_768.pickle")
UP = "bert.embeddings.concat_embeddings.cat_fc.weight"


@pytest.fixture
def checkpoint(tmp_path):
    """Copy the checkpoint, without its values or a kind of prior vectors, and write files with such vectors."""

    def make(*, without):
        folder = tmp_path / "checkpoint"
        shutil.copytree(_packaged("genecompass") / "checkpoint", folder)
        model = folder / "GeneCompass_tiny"
        tensors = read_tensors(model / "pytorch_model.bin")
        gone = {"use_values": slice(24, 25), "use_promoter": slice(25, 49), None: slice(0, 0)}[without]
        stays = np.delete(np.arange(tensors[UP].shape[1]), gone)
        if without == "use_promoter":
            tensors = {name: t for name, t in tensors.items() if "promoter_" not in name}
        tensors[UP] = tensors[UP][:, stays]
        (model / "pytorch_model.bin").unlink()
        save_file({name: t.clone().contiguous() for name, t in tensors.items()}, model / "model.safetensors")
        settings = json.loads((model / "config.json").read_text())
        (model / "config.json").write_text(json.dumps({**settings, **({without: False} if without else {})}))
        write_prior(folder)
        return folder

    return make


def write_prior(folder):
    tokens = pickle.loads((folder / "prior_knowledge/human_mouse_tokens.pickle").read_bytes())
    table = read_tensors(_packaged("genecompass") / "checkpoint/GeneCompass_tiny/pytorch_model.bin")
    rows = table["bert.embeddings.promoter_knowledge"].numpy()
    genes = [gene for gene in tokens if not gene.startswith("<")]
    named = {gene: "same" if gene in genes[:1] + genes[-1:] else f"name of {gene}" for gene in genes}
    by_species = [[g for g in genes if g.startswith(beginning)] for beginning in ("ENSG", "ENSMUSG")]
    contents = [named, *({named[g]: rows[tokens[g]] for g in some} for some in by_species)]
    places = [NAMES, *(f"promoter_emb/{file}" for file in FILES)]
    for place, content in zip(places, contents, strict=True):
        file = folder / "prior_knowledge" / place
        file.parent.mkdir(exist_ok=True)
        file.write_bytes(pickle.dumps(content))


@pytest.fixture
def human():
    return ad.read_h5ad(_packaged("genecompass") / "input.h5ad")


@pytest.mark.parametrize("without", ["use_promoter", None])
def test_prior_vectors_are_those_of_the_authors_files(checkpoint, human, without):
    measured, take = taker("genecompass", human, checkpoint(without=without), stored("genecompass"))
    wanted = stored("genecompass")["knowledge_promoter_head"]
    np.testing.assert_array_equal(take("knowledge_promoter_head"), wanted)
    table = prior_table(measured, _arrays("genecompass")["knowledge_promoter_head"])
    kept = read_tensors(_packaged("genecompass") / "checkpoint/GeneCompass_tiny/pytorch_model.bin")
    assert torch.equal(table, kept["bert.embeddings.promoter_knowledge"])


def test_prior_vector_that_the_checkpoint_has_otherwise_is_noticed(checkpoint, human):
    folder = checkpoint(without=None)
    file = folder / "prior_knowledge/promoter_emb" / FILES[0]
    vectors = pickle.loads(file.read_bytes())
    first = next(iter(vectors))
    file.write_bytes(pickle.dumps({**vectors, first: vectors[first] + 1}))
    _, take = taker("genecompass", human, folder, stored("genecompass"))
    with pytest.raises(ValueError, match="'promoter' of the token 2 is another in the authors' files"):
        take("knowledge_promoter_head")


def test_model_that_reads_no_values_learns_tokens_alone(checkpoint, human):
    _, take = taker("genecompass", human, checkpoint(without="use_values"), stored("genecompass"))
    assert take("human_mlm_loss") == take("human_mlm_id_loss") > 0
    assert take("human_mlm_value_loss").tolist() == 0


# ---- sentences of a fixed length ----

RUN = {"enc_num_heads": 4, "nonz_len": 150}
FIXED = ("nonz_gene", "ms80_cls", "ms80_last_hidden", "hidden_cells")


def cell_without_known_genes(row):
    """Return an input and draws in which a cell expresses nothing that the model knows; upstream has no number."""
    adata, draws = ad.read_h5ad(_packaged("cellfm") / "input.h5ad"), {name: stored("cellfm")[name] for name in FIXED}
    counts = adata.X.toarray()
    counts[row] = np.where(adata.var_names.str.startswith("NOVELGENE"), 2, 0)
    adata.X = sparse.csr_matrix(counts)
    draws["hidden_cells"] = np.array([row, 0])
    draws["nonz_gene"][row], draws["ms80_cls"][row], draws["ms80_last_hidden"][0] = 0, np.nan, np.nan
    return adata, draws


def test_cell_without_genes_is_no_number_where_upstream_has_none():
    adata, draws = cell_without_known_genes(3)
    _, take = taker("cellfm", adata, _packaged("cellfm") / "checkpoint", draws, RUN)
    found = take("ms80_cls")
    assert np.isnan(found[3]).all()
    np.testing.assert_allclose(np.delete(found, 3, 0), np.delete(draws["ms80_cls"], 3, 0), rtol=1e-4, atol=1e-4)
    assert np.isnan(take("ms80_last_hidden")[0]).all()


def test_cell_with_genes_is_a_number_whatever_is_stored():
    adata, draws = ad.read_h5ad(_packaged("cellfm") / "input.h5ad"), {name: stored("cellfm")[name] for name in FIXED}
    draws["ms80_cls"][:] = np.nan
    _, take = taker("cellfm", adata, _packaged("cellfm") / "checkpoint", draws, RUN)
    assert np.isfinite(take("ms80_cls")).all()


def test_sentences_of_another_length_than_stated_are_refused():
    adata, draws = ad.read_h5ad(_packaged("cellfm") / "input.h5ad"), {name: stored("cellfm")[name] for name in FIXED}
    _, take = taker("cellfm", adata, _packaged("cellfm") / "checkpoint", draws, {**RUN, "nonz_len": 151})
    with pytest.raises(ValueError, match="'nonz_gene' has 150 places, but 'nonz_len' is 151"):
        take("ms80_cls")
