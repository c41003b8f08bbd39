"""UCE on a tiny model in its authors' files: species, sampling, tables, and what users get."""

from __future__ import annotations

import dataclasses
import json
import pickle
import shutil
import warnings
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy import sparse

import sclcm.reference
from sclcm._settings import settings
from sclcm.models import build, load, with_species
from sclcm.models._pass import open_input
from sclcm.models._species import fit_species
from sclcm.models._verify import summary, verify
from sclcm.tl import embed, embed_genes

REFERENCE = Path(sclcm.reference.__file__).parent / "uce"
RUN = json.loads((REFERENCE / "run.json").read_text())
GIVEN = {name: RUN[name] for name in ("nhead", "sample_size", "pad_length")}
WIDTH, N_CELLS = RUN["output_dim"], 15


@pytest.fixture(autouse=True)
def _few_genes(monkeypatch):
    """Let a data set have as few genes as the tiny model knows of some species."""
    monkeypatch.setattr(settings, "min_genes_matched", 2)
    monkeypatch.setattr(settings, "progress", False)


def loaded(folder=REFERENCE / "checkpoint", **given):
    return load(folder, family="uce", device="cpu", dtype="float32", **{**GIVEN, **given})


@pytest.fixture(scope="module")
def model():
    return loaded()


@pytest.fixture
def release(tmp_path):
    """A copy of the authors' files that a test may change."""
    return Path(shutil.copytree(REFERENCE / "checkpoint/model_files", tmp_path / "model_files"))


@pytest.fixture
def adata():
    return anndata.read_h5ad(REFERENCE / "input.h5ad")


def data_of(names, n_cells=4, seed=0, **var):
    counts = np.random.default_rng(seed).poisson(2, (n_cells, len(names))).astype(np.float32)
    counts[:, 0] += 1
    return anndata.AnnData(sparse.csr_matrix(counts), var=pd.DataFrame(var, index=list(names)))


def vectors(adata, model, **given):
    return embed(adata, model, copy=True, **given).obsm["X_uce"]


# ---- what users get ----


def test_vectors_have_length_one_and_no_cell_depends_on_another(adata, model):
    wanted = vectors(adata, model)
    assert wanted.shape == (N_CELLS, WIDTH)
    assert np.linalg.norm(wanted, axis=1) == pytest.approx(np.ones(N_CELLS), abs=1e-6)
    order = np.random.default_rng(0).permutation(N_CELLS)
    for found, rows in (
        (vectors(adata[order], model), order),
        (vectors(adata, model, batch_size=1), slice(None)),
        (vectors(adata, model, batch_size=4), slice(None)),
        (vectors(adata[3:5], model), slice(3, 5)),
        (vectors(adata[:, ::-1], model), slice(None)),
    ):
        assert found == pytest.approx(wanted[rows], abs=2e-6)


def test_seed_chooses_the_sample(adata, model):
    first, again, other = (vectors(adata, model, random_state=seed) for seed in (0, 0, 1))
    assert (first == again).all()
    assert (np.abs(first - other).max(1) > 1e-4).all()


def test_same_counts_are_the_same_sample_wherever_they_stand(adata, model):
    twice = anndata.concat([adata, adata[::-1]], index_unique="-")
    found = vectors(twice, model)
    assert found[:N_CELLS] == pytest.approx(found[N_CELLS:][::-1], abs=2e-6)


def test_filter_is_left_to_the_user(adata, model):
    """Upstream removes genes of few cells first, so that a cell's vector depends on the others."""
    few = adata[:2]
    assert vectors(few, model) == pytest.approx(vectors(adata, model)[:2], abs=2e-6)
    assert (few.X > 0).sum(1).min() < 25 or (few.X > 0).sum(0).max() < 10


def test_cell_without_a_known_gene_is_zeros_and_one_warning(adata, model):
    adata.X = sparse.csr_matrix(adata.X.toarray() * (np.arange(N_CELLS) != 4)[:, None])
    with pytest.warns(UserWarning, match="1 of .* cells express no gene that 'uce' knows") as caught:
        found = vectors(adata, model)
    assert len(caught) == 1
    assert not found[4].any()
    assert found[3].any()


