"""Which column of var names the genes, and whether a model knows enough of them.

Names that occur more than once are allowed: columns of one gene have their counts summed (`GeneAlignment`), which is
what two Ensembl ids of one symbol, or a gene and its alternative contig, call for. `align_genes` reports them.
"""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING, get_args

import pandas as pd

from sclcm._settings import settings
from sclcm.genes.align import align_genes
from sclcm.genes.table import Species

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    import numpy as np

    from sclcm.genes.align import GeneAlignment
    from sclcm.genes.vocabulary import GeneVocabulary

VAR_NAMES = "var_names"
"""What the index of var is called where a column of var could be named."""

_KNOWN_COLUMNS = (
    *("ensembl_id", "ensembl_ids", "gene_ids", "gene_id", "feature_id", "feature_ids", "ensembl", "ensembl_gene_id"),
    *("feature_name", "gene_symbol", "gene_symbols", "gene_name", "gene_names", "symbol", "symbols", "hgnc_symbol"),
)
_GOOD_ENOUGH = 0.9  # of the best candidate's features: an earlier candidate is then preferred
_GENOME = re.compile(r"(?:GRC[a-z]|hg|mm|rn|CHM)\d+[^_\s]*_+")
_GENOMES = {"human": ("GRCh", "hg", "CHM"), "mouse": ("GRCm", "mm")}
_VERSION = re.compile(r"ENS[A-Z]*G\d{11}\.\d+")
_MANY = 0.1  # of the names
_MUCH_OF_VOCABULARY = 0.5  # data that has so much of it may have many other genes


def choose_gene_names(
    var: pd.DataFrame,
    vocabulary: GeneVocabulary,
    *,
    gene_key: str | None,
    preferred: Sequence[str] = (),
    species: str | None = None,
) -> tuple[GeneAlignment, str]:
    """Choose where gene names are read from, and align them.

    Parameters
    ----------
    var
        The table of genes.
    vocabulary
        The features to map to.
    gene_key
        Column of var, or `"var_names"`. `None` takes the first of: the preferred columns, the var names, columns of
        well-known name; unless a later one maps to more features, by a tenth or more.
    preferred
        Columns that the model's own documentation asks for.
    species
        `"human"` or `"mouse"`; `None` tells it from the names.

    Returns
    -------
    The alignment, and the column that was used, or `"var_names"`.
    """
    if gene_key is not None:
        return align_genes(gene_names(var, gene_key), vocabulary, species=species), gene_key
    found: list[tuple[GeneAlignment, str]] = []
    for key in candidate_columns(var, preferred):
        found.append((align_genes(gene_names(var, key), vocabulary, species=species), key))
        if found[0][0].report.n_covered >= _GOOD_ENOUGH * len(var):
            break  # the first: no other can have a tenth more
    best = max(alignment.report.n_covered for alignment, _ in found)
    return next(pair for pair in found if pair[0].report.n_covered >= _GOOD_ENOUGH * best)


def gene_names(var: pd.DataFrame, gene_key: str) -> list[str]:
    """Return a column of var, or its index for `"var_names"`, as str without blanks around; missing names are empty."""
    if pd.api.types.is_hashable(gene_key) and gene_key in var.columns:
        names = var[gene_key]
        if isinstance(names, pd.DataFrame):
            msg = f"var has {names.shape[1]} columns {gene_key!r}; rename all but one, or pass another as `gene_key`"
            raise ValueError(msg)
    elif gene_key == VAR_NAMES:
        names = var.index.to_series()
    else:
        msg = (
            f"var has no column {gene_key!r}; its columns are {list(var.columns)}. Pass one with gene names as "
            f"`gene_key`, or `gene_key={VAR_NAMES!r}` for the names of var themselves"
        )
        raise ValueError(msg)
    listed = names.tolist()
    if {*map(type, listed)} == {str}:
        return list(map(str.strip, listed))
    missing = names.isna().tolist()
    return ["" if is_missing else str(name).strip() for name, is_missing in zip(listed, missing, strict=True)]


def candidate_columns(var: pd.DataFrame, preferred: Sequence[str]) -> Iterator[str]:
    """Yield where gene names may be: the preferred columns, `"var_names"`, then columns of well-known name."""
    by_lower_case = {str(column).lower(): str(column) for column in reversed(var.columns)}
    known = [by_lower_case[name] for name in _KNOWN_COLUMNS if name in by_lower_case]
    columns = [column for column in preferred if column in var.columns]
    # A column that is itself called `var_names` would shadow the index; it is an odd name for anything else.
    for key in dict.fromkeys([*columns, VAR_NAMES, *known]):
        column = var[key] if key in var.columns else None
        if column is None or (isinstance(column, pd.Series) and not pd.api.types.is_numeric_dtype(column)):
            yield key


