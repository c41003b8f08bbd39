"""The species of each cell: from the genes that are measured, or as the caller says; never a guess."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from scipy.sparse import csr_matrix

if TYPE_CHECKING:
    from sclcm.encoding.chunks import CellChunk
    from sclcm.genes.align import GeneAlignment
    from sclcm.genes.vocabulary import GeneVocabulary

_SPELLINGS = {
    "human": ("human", "homo sapiens", "h. sapiens", "ncbitaxon:9606"),
    "mouse": ("mouse", "mus musculus", "m. musculus", "ncbitaxon:10090"),
}
_KNOWN = {spelling: species for species, spellings in _SPELLINGS.items() for spelling in spellings}


def species_name(written: str) -> str:
    """Return the name of a species as models know it, however human and mouse are spelt."""
    bare = written.strip().lower()
    return _KNOWN.get(bare, bare.replace(" ", "_"))


def species_of_data(obs: pd.DataFrame, species: str | int | None) -> str | None:
    """Return the one species that the caller names or that a column says of all cells; `None` if there is none.

    Parameters
    ----------
    obs
        The table of the cells.
    species
        A species, a column of `obs`, or `None`.
    """
    if species is None or _said(species) is not None:
        return None if species is None else _said(species)
    named = _named(obs, species)
    return str(named.iloc[0]) if named.nunique() == 1 else None


def number_species(
    obs: pd.DataFrame, alignment: GeneAlignment, vocabulary: GeneVocabulary, *, species: str | int | None, model: str
) -> np.ndarray:
    """Number the species of cells.

    Parameters
    ----------
    obs
        The table of the cells.
    alignment
        Of their genes.
    vocabulary
        Of the model; numbers follow the order of its species.
    species
        A species, a column of `obs` that names that of each cell, or `None` to tell it from the genes.
    model
        Name of the model, for messages.

    Returns
    -------
    Shape `(cells,)`, int64.

    Raises
    ------
    KeyError
        There is no such column.
    ValueError
        The model does not know a species, or the genes are of several.
    """
    known = vocabulary.species
    if species is None:
        return np.full(len(obs), _by_genes(alignment, vocabulary, model), dtype=np.int64)
    if (said := _said(species)) is not None:
        return np.full(len(obs), _number(said, known, model), dtype=np.int64)
    codes, names = pd.factorize(_named(obs, species))
    return np.array([_number(name, known, model) for name in names], dtype=np.int64)[codes]


def own_genes(chunk: CellChunk, vocabulary: GeneVocabulary, species_b: np.ndarray) -> CellChunk:
    """Leave out the counts of genes that are of another species than their cell.

    Parameters
    ----------
    chunk
        Some cells.
    vocabulary
        Says of which species a feature is.
    species_b
        Number of each cell's species, shape `(cells,)`.
    """
    counts = chunk.counts
    row_of = np.repeat(np.arange(counts.shape[0]), np.diff(counts.indptr))
    own = vocabulary.species_of_features[counts.indices] == species_b[row_of]
    if own.all():
        return chunk
    indptr = np.concatenate([[0], np.cumsum(own)])[counts.indptr].astype(counts.indptr.dtype)
    kept = csr_matrix((counts.data[own], counts.indices[own], indptr), shape=counts.shape)
    return dataclasses.replace(chunk, counts=kept)


def _said(species: str | int) -> str | None:
    """Return the species that a word names."""
    return _KNOWN.get(species.strip().lower()) if isinstance(species, str) else None


def _named(obs: pd.DataFrame, key: str | int) -> pd.Series:
    """Return the species of each cell by its name here, as strings."""
    if key not in obs:
        msg = (
            f"The condition 'species' is {key!r}, neither a species ({', '.join(map(repr, _SPELLINGS))}) nor a column "
            f"of `.obs`; its columns are {list(obs.columns)}."
        )
        raise KeyError(msg)
    written = obs[key].astype("string").str.strip().str.lower()
    named = written.map(_KNOWN)
    if named.isna().any():
        wrong = obs[key][named.isna()].iloc[0]
        shown = "missing" if pd.isna(wrong) else repr(wrong)
        msg = (
            f"`.obs[{key!r}]` is {shown} for {int(named.isna().sum())} cells; expected 'human' or 'mouse' (or the "
            "Latin names) for each cell."
        )
        raise ValueError(msg)
    return named


def _number(name: str, known: tuple[str, ...], model: str) -> int:
    if name not in known:
        msg = f"The cells are said to be {name} cells, but {model!r} was trained on {' and '.join(known)}."
        raise ValueError(msg)
    return known.index(name)


def _by_genes(alignment: GeneAlignment, vocabulary: GeneVocabulary, model: str) -> int:
    numbers, n_genes = np.unique(vocabulary.species_of_features[alignment.feature_index], return_counts=True)
    if len(numbers) == 1 and numbers[0] >= 0:
        return int(numbers[0])
    counted = zip(numbers.tolist(), n_genes.tolist(), strict=True)
    kinds = [f"{n:,} {vocabulary.species[number]}" for number, n in counted if number >= 0]
    found = f"has {' and '.join(kinds)} genes" if kinds else "has no genes that tell it"
    msg = (
        f"{model!r} needs the species of each cell, but the data {found}. Say it by `conditions={{'species': ...}}`: "
        f"{' or '.join(map(repr, vocabulary.species))} for all cells, or the column of `.obs` that names it. Genes of "
        "another species than their cell are then left out."
    )
    raise ValueError(msg)
