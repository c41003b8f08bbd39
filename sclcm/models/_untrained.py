"""`build`: a model of a family with random weights, over genes of one's own."""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sclcm._sizes import as_int, fill_sizes, names_to_fill
from sclcm.genes.names import guess_id_type, guess_species
from sclcm.genes.vocabulary import GeneVocabulary
from sclcm.models._build import build_lcm, check_places, check_settings, count_weights
from sclcm.models._declarations import check_declaration
from sclcm.models._device import choose_device, choose_dtype
from sclcm.models._digest import Digest
from sclcm.models._gene_bins import gene_bin_vocabulary
from sclcm.models._gene_vectors import vectors_of
from sclcm.models._parts import with_blocks
from sclcm.models._pretrained import Pretrained
from sclcm.nn.fixed_configs import VectorMLP
from sclcm.nn.lcm import LCM
from sclcm.nn.table_configs import NoBackbone
from sclcm.zoo._gene_bins import GeneBinVocabulary
from sclcm.zoo._gene_vectors import VectorGenes
from sclcm.zoo._registry import get_spec
from sclcm.zoo._species import SpeciesTables
from sclcm.zoo._vocabularies import TokenLists

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping
    from pathlib import Path

    import pandas as pd

    from sclcm.encoding.sentences import Encoding
    from sclcm.nn.configs import LCMConfig
    from sclcm.zoo._spec import ModelSpec


def build(
    family: str,
    gene_ids: Iterable[str],
    *,
    name: str | None = None,
    arrays: Mapping[str, np.ndarray] | None = None,
    vectors: pd.DataFrame | Mapping[str, Any] | None = None,
    backbone: str | Path | None = None,
    random_state: int = 0,
    device: str | torch.device = "auto",
    dtype: str | torch.dtype = "auto",
    **sizes: Any,
) -> Pretrained:
    """Build a new model of a family, with random weights, over your own genes.

    For families without published weights, for training from scratch, and for tests. The vectors of an untrained model
    mean nothing.

    Parameters
    ----------
    family
        A family of the zoo.
    gene_ids
        The genes of the model, in order and each once: symbols or Ensembl ids.
    name
        Name of the model, after which the slots it writes are named; by default the name of the family.
    arrays
        Further inputs of the family's encoding by name, such as medians, with one number per gene. Only some families
        need any.
    vectors
        A vector for each gene, for example of its description, for families that represent genes by such
        vectors: a data frame with genes as its index, or a dictionary.
    backbone
        Folder with the weights of the blocks, in the files and with the names of the family's authors; everything else
        is random. With `None` the blocks are random, too.
    random_state
        Seed of the weights.
    device
        `"auto"` is CUDA, else MPS, else the CPU.
    dtype
        `"float32"`, `"bfloat16"`, `"float16"`; `"auto"` is bfloat16 on CUDA and float32 elsewhere.
    sizes
        Sizes and settings that a release would contain, such as `d_model=64, n_blocks=2, n_heads=4`. The defaults are
        those of the family's authors; an error names the settings that have no default.

    Returns
    -------
    The model, in evaluation mode. It can be used, saved and loaded like any other.

    Raises
    ------
    ValueError
        The family is unknown, comes with a list of genes of its own, or lacks a size; a gene is named twice, or has no
        vector; the blocks are of another kind of model.
    TypeError
        An argument is no size of the family, or one that the folder of the blocks states.
    FileNotFoundError
        The folder of the blocks lacks a file.
    MemoryError
        The model is larger than the memory of this machine.
    """
    spec = _buildable(family)
    _check_names(spec, sizes)
    genes = _checked(gene_ids, spec.vocabulary.specials)
    rows = _checked_vectors(spec, vectors, genes=genes, sizes=sizes)
    blocks: Mapping[str, torch.Tensor] = {}
    if backbone is not None:
        number_type = choose_dtype(dtype, choose_device(device))
        spec, blocks = with_blocks(spec, backbone, given=sizes, dtype=number_type)
    return _assembled(
        spec, genes, name=name or family, arrays=arrays or {}, rows=rows, blocks=blocks, seed=random_state, sizes=sizes
    ).to(device, dtype)


