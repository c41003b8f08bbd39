"""`describe`: what is known of a model without reading its files."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

from sclcm.models._brief import brief, brief_recipes
from sclcm.models._fetch import describe_files
from sclcm.models._load import find_checkpoint
from sclcm.zoo._modules import LinkedIds
from sclcm.zoo._registry import family_names, get_spec
from sclcm.zoo._spec import Checkpoint
from sclcm.zoo._species import SpeciesTables

if TYPE_CHECKING:
    from sclcm.zoo._spec import ModelSpec

UNPUBLISHED = Checkpoint(
    description="no weights are published; `sclcm.models.build` makes a model with random weights",
    license="none, as there are no weights",
)
"""What is said of a family without published weights."""


def describe(name: str) -> dict[str, Any]:
    """Describe a model, without reading any weights.

    Parameters
    ----------
    name
        A family or `family.checkpoint`.

    Returns
    -------
    A dictionary with title, reference and licence; where the files come from, how large they are and where they will be
    stored; the input that the model needs; its recipes and heads; and, in words, its architecture and training.

    Raises
    ------
    ValueError
        The name is unknown.
    """
    if name in family_names() and not get_spec(name).checkpoints:
        spec, key, checkpoint = get_spec(name), "", UNPUBLISHED
    else:
        spec, key = find_checkpoint(name)
        checkpoint = spec.checkpoints[key]
    return {
        "name": f"{spec.name}.{key}" if key else spec.name,
        "title": spec.title,
        "description": checkpoint.description,
        "reference": spec.reference,
        "license": checkpoint.license,
        "n_parameters": checkpoint.n_parameters,
        **dataclasses.asdict(spec.card),
        "tasks": list(spec.card.tasks),
        **describe_files(spec.name, key, checkpoint),
        "needs": spec.needs,
        "accepts_bulk": spec.accepts_bulk or any(recipe.accepts_bulk for recipe in spec.recipes.values()),
        "gene_ids": spec.vocabulary.ids,
        "species": list(spec.vocabulary.species),
        "recipes": brief_recipes(spec),
        "gene_recipes": {recipe: brief(value) for recipe, value in spec.gene_recipes.items()},
        "conditions": _conditions(spec),
        "translates_to": "" if spec.translation is None else spec.translation.modality,
        "heads": sorted({*_all_heads(spec), *(head for variant in spec.variants for head in variant.heads)}),
    }


def _conditions(spec: ModelSpec) -> dict[str, list[str]]:
    """Return what a model is told of cells: the values of each condition."""
    tokens = {token.name: list(token.tokens) for token in spec.encoding.context}
    choices = {choice.name: list(choice.arrays) for choice in spec.encoding.choices}
    reads_species = spec.architecture.fusion is not None or spec.architecture.prefix is not None
    reads_species = reads_species or isinstance(spec.vocabulary, SpeciesTables | LinkedIds)
    return {**tokens, **choices, **({"species": list(spec.vocabulary.species)} if reads_species else {})}


def _all_heads(spec: ModelSpec) -> list[str]:
    decoder = spec.architecture.decoder
    return [*spec.architecture.heads, *(() if decoder is None else decoder.heads)]
