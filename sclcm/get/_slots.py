"""Looking up a slot, with an error that names those that exist."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping


def find_slot(slots: Mapping[str, Any], key: str, *, where: str, remedy: str) -> Any:
    """Return `slots[key]`; `KeyError` lists what is there and says what to call."""
    if key in slots:
        return slots[key]
    msg = f"{where} has no {key!r}; it has {sorted(slots)}. Call {remedy} first, or pass the key you gave it."
    raise KeyError(msg)
