"""Writing results into an AnnData, last of all, so that a call that fails leaves it as it was."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from anndata import ImplicitModificationWarning

from sclcm._compat import package_version
from sclcm.data.matrix import check_adata, check_flag

if TYPE_CHECKING:
    from collections.abc import Callable

    from anndata import AnnData

    from sclcm.models._pretrained import Pretrained


def check_copy(adata: AnnData, *, copy: bool) -> None:
    """Refuse what could not be written to, before anything is computed: no AnnData, a copy or view of a backed one."""
    check_adata(adata)
    check_flag("copy", copy)
    if not adata.isbacked:
        return
    if adata.is_view:
        msg = (
            "`adata` is a view of a backed AnnData, into which nothing can be written; read it into memory by "
            "`adata.to_memory()`, or make a file of its own by `adata.copy(filename=...)`."
        )
        raise ValueError(msg)
    if copy:
        msg = (
            "`copy=True` cannot copy a backed AnnData; use `copy=False`, or read it into memory by `adata.to_memory()`."
        )
        raise ValueError(msg)


def write(adata: AnnData, change: Callable[[AnnData], None], *, copy: bool) -> AnnData | None:
    """Apply a change to `adata`, or to a copy that is returned. A view becomes an object of its own, as in scanpy."""
    target = adata.copy() if copy else adata
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ImplicitModificationWarning)
        change(target)
    return target if copy else None


def provenance(pretrained: Pretrained) -> dict[str, Any]:
    """Return what `uns` remembers of a model: name, digest, number type, versions."""
    return {
        "model": pretrained.name,
        "family": pretrained.family,
        "checkpoint_sha256": pretrained.sha256,
        "species": ", ".join(pretrained.vocabulary.species),  # text: a list comes back from a file as an array
        "device": str(pretrained.device),
        "dtype": str(pretrained.dtype).removeprefix("torch."),
        "sclcm_version": package_version(),
        "torch_version": package_version("torch"),
    }
