"""Tables of gene vectors made of descriptions, by any encoder of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd

if TYPE_CHECKING:
    from collections.abc import Callable


def vectors_from_text(
    descriptions: Mapping[str, str] | pd.Series,
    encoder: Callable[[list[str]], Any],
    *,
    batch_size: int = 64,
) -> pd.DataFrame:
    """Make a table of gene vectors from a description of each gene.

    Pass the table to :func:`sclcm.models.from_gene_vectors` to make a model of it.

    Parameters
    ----------
    descriptions
        A text for each gene: a dictionary gene -> text, or a series with genes as its index. Line breaks are
        replaced by spaces. A gene whose text is empty or missing gets a vector of zeros and is not passed to
        the encoder.
    encoder
        Any function that turns a list of texts into as many vectors of one length, such as the `encode` method of a
        sentence transformer or a call to an embedding service.
    batch_size
        Number of texts in one call of the encoder.

    Returns
    -------
    A data frame with one row per gene, in the order of the descriptions, float32.

    Raises
    ------
    TypeError
        The descriptions are not texts, or the encoder cannot be called.
    ValueError
        A gene is named twice, all texts are empty, or the encoder does not return one finite vector for each text.
    """
    texts = _texts(descriptions)
    if not callable(encoder):
        msg = f"`encoder` is a {type(encoder).__name__}; expected a function from a list of texts to vectors."
        raise TypeError(msg)
    if isinstance(batch_size, bool) or not isinstance(batch_size, int | np.integer) or batch_size < 1:
        msg = f"`batch_size` is {batch_size!r}; expected a number of texts, 1 or more."
        raise ValueError(msg)
    written = [gene for gene, text in texts.items() if text]
    if not written:
        msg = f"All {len(texts)} descriptions are empty; there is nothing to make vectors of."
        raise ValueError(msg)
    parts = [
        _encoded(encoder, [texts[gene] for gene in written[start : start + batch_size]], genes=written[start:])
        for start in range(0, len(written), batch_size)
    ]
    if len({part.shape[1] for part in parts}) > 1:
        msg = f"`encoder` gave vectors of several lengths, {sorted({part.shape[1] for part in parts})}; expected one."
        raise ValueError(msg)
    table = pd.DataFrame(np.concatenate(parts), index=written)
    return table.reindex(list(texts), fill_value=0.0)


def _texts(descriptions: Mapping[str, str] | pd.Series) -> dict[str, str]:
    """Return a stripped text for each gene, empty where there is none."""
    if isinstance(descriptions, pd.Series):
        if twice := descriptions.index[descriptions.index.duplicated()].tolist():
            msg = f"`descriptions` names {twice[0]!r} twice; expected each gene once."
            raise ValueError(msg)
        descriptions = dict(zip(descriptions.index.tolist(), descriptions.tolist(), strict=True))
    if not isinstance(descriptions, Mapping):
        msg = f"`descriptions` is a {type(descriptions).__name__}; expected a dictionary gene -> text, or a series."
        raise TypeError(msg)
    return {gene: _text(text, gene) for gene, text in descriptions.items()}


def _text(text: Any, gene: str) -> str:
    if text is None or (isinstance(text, float) and np.isnan(text)) or text is pd.NA:
        return ""
    if not isinstance(text, str):
        msg = f"The description of {gene!r} is a {type(text).__name__}; expected text, or nothing."
        raise TypeError(msg)
    return " ".join(text.split())


def _encoded(encoder: Callable[[list[str]], Any], texts: list[str], *, genes: list[str]) -> np.ndarray:
    """Return the vectors of some texts, shape `(texts, width)`, float32."""
    vectors = np.asarray(encoder(texts))
    if vectors.dtype.kind not in "fiu" or vectors.ndim != 2 or len(vectors) != len(texts) or not vectors.shape[1]:
        msg = (
            f"`encoder` gave an array of {vectors.dtype} and shape {vectors.shape!r} for {len(texts)} texts; expected "
            "one vector of numbers for each."
        )
        raise ValueError(msg)
    bad = ~np.isfinite(vectors).all(1)
    if bad.any():
        msg = f"`encoder` gave numbers that are not finite for the description of {genes[int(bad.argmax())]!r}."
        raise ValueError(msg)
    return vectors.astype(np.float32)
