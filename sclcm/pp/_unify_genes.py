"""`unify_genes`: one column per gene, under its current symbol or its Ensembl id."""

from __future__ import annotations

import logging
import warnings
from collections import Counter
from copy import deepcopy
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import pandas as pd
from anndata import AnnData
from anndata.utils import make_index_unique
from scipy import sparse

from sclcm._compat import package_version
from sclcm.data.matrix import check_adata, layer_names
from sclcm.genes.names import HOWS, beaten_aliases, guess_id_type, is_renamed, resolve, string_array
from sclcm.genes.table import Species, load_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sclcm.genes.names import IdType, Resolution

logger = logging.getLogger("sclcm")

_GENE_COLUMNS = (
    *("ensembl_id", "gene_ids", "gene_id", "feature_id", "ensembl"),
    *("feature_name", "gene_symbol", "gene_symbols", "gene_name", "gene_names", "symbol"),
)
_FEW_KNOWN = 0.1
_CHUNK_SIZE = 4096


def unify_genes(
    adata: AnnData,
    *,
    to: IdType = "ensembl",
    species: str | None = None,
    gene_key: str | None = None,
    layers: Sequence[str] | None = None,
    unmapped: Literal["drop", "keep"] = "drop",
) -> AnnData:
    """Give every gene one column, named by its Ensembl id or its current symbol.

    Names are read as `sclcm.tl.embed` reads them: Ensembl ids with or without version, current and previous symbols,
    aliases, any letter case. Columns of the same gene become one and their counts are summed, in `.X` and in the
    layers. Names that could be several genes, and aliases of a gene that is there under another name (`CD62L` beside
    `SELL` is usually the antibody), are not mapped.

    Parameters
    ----------
    adata
        Cells x genes; it is not changed.
    to
        `"ensembl"` or `"symbol"`.
    species
        `"human"` or `"mouse"`; `None` tells it from the names.
    gene_key
        Column of `var` with the gene names. `None` looks at var names and the usual columns (`gene_ids`,
        `feature_name`, ...) and takes what it can read most of; of equals, Ensembl ids.
    layers
        Layers to carry over; `None` is all of them. Only counts can be summed: where columns are merged, a layer
        with other values has to be left out, and `.X` has to hold counts.
    unmapped
        What to do with names that are unknown or ambiguous: `"drop"` their columns or `"keep"` them as they are.

    Returns
    -------
    A new AnnData, its genes in the order in which they first occurred. `obs`, `obsm`, `obsp` and `uns` are copied;
    `varm` and `varp` only if no columns were merged, since they cannot be summed; `.raw` is left out, since its genes
    are its own: unify `adata.raw.to_adata()` apart. A merged gene has the `var` row of the column that had its current
    name, else of the first.

    `var["original_name"]` : the names a gene had in `adata`, joined by `|`.

    `uns["unify_genes"]` : what was renamed, merged, ambiguous and dropped, the share of counts lost with the dropped
    columns (of all cells, and of the cell that lost most; NaN where `.X` has none or negative values), and the version
    of the gene tables.

    Examples
    --------
    >>> import anndata as ad, numpy as np, pandas as pd, sclcm
    >>> var = pd.DataFrame(index=["SEPT2", "SEPTIN2", "CD3E", "1-Mar"])
    >>> adata = ad.AnnData(np.array([[1, 2, 3, 4]], dtype="float32"), var=var)
    >>> unified = sclcm.pp.unify_genes(adata, to="symbol")
    >>> unified.to_df().iloc[0].to_dict()
    {'SEPTIN2': 3.0, 'CD3E': 3.0}
    """
    _check_arguments(adata, to=to, unmapped=unmapped, layers=layers)
    adata = adata.copy() if adata.is_view else adata  # the parts of a view stay tied to what it looks at
    chosen, names = _choose_names(adata, gene_key, to=to, species=species)
    plan = _make_plan(names, resolve(names, to=to, species=species), keep=unmapped == "keep")
    if not plan.n_mapped:
        raise ValueError(_nothing_known(adata, chosen, names))
    kept_layers = layer_names(adata) if layers is None else list(layers)
    whole = not plan.merges
    unified = AnnData(
        X=None if adata.X is None else plan.apply(adata.X, name=".X", remedy=_X_REMEDY),
        layers={
            key: plan.apply(adata.layers[key], name=f".layers[{key!r}]", remedy=_LAYER_REMEDY) for key in kept_layers
        },
        obs=adata.obs.copy(),
        var=_make_var(adata.var, plan),
        uns=deepcopy(dict(adata.uns)),
        obsm={key: deepcopy(value) for key, value in adata.obsm.items()},
        obsp={key: value.copy() for key, value in adata.obsp.items()},
        varm={key: _take_rows(value, plan.first) for key, value in adata.varm.items()} if whole else None,
        varp={key: value[plan.first][:, plan.first] for key, value in adata.varp.items()} if whole else None,
    )
    params = {"to": to, "species": plan.species, "gene_key": chosen, "unmapped": unmapped, "layers": kept_layers}
    unified.uns["unify_genes"] = _report(adata, plan, params)
    _tell(adata, plan, chosen)
    return unified