def test_sentence_longer_than_the_positions_is_an_error(adata):
    with pytest.raises(ValueError, match="Draw fewer genes"):
        vectors(adata, loaded(pad_length=100))


def test_more_positions_than_are_stored_are_refused():
    with pytest.raises(ValueError, match="may have 2,000 tokens, but the model knows 1,536 places"):
        loaded(pad_length=2000)


# ---- names and species ----


def test_letter_case_does_not_matter(adata, model):
    other = adata.copy()
    other.var_names = [name.swapcase() for name in adata.var_names]
    assert (vectors(other, model.of_species("human")) == vectors(adata, model)).all()


def test_ensembl_ids_are_read_by_the_resolver(adata, model):
    known = adata[:, adata.var["ensembl_id"].str.startswith("ENSG00000")]
    ids = known.copy()
    ids.var_names = known.var["ensembl_id"].astype(str).tolist()
    ids.var = ids.var.drop(columns=["gene_symbol", "ensembl_id"])
    found = embed(ids, model, copy=True)
    assert found.uns["uce"]["params"]["matched_genes"] > 200


def test_species_is_told_by_its_genes(model):
    for species in model.vocabulary.siblings:
        names = [*model.vocabulary.siblings[species].features, "unknown1"]
        assert fit_species(data_of(names), model)[0].vocabulary.species == (species,), species


def test_species_is_told_by_ids_where_symbols_are_those_of_another(model):
    names = model.vocabulary.features[:20].tolist()
    data = data_of([*names, "ENSSSCG00000012345"], symbol=[*names, "ENSSSCG00000012345"])
    assert fit_species(data, model)[0].vocabulary.species == ("pig",)
    data = data_of(names, gene_ids=[f"ENSG{i:011d}" for i in range(20)])
    assert fit_species(data, model)[0].vocabulary.species == ("human",)


def test_equally_likely_species_have_to_be_named(model):
    shared = data_of(["XYZ1", "XYZ2"])
    vocabularies = {
        species: dataclasses.replace(
            model.vocabulary.siblings[species],
            features=["XYZ1", "XYZ2"],
            token_ids=model.vocabulary.siblings[species].token_ids[:2],
        )
        for species in ("pig", "frog")
    }
    both = dataclasses.replace(model, vocabulary=dataclasses.replace(model.vocabulary, siblings=vocabularies))
    with pytest.raises(ValueError, match=r"several species .*: pig \(2\), frog \(2\).*'species': 'pig'"):
        fit_species(shared, both)
    assert fit_species(shared, both.of_species("frog"))[0].vocabulary.species == ("frog",)


def test_species_that_is_given_is_taken(model):
    mouse = loaded(species="mouse")
    assert mouse.vocabulary.species == ("mouse",)
    assert not mouse.vocabulary.siblings
    data = data_of(mouse.vocabulary.features)
    assert (vectors(data, mouse) == vectors(data, model.of_species("mouse"))).all()
    with pytest.raises(ValueError, match=r"`species` is 'rat'; the model knows 'human', 'mouse'"):
        loaded(species="rat")


def test_species_may_be_said_with_the_cells(model):
    data = data_of(model.vocabulary.siblings["mouse"].features)
    data.obs["organism"] = pd.Categorical(["Mus musculus"] * data.n_obs)
    wanted = vectors(data, model.of_species("mouse"))
    for said in ("mouse", "Mus musculus", "organism", None):
        found = embed(data, model, conditions={"species": said}, copy=True)
        assert (found.obsm["X_uce"] == wanted).all()
        assert found.uns["uce"]["params"]["species"] == "mouse"
    with pytest.raises(ValueError, match="'uce' knows 0 of the 20 genes"):
        embed(data, model, conditions={"species": "Macaca mulatta"})
    with pytest.raises(KeyError, match=r"'species' is 'axolotl', neither a species that the model knows .*'human'"):
        embed(data, model, conditions={"species": "axolotl"})
    data.obs["organism"] = ["mouse", "mouse", "human", "human"]
    with pytest.raises(
        ValueError, match=r"`.obs\['organism'\]` names 'mouse', 'human'; expected one of .* on their own"
    ):
        embed(data, model, conditions={"species": "organism"})
    assert embed_genes(data, model, conditions={"species": "mouse"}, copy=True).varm["uce_genes"].shape == (20, 24)


