"""A release with lists of tokens and a wider list of genes: other sizes, edge cases and damage, against plain code."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import anndata
import numpy as np
import pytest
import torch
from scipy import sparse
from torch.nn import functional

import sclcm
import sclcm.reference
from sclcm._settings import settings
from sclcm.models import load, verify
from sclcm.models._measure import said
from sclcm.reference.scmulan.arrays import WORDS

FIXTURE = Path(sclcm.reference.__file__).parent / "scmulan"


@pytest.fixture(autouse=True)
def _quiet():
    before = settings.progress
    settings.progress = False
    yield
    settings.progress = before


@pytest.fixture
def folder(tmp_path):
    return Path(shutil.copytree(FIXTURE, tmp_path / "scmulan"))


def change(file, edit):
    content = torch.load(file, weights_only=False)
    edit(content)
    torch.save(content, file)


# ---- plain code: one cell at a time, dictionaries and loops ----


def plain_unify(names, row, folder):
    """Counts by symbol of the wider list."""
    listed = {line.split("\t")[0].replace("_", "-") for line in (folder / "list.txt").read_text().splitlines()[1:]}
    candidates = {}
    with (folder / "GeneSymbolRef_upd0731.csv").open() as file:
        for entry in csv.DictReader(file):
            for column in ("Alias symbol", "Previous symbol"):
                if entry["Status"] == "Approved" and entry[column]:
                    other = entry[column].replace("_", "-")
                    candidates.setdefault(other, set()).add(entry["Approved symbol"].replace("_", "-"))
    columns = {name: i for i, name in enumerate(names)}  # the last of equal names
    sources = {}
    for name in columns:
        goals = {name} if name in listed else candidates.get(name, set())
        if len(goals) == 1:
            sources.setdefault(goals.pop(), []).append(row[columns[name]])
    return {symbol: values[0] if len(values) == 1 else np.round(np.mean(values)) for symbol, values in sources.items()}


def plain_sentence(counts, lists, n_bins):
    total = sum(counts.values())
    values = [(gene, np.float32(np.log1p(counts.get(gene, 0) / total * 1e4))) for gene in lists["gene_set"]]
    expressed = [(gene, value) for gene, value in values if value > 0][::-1]
    edges = np.linspace(0, max(value for _, value in expressed), n_bins + 1)
    bins = [next(i for i in range(1, n_bins + 1) if value <= edges[i]) for _, value in expressed]
    return [lists["token_set"].index(word) for word, _ in [*expressed, ("<PCT>", 0)]], [*bins, 0]


def plain_hidden(state, n_head, ids, values):
    x = state["transformer.wte.weight"][ids] + state["transformer.wee.weight"][values]
    width = x.shape[1]
    for i in range(sum(name.endswith("attn.c_attn.weight") for name in state)):
        block = f"transformer.h.{i}."

        def layer(x, name, block=block):
            return x @ state[block + name + ".weight"].T + state.get(block + name + ".bias", 0)

        def norm(x, name, block=block):
            return functional.layer_norm(
                x, (width,), state[block + name + ".weight"], state.get(block + name + ".bias")
            )

        q, k, v = layer(norm(x, "ln_1"), "attn.c_attn").unflatten(1, (3, n_head, -1)).permute(1, 2, 0, 3)
        scores = q @ k.transpose(1, 2) / (width // n_head) ** 0.5
        seen = torch.ones(len(x), len(x), dtype=torch.bool).tril()
        mixed = torch.softmax(scores.masked_fill(~seen, -torch.inf), -1) @ v
        x = x + layer(mixed.transpose(0, 1).flatten(1), "attn.c_proj")
        x = x + layer(functional.gelu(layer(norm(x, "ln_2"), "mlp.c_fc"), approximate="tanh"), "mlp.c_proj")
    return functional.layer_norm(x, (width,), state["transformer.ln_f.weight"], state.get("transformer.ln_f.bias"))


def plain_cell(names, row, folder, content):
    """Fine label, coarse label and vector."""
    lists = torch.load(folder / "meta_info.pt", weights_only=False)
    state, args = content["model"], content["model_args"]
    ids, values = plain_sentence(plain_unify(names, row, folder), lists, args["expression_level"])
    n_prompt = len(ids)
    for _ in range(3):
        x = plain_hidden(state, args["n_head"], ids, values)
        scores = x[-1] @ state["lm_head.weight"].T
        scores[ids[:-1]] = -torch.inf
        token = int(scores.argmax())
        values.append(int(np.clip(np.round(float(x[-1] @ state["epx_head.weight"][token])), 0, 10)))
        ids.append(token)
        if token == 0:
            break
    types = (lists["cell_type"] | lists["MCT"]) - {"Unclassified"}
    said = [lists["token_set"][token] if len(ids) - n_prompt else "" for token in ids]
    return *(said[back] if said[back] in types else "unknown" for back in (-2, -3)), x[-2]


def write_variant(folder, *, bias, n_layer, n_head, n_bins, seed):
    """Replace the model by another of the same family, in the authors' format."""
    generator = torch.Generator().manual_seed(seed)
    n_tokens = len(torch.load(folder / "checkpoint/meta_info.pt", weights_only=False)["token_set"])
    width = 24

    def draw(*shape):
        return torch.randn(*shape, generator=generator) * 0.3

    state = {
        "transformer.wte.weight": draw(n_tokens, width) * 3,
        "transformer.wee.weight": draw(n_bins + 1, width) * 3,
        "transformer.ln_f.weight": 1 + draw(width),
        "lm_head.weight": draw(n_tokens, width),
        "epx_head.weight": draw(n_tokens, width) * 2,
    }
    shapes = {"attn.c_attn": (3, 1), "attn.c_proj": (1, 1), "mlp.c_fc": (4, 1), "mlp.c_proj": (1, 4)}
    for i in range(n_layer):
        block = f"transformer.h.{i}."
        for name, (out, given) in shapes.items():
            state[f"{block}{name}.weight"] = draw(out * width, given * width)
        for name in ("ln_1", "ln_2"):
            state[f"{block}{name}.weight"] = 1 + draw(width)
    if bias:
        biased = [name for name in state if ".h." in name or "ln_f" in name]
        state |= {name.replace(".weight", ".bias"): draw(len(state[name])) for name in biased}
    first_type = n_tokens - 222 + 10
    state["lm_head.weight"][first_type : first_type + 100] *= 3
    state["lm_head.weight"][0] = state["lm_head.weight"][first_type + 7] * 1.01
    args = {"n_head": n_head, "dropout": 0.0, "expression_level": n_bins, "ele": 1}
    content = {"model": state, "model_args": args}
    torch.save(content, folder / "checkpoint/ckpt_scMulan.pt")
    shutil.copy(folder / "checkpoint/total_gene_list_42117.txt", folder / "checkpoint/list.txt")
    return content


