"""`get.embedding`: a cell embedding as a data frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.sparse import issparse

from sclcm._keys import embed_keys
from sclcm.data.matrix import check_adata
from sclcm.get._slots import find_slot

if TYPE_CHECKING:
    from anndata import AnnData


def embedding(adata: AnnData, model: str = "sclcm-mini", *, key: str | None = None) -> pd.DataFrame:
    """Return what `tl.embed` wrote.

    Parameters
    ----------
    adata
        Annotated data.
    model
        Name of the model.
    key
        The `key_added` of the call, if it had one.

    Returns
    -------
    One row a cell, by `adata.obs_names`, and one column a dimension.

    Raises
    ------
    KeyError
        There is no such embedding; the message lists those that exist.
    """
    check_adata(adata)
    slot = embed_keys(model, key).obsm
    values = find_slot(adata.obsm, slot, where="`adata.obsm`", remedy="`sclcm.tl.embed`")
    return pd.DataFrame(values.toarray() if issparse(values) else np.array(values), index=adata.obs_names.copy())
