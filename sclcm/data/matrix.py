"""`choose_matrix`: `.X`, a layer or `.raw.X` of an AnnData, in memory or on disk, as a source of rows."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from sclcm.data.rows import RowTaker, SharesRows, is_dask, open_rows

if TYPE_CHECKING:
    from collections.abc import Callable

    from scipy.sparse import csr_matrix


@dataclass(frozen=True, kw_only=True, eq=False)
class MatrixSource:
    """A cells x genes matrix of an AnnData, read by rows; it never changes the AnnData.

    Parameters
    ----------
    name
        How the matrix is reached: `.X`, `.layers['counts']`, `.raw.X`.
    shape
        Cells, genes.
    var
        The table of its genes: `adata.var`, or `adata.raw.var`.
    obs_names
        Names of the cells.
    take
        Reads rows `(start, stop)`.
    adata
        Where it comes from.
    """

    name: str
    shape: tuple[int, int]
    var: pd.DataFrame
    obs_names: pd.Index
    take: RowTaker = field(repr=False)
    adata: AnnData = field(repr=False)

    def read(self, start: int, stop: int) -> csr_matrix:
        """Read the rows from `start` to before `stop`.

        Parameters
        ----------
        start, stop
            Row numbers; `stop` may lie beyond the last row.

        Returns
        -------
        Canonical CSR (sorted indices, no duplicates, no explicit zeros) in memory of its own, float32 or float64.
        """
        return self.take(start, self._checked(start, stop))

    def view(self, start: int, stop: int) -> csr_matrix:
        """Read rows as `read` does, but share the memory of a matrix that is canonical already, read-only."""
        stop = self._checked(start, stop)
        return self.take.view(start, stop) if isinstance(self.take, SharesRows) else self.take(start, stop)

    def _checked(self, start: int, stop: int) -> int:
        """Return where the rows end that were asked for."""
        stop = min(stop, self.shape[0])
        if not 0 <= start <= stop:
            msg = f"rows {start} to {stop} of {self.name} were asked for; it has {self.shape[0]} cells"
            raise ValueError(msg)
        return stop


def choose_matrix(adata: AnnData, *, layer: str | None = None, use_raw: bool = False) -> MatrixSource:
    """Choose the matrix of an AnnData that a call reads, and how its rows are read.

    Parameters
    ----------
    adata
        Cells x genes, in memory or backed, a view or not.
    layer
        Name of a layer; `None` reads `.X`.
    use_raw
        Read `.raw.X`, whose genes are those of `.raw.var`.

    Returns
    -------
    The source of rows. It reads nothing yet.
    """
    source = open_matrix(adata, layer=layer, use_raw=use_raw)
    for n, what, where in ((source.shape[0], "cells", "obs"), (source.shape[1], "genes", "var")):
        if n == 0:
            msg = f"{source.name} has no {what} (shape {source.shape}); check how `adata` was subset by `{where}`"
            raise ValueError(msg)
    return source


def open_matrix(adata: AnnData, *, layer: str | None = None, use_raw: bool = False) -> MatrixSource:
    """Do what `choose_matrix` does, and accept a matrix without cells or genes too."""
    _check_choice(adata, layer=layer, use_raw=use_raw)
    name = ".raw.X" if use_raw else ".X" if layer is None else f".layers[{layer!r}]"
    table = adata.raw.var if use_raw else adata.var
    n_obs = adata.n_obs

    def pick(of: AnnData) -> Any:
        return of.raw.X if use_raw else of.X if layer is None else of.layers[layer]

    return MatrixSource(
        name=name,
        shape=(n_obs, len(table.index)),
        var=as_frame(table),
        obs_names=pd.Index(adata.obs_names),
        take=_open(adata, pick, name=name, may_slice=not use_raw),
        adata=adata,
    )


def choices(adata: AnnData) -> list[tuple[str | None, bool]]:
    """List `layer` and `use_raw` of every matrix that the AnnData holds over its cells."""
    of_x: list[tuple[str | None, bool]] = [] if _lacks_x(adata) else [(None, False)]
    return of_x + [(layer, False) for layer in layer_names(adata)] + ([] if adata.raw is None else [(None, True)])


def _lacks_x(adata: AnnData) -> bool:
    """Whether there is no `.X`; that of a view of a file is not read to tell."""
    return not (adata.isbacked and adata.is_view) and adata.X is None


def layer_names(adata: AnnData) -> list[str]:
    """Return the names of the layers; anndata 0.13 lists `.X` among them, under `None`."""
    return [name for name in adata.layers if name is not None]


def as_frame(table: Any) -> pd.DataFrame:
    """Return `obs` or `var` as a data frame; those of a lazily read AnnData are loaded."""
    return table if isinstance(table, pd.DataFrame) else table.to_memory()


def _open(adata: AnnData, pick: Callable[[AnnData], Any], *, name: str, may_slice: bool) -> RowTaker:
    """Open the matrix itself; of a view only the rows in hand are copied, where anndata can do that."""
    if adata.isbacked and adata.is_view:
        return open_rows(_of_file(adata, pick, name=name), name=name)
    if not adata.is_view or not may_slice or not adata.n_obs:
        return open_rows(pick(adata), name=name)
    sample = pick(adata[:1])
    if is_dask(sample) or (sparse.issparse(sample) and sample.format != "csr"):
        return open_rows(pick(adata), name=name)

    def take(start: int, stop: int) -> csr_matrix:
        return open_rows(pick(adata[start:stop]), name=name)(0, stop - start)

    return take


def _of_file(adata: AnnData, pick: Callable[[AnnData], Any], *, name: str) -> Any:
    """Read the matrix of a view of a file; not every order of rows is one that anndata can read from it.

    For rows in reverse order anndata 0.12 raises, and some releases of 0.13 leave out the last.
    """
    try:
        matrix = pick(adata)
        problem = None if len(matrix.shape) < 2 or matrix.shape[0] == adata.n_obs else "it returns other rows"
    except ValueError as error:
        problem = str(error)
    if problem is not None:
        msg = (
            f"anndata cannot read {name} of this view of a file ({problem}); read the whole file into memory before "
            "you choose its rows, as by `anndata.read_h5ad(path)[::-1]`"
        )
        raise ValueError(msg)
    return matrix


def check_adata(adata: Any) -> None:
    """Refuse what is no AnnData; the message says how to make one of it."""
    if not isinstance(adata, AnnData):
        msg = f"`adata` is a {type(adata).__name__}; expected an AnnData, {_remedy_for_type(adata)}"
        raise TypeError(msg)


def check_flag(name: str, value: Any) -> None:
    """Refuse what is neither true nor false, such as the text `"no"`, which Python takes for true."""
    if not isinstance(value, bool | np.bool_):
        msg = f"`{name}` is {value!r}; expected `True` or `False`"
        raise TypeError(msg)


def _check_choice(adata: Any, *, layer: str | None, use_raw: bool) -> None:
    check_adata(adata)
    check_flag("use_raw", use_raw)
    if layer is not None and use_raw:
        msg = f"`layer={layer!r}` and `use_raw=True` exclude each other; pass one of them"
        raise ValueError(msg)
    if layer is not None and layer not in layer_names(adata):
        msg = f"no layer {layer!r}; `adata.layers` has {layer_names(adata)}, and `layer=None` reads `.X`"
        raise KeyError(msg)
    if use_raw and adata.raw is None:
        msg = (
            "`use_raw=True`, but `adata.raw` is missing; leave `use_raw` out, or set `adata.raw` before dropping genes"
        )
        raise ValueError(msg)
    if layer is None and not use_raw and _lacks_x(adata):
        msg = f"`.X` is missing; {_other_places(adata)}"
        raise ValueError(msg)


def _other_places(adata: AnnData) -> str:
    ways = [f"`layer={name!r}`" for name in layer_names(adata)] + (["`use_raw=True`"] if adata.raw is not None else [])
    return (
        f"pass {' or '.join(ways)}" if ways else "assign counts to it, cells x genes; there are no layers and no `.raw`"
    )


def _remedy_for_type(value: Any) -> str:
    if isinstance(value, str) or hasattr(value, "__fspath__"):
        return "as `anndata.read_h5ad` returns it"
    if isinstance(value, pd.DataFrame):
        return "such as `anndata.AnnData(frame)`"
    if hasattr(value, "mod"):
        return "such as one modality, `mdata.mod['rna']`"
    return "such as `anndata.AnnData(counts)`"
