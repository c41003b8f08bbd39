"""Looking up a slot, with an error that names those that exist."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sclcm.models._pretrained import Pretrained


def name_of(model: str | Pretrained) -> str:
    """Return the name of a model, which its slots are named after."""
    if isinstance(model, str):
        return model
    if isinstance(name := getattr(model, "name", None), str):  # asked so, as importing the class would load torch
        return name
    msg = f"`model` is a {type(model).__name__}; expected a model, or its name, such as 'sclcm-mini'."
    raise TypeError(msg)


def find_slot(slots: Mapping[str, Any], key: str, *, where: str, remedy: str) -> Any:
    """Return `slots[key]`; `KeyError` lists what is there and says what to call."""
    if key in slots:
        return slots[key]
    msg = f"{where} has no {key!r}; it has {sorted(slots)}. Call {remedy} first, or pass the key you gave it."
    raise KeyError(msg)