def require_overlap(
    alignment: GeneAlignment,
    *,
    model: str,
    vocabulary: GeneVocabulary,
    names: Iterable[str],
    min_genes: int | None = None,
    min_share: float | None = None,
) -> None:
    """Raise if a model does not know the species, or too few of the genes, of the data.

    Parameters
    ----------
    alignment
        Of the names to the vocabulary.
    model
        Name of the model, for the message.
    vocabulary
        Of the model.
    names
        The gene names that were aligned.
    min_genes
        Fewest genes that have to match (never more than the vocabulary has); `None`: `settings.min_genes_matched`.
    min_share
        Smallest share of the genes that has to match, unless half of the vocabulary does; `None`: `settings.min_share`.
    """
    report = alignment.report
    if report.species is not None and report.species not in vocabulary.species:
        raise ValueError(_wrong_species(report.species, model=model, vocabulary=vocabulary))
    fewest = min(settings.min_genes_matched if min_genes is None else min_genes, vocabulary.n_features)
    share = settings.min_share if min_share is None else min_share
    if report.n_matched < fewest:
        floor = f"at least {fewest}"
        remedy = "lower `sclcm.settings.min_genes_matched`"
    elif report.matched_share < share and report.coverage < _MUCH_OF_VOCABULARY:
        floor = f"at least {share:.0%} of them"
        remedy = "lower `sclcm.settings.min_share`"
    else:
        return
    listed = [str(name) for name in names]
    msg = (
        f"{model!r} knows {report.n_matched:,} of the {report.n_var:,} genes of the data, expected {floor}. Genes of "
        f"the data are named {_examples(listed)}, of the model {_examples(vocabulary.features)}; pass `gene_key`, the "
        f"column of var that holds {_kind(vocabulary)}, or {remedy} if the data has few genes on purpose"
        f"{_hint_of_genome(listed, vocabulary) or _hint_of_version(listed, alignment)}"
        f"{_hint_of_species(listed, alignment, vocabulary)}"
    )
    raise ValueError(msg)


def _wrong_species(species: str, *, model: str, vocabulary: GeneVocabulary) -> str:
    known = " and ".join(vocabulary.species)
    return (
        f"the genes of the data are {species} genes, and {model!r} was trained on {known}; choose a model that knows "
        f"{species}, or rename the genes to their {vocabulary.species[0]} orthologues first"
        f"{_by_orthologs(species, vocabulary)}"
    )


def _by_orthologs(species: str | None, vocabulary: GeneVocabulary) -> str:
    """How to do so, where this package can."""
    mine, known = vocabulary.species[0], get_args(Species)
    if species == mine or species not in known or mine not in known:
        return ""
    keep = ", unmapped='keep'" if species in vocabulary.species else ""
    return f": `adata = sclcm.pp.map_orthologs(adata, to={mine!r}{keep})`"


def _hint_of_genome(names: list[str], vocabulary: GeneVocabulary) -> str:
    """Names that were aligned to several genomes begin with the one they are of: say how to take the right ones."""
    counted = Counter(found[0] for name in names if (found := _GENOME.match(name)))
    own = [genome for genome, _ in counted.most_common() if genome.startswith(_GENOMES.get(vocabulary.species[0], ()))]
    genome = next(iter([*own, *counted]), "")
    if counted[genome] < _MANY * len(names) or not genome:
        return ""
    return (
        f". {counted[genome]:,} of them begin with {genome!r}, a genome: keep those, without it, by "
        f"`adata = adata[:, adata.var_names.str.startswith({genome!r})].copy()` and "
        f"`adata.var_names = adata.var_names.str.removeprefix({genome!r})`"
    )


def _hint_of_version(names: list[str], alignment: GeneAlignment) -> str:
    """Some authors' own map knows ids without a version alone: say how to take it off."""
    n_versions = sum(
        feature < 0 and _VERSION.fullmatch(name) is not None
        for name, feature in zip(names, alignment.feature_of_var.tolist(), strict=True)
    )
    if n_versions < _MANY * len(names):
        return ""
    return f". {n_versions:,} are ids with a version; without it, by `adata = sclcm.pp.unify_genes(adata)`, they may be"


def _hint_of_species(names: list[str], alignment: GeneAlignment, vocabulary: GeneVocabulary) -> str:
    """Without a species letter case is not guessed: say how to tell it, where that would help."""
    species = vocabulary.species[0]
    if call := _by_orthologs(alignment.report.species, vocabulary):
        return f". These are {alignment.report.species} genes; it may know them by their {species} orthologues{call}"
    given = align_genes(names, vocabulary, species=species) if alignment.report.species is None else alignment
    if given.report.n_matched < 2 * alignment.report.n_matched + 10:
        return ""
    return (
        f". Read as {species} names in another letter case, {given.report.n_matched:,} of them are known: if that is "
        f"what they are, `adata = sclcm.pp.unify_genes(adata, species={species!r})`"
    )


def _kind(vocabulary: GeneVocabulary) -> str:
    return "Ensembl gene ids" if vocabulary.ids == "ensembl" else "gene symbols"


def _examples(names: Sequence[str] | np.ndarray) -> str:
    return ", ".join(repr(str(name)) for name in names[:3]) + (", ..." if len(names) > 3 else "")
