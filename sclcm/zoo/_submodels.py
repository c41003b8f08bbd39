"""Declaration of weights files that hold several models."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sclcm._sizes import Given


@dataclass(frozen=True, kw_only=True)
class InSubmodels:
    """A weights file with several models, each with its tensors and its configuration.

    Parameters
    ----------
    names
        Their entries in the file; the first is taken unless `load` is told otherwise.
    key
        The entry of a model with its configuration.
    tensors
        The entry of a model with its tensors.
    sections
        Parts of the configuration that are united into one, of which the later ones win; dots go into nested parts, and
        `{name}` stands for an entry at the top. Empty: the configuration is as it is.
    argument
        The argument of `load` that names the model.
    """

    names: tuple[str, ...]
    key: str
    tensors: str
    sections: tuple[str, ...] = ()
    argument: Given = field(default_factory=lambda: Given("submodel"))

    def choose(self, given: Mapping[str, Any]) -> str:
        """Return the model that is asked for, or the first; `ValueError` lists those that there are."""
        asked = given.get(self.argument.name, self.names[0])
        if asked not in self.names:
            msg = f"`{self.argument.name}` is {asked!r}; the file holds {', '.join(map(repr, self.names))}."
            raise ValueError(msg)
        return str(asked)

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """Return one configuration made of the sections."""
        if not self.sections:
            return dict(config)
        texts = {name: value for name, value in config.items() if isinstance(value, str)}
        united: dict[str, Any] = {}
        for section in self.sections:
            try:
                path = section.format(**texts)
            except KeyError as error:
                msg = f"The release's configuration lacks {error.args[0]!r}, which says which part of it counts."
                raise ValueError(msg) from error
            united |= _part(config, path)
        return united


def _part(config: Mapping[str, Any], path: str) -> Mapping[str, Any]:
    found: Any = config
    for name in path.split("."):
        found = found.get(name) if isinstance(found, Mapping) else None
    if not isinstance(found, Mapping):
        msg = f"The release's configuration has no part {path!r}; it may be damaged, or of another model."
        raise ValueError(msg)
    return found
