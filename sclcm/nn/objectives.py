"""What pre-training minimises; each objective is a module that may hold weights of its own."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from sclcm.nn.layers import Linear

FAR = -1e4
"""Stands for minus infinity among logits; finite, so that a row of such gives no NaN."""


class Projection(nn.Module):
    """A small network between cell vectors and objectives, thrown away after training, so that vectors keep more.

    Parameters
    ----------
    width
        Width of a cell vector, and of what comes out.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.up = Linear(width, 2 * width)
        self.down = Linear(2 * width, width)

    def forward(self, cells_bd: Tensor) -> Tensor:
        """Transform cell vectors of shape `(cells, width)`, whatever their length."""
        unit_bd = functional.normalize(cells_bd.float(), dim=-1) * cells_bd.shape[1] ** 0.5
        return self.down(functional.gelu(self.up(unit_bd)))


class LabelPrototypes(nn.Module):
    """Cross-entropy of cosine similarities with one learned prototype a class, aware of an ontology.

    A class is right for a cell of its own class and of the kinds of it; a coarser class than the cell's is neither
    right nor wrong.

    Parameters
    ----------
    width
        Width of a cell vector.
    right_cc
        Which classes (columns) are right for a cell of a class (row), boolean, shape `(classes, classes)`.
    open_cc
        Which are neither right nor wrong, boolean, same shape.
    rivals_cc
        Among which classes the plain cross-entropy of the class itself is taken, boolean, same shape: those of one
        study, say, where a difference is not one between studies.
    row_weight
        Weight of that, beside the cross-entropy of all right classes.
    """

    right_cc: Tensor
    open_cc: Tensor
    rivals_cc: Tensor

    def __init__(self, width: int, right_cc: Tensor, open_cc: Tensor, *, rivals_cc: Tensor, row_weight: float) -> None:
        super().__init__()
        self.vectors = nn.Parameter(torch.randn(len(right_cc), width) * 0.1)
        self.log_scale = nn.Parameter(torch.tensor(16.0).log())
        self.register_buffer("right_cc", right_cc, persistent=False)
        self.register_buffer("open_cc", open_cc, persistent=False)
        self.register_buffer("rivals_cc", rivals_cc, persistent=False)
        self.row_weight = row_weight

    def forward(self, cells_bd: Tensor, class_b: Tensor) -> Tensor:
        """Return the loss; cells of class -1 have no label and do not count.

        Parameters
        ----------
        cells_bd
            Cell vectors, shape `(cells, width)`.
        class_b
            Classes, shape `(cells,)`.
        """
        labelled = class_b >= 0
        if not labelled.any():
            return cells_bd.sum() * 0
        class_b = class_b[labelled]
        unit_bd = functional.normalize(cells_bd[labelled].float(), dim=-1)
        logits_bc = unit_bd @ functional.normalize(self.vectors, dim=-1).T * self.log_scale.exp()
        closed_bc = logits_bc.masked_fill(self.open_cc[class_b], FAR)
        right_bc = closed_bc.masked_fill(~self.right_cc[class_b], FAR)
        kinds = (closed_bc.logsumexp(1) - right_bc.logsumexp(1)).mean()
        return kinds + self.row_weight * functional.cross_entropy(
            logits_bc.masked_fill(~self.rivals_cc[class_b], FAR), class_b
        )


class PairContrast(nn.Module):
    """InfoNCE: cell `i` and cell `i + n` of a batch of `2 n` are two views of one state, all others are not.

    Parameters
    ----------
    temperature
        Divides the cosine similarities.
    """

    def __init__(self, temperature: float) -> None:
        super().__init__()
        self.temperature = temperature

    def forward(self, cells_bd: Tensor) -> Tensor:
        """Return the loss of cell vectors of shape `(2 n, width)`."""
        n = len(cells_bd) // 2
        unit_bd = functional.normalize(cells_bd.float(), dim=-1)
        logits_bb = unit_bd @ unit_bd.T / self.temperature
        itself = torch.eye(2 * n, dtype=torch.bool, device=cells_bd.device)
        partner = torch.arange(2 * n, device=cells_bd.device).roll(n)
        return functional.cross_entropy(logits_bb.masked_fill(itself, FAR), partner)


class GeneReconstruction(nn.Module):
    """Values of genes, from the cell vector and one output vector a gene; error relative to the size of the values.

    Parameters
    ----------
    width
        Width of a cell vector.
    table_gd
        Start of the output vectors, shape `(features, width of a token)`.
    """

    def __init__(self, width: int, table_gd: Tensor) -> None:
        super().__init__()
        self.vectors = nn.Parameter(table_gd.clone())
        self.bias = nn.Parameter(torch.zeros(len(table_gd)))
        self.project = Linear(width, table_gd.shape[1])

    def forward(self, cells_bd: Tensor, genes_g: Tensor, value_bg: Tensor, known_bg: Tensor) -> Tensor:
        """Return the loss.

        Parameters
        ----------
        cells_bd
            Cell vectors, shape `(cells, width)`.
        genes_g
            Features that are predicted, shape `(genes,)`.
        value_bg
            Their values, shape `(cells, genes)`.
        known_bg
            Which were measured, same shape.
        """
        unit_bd = functional.normalize(cells_bd.float(), dim=-1) * cells_bd.shape[1] ** 0.5
        found_bg = self.project(unit_bd) @ self.vectors[genes_g].T + self.bias[genes_g]
        return ((found_bg - value_bg).square() * known_bg).sum() / ((value_bg.square() * known_bg).sum() + 1)
