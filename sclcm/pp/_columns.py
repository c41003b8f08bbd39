"""Columns that become other columns: which of them stand for one gene, and what becomes of an AnnData then."""

from __future__ import annotations

from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.utils import make_index_unique
from scipy import sparse

from sclcm.data.genes import candidate_columns, gene_names
from sclcm.data.matrix import check_adata, layer_names
from sclcm.data.rows import check_type, in_native_order
from sclcm.genes.names import HOWS, beaten_aliases, guess_id_type, resolve, string_array

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sclcm.genes.names import IdType, Resolution

_CHUNK_SIZE = 4096

_X_REMEDY = "put counts into `.X` first, as in `adata.X = adata.layers['counts']`, and normalise afterwards"
_LAYER_REMEDY = "leave it out by naming the others in `layers`, and normalise afterwards"


@dataclass(frozen=True, kw_only=True, eq=False)
class ColumnPlan:
    """Which columns become which gene: column `source[k]` is added to new column `target[k]`."""

    names: list[str]
    how: np.ndarray
    mapped: np.ndarray
    source: np.ndarray
    target: np.ndarray
    labels: np.ndarray
    species: str

    @property
    def n_mapped(self) -> int:
        return int(self.mapped.sum())

    def names_at(self, columns: np.ndarray) -> np.ndarray:
        """Return the distinct names of some columns."""
        return string_array(dict.fromkeys(self.names[column] for column in columns.tolist()))

    @cached_property
    def first(self) -> np.ndarray:
        """The column that stands for each new column: read best, else first."""
        ranks = np.array([HOWS.index(how) for how in self.how[self.source]])
        order = np.lexsort((self.source, ranks, self.target))
        return self.source[order][np.unique(self.target[order], return_index=True)[1]]

    @cached_property
    def merges(self) -> dict[int, list[int]]:
        """New columns that are sums, with the columns summed."""
        groups: dict[int, list[int]] = {}
        for source, target in zip(self.source.tolist(), self.target.tolist(), strict=True):
            groups.setdefault(target, []).append(source)
        return {target: group for target, group in groups.items() if len(group) > 1}

    def apply(self, matrix: Any, *, name: str, remedy: str) -> Any:
        """Take and sum the columns of a matrix, in its own format."""
        if not (sparse.issparse(matrix) or isinstance(matrix, np.ndarray)):
            kind = type(matrix).__name__
            msg = f"`{name}` is a {kind}; expected a numpy array or a scipy matrix: call `adata.to_memory()`"
            raise TypeError(msg)
        check_type(matrix, name=f"`{name}`")
        matrix = _sliceable(matrix)
        if not self.merges:
            return matrix[:, self.first]
        self._check_counts(matrix, name=name, remedy=remedy)
        ones = np.ones(len(self.source), dtype=_sum_type(matrix.dtype))
        shape = (len(self.names), len(self.labels))
        summing = sparse.csr_array((ones, (self.source, self.target)), shape=shape)
        if not sparse.issparse(matrix):
            return np.asarray(matrix @ summing)
        same = sparse.csr_array if isinstance(matrix, sparse.sparray) else sparse.csr_matrix
        return (matrix @ same(summing)).asformat(matrix.format)

    def _check_counts(self, matrix: Any, *, name: str, remedy: str) -> None:
        columns = np.array(sorted(column for group in self.merges.values() for column in group))
        part = matrix[:, columns]
        values = np.asarray(part.data if sparse.issparse(part) else part)
        wrong = values[~((values >= 0) & (values == np.rint(values)))] if values.dtype != bool else values[:0]
        if wrong.size:
            group = [self.names[column] for column in next(iter(self.merges.values()))]
            msg = (
                f"`{name}` holds {float(wrong.flat[0]):.4g}, not a count, in columns that name the same gene, such as "
                f"{group!r}; only counts can be summed: {remedy}, or keep one column of each gene"
            )
            raise ValueError(msg)


def rebuild(adata: AnnData, plan: ColumnPlan, layers: Sequence[str]) -> AnnData:
    """Return a new AnnData with the columns of a plan; `varm` and `varp` only where none were merged."""
    whole = not plan.merges
    return AnnData(
        X=None if adata.X is None else plan.apply(adata.X, name=".X", remedy=_X_REMEDY),
        layers={key: plan.apply(adata.layers[key], name=f".layers[{key!r}]", remedy=_LAYER_REMEDY) for key in layers},
        obs=adata.obs.copy(),
        var=_make_var(adata.var, plan),
        uns=deepcopy(dict(adata.uns)),
        obsm={key: deepcopy(value) for key, value in adata.obsm.items()},
        obsp={key: value.copy() for key, value in adata.obsp.items()},
        varm={key: _take_rows(value, plan.first) for key, value in adata.varm.items()} if whole else None,
        varp={key: value[plan.first][:, plan.first] for key, value in adata.varp.items()} if whole else None,
    )


