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
    Name of a model (see :func:`sclcm.models.list_models`), path of a folder with its files, or a loaded
    :class:`~sclcm.models.Pretrained`.
""",
        "source": """
layer
    Layer to read instead of `.X`.
use_raw
    Read `.raw.X` instead of `.X`; cannot be combined with `layer`.
gene_key
    Column of `.var` with the gene names, or `"var_names"` for the index. `None` takes the index or a well-known column,
    whichever the model understands best, and logs which.
""",
        "conditions": """
conditions
    What the cells are, for models that need to know: the name of each condition (:func:`sclcm.models.describe` lists
    them) with a column of `.obs`, one value for all cells, or `None` if no value fits. Conditions that are left out are
    read from the columns of `.obs` that the model's authors name.
""",
        "running": """
batch_size
    Largest number of cells in a batch. `None` chooses it by the width of the model and the free memory; results do not
    depend on it.
device
    Where to compute: `"auto"`, `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"`. `"auto"` follows `sclcm.settings.device`.
dtype
    Number type: `"float32"`, `"bfloat16"`, `"float16"`, or `"auto"`, which is bfloat16 on CUDA devices that support it
    and float32 elsewhere.
""",
        "random_state": """
random_state
    Seed of all random steps.
""",
        "how": """
how
    Which vector represents a gene:

    - `"vocabulary"`: that of the model's gene encoder, which does not depend on counts.
    - `"fixed"`: the input of the gene encoder, such as a protein vector; for models with fixed gene vectors.
    - `"contextual"`: the output of a block at the gene's token, averaged over the cells in which it is a token.
    - `"measured"`: the same, with every gene of the data as a token of every cell; for models whose authors do so.
    - `"decoder"`: the output of the model's decoder for the gene, averaged over cells.
    - `"by_place"`: to reproduce the scripts of some authors: a gene of the first cell gets the average, over cells, of
      whatever is at its position in the sentence.
""",
        "reading_errors": """
ValueError
    The matrix does not hold what the model reads (the message names the place that does), the model knows too few of
    the genes, or it cannot do what is asked for.
KeyError
    There is no such layer or column.
FileNotFoundError
    The model's files are not on this machine and cannot be downloaded.
""",
        "writing": """
key_added
    Name under which the results are stored, in place of the default names below.
copy
    Return a changed copy and leave `adata` as it is.
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
