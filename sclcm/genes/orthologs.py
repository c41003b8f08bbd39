"""Orthologues of human and mouse genes, as shipped: which Ensembl id of one species stands for which of the other.

The table is made by `scripts/build_ortholog_table.py` from Ensembl's public homologies. Only pairs of which each gene
has no other partner are taken as the same gene: where a family has grown in one species, counts of one gene would
become those of another by a guess.
"""

from __future__ import annotations

import json
import lzma
from dataclasses import dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import TYPE_CHECKING

import numpy as np

from sclcm.genes.table import load_table

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from sclcm.genes.table import Species


@dataclass(frozen=True, kw_only=True, eq=False)
class Orthologs:
    """Pairs of orthologous genes.

    Parameters
    ----------
    version, sources
        Release of the table's source, and what it was made from.
    human, mouse
        Ensembl ids of each pair.
    """

    version: str
    sources: tuple[str, ...]
    human: list[str]
    mouse: list[str]

    @cached_property
    def partners(self) -> Mapping[Species, Mapping[str, tuple[str, ...]]]:
        """For each species the partners, in the other, of each of its genes that has some."""
        found: dict[Species, dict[str, tuple[str, ...]]] = {"human": {}, "mouse": {}}
        for human, mouse in zip(self.human, self.mouse, strict=True):
            found["human"][human] = (*found["human"].get(human, ()), mouse)
            found["mouse"][mouse] = (*found["mouse"].get(mouse, ()), human)
        return found

    def find(self, ids: Iterable[str | None], *, to: Species) -> tuple[np.ndarray, np.ndarray]:
        """Return the orthologue of each Ensembl id of the other species, and why there is none where there is none.

        Parameters
        ----------
        ids
            Ensembl ids; `None` for a name that was not read.
        to
            The species of the orthologues.

        Returns
        -------
        Object arrays: ids, or `None`; and `"one"`, `"several"` or `"none"`.
        """
        there, back = self.partners["mouse" if to == "human" else "human"], self.partners[to]
        listed = list(ids)
        targets, how = np.full(len(listed), None, dtype=object), np.full(len(listed), "none", dtype=object)
        for i, ensembl in enumerate(listed):
            partners = () if ensembl is None else there.get(ensembl, ())
            if len(partners) == 1 and len(back[partners[0]]) == 1:
                targets[i], how[i] = partners[0], "one"
            elif partners:
                how[i] = "several"
        return targets, how


@cache
def load_orthologs() -> Orthologs:
    """Return the table, read once."""
    text = lzma.decompress((files("sclcm.genes") / "orthologs.tsv.xz").read_bytes()).decode()
    first, *lines = text.split("\n")
    header = json.loads(first)
    n = header["n"]
    human, mouse = (
        [load_table(species).prefix + number.zfill(11) for number in lines[i * n : (i + 1) * n]]
        for i, species in enumerate(("human", "mouse"))
    )
    return Orthologs(version=header["version"], sources=tuple(header["sources"]), human=human, mouse=mouse)
