"""Pre-training on Lightning: objectives fall, and a run that was stopped goes on as if it had not been."""

from __future__ import annotations

import pytest
import torch

from sclcm.engine.training import Pretraining, Schedule, TrainingBatch, fit
from sclcm.nn import configs, readouts
from sclcm.nn.lcm import LCM
from sclcm.nn.objectives import GeneReconstruction, LabelPrototypes, PairContrast, Projection
from sclcm.nn.tokens import TokenTensors

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning", "ignore::FutureWarning")
N_STEPS = 12


def relations(n_classes: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Each class right for itself, none open."""
    return torch.eye(n_classes, dtype=torch.bool), torch.zeros(n_classes, n_classes, dtype=torch.bool)


def tiny_module() -> Pretraining:
    torch.manual_seed(0)
    lcm = LCM(
        configs.LCMConfig(
            d_model=8,
            gene=configs.TableEncoder(n_tokens=12),
            value=configs.ScaledGene(),
            backbone=configs.BackboneConfig(
                n_blocks=1,
                attention=configs.SoftmaxAttention(n_heads=2),
                feed_forward=configs.FeedForward(d_hidden=16),
                norm="pre",
                final_norm=configs.LayerNorm(),
            ),
            heads={"cell": readouts.LinearHead(d_in=16, d_out=6)},
        )
    )
    objectives = {
        "label": LabelPrototypes(6, *relations(3), rivals_cc=torch.ones(3, 3, dtype=torch.bool), row_weight=0.5),
        "pairs": PairContrast(0.1),
        "genes": GeneReconstruction(6, torch.randn(10, 8) * 0.1),
    }
    return Pretraining(
        lcm,
        objectives=objectives,
        weights={"label": 1.0, "pairs": 0.5, "genes": 1.0},
        schedule=Schedule(learning_rate=3e-3, n_steps=N_STEPS),
        pooling=readouts.Concatenated(parts=(readouts.FirstToken(), readouts.MeanPooling())),
        head="cell",
        projection=Projection(6),
        projected=frozenset({"label", "pairs"}),
    )


def batch_of(step: int) -> TrainingBatch:
    random = torch.Generator().manual_seed(step)
    ids_bl = torch.randint(2, 12, (8, 5), generator=random)
    genes_bl = torch.ones_like(ids_bl, dtype=torch.bool)
    genes_bl[:, 0] = False
    tokens = TokenTensors(
        token_ids_bl=ids_bl, mask_bl=None, gene_mask_bl=genes_bl, value_bl=torch.rand(8, 5, generator=random)
    )
    return TrainingBatch(
        tokens=tokens,
        targets={
            "label": {"class_b": ids_bl[:, 1] % 3},
            "pairs": {},
            "genes": {
                "genes_g": torch.arange(4),
                "value_bg": torch.rand(8, 4, generator=random),
                "known_bg": torch.ones(8, 4),
            },
        },
        cells={"pairs": slice(0, 6)},
    )


def test_resumed_run_equals_an_uninterrupted_one(tmp_path):
    whole, stopped, resumed = tiny_module(), tiny_module(), tiny_module()
    fit(whole, batch_of, tmp_path / "whole", every=5, progress=False)
    fit(stopped, batch_of, tmp_path / "parts", every=5, stop_at=7, progress=False)
    fit(resumed, batch_of, tmp_path / "parts", every=5, progress=False)
    for name, tensor in whole.state_dict().items():
        assert torch.equal(tensor, resumed.state_dict()[name]), name
    assert not torch.equal(whole.lcm.embed.gene.weight, stopped.lcm.embed.gene.weight)


def test_training_lowers_the_loss_of_a_batch():
    module = tiny_module()
    module.log_dict = lambda *_, **__: None
    optimizer = torch.optim.Adam(module.parameters(), lr=1e-2)
    losses = []
    for _ in range(40):
        loss = module.training_step(batch_of(0), 0)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    assert losses[-1] < 0.5 * losses[0]


def test_every_weight_is_optimised_once():
    module = tiny_module()
    groups = module.configure_optimizers()["optimizer"].param_groups
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(listed) == sorted(id(parameter) for parameter in module.parameters())


def test_learning_rate_rises_stays_and_falls():
    schedule = Schedule(learning_rate=1.0, n_steps=100, warm_up=0.1, decay_from=0.5)
    assert schedule.factor(0) == pytest.approx(0.1)
    assert schedule.factor(30) == 1.0
    assert schedule.factor(75) == pytest.approx(0.5)
    assert schedule.factor(99) == pytest.approx(0.02)


def test_cells_without_a_label_do_not_count():
    objective = LabelPrototypes(2, *relations(2), rivals_cc=torch.ones(2, 2, dtype=torch.bool), row_weight=1.0)
    cells_bd = torch.randn(4, 2)
    assert objective(cells_bd, torch.full((4,), -1)).item() == 0
    some = objective(cells_bd, torch.tensor([0, -1, 1, -1]))
    assert torch.allclose(some, objective(cells_bd[[0, 2]], torch.tensor([0, 1])))


def test_a_coarser_class_is_neither_right_nor_wrong():
    right = torch.eye(3, dtype=torch.bool)
    undecided = torch.zeros(3, 3, dtype=torch.bool)
    undecided[0, 2] = True
    objective = LabelPrototypes(2, right, undecided, rivals_cc=torch.ones(3, 3, dtype=torch.bool), row_weight=0.0)
    objective.vectors.data = torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    confident = objective(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    assert confident.item() < 1e-5
