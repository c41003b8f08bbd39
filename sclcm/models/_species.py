"""Which of the species that a model knows a data set is of."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING

from sclcm.data.context import said_conditions
from sclcm.data.genes import candidate_columns, choose_gene_names, gene_names
from sclcm.data.matrix import as_frame
from sclcm.data.species import species_name
from sclcm.genes.species import species_of_ids

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

    from sclcm.data.context import Conditions
    from sclcm.genes.vocabulary import GeneVocabulary
    from sclcm.models._pretrained import Pretrained

logger = logging.getLogger("sclcm")

_NEAR = 0.9
"""Of the genes that the best species explains: one that explains so many is as likely."""


def fit_species(
    adata: AnnData,
    pretrained: Pretrained,
    conditions: Conditions | None = None,
    *,
    use_raw: bool = False,
    gene_key: str | None = None,
) -> tuple[Pretrained, Conditions]:
    """Return a model that reads the genes of several species, each by a table of its own, as that of a data set.

    Any other model is returned as it is.

    Parameters
    ----------
    adata
        The data set.
    pretrained
        The model.
    conditions
        What the caller says of the cells: `"species"` is one, or the column of obs that names the one of all cells.
    use_raw
        Whether genes are those of `.raw`.
    gene_key
        Column of var with gene names, or `None` to find it.

    Returns
    -------
    The model, and the conditions that are left to it.
    """
    left = said_conditions(conditions)
    if not pretrained.vocabulary.siblings:
        return pretrained, left
    said = left.pop("species", None)
    if said is None:
        var = adata.raw.var if use_raw and adata.raw is not None else adata.var
        chosen = _tell(pretrained, var, gene_key)
        logger.info("%s: reading the genes as those of %s", pretrained.name, chosen.species[0])
    else:
        chosen = pretrained.vocabulary.of_species(_said(as_frame(adata.obs), pretrained.vocabulary, str(said)))
    return dataclasses.replace(pretrained, vocabulary=chosen), left


def _said(obs: pd.DataFrame, vocabulary: GeneVocabulary, said: str) -> str:
    """Return the species that is said, or that a column says of all cells."""
    known = (*vocabulary.species, *vocabulary.siblings)
    if species_name(said) in known:
        return species_name(said)
    if said not in obs:
        msg = (
            f"The condition 'species' is {said!r}, neither a species that the model knows "
            f"({', '.join(map(repr, known))}) nor a column of `.obs`; its columns are {list(obs.columns)}."
        )
        raise KeyError(msg)
    names = obs[said].unique()
    if len(names) != 1 or species_name(str(names[0])) not in known:
        msg = (
            f"`.obs[{said!r}]` names {', '.join(map(repr, map(str, names[:5])))}; expected one of "
            f"{', '.join(map(repr, known))} for all cells. Embed the cells of each species on their own."
        )
        raise ValueError(msg)
    return species_name(str(names[0]))


def _tell(pretrained: Pretrained, var: pd.DataFrame, gene_key: str | None) -> GeneVocabulary:
    """Tell the species: by ids that name it, else by the genes; of equally likely ones that which symbols speak for."""
    known = {v.species[0]: v for v in (pretrained.vocabulary, *pretrained.vocabulary.siblings.values())}
    keys = candidate_columns(var, pretrained.gene_columns) if gene_key is None else [gene_key]
    by_id = species_of_ids(name for key in keys for name in gene_names(var, key))
    if by_id is not None and by_id in known:
        return known[by_id]
    reports = {
        species: choose_gene_names(var, vocabulary, gene_key=gene_key, preferred=pretrained.gene_columns)[0].report
        for species, vocabulary in known.items()
    }
    most = max(report.n_covered for report in reports.values())
    near = [species for species, report in reports.items() if report.n_covered >= _NEAR * most]
    told = [species for species in near if any(report.species == species for report in reports.values())]
    if len(told) == 1:
        return known[told[0]]
    if most and len(near) > 1:
        counts = ", ".join(f"{species} ({reports[species].n_covered:,})" for species in near)
        msg = (
            f"The genes of the data could be of several species that {pretrained.name!r} knows: {counts}. Say which, "
            f"as in `conditions={{'species': {near[0]!r}}}`, or when the model is loaded, `load(..., species=...)`."
        )
        raise ValueError(msg)
    return known[near[0]] if most else pretrained.vocabulary
