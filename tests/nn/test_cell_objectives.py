"""What is hidden of cells that are tokens."""

from __future__ import annotations

import pytest
import torch

from sclcm.nn.cell_objectives import chosen_cells_mse, hide_values
from sclcm.nn.tokens import CellTensors

N_CELLS, N_EACH = 41, 500


def make(n_cells=N_CELLS, n_each=N_EACH):
    n_values = n_cells * n_each
    return CellTensors(
        token_ids_v=torch.arange(n_values, dtype=torch.int32),
        value_v=torch.rand(n_values) + 1,
        start_n=torch.arange(0, n_values, n_each, dtype=torch.int32),
    )


def hide(cells, seed=0, **given):
    shares = {"cell_share": 0.5, "value_share": 0.25, **given}
    return hide_values(cells, **shares, generator=torch.Generator().manual_seed(seed))


def test_half_of_the_cells_is_chosen_and_others_are_left_alone():
    cells = make()
    hidden, chosen = hide(cells)
    assert int(chosen.sum()) == N_CELLS // 2
    before, after = cells.value_v.view(N_CELLS, -1), hidden.value_v.view(N_CELLS, -1)
    assert after[~chosen].equal(before[~chosen])
    assert hidden.token_ids_v is cells.token_ids_v


def test_values_of_chosen_cells_are_hidden_or_scaled_up():
    cells = make()
    hidden, chosen = hide(cells)
    before, after = cells.value_v.view(N_CELLS, -1)[chosen], hidden.value_v.view(N_CELLS, -1)[chosen]
    stays = after > 0
    torch.testing.assert_close(after[stays], before[stays] / 0.75)
    # 10,000 values: four deviations of the share are 0.017.
    assert float((~stays).float().mean()) == pytest.approx(0.25, abs=0.017)
    assert float(after.sum() / before.sum()) == pytest.approx(1, abs=0.03)


def test_cells_of_any_length_keep_their_values_apart():
    cells = CellTensors(
        token_ids_v=torch.arange(5, dtype=torch.int32),
        value_v=torch.ones(5),
        start_n=torch.tensor([0, 0, 3, 3], dtype=torch.int32),
    )
    hidden, chosen = hide(cells, cell_share=1.0, value_share=0.0)
    assert chosen.all()
    assert hidden.value_v.equal(cells.value_v)
    hidden, chosen = hide(cells, cell_share=0.5, value_share=0.5)
    of_cell = torch.tensor([1, 1, 1, 3, 3])
    assert hidden.value_v[~chosen[of_cell]].eq(1).all()
    assert set(hidden.value_v[chosen[of_cell]].tolist()) <= {0.0, 2.0}


def test_seed_decides():
    one, other = hide(make())[1], hide(make(), seed=1)[1]
    assert one.equal(hide(make())[1])
    assert not one.equal(other)


def test_loss_is_over_all_genes_of_chosen_cells():
    found, wanted = torch.tensor([[1.0, 2], [3, 4], [9, 9]]), torch.tensor([[1.0, 0], [0, 0], [0, 0]])
    assert chosen_cells_mse(found, wanted, torch.tensor([True, True, False])) == (0 + 4 + 9 + 16) / 4