def test_sentences_do_not_depend_on_chunks(adata, model):
    whole, parts = (
        [model.encode(chunk) for chunk in open_input(adata, model).chunks(model, chunk_size=size)] for size in (15, 4)
    )
    assert len(parts) == 4
    assert (np.concatenate([part.token_ids for part in parts]) == whole[0].token_ids).all()


def test_genes_of_species_have_tokens_of_their_own(model):
    tokens = [set(v.token_ids.tolist()) for v in (model.vocabulary, *model.vocabulary.siblings.values())]
    assert len(tokens) == 8
    assert sum(map(len, tokens)) == len(set().union(*tokens)) == RUN["CHROM_TOKEN_OFFSET"] - 4


def test_data_without_any_known_gene_is_refused(model):
    with pytest.raises(ValueError, match="'uce' knows 0 of the 3 genes"):
        embed(data_of(["q1", "q2", "q3"]), model)


def test_only_species_whose_files_are_there_are_read(release):
    for file in release.glob("protein_embeddings/[!HM]*"):
        file.unlink()
    assert set(loaded(release).vocabulary.siblings) == {"mouse", "macaca_fascicularis", "macaca_mulatta", "mouse_lemur"}
    shutil.rmtree(release / "protein_embeddings")
    with pytest.raises(FileNotFoundError, match="no file with the genes of any of the species frog, human"):
        loaded(release)


def test_only_the_species_that_is_given_is_read(release):
    for file in release.glob("protein_embeddings/[!M]*"):
        file.write_bytes(b"damaged")
    assert loaded(release, species="mouse").vocabulary.n_features == 20
    with pytest.raises(ValueError, match="damaged"):
        loaded(release)


def test_files_may_lie_in_one_folder(release, adata, model):
    for file in release.glob("protein_embeddings/*"):
        file.rename(release / file.name)
    assert (vectors(adata, loaded(release)) == vectors(adata, model)).all()


# ---- tables ----


def saved_tokens(release, change):
    file = release / "all_tokens.torch"
    torch.save(change(torch.load(file, weights_only=True)), file)


def test_rows_of_chromosomes_are_those_of_the_weights(release, model):
    stored = model.lcm.embed.gene.weight
    (release / "all_tokens.torch").unlink()
    assert loaded(release).lcm.embed.gene.weight.equal(stored)
    torch.save(torch.zeros_like(stored), release / "all_tokens.torch")
    assert loaded(release).lcm.embed.gene.weight.equal(stored)


def test_other_number_of_rows_takes_the_place_of_the_table(release):
    """As upstream's new species: first rows, genes, chromosomes, in a table of their own."""
    rows = torch.randn(4 + 3 + 2, RUN["token_dim"])
    torch.save(rows, release / "all_tokens.torch")
    file = release / "protein_embeddings/Ambystoma.pt"
    torch.save(dict(zip(["Aa1", "Bb2", "Cc3"], rows[4:7], strict=True)), file)
    (release / "species_offsets.pkl").write_bytes(pickle.dumps({"axolotl": 4}))
    (release / "new_species_protein_embeddings.csv").write_text("species,path\naxolotl,/old/place/Ambystoma.pt\n")
    table = "gene_symbol,chromosome,start,species\nAA1,2p,9,axolotl\nBB2,1q,5,axolotl\nCC3,2p,3,axolotl\n"
    (release / "species_chrom.csv").write_text(table)
    found = loaded(release)
    assert found.lcm.embed.gene.weight.equal(rows)
    assert found.vocabulary.features.tolist() == ["Aa1", "Bb2", "Cc3"]
    assert found.vocabulary.specials["<axolotl_1q>"] == 7
    assert found.arrays["chromosome"][4:7].tolist() == [8, 7, 8]
    assert found.arrays["start"][4:7].tolist() == [9, 5, 3]
    assert vectors(data_of(["AA1", "bb2", "CC3"]), found).any(1).all()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda rows: rows[:, :3], "no table of vectors of width 20"),
        (lambda rows: {"rows": rows}, "no table of vectors of width 20"),
        (lambda rows: rows[:100], "belong to different models"),
    ],
)
def test_table_of_another_model_is_refused(release, change, match):
    saved_tokens(release, change)
    with pytest.raises(ValueError, match=match):
        loaded(release)


