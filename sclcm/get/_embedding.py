"""`get.embedding`: a cell embedding as a data frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.sparse import issparse

from sclcm._keys import embed_keys
from sclcm.data.matrix import check_adata
from sclcm.get._slots import find_slot, name_of

if TYPE_CHECKING:
    from anndata import AnnData

    from sclcm.models._pretrained import Pretrained


def embedding(adata: AnnData, model: str | Pretrained = "sclcm-mini", *, key: str | None = None) -> pd.DataFrame:
    """Return the cell embedding that `tl.embed` wrote.

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
    A data frame with one row per cell, indexed by `adata.obs_names`, and one column per dimension.

    Raises
    ------
    KeyError
        There is no such embedding; the message lists those that exist.
    """
    check_adata(adata)
    slot = embed_keys(name_of(model), key).obsm
    values = find_slot(adata.obsm, slot, where="`adata.obsm`", remedy="`sclcm.tl.embed`")
    return pd.DataFrame(values.toarray() if issparse(values) else np.array(values), index=adata.obs_names.copy())
