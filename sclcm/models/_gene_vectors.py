"""Models that are tables of gene vectors: read from dictionaries, or made of a table of one's own."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from sclcm.checkpoints.files import find_one
from sclcm.encoding.select import InOrder
from sclcm.encoding.sentences import Encoding
from sclcm.encoding.values import Normalized
from sclcm.genes.names import guess_id_type, guess_species
from sclcm.genes.vocabulary import GeneVocabulary
from sclcm.models._build import build_lcm
from sclcm.models._digest import Digest
from sclcm.models._pretrained import Pretrained
from sclcm.nn.configs import LCMConfig
from sclcm.nn.fixed_configs import FixedVectors
from sclcm.nn.table_configs import ExpressionSum, NoBackbone
from sclcm.zoo._spec import Recipe

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from sclcm.models._release import Release
    from sclcm.zoo._gene_vectors import VectorGenes

OWN = "vectors"
PAD = "<pad>"
_MOST_GENES_OF_ONE = 16


# ---- files ----


def read_vector_genes(source: VectorGenes, release: Release) -> GeneVocabulary:
    """Return the genes of all tables of a release: those of the own table first."""
    tables = [release.dictionary(source.files)]
    tables += [release.dictionary(files) for files in source.others if has_file(release, files)]
    return vector_vocabulary(_genes_of(tables), pad=source.pad, ids=source.ids, species=source.species)


def has_file(release: Release, patterns: Sequence[str]) -> bool:
    """Whether a release has the file of a companion table."""
    try:
        find_one(release.places[0], patterns, also=release.places[1:])
    except FileNotFoundError:
        return False
    return True


def vector_vocabulary(genes: Sequence[str], *, pad: str, ids: Any, species: tuple[str, ...]) -> GeneVocabulary:
    """Number genes from zero, and padding after them."""
    return GeneVocabulary(
        features=np.array(genes, dtype=object),
        token_ids=np.arange(len(genes)),
        specials={pad: len(genes)},
        ids=ids,
        species=species,
    )


def _genes_of(tables: Iterable[Mapping[str, Any]]) -> list[str]:
    genes = list(dict.fromkeys(gene for table in tables for gene in table))
    if odd := [gene for gene in genes if not isinstance(gene, str) or not gene]:
        msg = f"A table of vectors has {odd[0]!r} among its genes; expected names."
        raise ValueError(msg)
    if not genes:
        msg = "The tables of vectors name no genes; expected a vector for each gene."
        raise ValueError(msg)
    return genes


def stack_vectors(table: Mapping[str, Any], genes: Sequence[str], what: str) -> np.ndarray:
    """Return the vectors of genes, zeros for genes that the table lacks, shape `(genes, width)`.

    In double precision where the table has it, else in single: thousands of products are added to a cell.
    """
    found = {gene: _as_vector(table[gene], gene, what) for gene in genes if gene in table}
    widths: dict[int, str] = {}  # the first gene of each length
    for gene, vector in found.items():
        widths.setdefault(len(vector), gene)
    if len(widths) != 1 or 0 in widths:
        listed = ", ".join(f"{widths[width]!r} has {width}" for width in list(widths)[:3]) or "it has none"
        msg = f"{what} must give all genes vectors of one length of 1 or more; {listed}."
        raise ValueError(msg)
    is_single = all(vector.dtype.itemsize <= 4 and vector.dtype.kind == "f" for vector in found.values())
    n_stored = len({id(table[gene]) for gene in found})  # what a file names often, it need not hold often
    if isinstance(table, dict) and len(found) > _MOST_GENES_OF_ONE * n_stored:
        msg = f"{what} gives {len(found):,} genes {n_stored:,} vectors; expected about one each. It is damaged."
        raise ValueError(msg)
    out = np.zeros((len(genes), next(iter(widths))), dtype=np.float32 if is_single else np.float64)
    for row, gene in enumerate(genes):
        if gene in found:
            out[row] = found[gene]
    if not np.isfinite(out).all():
        bad = genes[int(np.flatnonzero(~np.isfinite(out).all(1))[0])]
        msg = f"{what} has a vector of {bad!r} with numbers that are not finite; leave that gene out."
        raise ValueError(msg)
    return out


def _as_vector(value: Any, gene: str, what: str) -> np.ndarray:
    """Return one vector, flattened, as files store some with an axis more."""
    try:
        vector = np.asarray(value)
    except ValueError:
        vector = np.zeros(0, dtype=object)
    if vector.dtype.kind not in "fiu":
        msg = f"{what} has something else than numbers for {gene!r}; expected a vector."
        raise ValueError(msg)
    return vector.ravel()


def vector_tensor(table: Mapping[str, Any], genes: Sequence[str], what: str) -> torch.Tensor:
    """Return the table of a model: one row for each gene, and zeros for padding."""
    rows = stack_vectors(table, genes, what)
    return torch.from_numpy(np.concatenate([rows, np.zeros_like(rows[:1])]))


def recipes_with_tables(recipes: Mapping[str, Recipe], arrays: Mapping[str, np.ndarray]) -> dict[str, Recipe]:
    """Return the recipes of which all tables are there."""
    return {name: recipe for name, recipe in recipes.items() if tables_of(recipe) <= {OWN, *arrays}}


def tables_of(recipe: Recipe) -> set[str]:
    """Return the names of the tables that a recipe reads."""
    return set(recipe.pooling.tables) if isinstance(recipe.pooling, ExpressionSum) else set()


# ---- tables of one's own ----


def from_gene_vectors(
    vectors: pd.DataFrame | Mapping[str, Any],
    *,
    name: str = "gene_vectors",
    others: Mapping[str, pd.DataFrame | Mapping[str, Any]] | None = None,
) -> Pretrained:
    """Make a model from any table of gene vectors, such as embeddings of gene descriptions.

    Its cell vectors are sums of gene vectors weighted by expression, in any unit, and divided as the recipe says.
    It can be used, saved and loaded like any other model.

    Parameters
    ----------
    vectors
        A vector for each gene: a data frame with genes as its index, or a dictionary gene -> vector.
    name
        Name of the model, after which the slots it writes are named.
    others
        Further tables by name, for the recipes `"sum"` and `"concat"`; a gene missing from a table has zeros there.

    Returns
    -------
    The model. Its recipes are `"embed"` and `"wa"` (the sum divided by the cell's total) and `"aa"` (divided by the
    number of genes of the data); with further tables also `"sum"` (all tables added) and `"concat"` (tables side by
    side), both divided by the cell's total.

    Raises
    ------
    ValueError
        A gene is named twice, or a vector is not numeric, not finite or of a different length than the others.
    """
    tables = {OWN: as_dictionary(vectors, "`vectors`")}
    for key, table in (others or {}).items():
        if key == OWN:
            msg = f"`others` has a table {OWN!r}, as the first one is called; give it another name."
            raise ValueError(msg)
        tables[key] = as_dictionary(table, f"`others[{key!r}]`")
    genes = _genes_of(tables.values())
    told = guess_species(genes)
    vocabulary = vector_vocabulary(
        genes, pad=PAD, ids=guess_id_type(genes), species=("human", "mouse") if told is None else (told,)
    )
    tensor = vector_tensor(tables[OWN], genes, "`vectors`")
    arrays = {key: stack_vectors(table, genes, f"`others[{key!r}]`") for key, table in tables.items() if key != OWN}
    architecture = LCMConfig(
        d_model=tensor.shape[1], gene=FixedVectors(n_tokens=tensor.shape[0]), backbone=NoBackbone()
    )
    lcm = build_lcm(architecture, {"embed.gene.weight": tensor})
    return Pretrained(
        name=name,
        family="gene-vectors",
        vocabulary=vocabulary,
        gene_columns=(),
        pad=PAD,
        mask=None,
        encoding=Encoding(select=InOrder(), value=Normalized(), max_tokens=None),
        architecture=architecture,
        recipes=_recipes(tuple(tables)),
        arrays=arrays,
        needs="expression",
        accepts_bulk=True,
        lcm=lcm,
        digest=Digest.of_tensors({**lcm.state_dict(), **{k: torch.from_numpy(a) for k, a in arrays.items()}}, genes),
    )


def _recipes(tables: tuple[str, ...]) -> dict[str, Recipe]:
    found = {
        "embed": Recipe(pooling=ExpressionSum(over="total")),
        "wa": Recipe(pooling=ExpressionSum(over="total")),
        "aa": Recipe(pooling=ExpressionSum(over="genes")),
    }
    if len(tables) > 1:
        found["sum"] = Recipe(pooling=ExpressionSum(over="total", tables=tables))
        found["concat"] = Recipe(pooling=ExpressionSum(over="total", tables=tables, combine="concat"))
    return found


def as_dictionary(table: pd.DataFrame | Mapping[str, Any], what: str) -> Mapping[str, Any]:
    """Return a table as a dictionary gene -> vector; refuse genes named twice, and what is no table of numbers."""
    if isinstance(table, pd.DataFrame):
        if twice := table.index[table.index.duplicated()].tolist():
            msg = f"{what} names {twice[0]!r} twice in its index; expected each gene once."
            raise ValueError(msg)
        if not all(dtype.kind in "fiu" for dtype in table.dtypes):
            msg = f"{what} has columns that hold no numbers; expected a vector in each row."
            raise ValueError(msg)
        return dict(zip(table.index.tolist(), table.to_numpy(), strict=True))
    if isinstance(table, Mapping):
        return table
    msg = f"{what} is a {type(table).__name__}; expected a data frame with genes as its index, or a dictionary."
    raise TypeError(msg)


def vectors_of(table: pd.DataFrame | Mapping[str, Any], genes: Sequence[str]) -> np.ndarray:
    """Return the vectors of a model's genes, shape `(genes, width)`, float32; `ValueError` names a gene without one."""
    found = as_dictionary(table, "`vectors`")
    if missing := [gene for gene in genes if gene not in found]:
        msg = (
            f"`vectors` lacks {len(missing):,} of {len(genes):,} genes, such as {missing[0]!r}; leave those out of "
            "`gene_ids`, or give each a vector."
        )
        raise ValueError(msg)
    return stack_vectors(found, genes, "`vectors`").astype(np.float32)
