"""`get.gene_embedding`: gene vectors as a data frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sclcm._keys import gene_embed_keys
from sclcm.data.matrix import check_adata
from sclcm.get._slots import find_slot

if TYPE_CHECKING:
    from anndata import AnnData


def gene_embedding(
    adata: AnnData, model: str = "sclcm-mini", *, key: str | None = None, dropna: bool = True
) -> pd.DataFrame:
    """Return what `tl.embed_genes` wrote.

    Parameters
    ----------
    adata
        Annotated data.
    model
        Name of the model.
    key
        The `key_added` of the call, if it had one.
    dropna
        Leave out genes without a vector.

    Returns
    -------
    One row a gene, by `adata.var_names`, and one column a dimension.

    Raises
    ------
    KeyError
        There are no such vectors; the message lists those that exist.
    """
    check_adata(adata)
    slot = gene_embed_keys(model, key).varm
    values = find_slot(adata.varm, slot, where="`adata.varm`", remedy="`sclcm.tl.embed_genes`")
    frame = pd.DataFrame(np.array(values), index=adata.var_names.copy())
    return frame.dropna(how="all") if dropna else frame
