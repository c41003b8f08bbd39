"""What holds for every family of the zoo, so that a new one is tested without new tests."""

from __future__ import annotations

import dataclasses
import json

import pytest

from sclcm._sizes import Config, Count, Given, ReleaseFacts, Shape, names_asked
from sclcm.checkpoints.keymap import KeyMap
from sclcm.genes.vocabulary import GeneVocabulary
from sclcm.models import describe, list_models
from sclcm.nn.readouts import FirstToken, LayeredHead, LinearHead
from sclcm.nn.set_configs import ActivatedHead, BagOfGenes, MixtureReadout, TokenItself
from sclcm.nn.table_configs import NoBackbone
from sclcm.zoo._recipes import BlockMean, BlockSum
from sclcm.zoo._registry import family_names, get_spec
from sclcm.zoo._spec import (
    HasTensor,
    LacksTensor,
    ModelSpec,
    Recipe,
    StoredArray,
    Variant,
    VocabularyHas,
    holds,
    with_variants,
)

FAMILIES = family_names()


@pytest.fixture(params=FAMILIES)
def spec(request):
    return get_spec(request.param)


def test_zoo_has_families():
    assert "geneformer" in FAMILIES
    assert len(FAMILIES) == len(set(FAMILIES))


def test_names_of_models_are_unique_and_described():
    names = list_models()
    assert len(names) == len(set(names))
    for name in names:
        assert describe(name)["name"] == name


def test_spec_is_complete(spec):
    assert isinstance(spec, ModelSpec)
    assert spec.name in FAMILIES
    assert spec.title
    assert spec.reference
    assert "embed" in spec.recipes
    assert spec.weights
    assert spec.vocabulary.pad in spec.vocabulary.specials or isinstance(spec.architecture.gene, BagOfGenes)
    assert spec.vocabulary.mask is None or spec.vocabulary.mask in spec.vocabulary.specials
    assert isinstance(spec.keys, KeyMap)


def test_spec_is_frozen(spec):
    with pytest.raises(dataclasses.FrozenInstanceError):
        spec.name = "other"


def test_description_is_complete_and_plain(spec):
    found = describe(spec.name)
    for first in list(spec.checkpoints)[:1]:
        assert found == describe(f"{spec.name}.{first}")
    assert json.loads(json.dumps(found)) == found
    words = ("title", "reference", "license", "description", "needs", "gene_ids", "species", "recipes")
    card = ("gene_encoding", "value_encoding", "backbone", "objective", "corpus", "tasks", "input")
    for key in (*words, *card):
        assert found[key], key
    assert "embed" in found["recipes"]
    assert not spec.checkpoints or found["bundled"] or (found["source"] and found["files"])


def test_encoding_names_arrays_and_tokens_that_the_spec_declares(spec):
    named = {
        getattr(step, field.name)
        for step in spec.encoding.normalize
        for field in dataclasses.fields(step)
        if field.name in ("factors", "mean", "deviation")
    }
    assert named <= set(spec.arrays)
    assert {*spec.encoding.prefix, *spec.encoding.suffix} <= set(spec.vocabulary.specials)


def encodings(spec):
    return [spec.encoding, *(recipe.encoding for recipe in all_recipes(spec) if recipe.encoding is not None)]


def test_conditions_name_tokens_and_arrays_that_the_spec_declares(spec):
    for encoding in encodings(spec):
        known = {name for token in encoding.context for name in (*token.tokens, *token.aliases.values())}
        assert known <= set(spec.vocabulary.specials)
        assert all(set(token.aliases.values()) <= set(token.tokens) for token in encoding.context)
        for choice in encoding.choices:
            assert set(choice.arrays.values()) <= set(spec.arrays)
            assert {choice.otherwise, *choice.by_token.values()} <= set(choice.arrays)
            followed = next(token for token in encoding.context if token.name == choice.follows)
            assert set(choice.by_token) <= set(followed.tokens)


def test_model_that_reads_values_gets_them(spec):
    assert spec.architecture.value is None or spec.encoding.value is not None


def all_recipes(spec):
    return [*spec.recipes.values(), *(recipe for variant in spec.variants for recipe in variant.recipes.values())]


def test_recipes_count_layers_from_the_end_and_name_heads_that_exist(spec):
    heads = {
        **spec.architecture.heads,
        **{name: head for variant in spec.variants for name, head in variant.heads.items()},
    }
    for recipe in all_recipes(spec):
        assert isinstance(recipe, Recipe)
        assert isinstance(recipe.layer, BlockMean | BlockSum) or recipe.layer < 0
        assert recipe.head is None or isinstance(
            heads[recipe.head], LinearHead | LayeredHead | MixtureReadout | ActivatedHead
        )


