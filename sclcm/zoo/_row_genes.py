"""Declaration of vocabularies that are one of several tables."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from sclcm._sizes import Flag, Size


@dataclass(frozen=True, kw_only=True)
class RowGenes:
    """Tables with one gene a row, its name first; token ids count the rows from one, and zero is padding.

    Of several tables, that is taken whose genes fill the model's own table, which is as long as they need, rounded up.

    Parameters
    ----------
    files
        Patterns of the file, in order of preference: a table with a header, separated by commas.
    files_with
        Whether a checkpoint is of another kind, and patterns that come before the others in that kind, else after them.
    ids
        What the genes are named by.
    pad
        Name of the token with the id zero.
    table
        Rows of the model's table of genes.
    multiple
        To what these are rounded up.
    after
        Special tokens whose ids come after the table, each with whether a checkpoint has it.
    gene_columns
        Columns of var that the authors' input contract names.
    species
        Species of the genes.
    """

    files: tuple[str, ...]
    files_with: tuple[Flag, tuple[str, ...]]
    ids: Literal["ensembl", "symbol"]
    pad: str
    table: Size
    multiple: int
    after: tuple[tuple[str, Flag], ...]
    gene_columns: tuple[str, ...] = ()
    species: tuple[str, ...] = ("human",)

    @property
    def mask(self) -> None:
        """The token that hides another: none."""
        return

    @property
    def specials(self) -> tuple[str, ...]:
        """All special tokens."""
        return (self.pad, *(name for name, _ in self.after))
