"""`unify_genes`: one column per gene, under its current symbol or its Ensembl id."""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from sclcm._compat import package_version
from sclcm._warnings import warn_user
from sclcm.data.matrix import layer_names
from sclcm.genes.names import is_renamed, resolve, string_array
from sclcm.genes.table import Species, load_table
from sclcm.pp._columns import check_columns, choose_names, dropped_slots, make_plan, rebuild, share_lost

if TYPE_CHECKING:
    from collections.abc import Sequence

    from anndata import AnnData

    from sclcm.genes.names import IdType
    from sclcm.pp._columns import ColumnPlan

logger = logging.getLogger("sclcm")

_FEW_KNOWN = 0.1


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
    layers. Not mapped are names that could mean several genes, and aliases of a gene that is also present under another
    name (`CD62L` next to `SELL` is usually the antibody).

    Parameters
    ----------
    adata
        Cells x genes; it is not changed.
    to
        `"ensembl"` or `"symbol"`.
    species
        `"human"` or `"mouse"`; `None` infers it from the names.
    gene_key
        Column of `var` with the gene names. `None` considers the var names and well-known columns (`gene_ids`,
        `feature_name`, ...) and takes the one of which most names can be read; Ensembl ids, if there is a tie.
    layers
        Layers to carry over; `None` means all. Only counts can be summed: if columns are merged, layers with other
        values have to be left out, and `.X` has to hold counts.
    unmapped
        What to do with unknown and ambiguous names: `"drop"` their columns, or `"keep"` them as they are.

    Returns
    -------
    A new AnnData, with genes in the order in which they first occurred. `obs`, `obsm`, `obsp` and `uns` are copied;
    `varm` and `varp` only if no columns were merged, since they cannot be summed. `.raw` is left out, since it has
    genes of its own; unify `adata.raw.to_adata()` separately. A merged gene keeps the `var` row of the column that had
    its current name, or of the first column. New are

    `var['original_name']` : str
        The names that a gene had in `adata`, joined by `|`.
    `uns['unify_genes']` : dict
        Which genes were renamed, merged, ambiguous or dropped; the share of counts lost with the dropped columns (over
        all cells, and in the cell that lost most; NaN if `.X` is missing or has negative values); and the version of
        the gene tables.

    Raises
    ------
    ValueError
        None of the names is a known gene, an argument is not one of its choices, or columns that hold other values than
        counts would have to be summed.

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
    chosen, names = choose_names(adata, gene_key, to=to, species=species)
    plan = make_plan(names, resolve(names, to=to, species=species), keep=unmapped == "keep")
    if not plan.n_mapped:
        raise ValueError(_nothing_known(adata, chosen, names))
    kept_layers = layer_names(adata) if layers is None else list(layers)
    unified = rebuild(adata, plan, kept_layers)
    params = {"to": to, "species": plan.species, "gene_key": chosen, "unmapped": unmapped, "layers": kept_layers}
    unified.uns["unify_genes"] = _report(adata, plan, params)
    _tell(adata, plan, chosen)
    return unified


def _check_arguments(adata: AnnData, *, to: str, unmapped: str, layers: Sequence[str] | None) -> None:
    if to not in ("ensembl", "symbol"):
        msg = f"`to` is {to!r}; expected 'ensembl' or 'symbol'"
        raise ValueError(msg)
    check_columns(adata, unmapped=unmapped, layers=layers)


def _report(adata: AnnData, plan: ColumnPlan, params: dict[str, Any]) -> dict[str, Any]:
    dropped = np.setdiff1d(np.arange(len(plan.names)), plan.source)
    overall, worst = share_lost(adata.X, dropped)
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
        "dropped_slots": string_array(dropped_slots(adata, plan)),
        "counts_lost": overall,
        "counts_lost_worst_cell": worst,
    }


def _nothing_known(adata: AnnData, chosen: str, names: list[str]) -> str:
    return (
        f"none of the {len(names)} names in {chosen!r} is a known gene, such as {names[:3]!r}; pass the column with "
        f"gene names as `gene_key` (there are {list(adata.var.columns)!r}), and `species` if names do not tell it"
    )


def _tell(adata: AnnData, plan: ColumnPlan, chosen: str) -> None:
    slots = dropped_slots(adata, plan)
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
        warn_user(msg)