def test_gene_without_a_place_is_left_out_and_the_first_row_counts(release, model):
    file = release / "species_chrom.csv"
    lines = file.read_text().splitlines(keepends=True)
    cd52 = next(i for i, line in enumerate(lines) if line.startswith("CD52,"))
    file.write_text("".join([*lines[:cd52], *lines[cd52 + 1 :], "EFHD2,X,7,human\n"]))
    found = loaded(release)
    assert set(model.vocabulary.features) - set(found.vocabulary.features) == {"CD52"}
    token = found.vocabulary.token("EFHD2")
    assert found.arrays["start"][token] == model.arrays["start"][token]


def test_unknown_chromosome_is_the_row_before_the_first(release):
    """As upstream's code -1; the row is that of a gene."""
    file = release / "species_chrom.csv"
    file.write_text(file.read_text().replace("CD52,1,", "CD52,,"))
    found = loaded(release)
    assert found.arrays["chromosome"][found.vocabulary.token("CD52")] == RUN["CHROM_TOKEN_OFFSET"] - 1


@pytest.mark.parametrize(
    ("old", "new", "match"),
    [
        ("chromosome,", "chrom,", "has no column 'chromosome'"),
        ("26317958", "far", "gives 'far' as the start of 'CD52'"),
    ],
)
def test_damaged_table_of_chromosomes_is_refused(release, old, new, match):
    file = release / "species_chrom.csv"
    file.write_text(file.read_text().replace(old, new, 1))
    with pytest.raises(ValueError, match=match):
        loaded(release)


def test_offsets_that_do_not_fit_are_refused(release):
    (release / "species_offsets.pkl").write_bytes(pickle.dumps({"human": 100}))
    with pytest.raises(ValueError, match="genes of 'human' begin at row 100 and are 250"):
        loaded(release)


def test_number_of_heads_is_an_argument():
    with pytest.raises(ValueError, match="20 heads do not divide a width of 24"):
        load(REFERENCE / "checkpoint", family="uce", device="cpu")


def test_saved_model_is_the_same(tmp_path, adata, model):
    model.save(tmp_path / "saved")
    found = load(tmp_path / "saved", device="cpu")
    assert found.vocabulary.to_json() == model.vocabulary.to_json()
    assert found.vocabulary.siblings.keys() == model.vocabulary.siblings.keys()
    assert (vectors(adata, found) == vectors(adata, model)).all()


# ---- genes ----


def test_genes_have_fixed_and_projected_vectors(adata, model):
    fixed = embed_genes(adata, model, how="fixed", copy=True).varm["uce_genes"]
    known = ~np.isnan(fixed).any(1)
    file = next((REFERENCE / "checkpoint/model_files/protein_embeddings").glob("Homo*"))
    stored = torch.load(file, weights_only=True)
    wanted = np.stack([stored[name.upper()].numpy() for name in adata.var_names[known]])
    assert known.sum() >= 230
    assert (fixed[known] == wanted).all()
    projected = embed_genes(adata, model, copy=True).varm["uce_genes"]
    assert projected.shape == (adata.n_vars, RUN["emsize"])
    assert (np.isnan(projected).any(1) == ~known).all()
    contextual = embed_genes(adata, model, how="contextual", copy=True).varm["uce_genes"]
    assert contextual[known].shape[1] == RUN["emsize"]


