"""Vocabularies that are one of several tables, chosen by the model's own table of genes."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from sclcm._sizes import as_int
from sclcm.genes.vocabulary import GeneVocabulary
from sclcm.models._gene_lists import read_table

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from sclcm.zoo._row_genes import RowGenes


class Files(Protocol):
    """Where the files of a release are looked for, and which of them were used."""

    @property
    def used(self) -> list[Path]:
        """The files that were used."""

    def file(self, patterns: Sequence[str], *, optional: bool = False) -> Path | None:
        """Return the one file that fits; `None` if none does and that is allowed."""


def read_row_genes(source: RowGenes, release: Files) -> GeneVocabulary:
    """Read the table whose genes fill the model's own; the sizes of the declaration are filled in."""
    genes = _fitting(source, release)
    specials = [source.pad, *(name for name, is_there in source.after if is_there)]
    ids = [0, *range(as_int(source.table), as_int(source.table) + len(specials) - 1)]
    if "" in genes or len({*genes, *specials}) < len(genes) + len(specials):
        msg = f"{release.used[-1].name!r} names a gene twice, or one like a special token, or none in some row."
        raise ValueError(msg)
    return GeneVocabulary.from_mapping(
        {**dict(zip(specials, ids, strict=True)), **{name: i for i, name in enumerate(genes, 1)}},
        specials=specials,
        ids=source.ids,
        species=source.species,
    )


def _fitting(source: RowGenes, release: Files) -> list[str]:
    """Return the genes of the first table that fits; an error says how long those are that do not."""
    is_first, more = source.files_with
    patterns = (*more, *source.files) if is_first else (*source.files, *more)
    n_rows, found = as_int(source.table), {}
    for pattern in patterns:
        file = release.file((pattern,), optional=True)
        if file is None:
            continue
        genes = [row[0] if row else "" for row in read_table(file, delimiter=",")[1:]]
        needed = -(-(len(genes) + 1) // source.multiple) * source.multiple
        if needed == n_rows:
            return genes
        found[file.name] = needed
        release.used.remove(file)
    if not found:
        release.file(patterns)  # which says what is missing
    told = ", ".join(f"{name!r} needs {rows}" for name, rows in found.items())
    msg = (
        f"The model's table of genes has {n_rows} rows, but {told}; they belong to different models. Pass the folder "
        "with the list of this model's genes, as in `load(..., vocabulary='folder')`."
    )
    raise ValueError(msg)
