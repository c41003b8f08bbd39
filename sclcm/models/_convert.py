"""`convert`: from authors' files, or any other model, to a saved folder that loads in a fraction of the time."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sclcm.models._load import load
from sclcm.models._saved import check_target

if TYPE_CHECKING:
    import torch


def convert(
    source: str | Path,
    target: str | Path,
    *,
    family: str | None = None,
    dtype: str | torch.dtype = "float32",
    **given: Any,
) -> Path:
    """Save a model as a folder of safetensors and JSON, which `load` reads much faster, and bit by bit the same.

    Parameters
    ----------
    source
        A name from :func:`~sclcm.models.list_models`, or a folder with the authors' files (or the weights file in it).
    target
        The folder to write. It appears only once it is complete; a saved model in its place is replaced.
    family
        Family of the files; `None` infers it from the files, if only one family fits.
    dtype
        `"float32"`, or `"bfloat16"` or `"float16"`, which take half the space and round the weights.
    given
        What the files do not contain, as for :func:`~sclcm.models.load`.

    Returns
    -------
    The folder.

    Raises
    ------
    FileExistsError
        The folder holds something other than a saved model.
    ValueError
        The name is unknown, or the files fit no family or several. Other errors are those of `load`.
    """
    check_target(target)
    load(source, family=family, device="cpu", dtype=dtype, **given).save(target)
    return Path(target)