@pytest.fixture
def names_of_all_kinds():
    """The packaged cells, with a repeated symbol, synonyms of a gene that is there and one that is ambiguous."""
    adata = anndata.read_h5ad(FIXTURE / "input.h5ad")
    names = adata.var_names.to_list()
    rng = np.random.default_rng(0)
    for i, name in enumerate(["ALIAS-A", "PREV-A", "PREV-B", "DUPALIAS", "ALIAS-C", "WITHDRAWN1", "alias-d"]):
        names[3 * i] = name
    names[-1] = names[-40] = "ACP5"
    x = adata.X.toarray()
    x += rng.integers(0, 4, x.shape) * (rng.random(x.shape) < 0.3)
    adata = anndata.AnnData(sparse.csr_matrix(x.astype(np.float32)), obs=adata.obs[[]])
    adata.var.index = names
    return adata


@pytest.mark.filterwarnings("ignore:Variable names are not unique")
@pytest.mark.parametrize(
    "sizes",
    [
        {"bias": True, "n_layer": 3, "n_head": 2, "n_bins": 10, "seed": 1},
        {"bias": False, "n_layer": 1, "n_head": 3, "n_bins": 13, "seed": 2},
        {"bias": True, "n_layer": 2, "n_head": 4, "n_bins": 10, "seed": 3},
    ],
)
def test_other_models_of_the_family_are_those_of_plain_code(folder, names_of_all_kinds, sizes):
    content, adata = write_variant(folder, **sizes), names_of_all_kinds
    wanted = [
        plain_cell(adata.var_names, row, folder / "checkpoint", content) for row in adata.X.toarray().astype(np.float64)
    ]
    model = load(folder / "checkpoint", family="scmulan", device="cpu", dtype="float32")
    sclcm.tl.embed(adata, model)
    sclcm.tl.annotate(adata, model)
    assert adata.obs["scmulan_label"].astype(str).tolist() == [fine for fine, _, _ in wanted]
    assert adata.obs["scmulan_label_coarse"].astype(str).tolist() == [coarse for _, coarse, _ in wanted]
    np.testing.assert_allclose(
        adata.obsm["X_scmulan"], torch.stack([x for _, _, x in wanted]).numpy(), rtol=1e-4, atol=1e-4
    )


