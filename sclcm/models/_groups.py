"""What a model asks of each cell besides its counts: its batch, its set, its context."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np

from sclcm.data.conditions import number_conditions, number_sets
from sclcm.data.context import cell_context
from sclcm.data.matrix import as_frame

if TYPE_CHECKING:
    from anndata import AnnData

    from sclcm.data.context import Conditions
    from sclcm.models._pretrained import Pretrained

logger = logging.getLogger("sclcm")


def choose_sets(adata: AnnData, pretrained: Pretrained, batch_key: str | None) -> np.ndarray | None:
    """Return the number of each cell's set, for models whose tokens are cells."""
    if pretrained.token_unit != "cell":
        return None
    if batch_key is None:
        logger.info(
            "%s: no `batch_key`, so that all %d cells are one set and inform each other", pretrained.name, adata.n_obs
        )
    return number_sets(as_frame(adata.obs), batch_key, model=pretrained.name)


def choose_positions(adata: AnnData, pretrained: Pretrained, sets: np.ndarray) -> np.ndarray | None:
    """Return where each cell lies in its set, for models that ask for it, shape `(cells, 2)`."""
    declared = pretrained.encoding.coordinates
    if declared is None:
        return None
    if declared.key not in adata.obsm:
        msg = (
            f"{pretrained.name!r} needs to know where cells lie, but `.obsm` has no {declared.key!r}; it has "
            f"{list(adata.obsm)}. Put two coordinates of each cell there."
        )
        raise KeyError(msg)
    xy = np.asarray(adata.obsm[declared.key])
    if xy.ndim != 2 or xy.shape[1] < 2 or xy.dtype.kind not in "fiu" or not np.isfinite(xy[:, :2]).all():
        msg = (
            f"`.obsm[{declared.key!r}]` ({xy.dtype}, shape {xy.shape!r}) should hold two finite coordinates of each "
            "cell; correct it, or leave out cells without."
        )
        raise ValueError(msg)
    return declared.scale(xy[:, :2].astype(np.float64), sets)


def choose_conditions(adata: AnnData, pretrained: Pretrained, batch_key: str | None) -> np.ndarray | None:
    """Return the number of each cell's batch, for models that need it."""
    n_conditions = pretrained.n_conditions
    if n_conditions is None and batch_key is not None:
        msg = f"`batch_key` is {batch_key!r}, but {pretrained.name!r} embeds each cell on its own; leave it out."
        raise ValueError(msg)
    if n_conditions is None:
        return None
    if batch_key is None:
        msg = (
            f"{pretrained.name!r} was fine-tuned on {n_conditions} batches and needs the batch of each cell; name its "
            "column of `.obs` as `batch_key`."
        )
        raise ValueError(msg)
    return number_conditions(as_frame(adata.obs), batch_key, n_conditions=n_conditions, model=pretrained.name)


def choose_context(adata: AnnData, pretrained: Pretrained, conditions: Conditions | None) -> dict[str, np.ndarray]:
    """Return the number of each context token, and of each choice, that a cell has."""
    return cell_context(
        as_frame(adata.obs),
        pretrained.encoding,
        vocabulary=pretrained.vocabulary,
        pad=pretrained.pad,
        arrays=pretrained.arrays,
        conditions=conditions,
        model=pretrained.name,
    )
