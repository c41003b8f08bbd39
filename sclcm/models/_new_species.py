"""A species of the user's own for a model that reads genes by fixed vectors: protein vectors and a table of places."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch

from sclcm.encoding.groups import SampledGroups
from sclcm.genes.vocabulary import GeneVocabulary
from sclcm.models._build import build_lcm
from sclcm.models._digest import Digest
from sclcm.nn.fixed_configs import ProjectedVectors

if TYPE_CHECKING:
    from sclcm.models._pretrained import Pretrained

SHOWN = 3
COLUMNS = ("chromosome", "start")


def with_species(
    model: Pretrained,
    species: str,
    *,
    vectors: Mapping[str, np.ndarray] | pd.DataFrame,
    chromosomes: pd.DataFrame,
    seed: int = 0,
) -> Pretrained:
    """Return a model that reads the genes of another species, through the vectors of their proteins.

    The new model knows only the new species; its trained weights are those of `model`. The vectors have to be made in
    the same way as those of the model, which its authors describe.

    Parameters
    ----------
    model
        A model with fixed gene vectors whose sentences are in genomic order, such as UCE.
    species
        Name of the species.
    vectors
        A dictionary symbol -> vector, or a data frame with symbols as its index. The letter case of symbols does not
        matter.
    chromosomes
        A table with one row per gene, with symbols as its index or in the column `gene_symbol`, and the columns
        `chromosome` and `start`, the first base. Genes without a vector are left out.
    seed
        Seed of the random vectors that represent chromosomes; upstream uses the taxonomy id of NCBI.

    Returns
    -------
    The new model; store it with its `save` method.

    Raises
    ------
    ValueError
        A symbol occurs twice, a gene has no chromosome or no start, or a vector has the wrong width or is not finite.
    TypeError
        An argument has the wrong type.
    """
    config, select = model.architecture.gene, model.encoding.select
    if not isinstance(config, ProjectedVectors) or not isinstance(select, SampledGroups):
        msg = f"{model.name!r} has a vector of its own for each gene, so that genes cannot be added by vectors."
        raise ValueError(msg)
    names, table = _checked_vectors(vectors, model.lcm.embed.gene.weight.shape[1])
    places = _checked_places(chromosomes, names, species)
    labels = tuple(sorted(set(places["label"])))
    vocabulary = _vocabulary(model, species, names=names, labels=labels)
    n_rows, first = vocabulary.n_tokens, int(vocabulary.token_ids[-1]) + 1
    group, start = np.full(n_rows, -1, dtype=np.int64), np.zeros(n_rows, dtype=np.int64)
    group[vocabulary.token_ids] = first + np.searchsorted(labels, places["label"])
    start[vocabulary.token_ids] = places["start"]
    state = model.lcm.state_dict()
    rows = _rows(state["embed.gene.weight"], table, n_special=first - len(names), n_groups=len(labels), seed=seed)
    architecture = dataclasses.replace(model.architecture, gene=dataclasses.replace(config, n_tokens=n_rows))
    return dataclasses.replace(
        model,
        vocabulary=vocabulary,
        architecture=architecture,
        arrays={**model.arrays, select.group: group, select.place: start},
        lcm=build_lcm(architecture, {**state, "embed.gene.weight": rows}),
        digest=_digest(model, species, names, rows, group, start),
    )


def _checked_vectors(vectors: Mapping[str, Any] | pd.DataFrame, width: int) -> tuple[list[str], np.ndarray]:
    """Return the symbols as they are spelt, and their vectors, shape `(genes, width)`, float32."""
    if isinstance(vectors, pd.DataFrame):
        names, rows = vectors.index.tolist(), list(vectors.to_numpy())
    elif isinstance(vectors, Mapping):
        names, rows = list(vectors), list(vectors.values())
    else:
        msg = f"`vectors` is a {type(vectors).__name__}; expected a dictionary of symbol and vector, or a DataFrame."
        raise TypeError(msg)
    _check_symbols(names, "vectors")
    arrays = [np.asarray(row) for row in rows]
    if wrong := [
        name for name, a in zip(names, arrays, strict=True) if a.shape != (width,) or a.dtype.kind not in "fiu"
    ]:
        shape = arrays[names.index(wrong[0])].shape
        msg = f"`vectors` has {wrong[0]!r} in the shape {shape}; expected {width} numbers, as the model's vectors have."
        raise ValueError(msg)
    table = np.stack(arrays).astype(np.float32)
    if not (finite := np.isfinite(table).all(1)).all():
        msg = f"`vectors` has values that are not finite for {_listed(np.array(names, dtype=object)[~finite])}."
        raise ValueError(msg)
    return names, table


def _checked_places(chromosomes: pd.DataFrame, names: list[str], species: str) -> dict[str, np.ndarray]:
    """Return label of chromosome and first base of each gene, in the order of the vectors."""
    if not isinstance(chromosomes, pd.DataFrame):
        msg = f"`chromosomes` is a {type(chromosomes).__name__}; expected a DataFrame with a row for each gene."
        raise TypeError(msg)
    table = chromosomes.set_index("gene_symbol") if "gene_symbol" in chromosomes else chromosomes
    if missing := [column for column in COLUMNS if column not in table]:
        msg = f"`chromosomes` has no column {missing[0]!r}; its columns are {list(chromosomes.columns)}."
        raise ValueError(msg)
    _check_symbols(table.index.tolist(), "chromosomes")
    place = pd.Index([name.upper() for name in table.index]).get_indexer([name.upper() for name in names])
    listed = np.array(names, dtype=object)
    if (place < 0).any():
        msg = (
            f"`chromosomes` lacks {(place < 0).sum():,} genes that have a vector: {_listed(listed[place < 0])}. Add "
            "their rows, or leave out their vectors."
        )
        raise ValueError(msg)
    rows = table.iloc[place]
    if (empty := rows["chromosome"].isna().to_numpy()).any():
        msg = f"`chromosomes` gives no chromosome for {_listed(listed[empty])}."
        raise ValueError(msg)
    start = pd.to_numeric(rows["start"], errors="coerce").to_numpy(dtype=np.float64, na_value=np.nan)
    if (wrong := ~(np.isfinite(start) & (start >= 0) & (start == np.floor(start)))).any():
        msg = f"`chromosomes` gives no whole number, 0 or more, as `start` for {_listed(listed[wrong])}."
        raise ValueError(msg)
    labels = np.array([f"{species}_{chromosome}" for chromosome in rows["chromosome"]])
    return {"label": labels, "start": start.astype(np.int64)}


def _check_symbols(names: list[Any], where: str) -> None:
    if not names:
        msg = f"`{where}` is empty; expected a row for each gene."
        raise ValueError(msg)
    if wrong := [name for name in names if not isinstance(name, str) or not name]:
        msg = f"`{where}` has {wrong[0]!r} as a symbol; expected text."
        raise TypeError(msg)
    seen: set[str] = set()
    if twice := [name for name in names if name.upper() in seen or seen.add(name.upper())]:  # type: ignore[func-returns-value]
        msg = f"`{where}` has {_listed(twice)} more than once; letter case does not tell genes apart."
        raise ValueError(msg)


def _listed(names: Any) -> str:
    shown = ", ".join(repr(str(name)) for name in names[:SHOWN])
    return shown + (", ..." if len(names) > SHOWN else "")


def _vocabulary(model: Pretrained, species: str, *, names: list[str], labels: tuple[str, ...]) -> GeneVocabulary:
    """Special tokens as the model has them, then genes, then chromosomes."""
    if not isinstance(species, str) or not species:
        msg = f"`species` is {species!r}; expected a name."
        raise TypeError(msg)
    known = model.vocabulary
    specials = {name: row for name, row in known.specials.items() if row < known.token_ids[0]}
    first = 1 + max(specials.values()) if specials else 0
    return GeneVocabulary(
        features=np.array(names, dtype=object),
        token_ids=np.arange(first, first + len(names)),
        specials=specials | {f"<{label}>": first + len(names) + i for i, label in enumerate(labels)},
        ids=known.ids,
        species=(species,),
        merge=known.merge,
        ignore_case=known.ignore_case,
    )


def _rows(table: torch.Tensor, vectors: np.ndarray, *, n_special: int, n_groups: int, seed: int) -> torch.Tensor:
    """Stack the model's rows of special tokens, the genes' vectors, and a random row for each chromosome."""
    generator = torch.Generator().manual_seed(seed)
    random = torch.empty(n_groups, table.shape[1]).normal_(generator=generator)
    rows = [table[:n_special].cpu().float(), torch.from_numpy(vectors), random]
    return torch.cat(rows).to(device=table.device, dtype=table.dtype)


def _digest(model: Pretrained, species: str, names: list[str], *content: torch.Tensor | np.ndarray) -> Digest:
    """Return the digest of the model's files and of what was added."""
    digest = hashlib.sha256(f"{model.sha256} {species} {names}".encode())
    for part in content:
        array = part.detach().cpu().float().numpy() if isinstance(part, torch.Tensor) else part
        digest.update(np.ascontiguousarray(array).tobytes())
    return Digest(digest.hexdigest())
