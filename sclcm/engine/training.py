"""Pre-training on Lightning: a module that weighs objectives, and a run that resumes exactly."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import lightning
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset

from sclcm.checkpoints.readers import read_torch
from sclcm.nn.pooling import pool
from sclcm.nn.tokens import TokenTensors

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from sclcm.nn.lcm import LCM
    from sclcm.nn.readouts import Pooling


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainingBatch:
    """Tokens, and for each objective the further arguments that it takes.

    Parameters
    ----------
    tokens
        The sentences.
    targets
        Objective -> arguments after the cell vectors, by name. An objective that a batch does not name is left out.
    cells
        Objective -> which cells of the batch it sees; all, if it is not named.
    """

    tokens: TokenTensors
    targets: Mapping[str, Mapping[str, Tensor]]
    cells: Mapping[str, slice] = field(default_factory=dict)

    def to(self, device: torch.device) -> TrainingBatch:
        """Return the batch on a device."""
        found = {f.name: getattr(self.tokens, f.name) for f in dataclasses.fields(self.tokens)}
        moved: dict[str, Any] = {key: None if tensor is None else tensor.to(device) for key, tensor in found.items()}
        targets = {name: {key: t.to(device) for key, t in kept.items()} for name, kept in self.targets.items()}
        return TrainingBatch(tokens=TokenTensors(**moved), targets=targets, cells=self.cells)


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """Optimiser and learning rate: AdamW, linear warm-up, a plateau, linear decay.

    Parameters
    ----------
    learning_rate
        At the plateau.
    n_steps
        Length of the run.
    warm_up
        Share of the steps before the plateau.
    decay_from
        Share of the steps after which the rate falls, to 2% of the plateau.
    weight_decay
        Of matrices; tables, norms and biases have none.
    clip
        Largest norm of the gradient.
    table_rate
        Learning rate of gene tables, as a share of that of all else.
    """

    learning_rate: float
    n_steps: int
    warm_up: float = 0.05
    decay_from: float = 0.5
    weight_decay: float = 0.05
    clip: float = 1.0
    table_rate: float = 1.0

    def factor(self, step: int) -> float:
        """Return the learning rate of a step as a share of the plateau."""
        rise = min(1.0, (step + 1) / max(1.0, self.warm_up * self.n_steps))
        done = step / self.n_steps
        fall = 1.0 if done < self.decay_from else (1 - done) / (1 - self.decay_from)
        return rise * max(0.02, fall)


class Pretraining(lightning.LightningModule):
    """A model and its objectives, trained together.

    Parameters
    ----------
    lcm
        The model.
    objectives
        Objectives by name; each is called with the cell vectors and its targets.
    weights
        Weight of each in the sum.
    schedule
        Optimiser and learning rate.
    pooling
    head
        How cell vectors are made: those of the recipe that is trained.
    projection
        A network between cell vectors and some objectives, or `None`.
    projected
        The objectives behind it, by name.
    n_blocks
        Depth that is trained; `None` is the whole model, 0 leaves the blocks out.
    """

    def __init__(
        self,
        lcm: LCM,
        *,
        objectives: Mapping[str, nn.Module],
        weights: Mapping[str, float],
        schedule: Schedule,
        pooling: Pooling,
        head: str | None,
        projection: nn.Module | None = None,
        projected: frozenset[str] = frozenset(),
        n_blocks: int | None = None,
    ) -> None:
        super().__init__()
        self.lcm = lcm
        self.objectives = nn.ModuleDict(dict(objectives))
        self.weights, self.schedule, self.pooling, self.head = dict(weights), schedule, pooling, head
        self.projection = nn.Identity() if projection is None else projection
        self.projected, self.n_blocks = projected, n_blocks

    def cells(self, tokens: TokenTensors) -> Tensor:
        """Return cell vectors, shape `(cells, width)`."""
        x_bld = self.lcm(tokens, n_blocks=self.n_blocks)
        cells_bd = pool(self.pooling, x_bld, tokens)
        return cells_bd if self.head is None else self.lcm.heads[self.head](cells_bd)

    def transfer_batch_to_device(
        self,
        batch: TrainingBatch,
        device: torch.device,
        dataloader_idx: int,
    ) -> TrainingBatch:
        """Move a batch; Lightning itself does not look into frozen dataclasses."""
        return batch.to(device)

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        """Return the weighted sum of the objectives that the batch names."""
        cells_bd = self.cells(batch.tokens)
        behind_bd = self.projection(cells_bd)
        losses = {}
        for name, targets in batch.targets.items():
            vectors_bd = behind_bd if name in self.projected else cells_bd
            losses[name] = self.objectives[name](vectors_bd[batch.cells.get(name, slice(None))], **targets)
        self.log_dict({name: loss.detach() for name, loss in losses.items()}, prog_bar=True, batch_size=len(cells_bd))
        return torch.stack([self.weights[name] * loss for name, loss in losses.items()]).sum()

    def configure_optimizers(self) -> Any:
        """Return AdamW with weight decay on matrices only, and the schedule."""
        tables = {id(module.weight) for module in self.modules() if isinstance(module, nn.Embedding)}
        decayed = [p for p in self.lcm.parameters() if p.ndim > 1 and id(p) not in tables]
        kept = {id(p) for p in decayed}
        groups = [
            {"params": decayed, "weight_decay": self.schedule.weight_decay},
            {"params": [p for p in self.parameters() if id(p) not in kept | tables], "weight_decay": 0.0},
            {
                "params": [p for p in self.parameters() if id(p) in tables],
                "weight_decay": 0.0,
                "lr": self.schedule.learning_rate * self.schedule.table_rate,
            },
        ]
        optimizer = torch.optim.AdamW(groups, lr=self.schedule.learning_rate, betas=(0.9, 0.98))
        rate = torch.optim.lr_scheduler.LambdaLR(optimizer, self.schedule.factor)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": rate, "interval": "step"}}


class StepStream(IterableDataset[TrainingBatch]):
    """Batches that are functions of their step alone, from a step on; this is what makes a resumed run exact."""

    def __init__(self, make_batch: Callable[[int], TrainingBatch], first: int, n_steps: int) -> None:
        super().__init__()
        self.make_batch, self.first, self.n_steps = make_batch, first, n_steps

    def __iter__(self) -> Iterator[TrainingBatch]:
        return map(self.make_batch, range(self.first, self.n_steps))


def fit(
    module: Pretraining,
    make_batch: Callable[[int], TrainingBatch],
    folder: str | Path,
    *,
    every: int,
    stop_at: int | None = None,
    precision: str = "32-true",
    progress: bool = True,
) -> None:
    """Train, or go on where the checkpoint in a folder stopped, with the same result as a run without a stop.

    Parameters
    ----------
    module
        What is trained; changed in place.
    make_batch
        Step -> batch. It must depend on the step alone.
    folder
        Where the checkpoint `last.ckpt` lies. It is read without checks: use a folder of your own.
    every
        Steps between checkpoints.
    stop_at
        Stop after this step, as an interrupted run would; `None` runs to the end.
    precision
        Lightning's name of the precision.
    progress
        Whether a progress bar is shown.
    """
    last = Path(folder) / "last.ckpt"
    done = read_torch(last)["global_step"] if last.exists() else 0
    stream = StepStream(make_batch, done, module.schedule.n_steps)
    trainer = lightning.Trainer(
        max_steps=stop_at or module.schedule.n_steps,
        max_epochs=-1,
        default_root_dir=folder,
        callbacks=[
            ModelCheckpoint(dirpath=folder, filename="last", every_n_train_steps=every, enable_version_counter=False)
        ],
        gradient_clip_val=module.schedule.clip,
        precision=precision,  # type: ignore[arg-type]
        logger=False,
        enable_progress_bar=progress,
        enable_model_summary=False,
    )
    module.train()
    trainer.fit(module, DataLoader(stream, batch_size=None), ckpt_path=last if last.exists() else None)
    trainer.save_checkpoint(last)
