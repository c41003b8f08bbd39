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
    """Write a model as a folder of safetensors and JSON, which `load` reads back to the same bits, and much faster.

    Parameters
    ----------
    source
        A name that `list_models` gives, or a folder with the authors' files (or the weights file in it).
    target
        The folder to write; it is not there before it is complete. A saved model in it is replaced.
    family
        Family of the files; found out from them where only one fits.
    dtype
        `"float32"`, or `"bfloat16"` and `"float16"` for half the size, rounded.
    given
        What the files do not state, as for `load`.

    Returns
    -------
    The folder.

    Raises
    ------
    FileExistsError
        The folder holds anything but a saved model.
    ValueError
        The name is unknown, or the files fit no family or several; and whatever else `load` raises.
    """
    check_target(target)
    load(source, family=family, device="cpu", dtype=dtype, **given).save(target)
    return Path(target)
