"""`tl.translate`: values of features of another modality, such as proteins, from the genes of a cell."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from sclcm._docs import with_shared_docs
from sclcm._keys import translate_keys
from sclcm._sizes import as_int
from sclcm._warnings import warn_user
from sclcm.models._load import load
from sclcm.models._pass import open_input
from sclcm.models._species import fit_species
from sclcm.models._translation import asked_tokens, translate_cells, translation_of
from sclcm.tl._embed import check_batch_size, counted, first_names, warn_of_empty_cells
from sclcm.tl._write import check_copy, provenance, write

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from anndata import AnnData

    from sclcm.models._pass import Input
    from sclcm.models._pretrained import Pretrained

logger = logging.getLogger("sclcm")


@with_shared_docs
def translate(
    adata: AnnData,
    model: str | Path | Pretrained,
    features: Sequence[str],
    *,
    layer: str | None = None,
    use_raw: bool = False,
    gene_key: str | None = None,
    batch_size: int | None = None,
    device: str = "auto",
    dtype: str = "auto",
    key_added: str | None = None,
    copy: bool = False,
) -> AnnData | None:
    """Predict the values of proteins from the genes of each cell.

    The model predicts as many features at a time as its decoder has positions (1,000 for scTranslator). Because of how
    it was trained, a value depends on the position of its feature in the list, on the other features, and on the order
    of `.var`: keep these the same in calls that you want to compare. It does not depend on other cells.

    Parameters
    ----------
    %(adata)s
    %(model)s
    features
        The proteins, named by the symbols of their genes, in the species of the data.
    %(source)s
    %(running)s
    %(writing)s

    Returns
    -------
    `None`, or the changed copy if `copy=True`. Writes:

    `adata.obsm['<model>_protein' | key_added]` : DataFrame `(n_obs, features)`, float32
        On the scale the model was trained on: 0 is the smallest and 1 the largest protein value of the cell. NaN for
        cells that express no gene the model knows, or whose known genes all have the same count.
    `adata.uns['<model>_protein' | key_added]` : dict
        `params`: model, digest of its files, share of genes and counts matched, genes read, versions.

    Raises
    ------
    %(reading_errors)s
    """
    check_copy(adata, copy=copy)
    check_batch_size(batch_size)
    pretrained, _ = fit_species(adata, load(model, device=device, dtype=dtype), use_raw=use_raw, gene_key=gene_key)
    keys = translate_keys(pretrained.name, translation_of(pretrained).modality, key_added)
    names = _names(features)
    token_ids = asked_tokens(names, pretrained)
    data = open_input(adata, pretrained, layer=layer, use_raw=use_raw, gene_key=gene_key)
    n_read = _n_read(data, pretrained)
    values = translate_cells(data, pretrained, token_ids, batch_size=batch_size)
    warn_of_empty_cells(data, pretrained, "their values are NaN")
    _warn_of_flat_cells(values, data, pretrained)
    params = {**provenance(pretrained), "obsm_key": keys.obsm, "n_genes_read": n_read, **data.facts()}

    def change(target: AnnData) -> None:
        target.obsm[keys.obsm] = pd.DataFrame(values, index=target.obs_names, columns=names)
        target.uns[keys.uns] = {"params": params}

    return write(adata, change, copy=copy)


def _warn_of_flat_cells(values: np.ndarray, data: Input, pretrained: Pretrained) -> None:
    """Warn of cells whose genes all have the same count, as cells with a single known gene have."""
    rows = np.setdiff1d(np.flatnonzero(np.isnan(values).any(axis=1)), data.empty_cells)
    if len(rows):
        msg = (
            f"{counted(data, rows)} have no values ({first_names(data, rows)}), most likely because all their known "
            f"genes have the same count: {pretrained.name!r} scales each cell from its smallest to its largest. To "
            "remove such cells, use `sc.pp.filter_cells(adata, min_genes=...)`."
        )
        warn_user(msg)


def _names(features: Sequence[str]) -> list[str]:
    """Return the features as a list of different names."""
    if isinstance(features, str):
        msg = f"`features` is the text {features!r}; expected a list of names."
        raise TypeError(msg)
    names = list(map(str, features))
    if not names:
        msg = "`features` is empty; name the features whose values are asked for."
        raise ValueError(msg)
    if len(set(names)) < len(names):
        twice = next(name for number, name in enumerate(names) if name in names[:number])
        msg = f"`features` names {twice!r} twice; each has one column."
        raise ValueError(msg)
    return names


def _n_read(data: Input, pretrained: Pretrained) -> int:
    """Return how many genes a sentence holds, and say so where some are cut."""
    n_known, longest = len(data.alignment.var_index), pretrained.encoding.max_tokens
    n_read = n_known if longest is None else min(n_known, as_int(longest))
    if n_read < n_known:
        logger.info("%s reads the first %d of %d known genes, in the order of var", pretrained.name, n_read, n_known)
    return n_read
