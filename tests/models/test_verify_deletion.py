"""In-silico deletion of GeneCompass: `verify` notices every change, and cells may be of any length."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
import torch

from sclcm.models._measure import Measurement
from sclcm.models._verify import _packaged
from sclcm.nn.tokens import TokenTensors
from sclcm.reference._probes import find_probe
from sclcm.reference.genecompass.arrays import ARRAYS

ROOT = _packaged("genecompass")
EXPECTED = dict(np.load(ROOT / "expected.npz"))


@pytest.fixture
def human():
    return ad.read_h5ad(ROOT / "input.h5ad")


def measurement(adata, draws=EXPECTED, **changed):
    draws = {**draws, **changed}
    return Measurement(adata, ROOT / "checkpoint", family="genecompass", draws=draws, dtype="float32", device="cpu")


def take(measured, name):
    return measured.take(find_probe(name, ARRAYS), name)


def test_another_gene_of_the_cell_moves_other_vectors(human):
    token = EXPECTED["human_input_ids"][[0, 1], [20, 4]]
    other = measurement(human, delete_token=token)
    assert take(other, "delete_index_cell0").tolist() == [20]
    assert take(other, "delete_index_cell1").tolist() == EXPECTED["delete_index_cell1"].tolist()
    assert abs(take(other, "delete_cos_cell0") - EXPECTED["delete_cos_cell0"]).max() > 1e-3
    assert take(other, "delete_cos_cell1") == pytest.approx(EXPECTED["delete_cos_cell1"], abs=1e-5)


WRONG = {
    "no gene of the cell": np.array([0, 130]),
    "no token at all": np.array([36, 10**6]),
    "too few": np.array([36]),
    "too many": np.array([36, 130, 130]),
    "no whole numbers": np.array([36.0, 130.0]),
}


@pytest.mark.parametrize("wrong", WRONG.values(), ids=WRONG)
@pytest.mark.parametrize("name", ["delete_token", "delete_index_cell0", "delete_cos_cell1"])
def test_token_that_cannot_be_deleted_is_an_error(human, wrong, name):
    with pytest.raises(ValueError, match="'delete_token'"):
        take(measurement(human, delete_token=wrong), name)


def test_token_belongs_to_the_cell_that_its_arrays_name(human):
    other = {name: array for name, array in EXPECTED.items() if not name.startswith("delete_")}
    other["delete_token"] = EXPECTED["human_input_ids"][[3, 8], [2, 0]]
    measured = measurement(human, other, delete_index_cell3=None, delete_index_cell8=None)
    assert take(measured, "delete_token").tolist() == other["delete_token"].tolist()
    assert take(measured, "delete_index_cell3").tolist() == [2]
    assert take(measured, "delete_index_cell8").tolist() == [0]
    with pytest.raises(ValueError, match="from cell 11, which expresses no such gene"):
        take(measurement(human, other, delete_index_cell3=None, delete_index_cell11=None), "delete_token")


def test_tokens_are_in_the_order_of_the_arrays_not_of_the_cells(human):
    other = {name: array for name, array in EXPECTED.items() if not name.startswith("delete_")}
    other["delete_token"] = EXPECTED["human_input_ids"][[8, 3], [0, 2]]
    for kind in ("index", "cos"):
        measured = measurement(human, other, **{f"delete_{kind}_cell8": None, f"delete_{kind}_cell3": None})
        assert take(measured, "delete_index_cell3").tolist() == [2]
        assert take(measured, "delete_index_cell8").tolist() == [0]


@pytest.mark.parametrize("n_genes", [1, 2, 12])
def test_padding_of_a_short_cell_is_seen_and_compared(human, n_genes):
    """As the card says it, on sentences written out by hand: the list without the token, no mask, species 0."""
    counts = human.X.toarray()
    ids, values = EXPECTED["human_input_ids"][0], EXPECTED["human_values"][0]
    genes = measurement(human).pretrained.vocabulary.labels(ids[:n_genes])
    counts[0, ~human.var["ensembl_id"].isin(genes)] = 0
    human.X = counts
    place = n_genes // 2
    short = measurement(human, delete_token=np.array([ids[place], EXPECTED["delete_token"][1]]))
    lcm, reserved = short.pretrained.lcm, short.pretrained.encoding.n_reserved

    def forward(kept_ids, kept_values):
        n = len(kept_ids)
        tokens = TokenTensors(
            token_ids_bl=torch.tensor([[0] * reserved + list(kept_ids) + [0] * (len(ids) - n_genes)]),
            value_bl=torch.tensor([[0.0] * reserved + list(kept_values) + [0.0] * (len(ids) - n_genes)]),
            mask_bl=None,
            gene_mask_bl=torch.tensor([[False] * reserved + [True] * n + [False] * (len(ids) - n_genes)]),
            species_b=torch.tensor([0]),
        )
        with torch.enable_grad():
            return lcm(tokens)[0, reserved:].detach().double()

    kept = [i for i in range(n_genes) if i != place]
    before = forward(ids[:n_genes], values[:n_genes])
    after = forward(ids[kept], values[kept])
    before = torch.cat([before[:place], before[place + 1 :]])
    wanted = (before * after).sum(-1) / before.norm(dim=-1) / after.norm(dim=-1)
    found = take(short, "delete_cos_cell0")
    assert take(short, "delete_index_cell0").tolist() == [place]
    assert found.shape == (1, len(ids) - 1)
    assert found[0] == pytest.approx(wanted.numpy(), abs=1e-5)
