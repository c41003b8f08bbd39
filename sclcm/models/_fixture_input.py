"""The AnnData files of a fixture, which come from elsewhere and are not trusted."""

from __future__ import annotations

from typing import TYPE_CHECKING

import anndata

from sclcm.checkpoints.h5files import check_h5

if TYPE_CHECKING:
    from pathlib import Path

    from anndata import AnnData


def read_fixture_input(file: Path) -> AnnData:
    """Read an AnnData file, after a check that it points nowhere else and unfolds to no more than it holds.

    Raises
    ------
    ValueError
        It cannot be read, for whatever reason.
    """
    check_h5(file)
    try:
        return anndata.read_h5ad(file)
    except Exception as error:  # anndata and h5py say of damaged files what they like
        msg = f"{str(file)!r} cannot be read as an AnnData: {error}. Get the file again."
        raise ValueError(msg) from error
