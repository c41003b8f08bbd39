"""`get.annotation`: labels and scores as a data frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pandas as pd

from sclcm._keys import annotate_keys
from sclcm.data.matrix import check_adata
from sclcm.get._slots import find_slot, name_of

if TYPE_CHECKING:
    from anndata import AnnData

    from sclcm.models._pretrained import Pretrained


def annotation(adata: AnnData, model: str | Pretrained = "sclcm-mini", *, key: str | None = None) -> pd.DataFrame:
    """Return the labels and scores that `tl.annotate` wrote.

    Parameters
    ----------
    adata
        Annotated data.
    model
        The model, or its name.
    key
        The `key_added` of that call, if it had one.

    Returns
    -------
    A data frame with one row per cell, indexed by `adata.obs_names`, and the columns `label`, `score` and, if the model
    gives them, `coarse` and `ontology_term_id`.

    Raises
    ------
    KeyError
        There are no such labels; the message lists the columns that exist.
    """
    check_adata(adata)
    keys = annotate_keys(name_of(model), key)
    columns = {"label": keys.label, "score": keys.score, "coarse": keys.coarse, "ontology_term_id": keys.ontology}
    find_slot(adata.obs, keys.label, where="`adata.obs`", remedy="`sclcm.tl.annotate`")
    return pd.DataFrame({name: adata.obs[column] for name, column in columns.items() if column in adata.obs})
