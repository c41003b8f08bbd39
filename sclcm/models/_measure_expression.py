"""Compute arrays of cells that are sums of gene vectors, and of cells written as text."""

from __future__ import annotations

import dataclasses
import re
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy.sparse import csr_matrix

from sclcm.checkpoints.files import find_one
from sclcm.checkpoints.readers import read_pickle
from sclcm.data.genes import gene_names
from sclcm.data.matrix import choose_matrix
from sclcm.data.texts import PREFIX, ranked_names
from sclcm.encoding.chunks import CellChunk
from sclcm.encoding.normalize import LogNormalize, normalize
from sclcm.models._expression import combined_table, embed_by_expression
from sclcm.models._gene_vectors import OWN
from sclcm.models._load import load
from sclcm.nn.table_configs import ExpressionSum
from sclcm.reference import _expression_probes as probes
from sclcm.zoo._gene_vectors import VectorTable
from sclcm.zoo._registry import get_spec
from sclcm.zoo._spec import Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sclcm.models._measure import Measurement
    from sclcm.models._pass import Input
    from sclcm.models._pretrained import Pretrained

TARGET_SUM = 1e4


def _rows(m: Measurement) -> csr_matrix:
    return m.input.source.read(0, m.adata.n_obs)


def _logged(m: Measurement) -> csr_matrix:
    """Logarithms of counts per 10,000, all var."""
    rows = _rows(m)
    totals = np.asarray(rows.sum(axis=1, dtype=np.float64)).ravel()
    chunk = CellChunk(start=0, counts=rows, totals=totals, n_genes=np.diff(rows.indptr))
    data = normalize((LogNormalize(target_sum=TARGET_SUM),), chunk, {})
    return csr_matrix((data, rows.indices, rows.indptr), shape=rows.shape)


def _reading(m: Measurement, unit: probes.Unit) -> Input:
    """Return the input in a unit, aligned as before; nothing of it counted yet."""
    fresh = dataclasses.replace(m.input, counts_total=0.0, counts_kept=0.0, empty_cells=[])
    if unit == "raw":
        return fresh
    logged = m.adata.copy()
    logged.X = _logged(m)
    return dataclasses.replace(fresh, source=choose_matrix(logged))


def _exact(m: Measurement) -> Pretrained:
    """Return the model with its vectors as precise as the files have them, as it is loaded unless asked otherwise."""
    return load(m.folder, family=m.family, device=m.device) if m.dtype == "float32" else m.pretrained


def _named(m: Measurement, tables: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(OWN if table == m.family else table for table in tables)


def summed_vectors(m: Measurement, probe: probes.SummedVectors, name: str) -> np.ndarray:
    """Cell vectors as `tl.embed` computes them; it writes zeros where nothing can be divided."""
    pooling = ExpressionSum(over=probe.over, tables=_named(m, probe.tables), combine=probe.combine)
    pretrained = m.once(_exact)
    recipe = pretrained.recipe(Recipe(pooling=pooling, l2_normalize=probe.l2_normalize))
    out = embed_by_expression(_reading(m, probe.unit), pretrained, recipe)
    if probe.over == "total":
        out[np.asarray(_rows(m).sum(axis=1)).ravel() == 0] = np.nan
    return out


def looked_up(m: Measurement, probe: probes.LookedUp, name: str) -> np.ndarray:
    """Vectors of the vocabulary, spread over var."""
    table = combined_table(m.once(_exact), ExpressionSum(over="genes", tables=_named(m, (probe.table,))))
    out, alignment = np.zeros((m.adata.n_vars, table.shape[1])), m.input.alignment
    out[alignment.var_index] = table[alignment.feature_index]
    return out


def missing_genes(m: Measurement, probe: probes.MissingGenes, name: str) -> np.ndarray:
    """Names of var that the files do not have."""
    names = gene_names(m.input.source.var, m.input.gene_key)
    return np.array([sum(gene not in _table(m, table) for gene in names) for table in probe.tables], dtype=np.int64)


def _table(m: Measurement, table: str) -> Mapping[str, Any]:
    spec = get_spec(m.family)
    source = spec.weights if table == m.family else None
    if source is None:
        companion = spec.arrays[table]
        if not isinstance(companion, VectorTable):
            msg = f"{table!r} is no table of vectors of {m.family!r}."
            raise TypeError(msg)
        source = companion.files
    return m.once(_TableFile(find_one(m.folder, source).as_posix()))


@dataclasses.dataclass(frozen=True)
class _TableFile:
    """A dictionary of vectors, read once."""

    path: str

    def __call__(self, m: Measurement) -> Mapping[str, Any]:
        """Read it."""
        return read_pickle(self.path)


def log_matrix(m: Measurement, probe: probes.LogMatrix, name: str) -> np.ndarray:
    """Logarithms, zeros included."""
    return _logged(m).toarray()


def cell_texts(m: Measurement, probe: probes.CellTexts, name: str) -> np.ndarray:
    """Cells as text; the stored text of a cell where it is one of several that ties allow."""
    number = re.search(r"\d+$", name)
    if number is None:
        msg = f"{name!r} does not end in the number of genes of a text."
        raise ValueError(msg)
    source, n_genes = m.input.source, int(number[0])
    names = gene_names(source.var, m.input.gene_key)
    ours = list(ranked_names(source, names, n_genes=n_genes, consumer=repr(m.family)))
    stored = np.asarray(m.draws[name]).astype(str).tolist()
    if len(stored) != len(ours):
        return np.array(ours, dtype=object).astype(str)
    value_of = [dict(zip(names, row, strict=True)) for row in _rows(m).toarray()]
    texts = [_with_ties(*each) for each in zip(ours, stored, value_of, strict=True)]
    return np.array(texts, dtype=str)


def _with_ties(ours: list[str], stored: str, value_of: Mapping[str, float]) -> str:
    """Return the stored text if its genes are ours but for the order of equal values, or equal ones at the end."""
    genes = stored.removeprefix(PREFIX).split()
    is_one = stored == PREFIX + " ".join(genes) and len(set(genes)) == len(genes) and set(genes) <= value_of.keys()
    same = is_one and [value_of[gene] for gene in genes] == [value_of[gene] for gene in ours]
    return stored if same else PREFIX + " ".join(ours)


MEASURES: dict[type, Callable[[Measurement, Any, str], Any]] = {
    probes.SummedVectors: summed_vectors,
    probes.LookedUp: looked_up,
    probes.MissingGenes: missing_genes,
    probes.LogMatrix: log_matrix,
    probes.CellTexts: cell_texts,
}
"""What computes each probe."""
