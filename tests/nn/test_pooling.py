"""From token vectors to one vector per cell."""

from __future__ import annotations

import pytest
import torch

from sclcm.nn import cell_configs, readouts
from sclcm.nn.pooling import mean_pool, pool, value_weighted_mean
from sclcm.nn.tokens import TokenTensors

X = torch.tensor([[[1.0, 2.0], [3.0, 4.0], [100.0, 100.0]], [[5.0, 6.0], [7.0, 8.0], [9.0, 0.0]]])
GENES = torch.tensor([[True, True, False], [False, True, True]])
VALUES = torch.tensor([[2.0, 0.5, 99.0], [7.0, 1.0, 3.0]])


def tokens(genes, values=None, mask=None):
    return TokenTensors(token_ids_bl=torch.zeros_like(genes), mask_bl=mask, gene_mask_bl=genes, value_bl=values)


def test_mean_takes_the_gene_tokens_only(device):
    found = pool(readouts.MeanPooling(), X.to(device), tokens(GENES.to(device)))
    assert found.tolist() == [[2.0, 3.0], [8.0, 4.0]]


def test_mean_of_no_token_is_zero():
    assert mean_pool(X, torch.zeros(2, 3, dtype=torch.bool)).tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_first_token_is_taken_whatever_it_is():
    assert pool(readouts.FirstToken(), X, tokens(GENES)).tolist() == [[1.0, 2.0], [5.0, 6.0]]


def test_weighted_mean_is_the_weighted_sum_over_the_sum_of_absolute_weights():
    wanted = [[(2 + 1.5) / 2.5, (4 + 2) / 2.5], [(7 - 27) / 4, 8 / 4]]
    values = VALUES * torch.tensor([1.0, 1.0, -1.0])
    torch.testing.assert_close(pool(readouts.ValueWeightedMean(), X, tokens(GENES, values)), torch.tensor(wanted))
    assert value_weighted_mean(X, VALUES, torch.zeros(2, 3, dtype=torch.bool)).tolist() == [[0.0, 0.0]] * 2


def test_poolings_stand_side_by_side():
    parts = (readouts.FirstToken(), readouts.MeanPooling())
    assert pool(readouts.Concatenated(parts=parts), X, tokens(GENES)).tolist() == [[1, 2, 2, 3], [5, 6, 8, 4]]


def test_weighted_mean_without_values_is_refused():
    with pytest.raises(ValueError, match="needs tokens with values"):
        pool(readouts.ValueWeightedMean(), X, tokens(GENES))


@pytest.mark.parametrize("pooling", [readouts.MeanPooling(), readouts.FirstToken(), readouts.ValueWeightedMean()])
def test_half_precision_is_pooled_in_float32(pooling):
    many = torch.ones(1, 3000, 2, dtype=torch.bfloat16)
    found = pool(
        pooling, many, tokens(torch.ones(1, 3000, dtype=torch.bool), torch.ones(1, 3000, dtype=torch.bfloat16))
    )
    assert found.dtype == torch.float32
    torch.testing.assert_close(found, torch.ones(1, 2))


def test_mean_of_all_tokens_counts_special_ones_and_leaves_out_padding():
    mask = torch.tensor([[True, True, False], [True, True, True]])
    found = pool(readouts.TokenMean(), X, tokens(GENES, mask=mask))
    torch.testing.assert_close(found, torch.tensor([[2.0, 3.0], [7.0, 14 / 3]]))


def test_sum_by_value_counts_special_tokens_and_leaves_out_padding():
    mask = torch.tensor([[True, True, False], [True, True, True]])
    found = pool(readouts.ValueWeightedSum(), X, tokens(GENES, VALUES, mask))
    torch.testing.assert_close(found, torch.tensor([[3.5, 6.0], [69.0, 50.0]]))


def test_largest_entries_of_real_tokens():
    mask = torch.tensor([[True, True, False], [True, True, True]])
    assert pool(readouts.TokenMax(), X, tokens(GENES, mask=mask)).tolist() == [[3.0, 4.0], [9.0, 8.0]]
    assert pool(readouts.TokenMax(), X, tokens(GENES)).tolist() == [[100.0, 100.0], [9.0, 8.0]]


def test_tokens_at_the_end_of_each_sentence_may_be_left_out():
    mask = torch.tensor([[True, True, False], [True, True, True]])
    given = tokens(GENES, mask=mask)
    assert pool(readouts.TokenMax(before_last=1), X, given).tolist() == [[1.0, 2.0], [7.0, 8.0]]
    assert pool(readouts.TokenMean(before_last=1), X, given).tolist() == [[1.0, 2.0], [6.0, 7.0]]
    ends = readouts.Concatenated(parts=(readouts.FromEnd(), readouts.FromEnd(places=1)))
    assert pool(ends, X, given).tolist() == [[3.0, 4.0, 1.0, 2.0], [9.0, 0.0, 7.0, 8.0]]


def test_largest_of_no_token_is_no_number():
    mask = torch.tensor([[True, True, False], [True, True, True]])
    found = pool(readouts.TokenMax(before_last=2), X, tokens(GENES, mask=mask))
    assert found[0].isnan().all()
    assert found[1].tolist() == [5.0, 6.0]


def test_place_mean_counts_padding_but_not_the_first_places(device):
    found = pool(
        cell_configs.PlaceMean(n_places=3, skip=1), X.to(device), tokens(GENES.to(device), mask=GENES.to(device))
    )
    assert found.tolist() == [[51.5, 52.0], [8.0, 4.0]]


def test_place_mean_refuses_sentences_that_are_not_padded_to_the_longest():
    with pytest.raises(ValueError, match="padded to 3 places; an average that counts padding needs 4"):
        pool(cell_configs.PlaceMean(n_places=4), X, tokens(GENES))
