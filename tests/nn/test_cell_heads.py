"""Heads on the cell's vector, against the formula."""

from __future__ import annotations

import torch
from torch import nn

from sclcm.nn import cell_configs
from sclcm.nn.heads import HeadInput, build_heads, read


@torch.inference_mode()
def test_tanh_class_head_has_one_layer_between_and_no_bias_behind(device):
    head = (
        build_heads({"cell": cell_configs.TanhClassHead(n_classes=4)}, 6, nn.Embedding(9, 6))["cell"].eval().to(device)
    )
    given = HeadInput(
        x_bld=torch.randn(3, 2, 6), cell_bd=torch.randn(3, 6, device=device), gene_bld=torch.zeros(3, 2, 6)
    )
    x_bd, weights = given.cell_bd.double(), {name: w.double() for name, w in head.state_dict().items()}
    wanted = torch.tanh(x_bd @ weights["dense.weight"].T + weights["dense.bias"]) @ weights["out.weight"].T
    torch.testing.assert_close(read(head, given).double(), wanted, rtol=1e-4, atol=1e-5)
    assert head.out.bias is None
    with torch.autocast(device.type, dtype=torch.bfloat16):
        torch.testing.assert_close(read(head, given).double(), wanted, rtol=0.1, atol=0.1)