def test_models_of_own_tables_have_no_fixed_vectors(adata):
    with pytest.raises(ValueError, match="has no fixed vectors of genes"):
        embed_genes(adata, "sclcm-mini", how="fixed")


def test_other_number_types_are_copies_that_leave_the_model_alone(adata, model):
    half = model.to("cpu", "bfloat16")
    assert half.dtype == torch.bfloat16
    assert model.dtype == torch.float32
    state, wanted = half.lcm.state_dict(), model.lcm.state_dict()
    assert state.keys() == wanted.keys()
    for name, tensor in wanted.items():
        assert state[name].equal(tensor.bfloat16()), name
        assert state[name].untyped_storage().data_ptr() != tensor.untyped_storage().data_ptr()
    assert vectors(adata, half) == pytest.approx(vectors(adata, model), abs=0.05)
    back = half.to("cpu", "float32")
    assert not any(parameter.requires_grad for parameter in back.lcm.parameters())


def test_model_of_random_weights_over_other_genes_is_not_built():
    with pytest.raises(ValueError, match="`with_species` gives it those of other genes"):
        build("uce", ["A", "B"])


# ---- a new species ----

SYMBOLS = [f"gene{i}" for i in range(30)]


def new_vectors(seed=0):
    rng = np.random.default_rng(seed)
    return {name: rng.normal(size=RUN["token_dim"]).astype(np.float32) for name in SYMBOLS}


def new_places():
    chromosomes = [str(i % 3 + 9) for i in range(30)]
    return pd.DataFrame({"gene_symbol": SYMBOLS, "chromosome": chromosomes, "start": np.arange(30)[::-1] * 1000})


def test_new_species_is_read_by_its_own_vectors(tmp_path, model):
    newt = with_species(model, "newt", vectors=new_vectors(), chromosomes=new_places(), seed=8319)
    assert newt.vocabulary.species == ("newt",)
    assert newt.vocabulary.specials == {
        **{name: row for row, name in enumerate(("<pad>", "<chrom_start>", "<chrom_end>", "<cls>"))},
        **{name: row for row, name in enumerate(("<newt_10>", "<newt_11>", "<newt_9>"), start=34)},
    }
    table = newt.lcm.embed.gene.weight
    assert table[:4].equal(model.lcm.embed.gene.weight[:4])
    assert (table[4:34].numpy() == np.stack(list(new_vectors().values()))).all()
    torch.manual_seed(8319)
    assert table[34:].equal(torch.normal(mean=0.0, std=1.0, size=(3, RUN["token_dim"])))  # as upstream's notebook
    data = data_of([name.upper() for name in SYMBOLS])
    found = vectors(data, newt)
    assert found.any(1).all()
    newt.save(tmp_path / "newt")
    assert (vectors(data, load(tmp_path / "newt", device="cpu")) == found).all()
    assert newt.sha256 != model.sha256
    assert embed_genes(data, newt, how="fixed", copy=True).varm["uce_genes"].shape == (30, RUN["token_dim"])


def test_new_species_may_come_as_frames_in_any_order(model):
    frame = pd.DataFrame.from_dict(new_vectors(), orient="index")
    places = new_places().sample(frac=1, random_state=0).set_index("gene_symbol")
    places.index = [name.upper() for name in places.index]
    data = data_of(SYMBOLS)
    first = with_species(model, "newt", vectors=new_vectors(), chromosomes=new_places())
    other = with_species(model, "newt", vectors=frame, chromosomes=places)
    assert (vectors(data, first) == vectors(data, other)).all()
    assert first.sha256 == other.sha256


