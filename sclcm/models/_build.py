"""From a configuration and a state dict to a network; the configuration is not trusted."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch.overrides import TorchFunctionMode

from sclcm._sizes import as_int
from sclcm.models._declarations import check_declaration
from sclcm.nn.fixed_vectors import NoVectors
from sclcm.nn.lcm import LCM
from sclcm.nn.priors import Partners
from sclcm.nn.set_configs import GridPositions

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from sclcm.encoding.sentences import Encoding
    from sclcm.nn.configs import LCMConfig

_SMALL = 1 << 16
_FACTORIES = {torch.empty, torch.zeros, torch.ones, torch.full, torch.arange, torch.tensor, torch.randn, torch.rand}
_FILLS = {torch.Tensor.normal_, torch.Tensor.uniform_, torch.Tensor.zero_, torch.Tensor.fill_}
# What torch, or a module, makes of sizes that make no sense.
_NONSENSE = (ArithmeticError, AssertionError, AttributeError, IndexError, KeyError, RuntimeError, TypeError)


def build_lcm(architecture: LCMConfig, state: Mapping[str, torch.Tensor]) -> LCM:
    """Build a model and fill in every weight; `ValueError` lists weights that are missing, left over or misshapen.

    The weights are taken as they are, without a copy, except where two would share memory.
    """
    check_declaration(architecture)
    _check_sizes(architecture, state)
    try:
        with torch.device("meta"), _Blank(limit=64 + 8 * len(state)):
            lcm = LCM(architecture)
    except _NONSENSE as error:
        msg = f"The configuration describes no model that can be built: {error}"
        raise ValueError(msg) from error
    try:
        lcm.load_state_dict(_separate(state), strict=True, assign=True)
    except RuntimeError as error:
        msg = f"The checkpoint does not fit the model that it describes. {error}"
        raise ValueError(msg) from error
    for module in lcm.modules():
        if isinstance(module, Partners):
            module.check()
        if isinstance(module, NoVectors):
            module.fill()
    lcm.requires_grad_(False)  # noqa: FBT003
    return lcm.eval()


class _Blank(TorchFunctionMode):
    """Builds modules whose weights come from a file: nothing is drawn, and no more tensors are made than it can fill.

    Drawing would not only be thrown away: on the meta device it also makes torch import its compiler.
    """

    def __init__(self, *, limit: int) -> None:
        super().__init__()
        self.left = limit

    def __torch_function__(  # noqa: PLR0917 (torch calls it so)
        self, func: Callable[..., Any], types: object, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        named = kwargs or {}
        if func in _FILLS or getattr(func, "__module__", None) == "torch.nn.init":
            return args[0] if args else named["tensor"]
        if func in _FACTORIES:
            self.left -= 1
        if self.left < 0:
            msg = "The configuration describes more weights than the file holds; they belong to different models."
            raise ValueError(msg)
        return func(*args, **named)


def count_weights(architecture: LCMConfig) -> int:
    """Return how many numbers a model has, of which none is drawn or held."""
    with torch.device("meta"), _Blank(limit=1 << 20):
        return sum(tensor.numel() for tensor in LCM(architecture).state_dict().values())


def check_settings(settings: Any) -> None:
    """Refuse what is no setting of an encoding or recipe: values of the wrong type, and numbers beyond 32 bits."""
    check_declaration(settings)
    for name, size in _sizes_of(settings):
        if not -(1 << 31) <= size < 1 << 31:
            msg = f"`{name}` is {size:,}; the configuration is damaged or of another model. Get it from its authors."
            raise ValueError(msg)


def within_places(encoding: Encoding, architecture: LCMConfig) -> Encoding:
    """Shorten the longest sentence, where nobody asked for its length, to the places that the model knows."""
    position = architecture.position
    if position is None or isinstance(position, GridPositions) or encoding.max_tokens is None:
        return encoding
    longest = min(as_int(encoding.max_tokens), as_int(position.n_positions))
    return dataclasses.replace(encoding, max_tokens=longest)


def check_places(encoding: Encoding, architecture: LCMConfig) -> None:
    """The longest sentence must not have more places than the model has vectors for."""
    position = architecture.position
    if position is None or isinstance(position, GridPositions) or encoding.max_tokens is None:
        return
    longest, n_positions = as_int(encoding.max_tokens), as_int(position.n_positions)
    if longest > n_positions:
        msg = f"Sentences may have {longest:,} tokens, but the model knows {n_positions:,} places; ask for fewer."
        raise ValueError(msg)


def _check_sizes(architecture: LCMConfig, state: Mapping[str, torch.Tensor]) -> None:
    """No size that a configuration states may be larger than what there are weights for."""
    largest = max(_SMALL, sum(tensor.numel() for tensor in state.values()))
    for name, size in _sizes_of(architecture):
        if not 0 <= size <= largest:
            msg = (
                f"`{name}` is {size:,}, but the checkpoint has {largest:,} weights at most; the configuration is "
                "damaged or of another model. Get it from its authors."
            )
            raise ValueError(msg)


def _sizes_of(declaration: Any, name: str = "") -> Iterator[tuple[str, int]]:
    if type(declaration) is int:
        yield name, declaration
    elif isinstance(declaration, Mapping):
        for key, item in declaration.items():
            yield from _sizes_of(item, str(key))
    elif isinstance(declaration, tuple):
        for item in declaration:
            yield from _sizes_of(item, name)
    elif dataclasses.is_dataclass(declaration):
        for field in dataclasses.fields(declaration):
            yield from _sizes_of(getattr(declaration, field.name), field.name)


def _separate(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Copy tensors that are part of a larger storage or share it with another, so that each weight is on its own."""
    seen: set[int] = set()
    separate = {}
    for name, tensor in state.items():
        storage = tensor.untyped_storage()
        whole = storage.nbytes() == tensor.nbytes and tensor.is_contiguous() and storage.data_ptr() not in seen
        separate[name] = tensor if whole else tensor.clone()
        seen.add(storage.data_ptr())
    return separate
