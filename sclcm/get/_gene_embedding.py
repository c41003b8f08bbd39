"""`get.gene_embedding`: gene vectors as a data frame."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sclcm._keys import gene_embed_keys
from sclcm.data.matrix import check_adata
from sclcm.get._slots import find_slot, name_of

if TYPE_CHECKING:
    from anndata import AnnData

    from sclcm.models._pretrained import Pretrained


def gene_embedding(
    adata: AnnData, model: str | Pretrained = "sclcm-mini", *, key: str | None = None, dropna: bool = True
) -> pd.DataFrame:
    """Return the gene vectors that `tl.embed_genes` wrote.

    Parameters
    ----------
    adata
        Annotated data.
    model
        The model, or its name.
    key
        The `key_added` of that call, if it had one.
    dropna
        Whether to leave out genes without a vector.

    Returns
    -------
    A data frame with one row per gene, indexed by `adata.var_names`, and one column per dimension.

    Raises
    ------
    KeyError
        There are no such vectors; the message lists those that exist.
    """
    check_adata(adata)
    slot = gene_embed_keys(name_of(model), key).varm
    values = find_slot(adata.varm, slot, where="`adata.varm`", remedy="`sclcm.tl.embed_genes`")
    frame = pd.DataFrame(np.array(values), index=adata.var_names.copy())
    return frame.dropna(how="all") if dropna else frame
