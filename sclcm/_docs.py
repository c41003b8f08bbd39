"""Texts that several docstrings share, and the decorator that puts them in."""

from __future__ import annotations

from textwrap import indent
from types import MappingProxyType
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_Function = TypeVar("_Function", bound="Callable[..., object]")

TEXTS: Mapping[str, str] = MappingProxyType(
    {
        "adata": """
adata
    Annotated data, cells in rows.
""",
        "model": """
model
    Name of a model (see :func:`sclcm.models.list_models`), path of a saved one, or a loaded
    :class:`~sclcm.models.Pretrained`.
""",
        "source": """
layer
    Layer to read instead of `.X`.
use_raw
    Read `.raw.X`. Excludes `layer`.
gene_key
    Column of `.var` that holds the gene names the model is to look up, `"var_names"` for the index. `None` takes the
    index or a well-known column, whichever the model understands, and logs which.
""",
        "conditions": """
conditions
    What the cells are, for models that are told so: by the name of each condition (:func:`sclcm.models.describe` lists
    them) a column of `.obs`, one value for all cells, or `None` where no value fits. Without it, columns of `.obs` that
    the model's authors name are read.
""",
        "running": """
batch_size
    Most cells in one batch. `None` lets it follow from the width of the model and the memory that is free.
device
    `"auto"`, `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"`.
dtype
    `"auto"`, `"float32"`, `"bfloat16"` or `"float16"`.
""",
        "random_state": """
random_state
    Seed of whatever is random.
""",
        "writing": """
key_added
    Replaces the base of the names under which results are stored.
copy
    Return a changed copy and leave `adata` alone.
""",
    }
)


def with_shared_docs(function: _Function) -> _Function:
    """Replace each line `%(name)s` of a docstring by the text of that name, at the line's own indent."""
    if function.__doc__:
        function.__doc__ = "\n".join(_expanded(line) for line in function.__doc__.splitlines())
    return function


def _expanded(line: str) -> str:
    name = line.strip()
    if not (name.startswith("%(") and name.endswith(")s")):
        return line
    margin = line[: len(line) - len(line.lstrip())]
    return indent(TEXTS[name[2:-2]].strip("\n"), margin)
