"""Further rules of key maps: other axes, rows stored apart, low-rank additions."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from sclcm.checkpoints.keymap import KeyMapError, Rename, _fill, _indices

if TYPE_CHECKING:
    from torch import Tensor

    from sclcm.checkpoints.keymap import State


@dataclass(frozen=True)
class Reshape:
    """A tensor stored with other axes of length one than ours."""

    source: str
    target: str
    stored: tuple[int, ...]
    ours: tuple[int, ...]
    optional: bool = False

    def forward(self, state: State) -> State:
        for name in (_fill(self.source, index) for index in _indices(self.source, list(state))):
            if tuple(state[name].shape) != self.stored:
                msg = f"The tensor {name!r} has the shape {tuple(state[name].shape)}, expected {self.stored}."
                raise KeyMapError(msg)
        renamed = Rename(self.source, self.target).forward(state)
        return {name: tensor.reshape(self.ours) for name, tensor in renamed.items()}

    def backward(self, state: State) -> State:
        renamed = Rename(self.source, self.target).backward(state)
        return {name: tensor.reshape(self.stored) for name, tensor in renamed.items()}


@dataclass(frozen=True)
class AppendRows:
    """A table, and rows that are stored apart from it, below each other.

    `more` names the tensors with those rows, each with the axes that it has before the last.
    """

    table: str
    more: tuple[tuple[str, tuple[int, ...]], ...]
    target: str
    optional: bool = False

    def forward(self, state: State) -> State:
        import torch

        names = [self.table, *(name for name, _ in self.more)]
        if missing := [name for name in names if name not in state]:
            if len(missing) == len(names):
                return {}
            msg = f"The checkpoint lacks {', '.join(map(repr, missing))}, of which rows of {self.target!r} are made."
            raise KeyMapError(msg)
        table = state.pop(self.table)
        width = table.shape[-1]
        rows = []
        for name, axes in self.more:
            tensor = state.pop(name)
            if tuple(tensor.shape) != (*axes, width):
                msg = f"The tensor {name!r} has the shape {tuple(tensor.shape)}, expected {(*axes, width)}."
                raise KeyMapError(msg)
            rows.append(tensor.reshape(-1, width))
        return {self.target: torch.cat([table, *rows])}

    def backward(self, state: State) -> State:
        if self.target not in state:
            return {}
        whole = state.pop(self.target)
        counts = [math.prod(axes) for _, axes in self.more]
        table, *rows = whole.split([len(whole) - sum(counts), *counts])
        apart = {name: part.reshape(*axes, -1) for (name, axes), part in zip(self.more, rows, strict=True)}
        return {self.table: table, **apart}


@dataclass(frozen=True)
class AddLowRank:
    """A matrix to which the product of two thin ones is added, as low-rank fine-tuning leaves them (LoRA, scale one).

    The rule stands before the one that names the matrix. What was added does not come apart again.
    """

    matrix: str
    down: str
    up: str
    optional: bool = True

    def forward(self, state: State) -> State:
        for index in _indices(self.down, list(state)):
            names = [_fill(template, index) for template in (self.matrix, self.up, self.down)]
            if missing := [name for name in names if name not in state]:
                msg = f"The checkpoint has {names[2]!r} but lacks {', '.join(map(repr, missing))}."
                raise KeyMapError(msg)
            up, down = state.pop(names[1]), state.pop(names[2])
            shapes = tuple(up.shape), tuple(down.shape)
            if up.ndim != 2 or down.ndim != 2 or up.shape[1] != down.shape[0]:
                msg = f"The tensors {names[1]!r} and {names[2]!r} of shapes {shapes} have no product."
                raise KeyMapError(msg)
            if (up.shape[0], down.shape[1]) != tuple(state[names[0]].shape):
                msg = f"The product of {names[1]!r} and {names[2]!r} of shapes {shapes} does not fit {names[0]!r}."
                raise KeyMapError(msg)
            added = up.float() @ down.float()
            state[names[0]] = (state[names[0]].float() + added).to(state[names[0]].dtype)
        return {}

    def backward(self, state: State) -> State:
        return {}


@dataclass(frozen=True)
class JoinHeads:
    """Matrices that make queries, keys and values, below each other; keys and values may have fewer rows.

    On the way back, queries have as many rows as columns, and the rest is halved.
    """

    query: str
    key: str
    value: str
    target: str
    optional: bool = False

    def forward(self, state: State) -> State:
        import torch

        joined = {}
        for index in _indices(self.query, list(state)):
            names = [_fill(template, index) for template in (self.query, self.key, self.value)]
            if missing := [name for name in names if name not in state]:
                msg = f"The checkpoint has {names[0]!r} but lacks {', '.join(map(repr, missing))}."
                raise KeyMapError(msg)
            q, k, v = (state.pop(name) for name in names)
            if q.ndim != 2 or q.shape[0] != q.shape[1] or k.shape != v.shape or k.shape[1:] != q.shape[1:]:
                shapes = ", ".join(str(tuple(tensor.shape)) for tensor in (q, k, v))
                msg = f"The tensors {', '.join(map(repr, names))} of shapes {shapes} are no heads of one attention."
                raise KeyMapError(msg)
            joined[_fill(self.target, index)] = torch.cat([q, k, v])
        return joined

    def backward(self, state: State) -> State:
        parts: State = {}
        for index in _indices(self.target, list(state)):
            whole = state.pop(_fill(self.target, index))
            n_query, n_key = whole.shape[1], (whole.shape[0] - whole.shape[1]) // 2
            pieces = whole.split([n_query, n_key, n_key])
            names = [_fill(template, index) for template in (self.query, self.key, self.value)]
            parts |= dict(zip(names, pieces, strict=True))
        return parts


@dataclass(frozen=True)
class DropFilled:
    """A tensor that holds one known number throughout: checked, and not kept."""

    name: str
    number: float
    optional: bool = True

    def forward(self, state: State) -> State:
        if self.name in state and not _is_filled(state.pop(self.name), self.number):
            msg = f"The tensor {self.name!r} should hold {self.number:g} throughout; a model with others is not known."
            raise KeyMapError(msg)
        return {}

    def backward(self, state: State) -> State:
        return {}


@dataclass(frozen=True)
class DropCounting:
    """A tensor that holds 0, 1, 2, ..., such as places in a sentence: checked, and not kept."""

    name: str
    optional: bool = True

    def forward(self, state: State) -> State:
        if self.name in state and not _is_counting(state.pop(self.name)):
            msg = f"The tensor {self.name!r} should hold 0, 1, 2, ...; a model with others is not known."
            raise KeyMapError(msg)
        return {}

    def backward(self, state: State) -> State:
        return {}


def _is_filled(tensor: Tensor, number: float) -> bool:
    import torch

    return tensor.equal(torch.full_like(tensor, number))


def _is_counting(tensor: Tensor) -> bool:
    import torch

    flat = tensor.flatten()
    return flat.equal(torch.arange(len(flat), dtype=flat.dtype, device=flat.device))


@dataclass(frozen=True)
class Twice:
    """Tensors that a file holds a second time, under another prefix; they must agree, and are not written back."""

    prefix: str
    of: str
    optional: bool = True

    def forward(self, state: State) -> State:
        for name in [name for name in state if name.startswith(self.prefix)]:
            other = self.of + name.removeprefix(self.prefix)
            if other not in state or not state[other].equal(state[name]):
                msg = f"The tensor {name!r} is to be {other!r} once more, which is not there, or differs."
                raise KeyMapError(msg)
            del state[name]
        return {}

    def backward(self, state: State) -> State:
        return {}
