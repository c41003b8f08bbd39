"""Vocabularies whose token ids are reached by way of the numbers of a public registry."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from sclcm._sizes import as_int
from sclcm.genes.vocabulary import GeneVocabulary

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from sclcm.models._gene_lists import Files
    from sclcm.zoo._modules import LinkedIds

_LARGEST = 1 << 31


def read_linked_ids(source: LinkedIds, release: Files) -> GeneVocabulary:
    """Read a vocabulary from a dictionary name -> number and one number -> token id."""
    n_tokens = as_int(source.n_tokens)
    number_of = _texts(release.dictionary(source.names), "names of genes")
    token_of = {number: _token_id(token) for number, token in _texts(release.dictionary(source.files), "ids").items()}
    tokens = {name: _kept(token_of.get(number), source, n_tokens) for name, number in number_of.items()}
    vocabulary = _named(source, tokens, species=source.species[0])
    siblings = {}
    for species, dictionaries in source.homologues.items():
        names = _homologues(dictionaries, release, species)
        found = {name: tokens.get(other) for name, other in names.items()}
        if any(token is not None for token in found.values()):
            siblings[species] = _named(source, found, species=species)
    return dataclasses.replace(vocabulary, siblings=siblings)


def _homologues(dictionaries: Sequence[Sequence[str]], release: Files, species: str) -> dict[str, str]:
    """Return all names of a species with those of their homologues; none without the dictionary of its symbols."""
    files = [release.file(patterns, optional=True) for patterns in dictionaries]
    if not files or files[0] is None:
        return {}
    read = [_texts(release.mapping(file), f"{species} genes") for file in files if file is not None]
    return {name: other for names in read for name, other in names.items()}


def _kept(token: int | None, source: LinkedIds, n_tokens: int) -> int | None:
    return token if token is not None and token != source.pad_id and token < n_tokens else None


def _named(source: LinkedIds, token_of: Mapping[str, int | None], *, species: str) -> GeneVocabulary:
    """Make a vocabulary of names with their token ids; the first name of an id is the feature's."""
    features: dict[int, str] = {}
    synonyms: dict[str, tuple[str, ...]] = {}
    for name, token in token_of.items():
        if token is None:
            continue
        first = features.setdefault(token, name)
        if first != name:
            synonyms[name] = (first,)
    tokens = np.array(sorted(features), dtype=np.int64)
    return GeneVocabulary(
        features=np.array([features[token] for token in tokens.tolist()], dtype=object),
        token_ids=tokens,
        specials={source.pad: source.pad_id},
        ids=source.ids,
        species=(species,),
        synonyms=synonyms,
        merge=source.merge,
    )


def _texts(content: Mapping[str, Any], what: str) -> dict[str, str]:
    """Return a dictionary of text, numbers as text."""
    pairs = [(str(key), str(value)) for key, value in content.items() if isinstance(value, str | int)]
    if len(pairs) < len(content):
        msg = f"The dictionary of {what} holds something else than text and numbers. Get the file from its authors."
        raise ValueError(msg)
    return dict(pairs)


def _token_id(text: str) -> int:
    if not text.isdecimal() or int(text) >= _LARGEST:
        msg = f"The dictionary of ids gives {text!r}; expected a number, 0 or more. Get the file from its authors."
        raise ValueError(msg)
    return int(text)