def check_columns(adata: AnnData, *, unmapped: str, layers: Sequence[str] | None) -> None:
    """Refuse arguments that no columns can be made of."""
    check_adata(adata)
    if unmapped not in ("drop", "keep"):
        msg = f"`unmapped` is {unmapped!r}; expected 'drop' or 'keep'"
        raise ValueError(msg)
    if adata.isbacked:
        msg = "`adata` is backed by a file and its genes would be merged in memory; pass `adata.to_memory()`"
        raise ValueError(msg)
    missing = [key for key in layers or () if key not in layer_names(adata)]
    if missing:
        msg = f"`layers` names {missing!r}; expected some of {layer_names(adata)!r}"
        raise ValueError(msg)


def choose_names(adata: AnnData, gene_key: str | None, *, to: IdType, species: str | None) -> tuple[str, list[str]]:
    """Return where the gene names are, and the names."""
    var = adata.var
    if gene_key is not None:
        return gene_key, gene_names(var, gene_key)
    candidates = {key: gene_names(var, key) for key in candidate_columns(var, ())}
    if len(candidates) == 1:
        return next(iter(candidates.items()))
    known = {key: _n_known(names, to=to, species=species) for key, names in candidates.items()}
    chosen = max(candidates, key=lambda key: (known[key], guess_id_type(candidates[key]) == "ensembl"))
    return chosen, candidates[chosen]


def _n_known(names: list[str], *, to: IdType, species: str | None) -> int:
    return sum(target is not None for target in resolve(names, to=to, species=species).target)


def make_plan(names: list[str], resolution: Resolution, *, keep: bool, kept: Sequence[str] | None = None) -> ColumnPlan:
    """Plan which columns become which gene.

    Parameters
    ----------
    names
        Name of each column.
    resolution
        The gene of each name.
    keep
        Whether columns without a gene stay.
    kept
        What these are called then; `None` takes their names.
    """
    targets, how = resolution.target.copy(), resolution.how.copy()
    beaten = beaten_aliases(targets, how)
    targets[beaten], how[beaten] = None, "ambiguous"
    mapped = np.array([target is not None for target in targets], dtype=bool)
    # Unmapped columns are never merged with another: their key is their own position.
    keys = [target if target is not None else i for i, target in enumerate(targets.tolist())]
    used = [i for i in range(len(names)) if mapped[i] or keep]
    position = {key: k for k, key in enumerate(dict.fromkeys(keys[i] for i in used))}
    others = names if kept is None else kept
    labels = [key if isinstance(key, str) else others[key] for key in position]
    return ColumnPlan(
        names=names,
        how=how,
        mapped=mapped,
        source=np.array(used, dtype=np.int64),
        target=np.array([position[keys[i]] for i in used], dtype=np.int64),
        labels=make_index_unique(pd.Index(labels, dtype=object)).to_numpy() if keep else string_array(labels),
        species=resolution.species or "",
    )


def _make_var(var: pd.DataFrame, plan: ColumnPlan) -> pd.DataFrame:
    rows = var.iloc[plan.first].copy()
    rows.index = pd.Index(plan.labels, dtype=object)
    originals = [plan.names[column] for column in plan.first]
    for target, group in plan.merges.items():
        originals[target] = "|".join(plan.names[column] for column in group)
    rows["original_name"] = string_array(originals)
    return rows


def _take_rows(values: Any, rows: np.ndarray) -> Any:
    return values.iloc[rows].copy() if isinstance(values, pd.DataFrame) else values[rows]


def _sum_type(dtype: np.dtype) -> np.dtype:
    """Return a type in which sums of a few counts of the given type do not overflow."""
    if dtype.kind in "bui":
        return np.promote_types(dtype, np.int32)
    return np.promote_types(dtype, np.float32)


def _sliceable(matrix: Any) -> Any:
    """Return a matrix whose rows and columns can be taken; of sparse formats these are two."""
    matrix = in_native_order(matrix)
    return matrix.tocsr() if sparse.issparse(matrix) and matrix.format not in ("csr", "csc") else matrix


def share_lost(matrix: Any, dropped: np.ndarray) -> tuple[float, float]:
    """Return the share of the total in dropped columns, of all cells and of the cell that lost most."""
    if matrix is None:
        return np.nan, np.nan
    matrix = _sliceable(matrix)
    lost, totals = np.zeros(matrix.shape[0]), np.zeros(matrix.shape[0])
    for start in range(0, matrix.shape[0], _CHUNK_SIZE):
        rows = sparse.csr_array(matrix[start : start + _CHUNK_SIZE], dtype=np.float64)
        if rows.nnz and not (rows.data.min() >= 0 and np.isfinite(rows.data.max())):
            return np.nan, np.nan
        totals[start : start + rows.shape[0]] = rows.sum(axis=1)
        lost[start : start + rows.shape[0]] = rows[:, dropped].sum(axis=1)
    shares = np.divide(lost, totals, out=np.zeros_like(lost), where=totals > 0)
    return float(lost.sum() / totals.sum()) if totals.sum() else 0.0, float(shares.max(initial=0.0))


def dropped_slots(adata: AnnData, plan: ColumnPlan) -> list[str]:
    kept = [] if plan.merges else ["varm", "varp"]
    slots = [f"{slot}[{key!r}]" for slot in ("varm", "varp") if slot not in kept for key in getattr(adata, slot)]
    return [*slots, *(["raw"] if adata.raw is not None else [])]
