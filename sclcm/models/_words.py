"""Vocabularies of tokenizers whose words are gene names: read, and text cut into their words."""

from __future__ import annotations

import re
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING, Any

from sclcm.checkpoints.plain import FormatError
from sclcm.genes.vocabulary import GeneVocabulary

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sclcm.models._gene_lists import Files
    from sclcm.zoo._vocabularies import WordVocabulary

_WORDS = re.compile(r"\w+|[^\w\s]+")
_NEEDED = {"model.type": "WordLevel", "pre_tokenizer.type": "Whitespace", "normalizer": None}


def read_word_vocabulary(source: WordVocabulary, release: Files) -> GeneVocabulary:
    """Read the vocabulary of a tokenizer that knows each word by its exact spelling."""
    content = release.dictionary(source.files)
    for place, wanted in _NEEDED.items():
        found = _entry(content, place)
        if found != wanted:
            msg = (
                f"`{place}` of the tokenizer is {found!r}, but only tokenizers with {wanted!r} are known of this "
                "family; its tokens would mean something else."
            )
            raise ValueError(msg)
    words = _entry(content, "model.vocab")
    if not isinstance(words, dict):
        msg = "The tokenizer has no `model.vocab` with its words; the file is damaged. Get it from its authors."
        raise FormatError(msg)
    if missing := [token for token in source.specials if token not in words]:
        msg = f"The tokenizer lacks the token {missing[0]!r}; the file is damaged or of another family."
        raise ValueError(msg)
    reserved = [word for word in words if any(fnmatchcase(word, pattern) for pattern in source.reserved)]
    return GeneVocabulary.from_mapping(
        words,
        specials=dict.fromkeys((*source.specials, *reserved)),
        ids=source.ids,
        species=source.species,
        respell=source.respell,
    )


def _entry(content: Mapping[str, Any], place: str) -> Any:
    """Return an entry, dots leading into nested objects; `None` where it is missing."""
    found: Any = content
    for part in place.split("."):
        found = found.get(part) if isinstance(found, dict) else None
    return found


def split_words(text: str, *, whole: Iterable[str] = ()) -> list[str]:
    """Cut text into words: runs of letters, digits and underscores, and runs of other characters between blanks.

    Parameters
    ----------
    text
        The text.
    whole
        Special tokens, which are found first, wherever they stand, and are words of their own.
    """
    longest_first = sorted(whole, key=len, reverse=True)
    parts = re.split(f"({'|'.join(map(re.escape, longest_first))})", text) if longest_first else [text]
    return [word for place, part in enumerate(parts) for word in ([part] if place % 2 else _WORDS.findall(part))]