_X_REMEDY = "put counts into `.X` first (`adata.X = adata.layers['counts']`) and normalise afterwards"
_LAYER_REMEDY = "leave it out by naming the others in `layers`, and normalise afterwards"


@dataclass(frozen=True, kw_only=True, eq=False)
class _Plan:
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


def _check_arguments(adata: AnnData, *, to: str, unmapped: str, layers: Sequence[str] | None) -> None:
    check_adata(adata)
    if to not in ("ensembl", "symbol"):
        msg = f"`to` is {to!r}; expected 'ensembl' or 'symbol'"
        raise ValueError(msg)
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


def _choose_names(adata: AnnData, gene_key: str | None, *, to: IdType, species: str | None) -> tuple[str, list[str]]:
    """Return where the gene names are, and the names."""
    var = adata.var
    if gene_key is not None and gene_key not in var:
        msg = f"`gene_key` is {gene_key!r}, not a column of `var`; expected one of {list(var.columns)!r} or `None`"
        raise ValueError(msg)
    if gene_key is not None:
        return gene_key, _as_names(var[gene_key])
    candidates = {"var_names": _as_names(var.index)}
    candidates |= {key: _as_names(var[key]) for key in _GENE_COLUMNS if key in var}
    if len(candidates) == 1:
        return "var_names", candidates["var_names"]
    known = {key: _n_known(names, to=to, species=species) for key, names in candidates.items()}
    chosen = max(candidates, key=lambda key: (known[key], guess_id_type(candidates[key]) == "ensembl"))
    return chosen, candidates[chosen]


def _as_names(values: pd.Index | pd.Series) -> list[str]:
    return ["" if missing else str(value) for value, missing in zip(values, pd.isna(values), strict=True)]


def _n_known(names: list[str], *, to: IdType, species: str | None) -> int:
    return sum(target is not None for target in resolve(names, to=to, species=species).target)


def _make_plan(names: list[str], resolution: Resolution, *, keep: bool) -> _Plan:
    targets, how = resolution.target.copy(), resolution.how.copy()
    beaten = beaten_aliases(targets, how)
    targets[beaten], how[beaten] = None, "ambiguous"
    mapped = np.array([target is not None for target in targets], dtype=bool)
    # Unmapped columns are never merged with another: their key is their own position.
    keys = [target if target is not None else i for i, target in enumerate(targets.tolist())]
    used = [i for i in range(len(names)) if mapped[i] or keep]
    position = {key: k for k, key in enumerate(dict.fromkeys(keys[i] for i in used))}
    labels = [key if isinstance(key, str) else names[key] for key in position]
    return _Plan(
        names=names,
        how=how,
        mapped=mapped,
        source=np.array(used, dtype=np.int64),
        target=np.array([position[keys[i]] for i in used], dtype=np.int64),
        labels=make_index_unique(pd.Index(labels, dtype=object)).to_numpy() if keep else string_array(labels),
        species=resolution.species or "",
    )


def _make_var(var: pd.DataFrame, plan: _Plan) -> pd.DataFrame:
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


