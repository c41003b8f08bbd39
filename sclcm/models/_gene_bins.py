"""Vocabularies with a token for each pair of a gene and a bin."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from sclcm._sizes import as_int
from sclcm.checkpoints.readers import read_array
from sclcm.genes.vocabulary import GeneVocabulary

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sclcm.genes.names import IdType
    from sclcm.models._gene_lists import Files
    from sclcm.zoo._gene_bins import GeneBinVocabulary


def read_gene_bins(source: GeneBinVocabulary, release: Files) -> GeneVocabulary:
    """Read the genes of such a vocabulary."""
    file = release.file(source.files)
    names = read_array(file) if file is not None else None
    if not isinstance(names, np.ndarray) or names.ndim != 1 or names.dtype.kind != "U":
        msg = f"{file and file.name!r} is no list of gene names; get it from where the model was trained."
        raise ValueError(msg)
    return gene_bin_vocabulary(source, names.tolist(), ids=source.ids, species=source.species)


def gene_bin_vocabulary(
    source: GeneBinVocabulary, genes: Sequence[str], *, ids: IdType, species: tuple[str, ...]
) -> GeneVocabulary:
    """Return the vocabulary: each gene by the token of its bin zero, and the mask after the last pair."""
    n_bins = as_int(source.n_bins)
    return GeneVocabulary(
        features=np.array(genes, dtype=object),
        token_ids=np.arange(len(genes)) * n_bins,
        specials={source.mask: len(genes) * n_bins},
        ids=ids,
        species=species,
    )
