"""An input aligned as the authors of a family do, for measurements."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np

from sclcm.data.genes import VAR_NAMES, gene_names
from sclcm.models._pass import Input, open_input
from sclcm.models._species import fit_species

if TYPE_CHECKING:
    from anndata import AnnData

    from sclcm.data.context import Conditions
    from sclcm.models._pretrained import Pretrained


def of_species_of(adata: AnnData, pretrained: Pretrained) -> Pretrained:
    """Return a model that reads several species as that of the input, or as it is where the genes do not tell."""
    try:
        return fit_species(adata, pretrained)[0]
    except ValueError:
        return pretrained


def aligned_input(adata: AnnData, pretrained: Pretrained, conditions: Conditions | None = None) -> Input:
    """Return an input aligned by what the authors go by: their own map of names, or equal names."""
    columns = [column for column in pretrained.gene_columns if column in adata.var]
    first = (*columns, None if _has_map(pretrained) else VAR_NAMES)[0]  # even where another column would match more
    data = _read_by(first, adata, pretrained, conditions=conditions)
    if first is None or len(data.alignment.var_index):
        return data
    # Those are no genes, so the authors have read other names.
    return _read_by(None, adata, pretrained, conditions=conditions)


def _has_map(pretrained: Pretrained) -> bool:
    vocabulary = pretrained.vocabulary
    return any(map_ is not None for map_ in (vocabulary.names, vocabulary.universe, vocabulary.synonyms))


def _read_by(gene_key: str | None, adata: AnnData, pretrained: Pretrained, *, conditions: Conditions | None) -> Input:
    data = open_input(adata, pretrained, gene_key=gene_key, conditions=conditions, check_fit=False)
    return data if _has_map(pretrained) else _by_equal_names(data, pretrained)


def _by_equal_names(data: Input, pretrained: Pretrained) -> Input:
    """Leave out of an alignment what the resolver has read; the authors' code knows a gene by its exact name alone."""
    alignment, vocabulary = data.alignment, pretrained.vocabulary
    listed = gene_names(data.source.var, data.gene_key)
    names = np.array([vocabulary.respelt(listed[i]) for i in alignment.var_index.tolist()], dtype=object)
    features = vocabulary.features[alignment.feature_index]
    if vocabulary.ignore_case:
        names, features = (np.array([name.upper() for name in kind], dtype=object) for kind in (names, features))
    same = names == features
    kept = {"var_index": alignment.var_index[same], "feature_index": alignment.feature_index[same]}
    return dataclasses.replace(data, alignment=dataclasses.replace(alignment, **kept))
