"""What each cell is, read off columns of obs or said by the caller, as numbers that an encoding takes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import pandas as pd

from sclcm.encoding.context import NO_ARRAY

if TYPE_CHECKING:
    from sclcm.encoding.context import ArrayChoice, ContextToken
    from sclcm.encoding.sentences import Encoding
    from sclcm.genes.vocabulary import GeneVocabulary

Conditions: TypeAlias = Mapping[str, str | int | None]
"""By the name of a condition: a column of obs, one value for all cells, or `None` where no value fits."""

logger = logging.getLogger("sclcm")


def said_conditions(conditions: Conditions | None) -> dict[str, str | int | None]:
    """Return what a caller says of the cells, as a dictionary that may be changed; `TypeError` if it is none."""
    if conditions is not None and not isinstance(conditions, Mapping):
        msg = f"`conditions` is {conditions!r}; expected a dictionary, such as `{{'species': 'human'}}`, or None."
        raise TypeError(msg)
    return dict(conditions or {})


@dataclass(frozen=True, kw_only=True)
class _Known:
    """The values that a condition may have.

    Parameters
    ----------
    name
        Of the condition.
    model
        Name of the model, for messages.
    shown
        The values, as messages list them.
    numbers
        Spelling in lower case -> number.
    by_number
        Whether a column may hold the numbers themselves.
    """

    name: str
    model: str
    shown: tuple[str, ...]
    numbers: Mapping[str, int] = field(default_factory=dict)
    by_number: bool = True

    def number(self, value: Any) -> int | None:
        """Return the number of a value, or `None` if it is no value of this condition."""
        whole = isinstance(value, float | np.floating) and float(value).is_integer()
        if self.by_number and not isinstance(value, bool) and (whole or isinstance(value, int | np.integer)):
            return int(value) if int(value) in self.numbers.values() else None
        return self.numbers.get(str(value).strip().lower()) if isinstance(value, str) else None

    @property
    def listed(self) -> str:
        """The values, for messages."""
        if not self.by_number:
            return ", ".join(map(repr, self.shown))
        return ", ".join(f"{name!r} ({self.numbers[name.lower()]})" for name in self.shown)


def cell_context(
    obs: pd.DataFrame,
    encoding: Encoding,
    *,
    vocabulary: GeneVocabulary,
    pad: str,
    arrays: Mapping[str, np.ndarray],
    conditions: Conditions | None,
    model: str,
) -> dict[str, np.ndarray]:
    """Return, for each context token and choice of an encoding, the number of each cell's.

    Parameters
    ----------
    obs
        The table of the cells.
    encoding
        Declares the conditions.
    vocabulary
        Has the tokens.
    pad
        Name of the padding token, which keeps the place of a token that no value fits.
    arrays
        The companion arrays that are there.
    conditions
        What the caller says of them.
    model
        Name of the model, for messages.

    Returns
    -------
    Name of the condition -> token ids, or numbers of arrays, each of shape `(cells,)`, int32.

    Raises
    ------
    KeyError
        A condition is neither said nor a column of obs.
    ValueError
        A value is unknown or missing; the message lists those that are known.
    """
    said = said_conditions(conditions)
    names = [*(token.name for token in encoding.context_used), *(choice.name for choice in encoding.choices)]
    if unknown := [name for name in said if name not in names]:
        takes = f"its conditions are {', '.join(map(repr, names))}" if names else "it has none"
        msg = f"`conditions` names {unknown[0]!r}, which is not a condition of {model!r}; {takes}."
        raise ValueError(msg)
    found: dict[str, np.ndarray] = {}
    columns = {
        t.name: next((c for c in t.columns if c in obs), None) for t in encoding.context_used if t.name not in said
    }
    if missing := [token for token in encoding.context_used if columns.get(token.name, "") is None]:
        raise KeyError(_missing(missing, obs, vocabulary=vocabulary, model=model))
    for token in encoding.context_used:
        known = _known_tokens(token, vocabulary, model)
        if (column := columns.get(token.name)) is not None:
            found[token.name] = _by_column(obs, column, known)
        elif said[token.name] is None:
            found[token.name] = np.full(len(obs), vocabulary.specials[pad], dtype=np.int32)
        else:
            found[token.name] = _as_said(obs, said[token.name], known)
    for choice in encoding.choices:
        found[choice.name] = _array_numbers(choice, obs, said, tokens=found, vocabulary=vocabulary, model=model)
        _require_arrays(choice, found[choice.name], arrays=arrays, model=model)
    if columns:
        logger.info("%s: %s", model, ", ".join(f"{name} by .obs[{column!r}]" for name, column in columns.items()))
    return found


def _known_tokens(token: ContextToken, vocabulary: GeneVocabulary, model: str) -> _Known:
    spellings = {**{name: name for name in token.tokens}, **token.aliases}
    numbers = {spelt.lower(): vocabulary.specials[name] for spelt, name in spellings.items()}
    return _Known(name=token.name, model=model, shown=token.tokens, numbers=numbers)


def _missing(tokens: list[ContextToken], obs: pd.DataFrame, *, vocabulary: GeneVocabulary, model: str) -> str:
    each = "; ".join(
        f"{token.name} (column {' or '.join(map(repr, token.columns))}), of which it knows "
        f"{_known_tokens(token, vocabulary, model).listed}"
        for token in tokens
    )
    return (
        f"{model!r} is told what each cell is, but `.obs` has no column for some of it (it has {list(obs.columns)}): "
        f"{each}. Say it by `conditions={{{tokens[0].name!r}: ...}}`: a column of `.obs`, one value for all cells, or "
        "None if no value fits."
    )


def _array_numbers(
    choice: ArrayChoice,
    obs: pd.DataFrame,
    said: dict[str, str | int | None],
    *,
    tokens: Mapping[str, np.ndarray],
    vocabulary: GeneVocabulary,
    model: str,
) -> np.ndarray:
    numbers = {name.lower(): number for number, name in enumerate(choice.arrays)}
    known = _Known(name=choice.name, model=model, shown=tuple(choice.arrays), numbers=numbers, by_number=False)
    if choice.name in said:
        value = said[choice.name]
        return np.full(len(obs), NO_ARRAY, dtype=np.int32) if value is None else _as_said(obs, value, known)
    out = np.full(len(obs), numbers[choice.otherwise.lower()], dtype=np.int32)
    if choice.follows in tokens:
        for token, name in choice.by_token.items():
            out[tokens[choice.follows] == vocabulary.specials[token]] = numbers[name.lower()]
    return out


def _as_said(obs: pd.DataFrame, value: str | int | None, known: _Known) -> np.ndarray:
    """Numbers by what the caller says: a column of obs if there is one of that name, else one value for all."""
    if isinstance(value, str) and value in obs:
        return _by_column(obs, value, known)
    number = known.number(value)
    if number is None:
        msg = (
            f"`conditions[{known.name!r}]` is {value!r}, which is neither a column of `.obs` ({list(obs.columns)}) nor "
            f"one of the values that {known.model!r} knows: {known.listed}. None says that no value fits."
        )
        raise ValueError(msg)
    return np.full(len(obs), number, dtype=np.int32)


def _by_column(obs: pd.DataFrame, column: str, known: _Known) -> np.ndarray:
    codes, values = pd.factorize(obs[column])
    if missing := int((codes < 0).sum()):
        msg = f"`.obs[{column!r}]` is missing for {missing} cells; {known.model!r} needs the {known.name} of each cell."
        raise ValueError(msg)
    numbers = [known.number(value) for value in values.tolist()]
    if strange := [value for value, number in zip(values.tolist(), numbers, strict=True) if number is None]:
        shown = ", ".join(map(repr, strange[:3])) + (", ..." if len(strange) > 3 else "")
        msg = (
            f"`.obs[{column!r}]` holds {shown}; {known.model!r} knows as {known.name}: {known.listed}. Correct the "
            f"column, or say it by `conditions={{{known.name!r}: ...}}`: another column of `.obs`, one value for all "
            "cells, or None if no value fits."
        )
        raise ValueError(msg)
    return np.array(numbers, dtype=np.int32)[codes] if numbers else np.zeros(len(obs), dtype=np.int32)


def _require_arrays(choice: ArrayChoice, numbers: np.ndarray, *, arrays: Mapping[str, np.ndarray], model: str) -> None:
    """Refuse a choice whose file the release lacks, before anything is read."""
    for number, (name, array) in enumerate(choice.arrays.items()):
        if array not in arrays and (numbers == number).any():
            there = [other for other, its in choice.arrays.items() if its in arrays]
            others = f"one of those it has, {there}, or None, which divides" if there else "None, which divides"
            msg = (
                f"{model!r} divides the counts of {int((numbers == number).sum())} of the cells by its array {name!r}, "
                f"but the release was loaded without that file. Put it beside the others, or pass "
                f"`conditions={{{choice.name!r}: ...}}`: {others} by nothing."
            )
            raise ValueError(msg)