def _buildable(family: str) -> ModelSpec:
    """Return the spec of a family that can have other genes than its authors'; `ValueError` for the others."""
    spec = get_spec(family)
    if isinstance(spec.vocabulary, TokenLists):
        msg = f"{family!r} comes with its authors' lists of genes and words, so none can be built over other genes."
        raise ValueError(msg)
    if isinstance(spec.vocabulary, SpeciesTables):
        msg = f"{family!r} reads genes by vectors of its authors; `with_species` gives it those of other genes."
        raise ValueError(msg)
    if isinstance(spec.vocabulary, VectorGenes):
        msg = f"{family!r} is a table of gene vectors, not trained; `sclcm.models.from_gene_vectors` takes any table."
        raise ValueError(msg)
    return spec


def _assembled(
    spec: ModelSpec,
    genes: list[str],
    *,
    name: str,
    arrays: Mapping[str, np.ndarray],
    rows: np.ndarray | None,
    blocks: Mapping[str, torch.Tensor],
    seed: int,
    sizes: Mapping[str, Any],
) -> Pretrained:
    """Put a model together, where its genes, their vectors and its blocks have been looked at."""
    known = {**spec.sizes, **sizes}
    vocabulary = _vocabulary(spec, genes, known)
    derived = {} if rows is None else {"d_vector": rows.shape[1]}
    encoding, architecture, (recipes, gene_recipes) = _resolved(spec, vocabulary, known=known, more=derived)
    lcm = _random_network(architecture, seed, blocks)
    if rows is not None:
        lcm.embed.gene.weight[torch.tensor(vocabulary.token_ids, dtype=torch.int64)] = torch.from_numpy(rows)
    return Pretrained(
        name=name,
        family=spec.name,
        vocabulary=vocabulary,
        gene_columns=spec.vocabulary.gene_columns,
        pad=spec.vocabulary.pad,
        mask=spec.vocabulary.mask if spec.vocabulary.mask in vocabulary.specials else None,
        encoding=encoding,
        architecture=architecture,
        recipes=recipes,
        gene_recipes=gene_recipes,
        arrays=_checked_arrays(spec, arrays, len(genes)),
        needs=spec.needs,
        accepts_bulk=spec.accepts_bulk,
        lcm=lcm,
        digest=Digest.of_tensors(lcm.state_dict(), genes),
    )


def _checked(gene_ids: Iterable[str], specials: tuple[str, ...]) -> list[str]:
    """Return the genes; refuse a string, other things than names, special tokens and repeats."""
    if isinstance(gene_ids, str):
        msg = f"`gene_ids` is {gene_ids!r}; expected a list of gene names, such as `adata.var_names`."
        raise TypeError(msg)
    genes = [str(gene) for gene in gene_ids]
    if not genes or not all(genes):
        msg = (
            f"`gene_ids` has {len(genes)} names, one of them empty; expected names."
            if genes
            else "`gene_ids` is empty."
        )
        raise ValueError(msg)
    if taken := sorted(set(genes) & set(specials)):
        msg = f"`gene_ids` names {taken[0]!r}, a special token of the family; leave it out."
        raise ValueError(msg)
    if len(set(genes)) < len(genes):
        twice = next(gene for i, gene in enumerate(genes) if gene in genes[:i])
        msg = f"`gene_ids` names {twice!r} twice; expected each gene once, as after `adata.var_names_make_unique()`."
        raise ValueError(msg)
    return genes


def _check_names(spec: ModelSpec, sizes: Mapping[str, Any]) -> None:
    """Refuse arguments that no part of the family's declaration reads."""
    takes = names_to_fill((spec.encoding, spec.architecture, spec.recipes, spec.gene_recipes, spec.vocabulary))
    if unknown := sorted(sizes.keys() - takes):
        listed = ", ".join(f"`{name}`" for name in sorted(takes))
        msg = f"`build` got `{unknown[0]}`, which says nothing here: {spec.name!r} takes {listed}."
        raise TypeError(msg)


def _vocabulary(spec: ModelSpec, genes: list[str], known: Mapping[str, Any]) -> GeneVocabulary:
    """Number the special tokens of the family, then the genes."""
    source, told, ids = spec.vocabulary, guess_species(genes), guess_id_type(genes)
    species = source.species if told is None else (told,)
    if isinstance(source, GeneBinVocabulary):
        return gene_bin_vocabulary(fill_sizes(source, known), genes, ids=ids, species=species)
    tokens = [*source.specials, *genes]
    return GeneVocabulary.from_mapping(
        {token: i for i, token in enumerate(tokens)},
        specials=source.specials,
        ids=ids,
        species=species,
        merge=getattr(source, "merge", "sum"),
    )