def _report(adata: AnnData, plan: _Plan, params: dict[str, Any]) -> dict[str, Any]:
    dropped = np.setdiff1d(np.arange(len(plan.names)), plan.source)
    overall, worst = _share_lost(adata.X, dropped)
    pairs = list(zip(plan.source.tolist(), plan.labels[plan.target].tolist(), strict=True))
    renamed = {plan.names[i]: label for i, label in pairs if is_renamed(plan.names[i], label, plan.how[i])}
    merged = [(plan.names[i], plan.labels[target]) for target, group in plan.merges.items() for i in group]
    is_ambiguous = plan.how == "ambiguous"
    return {
        "params": {**params, "sclcm": package_version()},
        "tables": {s: load_table(s).version for s in get_args(Species) if plan.species in (s, "")},
        "n_var_before": len(plan.names),
        "n_var_after": len(plan.labels),
        "n_mapped": plan.n_mapped,
        "how": dict(sorted(Counter(plan.how.tolist()).items())),
        "renamed": {"from": string_array(renamed), "to": string_array(renamed.values())},
        "merged": {"from": string_array(name for name, _ in merged), "to": string_array(gene for _, gene in merged)},
        "ambiguous": plan.names_at(np.flatnonzero(is_ambiguous)),
        "unknown": plan.names_at(np.flatnonzero(~plan.mapped & ~is_ambiguous)),
        "dropped": plan.names_at(dropped),
        "dropped_slots": string_array(_dropped_slots(adata, plan)),
        "counts_lost": overall,
        "counts_lost_worst_cell": worst,
    }


def _share_lost(matrix: Any, dropped: np.ndarray) -> tuple[float, float]:
    """Return the share of the total in dropped columns, of all cells and of the cell that lost most."""
    if matrix is None:
        return np.nan, np.nan
    lost, totals = np.zeros(matrix.shape[0]), np.zeros(matrix.shape[0])
    for start in range(0, matrix.shape[0], _CHUNK_SIZE):
        rows = sparse.csr_array(matrix[start : start + _CHUNK_SIZE], dtype=np.float64)
        if rows.nnz and not rows.data.min() >= 0:
            return np.nan, np.nan
        totals[start : start + rows.shape[0]] = rows.sum(axis=1)
        lost[start : start + rows.shape[0]] = rows[:, dropped].sum(axis=1)
    shares = np.divide(lost, totals, out=np.zeros_like(lost), where=totals > 0)
    return float(lost.sum() / totals.sum()) if totals.sum() else 0.0, float(shares.max(initial=0.0))


def _dropped_slots(adata: AnnData, plan: _Plan) -> list[str]:
    kept = [] if plan.merges else ["varm", "varp"]
    slots = [f"{slot}[{key!r}]" for slot in ("varm", "varp") if slot not in kept for key in getattr(adata, slot)]
    return [*slots, *(["raw"] if adata.raw is not None else [])]


def _nothing_known(adata: AnnData, chosen: str, names: list[str]) -> str:
    return (
        f"none of the {len(names)} names in {chosen!r} is a known gene, such as {names[:3]!r}; pass the column with "
        f"gene names as `gene_key` (there are {list(adata.var.columns)!r}), and `species` if names do not tell it"
    )


def _tell(adata: AnnData, plan: _Plan, chosen: str) -> None:
    slots = _dropped_slots(adata, plan)
    logger.info(
        "read %d of %d names in %r as %s genes; %d columns remain, %d of them sums%s",
        plan.n_mapped,
        len(plan.names),
        chosen,
        plan.species or "human or mouse",
        len(plan.labels),
        len(plan.merges),
        f"; left out: {', '.join(slots)}" if slots else "",
    )
    if plan.n_mapped < _FEW_KNOWN * len(plan.names):
        msg = (
            f"only {plan.n_mapped} of {len(plan.names)} names in {chosen!r} are known genes; see `uns['unify_genes']`, "
            "and pass the right column as `gene_key` or the right `species`"
        )
        warnings.warn(msg, UserWarning, stacklevel=3)