# ---- damage is noticed ----


def failures(folder):
    return {check.array for check in verify("scmulan", fixture=folder) if check.status != "OK"} - {"cond_sampled_ids"}


def test_untouched_copy_verifies(folder):
    assert failures(folder) == set()


@pytest.mark.parametrize(
    ("tensor", "array"),
    [
        ("transformer.h.1.attn.c_attn.weight", "hidden_cell0"),
        ("transformer.wee.weight", "X_scMulan"),
        ("epx_head.weight", "logits_exp_cell1"),
        ("lm_head.weight", "all_logits_cell1"),
    ],
)
def test_flipped_weight_is_noticed(folder, tensor, array):
    change(folder / "checkpoint/ckpt_scMulan.pt", lambda content: content["model"][tensor].neg_())
    assert array in failures(folder)


def test_swapped_ids_are_noticed(folder):
    def swap(content):
        tokens = content["token_set"]
        tokens[200], tokens[201] = tokens[201], tokens[200]

    change(folder / "checkpoint/meta_info.pt", swap)
    assert failures(folder) & {"cell_type", "cond_prompt_ids"}


# Of each kind one, and the inputs, of which what follows from them tells.
@pytest.mark.parametrize(
    "array", ["gsu_query_symbols", "gsu_query_counts", "gsu_modified", "generated_bins", "X_scMulan", "digitize_values"]
)
def test_changed_expected_value_is_noticed(folder, array):
    with np.load(folder / "expected.npz") as stored:
        arrays = dict(stored)
    changed = arrays[array].copy()
    changed.flat[0] = f"{changed.flat[0]}X"[-3:] if changed.dtype.kind == "U" else changed.flat[0] + 1
    arrays[array] = changed
    np.savez(folder / "expected.npz", **arrays)
    assert failures(folder)


# ---- other fixtures that upstream could make ----


def test_input_that_is_normalised_already_verifies_as_it_is(folder):
    """Upstream takes a matrix without a value above 10 as it is."""
    adata = anndata.read_h5ad(folder / "input.h5ad")
    listed = (folder / "checkpoint/total_gene_list_42117.txt").read_text().splitlines()[1:]
    adata = adata[:, adata.var_names.isin([line.split("\t")[0] for line in listed])].copy()
    x = adata.X.toarray().astype(np.float64)
    adata.X = sparse.csr_matrix(np.log1p(x / x.sum(1, keepdims=True) * 1e4).astype(np.float32))
    adata.write_h5ad(folder / "input.h5ad")
    assert not failures(folder)


