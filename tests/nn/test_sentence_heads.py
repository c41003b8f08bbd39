"""A class head over a whole sentence."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from sclcm.nn import readouts
from sclcm.nn.heads import build_head
from sclcm.nn.pooling import pool
from sclcm.nn.tokens import TokenTensors


def make():
    config = readouts.SentenceClassHead(n_places=5, d_hidden=(4, 3), n_classes=2)
    return build_head(config, 6, nn.Embedding(1, 6)).eval()


def test_head_equals_the_formula():
    head, x = make(), torch.randn(3, 5, 6)
    w, (a, b, c) = head.token, head.layers
    y = torch.relu(torch.stack([x[:, i] @ w.weight[0] + w.bias[0] for i in range(5)], dim=1))
    y = torch.relu(y @ a.weight.T + a.bias)
    y = torch.relu(y @ b.weight.T + b.bias)
    with torch.no_grad():
        torch.testing.assert_close(head(x), y @ c.weight.T + c.bias)


def test_sentence_of_another_length_is_an_error():
    with pytest.raises(ValueError, match="reads sentences of 5 tokens, in their order; found 4"):
        make()(torch.randn(3, 4, 6))


def test_sum_over_genes_leaves_out_special_tokens_and_padding():
    x = torch.arange(12.0).reshape(2, 3, 2)
    genes = torch.tensor([[True, True, False], [True, False, False]])
    tokens = TokenTensors(token_ids_bl=torch.zeros(2, 3, dtype=torch.long), mask_bl=None, gene_mask_bl=genes)
    assert pool(readouts.GeneSum(), x, tokens).tolist() == [[2, 4], [6, 7]]