def test_recipes_read_the_token_itself_where_tokens_are_cells_and_nowhere_else(spec):
    are_cells = isinstance(spec.architecture.gene, BagOfGenes)
    assert all(isinstance(recipe.pooling, TokenItself) == are_cells for recipe in all_recipes(spec))


def test_recipe_of_the_first_token_needs_one_that_is_special(spec):
    """`FirstToken` of a family without a prefix would be a gene."""
    if any(recipe.pooling == FirstToken() for recipe in all_recipes(spec)):
        assert spec.encoding.prefix or spec.encoding.reserved


def rules(declaration):
    if isinstance(declaration, (Config, Count, Given, Shape)):
        yield declaration
    elif dataclasses.is_dataclass(declaration):
        for field in dataclasses.fields(declaration):
            yield from rules(getattr(declaration, field.name))
    elif isinstance(declaration, dict):
        for value in declaration.values():
            yield from rules(value)
    elif isinstance(declaration, tuple):
        for value in declaration:
            yield from rules(value)


def test_sizes_of_a_published_model_are_read_and_not_typed(spec):
    if any(checkpoint.bundled is None for checkpoint in spec.checkpoints.values()):
        architecture = spec.architecture
        for size in (architecture.d_model, architecture.gene.n_tokens):
            assert list(rules(size)), size
        assert architecture.backbone == NoBackbone() or list(rules(architecture.backbone.n_blocks))
    assert names_asked(spec) >= {rule.key for rule in rules(spec.architecture) if isinstance(rule, Config)}


def test_stored_arrays_are_no_tensors_of_the_key_map(spec):
    tensors = [source.tensor for source in spec.arrays.values() if isinstance(source, StoredArray)]
    assert len(tensors) == len(set(tensors))


# ---- registry ----


def test_unknown_family_lists_those_that_exist():
    with pytest.raises(ValueError, match=r"'genefromer' is unknown; known are .*'geneformer'"):
        get_spec("genefromer")


@pytest.mark.parametrize("name", ["_spec", "_registry", "__init__"])
def test_helpers_are_no_families(name):
    with pytest.raises(ValueError, match="is unknown"):
        get_spec(name)


class _Offered:
    """An entry point of another package."""

    name = "offered"

    def load(self):
        return dataclasses.replace(get_spec("geneformer"), name="offered")


def test_other_packages_may_offer_families(monkeypatch):
    def offered(*, group, name=None):
        assert group == "sclcm.zoo"
        return [_Offered()] if name in (None, "offered") else []

    monkeypatch.setattr("sclcm.zoo._registry.entry_points", offered)
    assert "offered" in family_names()
    assert get_spec("offered").name == "offered"
    assert get_spec("geneformer").name == "geneformer"
    assert "offered.v1-10m" in list_models()


# ---- variants ----


def vocabulary(*specials):
    tokens = {name: i for i, name in enumerate((*specials, "ENSG00000000003"))}
    return GeneVocabulary.from_mapping(tokens, specials=specials, ids="ensembl")


def test_conditions_are_about_files_only():
    facts = ReleaseFacts(shapes={"head.weight": (3, 4)})
    assert holds(HasTensor("head.weight"), facts, vocabulary())
    assert not holds(HasTensor("other"), facts, vocabulary())
    assert holds(LacksTensor("other"), facts, vocabulary())
    assert not holds(LacksTensor("head.weight"), facts, vocabulary())
    assert holds(VocabularyHas("<cls>"), facts, vocabulary("<cls>"))
    assert not holds(VocabularyHas("<cls>"), facts, vocabulary("<pad>"))


def test_variant_adds_heads_keys_and_recipes_where_all_its_conditions_hold():
    variant = Variant(
        when=(VocabularyHas("<cls>"), HasTensor("w")),
        heads={"extra": LinearHead(d_in=4, d_out=2)},
        keys=KeyMap(),
        recipes={"embed": Recipe(pooling=FirstToken())},
    )
    plain = dataclasses.replace(get_spec("geneformer"), variants=(variant,))
    facts = ReleaseFacts(shapes={"w": (1,)})
    merged = with_variants(plain, facts, vocabulary("<cls>"))
    assert merged.architecture.heads == {"extra": LinearHead(d_in=4, d_out=2)}
    assert merged.recipes["embed"] == Recipe(pooling=FirstToken())
    assert set(merged.recipes) == set(plain.recipes)
    assert with_variants(plain, facts, vocabulary("<pad>")) == plain
    assert with_variants(plain, ReleaseFacts(), vocabulary("<cls>")) == plain