@pytest.mark.parametrize(
    "words",
    [("Blood", "Common myeloid progenitor (CMP)", "Healthy"), ("Multipotent progenitor (MPP)",), ("Heart", "F")],
)
def test_words_are_read_whole_from_what_is_said_of_them(words):
    fact = {"meaning": f"metadata prompt {', '.join(words)} (values 0)", "produced_by": "tokenizer.encode"}
    assert said(WORDS, fact) == words


# ---- damaged or foreign files are refused ----


@pytest.mark.parametrize(
    ("entry", "value", "message"),
    [
        ("token_set", [], "'token_set' of the vocabulary is missing, or lists no names"),
        ("token_set", {"<E>", "a"}, "'token_set' of the vocabulary is missing, or lists no names"),
        ("token_set", ["<E>", "<E>"], "'token_set' of the vocabulary names a token twice"),
        ("token_set", ["<E>", "a"], "'token_set' of the vocabulary lacks '<PCT>'"),
        ("gene_set", ["ACP5", "ABI3BP"], "'gene_set' of the vocabulary is not in the order of 'token_set'"),
        ("gene_set", ["Blood"], "not in the wider list of 180 genes"),
        ("cell_type", [1, 2], "'cell_type' of the vocabulary is missing, or lists no names"),
    ],
)
def test_lists_that_cannot_be_right_are_refused(folder, entry, value, message):
    change(folder / "checkpoint/meta_info.pt", lambda content: content.__setitem__(entry, value))
    with pytest.raises(ValueError, match=message):
        load(folder / "checkpoint")


def test_configuration_of_another_kind_is_refused(folder):
    change(folder / "checkpoint/ckpt_scMulan.pt", lambda content: content["model_args"].update(ele=0))
    with pytest.raises(ValueError, match="'ele' is 0, but only models with 1 are known"):
        load(folder / "checkpoint")


@pytest.mark.parametrize(
    ("key", "value"), [("vocab_size", 9), ("n_embd", 16), ("n_layer", 3), ("bias", True), ("expression_level", 8)]
)
def test_configuration_that_the_weights_contradict_is_refused(folder, key, value):
    change(folder / "checkpoint/ckpt_scMulan.pt", lambda content: content["model_args"].update({key: value}))
    with pytest.raises(ValueError, match=f"says '{key}' is {value}, but the weights say"):
        load(folder / "checkpoint", device="cpu")


def test_size_that_the_file_does_not_state_can_be_given(folder):
    change(folder / "checkpoint/ckpt_scMulan.pt", lambda content: content["model_args"].pop("n_head"))
    with pytest.raises(ValueError, match=r"lacks 'n_head'; pass it, as in `load\(..., n_head=...\)`"):
        load(folder / "checkpoint")
    assert load(folder / "checkpoint", n_head=4, device="cpu").architecture.backbone.attention.n_heads == 4


@pytest.mark.parametrize("entry", ["model", "model_args"])
def test_weights_file_without_an_entry_is_refused(folder, entry):
    change(folder / "checkpoint/ckpt_scMulan.pt", lambda content: content.pop(entry))
    with pytest.raises((ValueError, KeyError), match=entry):
        load(folder / "checkpoint", family="scmulan")


def test_half_a_bias_is_refused(folder):
    def add(content):
        content["model"]["transformer.h.0.attn.c_attn.bias"] = torch.zeros(96)
        content["model_args"]["bias"] = True

    change(folder / "checkpoint/ckpt_scMulan.pt", add)
    with pytest.raises(ValueError, match="attn"):
        load(folder / "checkpoint")


def test_table_of_synonyms_needs_its_columns(folder):
    file = folder / "checkpoint/GeneSymbolRef_upd0731.csv"
    file.write_text(file.read_text().replace("Alias symbol", "Alias"))
    with pytest.raises(ValueError, match="has no column 'Alias symbol'; its columns are"):
        load(folder / "checkpoint")


def test_fixture_says_how_close_each_array_must_be(folder):
    facts = json.loads((folder / "expected.json").read_text())
    assert all(fact["tolerance"]["atol"] <= 1e-5 for fact in facts.values())
