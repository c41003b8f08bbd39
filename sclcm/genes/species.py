"""Tell species apart by the beginnings of Ensembl's gene ids."""

from __future__ import annotations

import re
from collections import Counter
from typing import TYPE_CHECKING

from sclcm.genes.table import as_ensembl

if TYPE_CHECKING:
    from collections.abc import Iterable

PREFIXES = {
    "ENSG": "human",
    "ENSMUSG": "mouse",
    "ENSMFAG": "macaca_fascicularis",
    "ENSMMUG": "macaca_mulatta",
    "ENSMICG": "mouse_lemur",
    "ENSSSCG": "pig",
    "ENSXETG": "frog",
    "ENSDARG": "zebrafish",
}
"""What gene ids of Ensembl begin with, before eleven digits."""

_ID = re.compile(r"(ENS[A-Z]*G)\d{11}(\.\d+)?")


def species_of_id(name: str) -> str | None:
    """Return the species of an Ensembl gene id; `None` if it is unknown here, and for any other text."""
    found = as_ensembl(name)
    return None if found is None else PREFIXES.get(found[0][:-11])


def species_of_ids(names: Iterable[str]) -> str | None:
    """Return the species of most Ensembl gene ids among names; `None` if there are none, or of species unknown here.

    Data of any species hold some ids, as not every gene has a symbol.
    """
    found = Counter(match[1] for match in map(_ID.fullmatch, names) if match)
    return PREFIXES.get(found.most_common(1)[0][0]) if found else None
