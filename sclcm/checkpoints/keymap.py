"""Key maps: upstream tensor names <-> ours, declared rule by rule, strict in both directions."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from sclcm._sizes import template_regex

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from torch import Tensor

State = dict[str, "Tensor"]


class KeyMapError(ValueError):
    """A checkpoint does not fit its key map; the message lists the names."""


class KeyRule(Protocol):
    """One rule: takes tensors out of `state` (upstream names) and gives ours, and the way back."""

    @property
    def optional(self) -> bool: ...

    def forward(self, state: State) -> State: ...

    def backward(self, state: State) -> State: ...


def _indices(template: str, names: Iterable[str]) -> list[tuple[str, ...]]:
    """Index tuples for which a name matches the template, in numeric order."""
    regex = template_regex(template)
    found = [match.groups() for name in names if (match := regex.fullmatch(name))]
    return sorted(found, key=lambda index: tuple(map(int, index)))


def _fill(template: str, index: Sequence[str]) -> str:
    return template.format(*index) if index else template


@dataclass(frozen=True)
class Rename:
    """One tensor, another name."""

    source: str
    target: str
    optional: bool = False

    def forward(self, state: State) -> State:
        return {_fill(self.target, i): state.pop(_fill(self.source, i)) for i in _indices(self.source, list(state))}

    def backward(self, state: State) -> State:
        return {_fill(self.source, i): state.pop(_fill(self.target, i)) for i in _indices(self.target, list(state))}


@dataclass(frozen=True)
class Join:
    """Several tensors of one shape, joined along an axis in the order given."""

    sources: tuple[str, ...]
    target: str
    axis: int = 0
    optional: bool = False

    def forward(self, state: State) -> State:
        import torch

        joined = {}
        for index in _indices(self.sources[0], list(state)):
            names = [_fill(source, index) for source in self.sources]
            if missing := [name for name in names if name not in state]:
                msg = f"The checkpoint has {names[0]!r} but lacks {', '.join(map(repr, missing))}."
                raise KeyMapError(msg)
            pieces = [state.pop(name) for name in names]
            if len({piece.shape for piece in pieces}) > 1:
                shapes = ", ".join(str(tuple(piece.shape)) for piece in pieces)
                msg = f"The tensors {', '.join(map(repr, names))} must have one shape to be joined; found {shapes}."
                raise KeyMapError(msg)
            joined[_fill(self.target, index)] = torch.cat(pieces, dim=self.axis)
        return joined

    def backward(self, state: State) -> State:
        parts: State = {}
        for index in _indices(self.target, list(state)):
            name, n_parts = _fill(self.target, index), len(self.sources)
            whole = state.pop(name)
            if whole.shape[self.axis] % n_parts:
                msg = (
                    f"The tensor {name!r} of shape {tuple(whole.shape)!r} cannot be cut along axis {self.axis} into "
                    f"{n_parts} equal parts."
                )
                raise KeyMapError(msg)
            pieces = whole.chunk(n_parts, dim=self.axis)
            parts |= {_fill(source, index): piece for source, piece in zip(self.sources, pieces, strict=True)}
        return parts


@dataclass(frozen=True)
class Split:
    """One tensor, cut into equal parts along an axis: the reverse of `Join`."""

    source: str
    targets: tuple[str, ...]
    axis: int = 0
    optional: bool = False

    def forward(self, state: State) -> State:
        return Join(self.targets, self.source, self.axis).backward(state)

    def backward(self, state: State) -> State:
        return Join(self.targets, self.source, self.axis).forward(state)


@dataclass(frozen=True)
class Transpose:
    """A matrix stored the other way round."""

    source: str
    target: str
    optional: bool = False

    def forward(self, state: State) -> State:
        renamed = Rename(self.source, self.target).forward(state)
        if misshapen := [tuple(tensor.shape) for tensor in renamed.values() if tensor.ndim != 2]:
            msg = f"The checkpoint has a tensor of shape {misshapen[0]!r} for {self}; expected a matrix."
            raise KeyMapError(msg)
        return {name: tensor.t().contiguous() for name, tensor in renamed.items()}

    def backward(self, state: State) -> State:
        return Transpose(self.target, self.source).forward(state)


@dataclass(frozen=True)
class Squeeze:
    """A tensor stored with an axis of length one, or several, that we do not have."""

    source: str
    target: str
    axis: int | tuple[int, ...] = 0
    optional: bool = False

    def forward(self, state: State) -> State:
        names = [_fill(self.source, index) for index in _indices(self.source, list(state))]
        if long := [name for name in names if any(state[name].shape[axis] != 1 for axis in self._axes)]:
            msg = f"Axis {self.axis} of {', '.join(map(repr, long))} must have length 1 to be left out."
            raise KeyMapError(msg)
        renamed = Rename(self.source, self.target).forward(state)
        return {name: tensor.squeeze(self._axes) for name, tensor in renamed.items()}

    def backward(self, state: State) -> State:
        renamed = Rename(self.source, self.target).backward(state)
        for axis in self._axes:  # in ascending order, each is where it was
            renamed = {name: tensor.unsqueeze(axis) for name, tensor in renamed.items()}
        return renamed

    @property
    def _axes(self) -> tuple[int, ...]:
        return (self.axis,) if isinstance(self.axis, int) else self.axis


@dataclass(frozen=True)
class Cast:
    """A tensor stored as another number type; the way back restores the stored type."""

    source: str
    target: str
    stored: str
    ours: str
    optional: bool = False

    def forward(self, state: State) -> State:
        import torch

        renamed = Rename(self.source, self.target).forward(state)
        return {name: tensor.to(getattr(torch, self.ours)) for name, tensor in renamed.items()}

    def backward(self, state: State) -> State:
        import torch

        renamed = Rename(self.source, self.target).backward(state)
        return {name: tensor.to(getattr(torch, self.stored)) for name, tensor in renamed.items()}


@dataclass(frozen=True)
class Tie:
    """One tensor, stored once or several times under different names; copies must agree."""

    sources: tuple[str, ...]
    target: str
    optional: bool = False

    def forward(self, state: State) -> State:
        present = [source for source in self.sources if source in state]
        if not present:
            return {}
        first = state.pop(present[0])
        for other in present[1:]:
            if not state.pop(other).equal(first):
                msg = f"The tensors {present[0]!r} and {other!r} are one tensor stored twice, but differ."
                raise KeyMapError(msg)
        return {self.target: first}

    def backward(self, state: State) -> State:
        return Rename(self.sources[0], self.target).backward(state)


@dataclass(frozen=True)
class Either:
    """Dialects of one release: the first alternative that finds its tensors is taken; the first is written back."""

    alternatives: tuple[KeyRule, ...]
    optional: bool = False

    def forward(self, state: State) -> State:
        for rule in self.alternatives:
            if found := rule.forward(state):
                return found
        return {}

    def backward(self, state: State) -> State:
        return self.alternatives[0].backward(state)


@dataclass(frozen=True)
class StripPrefix:
    """A prefix before every name (`module.`); written back without it."""

    prefix: str
    optional: bool = True

    def forward(self, state: State) -> State:
        for name in [name for name in state if name.startswith(self.prefix)]:
            bare = name.removeprefix(self.prefix)
            if bare in state:
                msg = f"The checkpoint holds both {name!r} and {bare!r}, which are one name without {self.prefix!r}."
                raise KeyMapError(msg)
            state[bare] = state.pop(name)
        return {}

    def backward(self, state: State) -> State:
        return {}


@dataclass(frozen=True)
class Drop:
    """Tensors that the model does not use; listed, and not written back."""

    pattern: str
    optional: bool = True

    def forward(self, state: State) -> State:
        for index in _indices(self.pattern, list(state)):
            del state[_fill(self.pattern, index)]
        return {}

    def backward(self, state: State) -> State:
        return {}


@dataclass(frozen=True)
class DropUnder:
    """Tensors whose names begin so, such as what an optimiser remembers of each; not written back.

    Such rules stand first, so that the tensors count as none of the release.
    """

    prefix: str
    optional: bool = True

    def forward(self, state: State) -> State:
        for name in [name for name in state if name.startswith(self.prefix)]:
            del state[name]
        return {}

    def backward(self, state: State) -> State:
        return {}


@dataclass(frozen=True)
class Keep:
    """Names that are ours already."""

    optional: bool = False

    def forward(self, state: State) -> State:
        kept = dict(state)
        state.clear()
        return kept

    backward = forward


class KeyMap:
    """Rules applied in order to a flat dict of tensors; a tensor without a rule, or a rule without one, is an error."""

    def __init__(self, *rules: KeyRule) -> None:
        self.rules = rules

    def __add__(self, other: KeyMap) -> KeyMap:
        return KeyMap(*self.rules, *other.rules)

    def bare(self, upstream: Mapping[str, Tensor]) -> State:
        """Return upstream tensors without the prefixes that the first rules strip, and without what they drop."""
        state = dict(upstream)
        for rule in itertools.takewhile(lambda rule: isinstance(rule, StripPrefix | DropUnder | Drop), self.rules):
            rule.forward(state)
        return state

    def forward(self, upstream: Mapping[str, Tensor]) -> State:
        """Turn upstream tensors into ours; `KeyMapError` lists names that do not fit."""
        left, idle = dict(upstream), []
        ours: State = {}
        for rule in self.rules:
            found = _apply(rule, left)
            if not found and not rule.optional:
                idle.append(rule)
            ours |= found
        if left:
            msg = f"The checkpoint holds tensors that no rule names: {', '.join(map(repr, sorted(left)))}."
            raise KeyMapError(msg)
        if idle:
            msg = f"The checkpoint lacks the tensors of these rules: {'; '.join(map(str, idle))}."
            raise KeyMapError(msg)
        return ours

    def part(self, upstream: Mapping[str, Tensor], prefix: str) -> State:
        """Turn upstream tensors into those of ours whose names begin so; all others are left aside."""
        left = dict(upstream)
        found = [rule.forward(left) for rule in self.rules]
        return {name: tensor for ours in found for name, tensor in ours.items() if name.startswith(prefix)}

    def backward(self, ours: Mapping[str, Tensor]) -> State:
        """Turn our tensors into upstream's first dialect; what was dropped at loading does not come back."""
        left = dict(ours)
        upstream: State = {}
        for rule in self.rules:
            upstream |= rule.backward(left)
        if left:
            msg = f"No rule writes these tensors back: {', '.join(map(repr, sorted(left)))}."
            raise KeyMapError(msg)
        return upstream


def _apply(rule: KeyRule, left: State) -> State:
    """Apply a rule; what torch says of tensors that it cannot be applied to becomes a `KeyMapError`."""
    try:
        return rule.forward(left)
    except (RuntimeError, IndexError) as error:
        msg = f"The checkpoint's tensors do not have the shapes and types that {rule} is for: {error}"
        raise KeyMapError(msg) from error
