"""The batch of each cell, as a number that a model knows."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Hashable


def number_sets(obs: pd.DataFrame, key: Hashable | None, *, model: str) -> np.ndarray:
    """Number the sets of cells that inform each other, in the order of their first cells.

    Parameters
    ----------
    obs
        The table of the cells.
    key
        Its column; `None` makes one set of all cells.
    model
        Name of the model, for messages.

    Returns
    -------
    Shape `(cells,)`, int64, from 0.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        The column is missing for a cell.
    """
    if key is None:
        return np.zeros(len(obs), dtype=np.int64)
    column = _column(obs, key, model=model, what="the set of each cell")
    return pd.factorize(column.astype(object))[0].astype(np.int64)


def _column(obs: pd.DataFrame, key: Hashable, *, model: str, what: str) -> pd.Series:
    if key not in obs:
        msg = f"`.obs` has no column {key!r}; its columns are {list(obs.columns)}."
        raise KeyError(msg)
    column = obs[key]
    if missing := int(column.isna().sum()):
        msg = f"`.obs[{key!r}]` is missing for {missing} cells; {model!r} needs {what}."
        raise ValueError(msg)
    return column


def number_conditions(obs: pd.DataFrame, key: Hashable, *, n_conditions: int, model: str) -> np.ndarray:
    """Number the batches of cells.

    Whole numbers are taken as they are; names are numbered in the order of their categories, or else in alphabetical
    order, as models are fine-tuned on `adata.obs[key].astype("category").cat.codes`.

    Parameters
    ----------
    obs
        The table of the cells.
    key
        Its column.
    n_conditions
        How many batches the model knows.
    model
        Name of the model, for messages.

    Returns
    -------
    Shape `(cells,)`, int64, from 0 to less than `n_conditions`.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        A batch is missing, or the model knows fewer.
    """
    column = _column(obs, key, model=model, what="the batch of each cell")
    if pd.api.types.is_integer_dtype(column):
        numbers, shown = column.to_numpy().astype(np.int64), f"numbers from {column.min()} to {column.max()}"
    else:
        codes = column.astype("category").cat
        numbers, shown = codes.codes.to_numpy().astype(np.int64), f"{len(codes.categories)} batches"
    if len(numbers) and not 0 <= numbers.min() <= numbers.max() < n_conditions:
        msg = (
            f"`.obs[{key!r}]` has {shown}, but {model!r} was fine-tuned on {n_conditions} batches, numbered from 0; "
            "name the column that it was fine-tuned with, or use a model that is not bound to batches."
        )
        raise ValueError(msg)
    return numbers