def changed(**given):
    return {"vectors": new_vectors(), "chromosomes": new_places(), **given}


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"vectors": {**new_vectors(), "GENE3": np.zeros(20)}}, ValueError, "`vectors` has 'GENE3' more than once"),
        (
            {"vectors": {**new_vectors(), "gene3": np.zeros(21)}},
            ValueError,
            r"'gene3' in the shape \(21,\); expected 20",
        ),
        ({"vectors": {**new_vectors(), "gene3": np.full(20, np.nan)}}, ValueError, "not finite for 'gene3'"),
        ({"vectors": {}}, ValueError, "`vectors` is empty"),
        ({"vectors": {3: np.zeros(20)}}, TypeError, "has 3 as a symbol"),
        ({"vectors": [1]}, TypeError, "`vectors` is a list"),
        ({"chromosomes": new_places().to_numpy()}, TypeError, "`chromosomes` is a ndarray"),
        ({"chromosomes": new_places().drop(columns="start")}, ValueError, "has no column 'start'"),
        ({"chromosomes": new_places()[2:]}, ValueError, "lacks 2 genes that have a vector: 'gene0', 'gene1'"),
        ({"chromosomes": pd.concat([new_places(), new_places()[4:5]])}, ValueError, "has 'gene4' more than once"),
        ({"chromosomes": new_places().assign(chromosome=None)}, ValueError, "no chromosome for 'gene0', .*'gene2', "),
        ({"chromosomes": new_places().assign(start=-1)}, ValueError, "no whole number, 0 or more, as `start`"),
        ({"chromosomes": new_places().assign(start="far")}, ValueError, "no whole number, 0 or more, as `start`"),
    ],
)
def test_new_species_that_cannot_be_right_is_refused(model, given, error, match):
    with pytest.raises(error, match=match):
        with_species(model, "newt", **changed(**given))


def test_new_species_needs_a_model_of_fixed_vectors():
    with pytest.raises(ValueError, match="a vector of its own for each gene"):
        with_species(load("sclcm-mini", device="cpu"), "newt", **changed())


# ---- verification ----


def test_changed_weights_and_swapped_genes_are_found(tmp_path):
    fixture = Path(shutil.copytree(REFERENCE, tmp_path / "fixture"))
    file = next((fixture / "checkpoint/model_files/protein_embeddings").glob("Homo*"))
    genes = torch.load(file, weights_only=True)
    names = list(genes)
    names[3], names[40] = names[40], names[3]
    torch.save({name: genes[name] for name in names}, file)
    found = {check.array: check.status for check in verify("uce", fixture=fixture)}
    assert found["pe_row_idx"] == found["cell_sentence"] == "FAIL"
    assert found["genes_kept"] == "OK"


def test_real_cells_have_vectors_without_a_warning(adata, model):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        vectors(adata, model)
    assert summary(list(verify("uce"))).startswith("27 ok, 0 fail")


@pytest.mark.parametrize("key", ["emsize", "token_dim", "d_hid", "nlayers", "output_dim"])
def test_sizes_of_a_run_that_the_weights_contradict_are_refused(tmp_path, key):
    folder = Path(shutil.copytree(REFERENCE, tmp_path / "fixture"))
    (folder / "run.json").write_text(json.dumps({**RUN, key: RUN[key] + 1}))
    with pytest.raises(
        ValueError, match=rf"'run\.json' says '{key}' is {RUN[key] + 1}, but the weights say {RUN[key]}"
    ):
        list(verify("uce", fixture=folder))


def test_pairs_are_verified_without_the_tokens_of_their_genes(tmp_path):
    folder = Path(shutil.copytree(REFERENCE, tmp_path / "fixture"))
    names = ("predict_logits_raw", "predict_target", "gene_embedding_layer_normed")
    expected, facts = np.load(folder / "expected.npz"), json.loads((folder / "expected.json").read_text())
    np.savez(folder / "expected.npz", **{name: expected[name] for name in names})
    (folder / "expected.json").write_text(json.dumps({name: facts[name] for name in names}))
    assert summary(list(verify("uce", fixture=folder))) == "3 ok, 0 fail, 0 deferred, 0 unknown"