def _resolved(
    spec: ModelSpec, vocabulary: GeneVocabulary, *, known: Mapping[str, Any], more: Mapping[str, int]
) -> tuple[Encoding, LCMConfig, tuple[Mapping[str, Any], Mapping[str, Any]]]:
    """Fill in the sizes: those given, then the authors', then those that follow from the vocabulary."""
    longest = vocabulary.n_features + len(spec.encoding.prefix) + len(spec.encoding.suffix)
    encoding: Encoding = fill_sizes(spec.encoding, known, fallback={"max_tokens": longest})
    n_positions = longest if encoding.max_tokens is None else as_int(encoding.max_tokens)
    specials = len(vocabulary.specials)
    derived = {"n_tokens": vocabulary.n_tokens, "n_positions": n_positions, "n_specials": specials, **more}
    recipes = (spec.recipes, spec.gene_recipes)
    architecture, recipes = fill_sizes((spec.architecture, recipes), known, fallback=derived)
    check_settings((encoding, recipes))
    check_declaration(architecture)
    check_places(encoding, architecture)
    return encoding, architecture, recipes


def _random_network(architecture: LCMConfig, random_state: int, blocks: Mapping[str, torch.Tensor]) -> LCM:
    """Draw weights from a stream of their own, but for blocks that are there; the caller's streams stay as they are."""
    drawn = dataclasses.replace(architecture, backbone=NoBackbone()) if blocks else architecture
    _check_memory(drawn)
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(random_state)  # `torch.manual_seed` would seed every device as well
        lcm = LCM(drawn)
    if blocks:
        return build_lcm(architecture, {**lcm.state_dict(), **blocks})
    lcm.requires_grad_(False)  # noqa: FBT003
    return lcm.eval()


def _check_memory(architecture: LCMConfig) -> None:
    """Refuse more weights than the machine can hold, which would end the process without a word."""
    memory = machine_memory()
    if memory is not None and (needed := 4 * count_weights(architecture)) > memory:
        msg = (
            f"A model of these sizes has {needed / 4e9:.1f} billion weights, {needed / 1e9:,.0f} GB when drawn; "
            f"this machine has {memory / 1e9:,.0f} GB of memory. Give smaller sizes, such as `d_model` and `n_blocks`, "
            "or weights for the blocks, as `backbone`."
        )
        raise MemoryError(msg)


def machine_memory() -> int | None:
    """Return the memory of this machine in bytes; `None` where the system does not say."""
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, OSError, ValueError):
        return None


def _checked_vectors(
    spec: ModelSpec, vectors: pd.DataFrame | Mapping[str, Any] | None, *, genes: list[str], sizes: Mapping[str, Any]
) -> np.ndarray | None:
    """Return the vectors of genes, for families that know genes by them."""
    if not isinstance(spec.architecture.gene, VectorMLP):
        if vectors is not None:
            msg = f"`build` got `vectors`, but {spec.name!r} knows genes by a table of its own; leave them out."
            raise TypeError(msg)
        return None
    if vectors is None:
        msg = (
            f"{spec.name!r} knows genes by vectors, such as of their descriptions; pass `vectors`, a data frame or a "
            "dictionary with one for each gene, as `sclcm.genes.vectors_from_text` makes it."
        )
        raise ValueError(msg)
    rows = vectors_of(vectors, genes)
    if sizes.get("d_vector", rows.shape[1]) != rows.shape[1]:
        msg = f"`d_vector` is {sizes['d_vector']!r}, but `vectors` has vectors of {rows.shape[1]}; leave it out."
        raise ValueError(msg)
    return rows


def _checked_arrays(spec: ModelSpec, arrays: Mapping[str, np.ndarray], n_genes: int) -> dict[str, np.ndarray]:
    if missing := sorted(spec.arrays.keys() - arrays.keys()):
        msg = f"The encoding of {spec.name!r} reads `{missing[0]}`, a number for each gene; pass it in `arrays`."
        raise ValueError(msg)
    found = {name: np.asarray(array) for name, array in arrays.items()}
    for name, array in found.items():
        if name not in spec.arrays or array.shape != (n_genes,) or array.dtype.kind not in "fiu":
            msg = (
                f"`arrays[{name!r}]` ({array.dtype}, shape {array.shape!r}) is none of {sorted(spec.arrays)}, with a "
                f"number for each of {n_genes} genes."
            )
            raise ValueError(msg)
    return found
