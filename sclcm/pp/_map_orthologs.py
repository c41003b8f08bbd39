"""`map_orthologs`: mouse genes under the ids of their human orthologues, or the other way round."""

from __future__ import annotations

import dataclasses
import logging
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from sclcm._compat import package_version
from sclcm._warnings import warn_user
from sclcm.data.matrix import layer_names
from sclcm.genes.names import guess_species, resolve, string_array
from sclcm.genes.orthologs import load_orthologs
from sclcm.genes.table import Species, check_species
from sclcm.pp._columns import check_columns, choose_names, dropped_slots, make_plan, rebuild, share_lost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from sclcm.genes.names import Resolution
    from sclcm.pp._columns import ColumnPlan

logger = logging.getLogger("sclcm")

_FEW_MAPPED = 0.1


def map_orthologs(
    adata: AnnData,
    *,
    to: Species = "human",
    gene_key: str | None = None,
    layers: Sequence[str] | None = None,
    unmapped: Literal["drop", "keep"] = "drop",
) -> AnnData:
    """Rename mouse genes to the Ensembl ids of their human orthologues, or human genes to those of mouse.

    Use it for models that know one species only, or that name the genes of both species by the ids of one. Names are
    read as in :func:`sclcm.pp.unify_genes`. Only one-to-one orthologues, according to Ensembl, are mapped; all other
    genes are reported, never guessed.

    Parameters
    ----------
    adata
        Cells x genes of the other species; it is not changed.
    to
        The species whose ids are wanted: `"human"` or `"mouse"`.
    gene_key
        Column of `var` with the gene names. `None` considers the var names and well-known columns.
    layers
        Layers to carry over; `None` means all. Only counts can be summed if columns of one gene are merged.
    unmapped
        What to do with genes that have no orthologue or several: `"drop"` their columns, or `"keep"` them under their
        own Ensembl id, which some models know. With `"keep"`, names that cannot be read stay as they are.

    Returns
    -------
    A new AnnData, with genes in the order in which they first occurred and the slots that
    :func:`sclcm.pp.unify_genes` carries over. New are

    `var['original_name']` : str
        The names that a gene had in `adata`, joined by `|`.
    `uns['map_orthologs']` : dict
        Genes with several orthologues, genes without one, and names that could not be read; the share of counts lost
        with the dropped columns (over all cells, and in the cell that lost most; NaN if `.X` is missing or has negative
        values); and the version of the table.

    Raises
    ------
    ValueError
        The genes are already those of the wanted species, none of them can be mapped, or columns that hold other values
        than counts would have to be summed.

    Examples
    --------
    >>> import anndata as ad, numpy as np, pandas as pd, sclcm
    >>> var = pd.DataFrame(index=["Cd3e", "Snap25", "Ly6c2"])
    >>> adata = ad.AnnData(np.array([[1, 2, 3]], dtype="float32"), var=var)
    >>> sclcm.pp.map_orthologs(adata).to_df().iloc[0].to_dict()
    {'ENSG00000198851': 1.0, 'ENSG00000132639': 2.0}
    """
    target = _check_target(to)
    check_columns(adata, unmapped=unmapped, layers=layers)
    source: Species = "mouse" if target == "human" else "human"
    adata = adata.copy() if adata.is_view else adata  # the parts of a view stay tied to what it looks at
    chosen, names = choose_names(adata, gene_key, to="ensembl", species=source)
    if guess_species(names) == target:
        msg = f"the names in {chosen!r}, such as {names[:3]!r}, are {target} genes already; pass `to={source!r}`"
        raise ValueError(msg)
    read = resolve(names, to="ensembl", species=source)
    found, how = load_orthologs().find(read.target.tolist(), to=target)
    own = [name if ensembl is None else ensembl for name, ensembl in zip(names, read.target.tolist(), strict=True)]
    plan = make_plan(names, _mapped(read, found), keep=unmapped == "keep", kept=own)
    if not plan.n_mapped:
        raise ValueError(_nothing_mapped(adata, chosen, names, source=source))
    kept_layers = layer_names(adata) if layers is None else list(layers)
    mapped = rebuild(adata, plan, kept_layers)
    params = {"to": target, "gene_key": chosen, "unmapped": unmapped, "layers": kept_layers}
    mapped.uns["map_orthologs"] = _report(adata, plan, params, how=np.where(_unread(read), "unread", how))
    _tell(plan, chosen, target)
    return mapped


def _check_target(to: str) -> Species:
    if to not in get_args(Species):
        msg = f"`to` is {to!r}; expected one of {list(get_args(Species))}"
        raise ValueError(msg)
    return check_species(to)


def _unread(read: Resolution) -> np.ndarray:
    return np.array([ensembl is None for ensembl in read.target.tolist()], dtype=bool)


def _mapped(read: Resolution, found: np.ndarray) -> Resolution:
    """Put orthologues in the place of the genes that were read."""
    is_mapped = np.array([target is not None for target in found.tolist()], dtype=bool)
    return dataclasses.replace(read, target=found, how=np.where(is_mapped, read.how, "unknown").astype(object))


def _report(adata: AnnData, plan: ColumnPlan, params: dict[str, Any], *, how: np.ndarray) -> dict[str, Any]:
    dropped = np.setdiff1d(np.arange(len(plan.names)), plan.source)
    overall, worst = share_lost(adata.X, dropped)
    merged = [(plan.names[i], plan.labels[target]) for target, group in plan.merges.items() for i in group]
    table = load_orthologs()
    return {
        "params": {**params, "sclcm": package_version()},
        "table": table.version,
        "sources": string_array(table.sources),
        "n_var_before": len(plan.names),
        "n_var_after": len(plan.labels),
        "n_mapped": plan.n_mapped,
        "merged": {"from": string_array(name for name, _ in merged), "to": string_array(gene for _, gene in merged)},
        "several_orthologs": plan.names_at(np.flatnonzero(how == "several")),
        "no_ortholog": plan.names_at(np.flatnonzero(how == "none")),
        "unread": plan.names_at(np.flatnonzero(how == "unread")),
        "dropped_slots": string_array(dropped_slots(adata, plan)),
        "counts_lost": overall,
        "counts_lost_worst_cell": worst,
    }


def _nothing_mapped(adata: AnnData, chosen: str, names: list[str], *, source: str) -> str:
    return (
        f"none of the {len(names)} names in {chosen!r}, such as {names[:3]!r}, is a {source} gene with one orthologue; "
        f"pass the column with gene names as `gene_key` (there are {list(adata.var.columns)!r}), or the other species "
        "as `to`"
    )


def _tell(plan: ColumnPlan, chosen: str, target: str) -> None:
    logger.info("%d of %d genes in %r have one %s orthologue", plan.n_mapped, len(plan.names), chosen, target)
    if plan.n_mapped < _FEW_MAPPED * len(plan.names):
        msg = (
            f"only {plan.n_mapped} of {len(plan.names)} names in {chosen!r} have one {target} orthologue; see "
            "`uns['map_orthologs']`, and pass the right column as `gene_key`"
        )
        warn_user(msg)
