"""`get.cell_text`: each cell as text, for encoders of text."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sclcm.data.genes import VAR_NAMES, gene_names
from sclcm.data.matrix import check_adata, choose_matrix
from sclcm.data.texts import PREFIX, ranked_names

if TYPE_CHECKING:
    from anndata import AnnData


def cell_text(
    adata: AnnData,
    *,
    n_genes: int = 1_000,
    prefix: str = PREFIX,
    layer: str | None = None,
    use_raw: bool = False,
    gene_key: str | None = None,
) -> pd.Series:
    """Return each cell as text: the names of its expressed genes in descending order, separated by spaces.

    A text encoder turns these texts into cell vectors, such as those of GenePT-s::

        adata.obsm["X_text"] = np.asarray(encoder(sclcm.get.cell_text(adata).tolist()))

    Parameters
    ----------
    adata
        Annotated data; expression in any unit, since only ranks matter.
    n_genes
        Largest number of genes of a cell; genes of lower rank are left out.
    prefix
        The beginning of each text.
    layer
        Layer to read instead of `.X`.
    use_raw
        Read `.raw.X` instead of `.X`.
    gene_key
        Column of `.var` with the gene names; the index by default.

    Returns
    -------
    A series with one text per cell, indexed by `adata.obs_names`. Ties are in the order of `.var`.

    Raises
    ------
    ValueError
        The matrix holds negative or missing values, or there is no such column or layer.
    """
    check_adata(adata)
    if isinstance(n_genes, bool) or not isinstance(n_genes, int | np.integer) or n_genes < 1:
        msg = f"`n_genes` is {n_genes!r}; expected a number of genes, 1 or more."
        raise ValueError(msg)
    source = choose_matrix(adata, layer=layer, use_raw=use_raw)
    names = gene_names(source.var, VAR_NAMES if gene_key is None else gene_key)
    ranked = ranked_names(source, names, n_genes=int(n_genes), consumer="`cell_text`")
    return pd.Series([prefix + " ".join(genes) for genes in ranked], index=source.obs_names.copy(), dtype=object)
