"""`ModelSpec`: what a zoo file declares of a published family. Frozen, torch-free, without control flow."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal, TypeAlias

from sclcm.checkpoints.keymap import KeyMap
from sclcm.nn.readouts import GreedyDecoding, HeadConfig, MeanPooling, Pooling
from sclcm.zoo._arrays import ArrayFile, RoundedArrayFile
from sclcm.zoo._checkpoints import Checkpoint, HubFiles  # noqa: F401, TC001 (zoo files take them from here)
from sclcm.zoo._conditions import AnyOf, Asked, ConfigIs, NoneOf
from sclcm.zoo._factors import PartialFactors
from sclcm.zoo._gene_vectors import VectorTable

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sclcm._sizes import ReleaseFacts
    from sclcm.encoding.depth import DepthValue
    from sclcm.encoding.sentences import Encoding
    from sclcm.genes.vocabulary import GeneVocabulary, Merge
    from sclcm.nn.configs import LCMConfig
    from sclcm.zoo._card import ModelCard
    from sclcm.zoo._gene_bins import GeneBinVocabulary
    from sclcm.zoo._gene_vectors import VectorFile, VectorGenes
    from sclcm.zoo._labels import ClassLabels, GeneratedLabels
    from sclcm.zoo._modules import LinkedIds, PickledModule, Translation
    from sclcm.zoo._recipes import BlockMean, BlockSum, GeneRecipe
    from sclcm.zoo._row_genes import RowGenes
    from sclcm.zoo._species import SpeciesTables
    from sclcm.zoo._submodels import InSubmodels
    from sclcm.zoo._vocabularies import GeneList, ListedGenes, TokenLists, VarNames, WordVocabulary


Needs: TypeAlias = Literal["counts", "log1p", "expression"]
"""What a matrix must hold: raw counts, log1p of counts per 10,000, or expression in any unit; nothing negative."""


@dataclass(frozen=True, kw_only=True)
class VocabularySource:
    """Which file of a release holds the gene vocabulary, and what its entries are.

    Parameters
    ----------
    files
        Patterns of the file with token -> id, in order of preference; JSON or a pickled dictionary.
    ids
        What the genes are named by.
    specials
        Special tokens the family knows; those that the file has are taken.
    pad
    mask
        Which of them pad a batch and hide a token.
    names
        Patterns of the authors' own map of any known name -> gene; empty if they have none.
    gene_columns
        Columns of var that the authors' input contract names.
    species
        Species of the genes.
    merge
        What becomes of several columns of one gene.
    append
        Whether special tokens that the file lacks have the ids after its last, as in the authors' code.
    """

    files: tuple[str, ...]
    ids: Literal["ensembl", "symbol"]
    specials: tuple[str, ...]
    pad: str
    mask: str | None = None
    names: tuple[str, ...] = ()
    gene_columns: tuple[str, ...] = ()
    species: tuple[str, ...] = ("human",)
    merge: Merge = "sum"
    append: bool = False


@dataclass(frozen=True, kw_only=True)
class GeneFactors:
    """A companion file with one number a gene; becomes an array in vocabulary order.

    Parameters
    ----------
    files
        Patterns of the file, in order of preference: gene -> number as JSON or a pickled dictionary.
    """

    files: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class StoredArray:
    """A companion array that lies in the weights file itself, in vocabulary order.

    Parameters
    ----------
    tensor
        Its name there.
    """

    tensor: str


@dataclass(frozen=True, kw_only=True)
class PrototypeSource:
    """Label prototypes that come with a model, for annotation without any training.

    Parameters
    ----------
    file
        JSON with `labels` and `ontology_ids` (one a prototype), `scale`, `min_score` and `recipe`.
    tensor
        Their vectors, in the weights file, shape `(prototypes, width)`.
    """

    file: str
    tensor: str


ArraySource: TypeAlias = GeneFactors | PartialFactors | StoredArray | ArrayFile | RoundedArrayFile | VectorTable


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """A cell embedding as its authors published it.

    Parameters
    ----------
    pooling
        How token vectors become one vector.
    layer
        Which block's output is pooled: -1 the last, -2 the one before it, and so on; or several.
    head
        A head applied to the pooled vector, or `None`.
    l2_normalize
        Whether the vector is scaled to length one.
    mask_padding
        Whether the model is kept from seeing padding. Else each sentence is filled up to the longest with padding that
        counts as tokens, as scripts of some authors do.
    decoding
        Tokens that are added to the sentence first. What is pooled is then what the last step reads, which is all but
        the token that it adds; the pooling is a `FromEnd` over the last block.
    encoding
        How the matrix becomes sentences for this recipe, or `None` where that is as the family does it.
    needs
        What the matrix must hold for this recipe, or `None` where that is as the family says.
    accepts_bulk
        Whether the recipe is for bulk samples.
    depth
        Depth that the model is asked for, in a model with a token that says so; `None` is as in the encoding.
    submodels
        Submodels that it is for, of a family that has some; empty if it is for any.
    """

    pooling: Pooling = field(default_factory=MeanPooling)
    layer: int | BlockMean | BlockSum = -1
    head: str | None = None
    l2_normalize: bool = False
    mask_padding: bool = True
    decoding: GreedyDecoding | None = None
    encoding: Encoding | None = None
    needs: Needs | None = None
    accepts_bulk: bool = False
    depth: DepthValue | None = None
    submodels: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class InWeights:
    """The configuration lies in the weights file, beside the tensors.

    Parameters
    ----------
    key
        The entry with the configuration.
    tensors
        The entry with the tensors.
    beside
        Pattern of the file that has the configuration where the tensors are safetensors, or `None`.
    """

    key: str
    tensors: str
    beside: str | None = None


@dataclass(frozen=True, kw_only=True)
class UnderKey:
    """The tensors lie under a key of the weights file, and there is no configuration.

    Parameters
    ----------
    tensors
        The entry with the tensors.
    """

    tensors: str


@dataclass(frozen=True, kw_only=True)
class BesideWeights:
    """The configuration lies in a file of its own, and the tensors under an entry of the weights file.

    Parameters
    ----------
    file
        Pattern of the configuration file.
    tensors
        The entry with the tensors.
    """

    file: str
    tensors: str


@dataclass(frozen=True)
class VocabularyHas:
    """The release's vocabulary has this special token."""

    token: str


@dataclass(frozen=True)
class HasTensor:
    """The checkpoint holds this tensor."""

    name: str


@dataclass(frozen=True)
class LacksTensor:
    """The checkpoint does not hold this tensor."""

    name: str


Condition: TypeAlias = VocabularyHas | HasTensor | LacksTensor | Asked | ConfigIs | AnyOf | NoneOf


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What some checkpoints of a family have besides, recognised by their files and never by their names.

    Parameters
    ----------
    when
        Conditions that must all hold.
    heads
        Heads that come in.
    keys
        Rules for their tensors.
    recipes
        Recipes that come in, or replace those of the family.
    architecture
        Parts of the architecture that come in, or replace those of the family, by the name of their field.
    labels
        Labels that they give, or `None` where that is as in the family.
    """

    when: tuple[Condition, ...]
    heads: Mapping[str, HeadConfig] = field(default_factory=dict)
    keys: KeyMap = field(default_factory=KeyMap)
    recipes: Mapping[str, Recipe] = field(default_factory=dict)
    architecture: Mapping[str, object] = field(default_factory=dict)
    labels: ClassLabels | None = None


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """A family of published models.

    Parameters
    ----------
    name
        Name of the family, equal to the name of its file.
    title
        One line.
    reference
        The publication.
    card
        What people compare families by.
    vocabulary
        Where the genes come from.
    encoding
        How counts become sentences; where tokens are cells, what is summed of each.
    architecture
        The model, with sizes as rules.
    keys
        The authors' tensor names and ours.
    recipes
        Embeddings as published; `"embed"` is the default.
    gene_recipes
        What a decoder says of every gene, as published.
    arrays
        Companion arrays that the encoding names.
    weights
        Patterns of the weights file, in order of preference.
    config
        Pattern of the configuration file, its place in or beside the weights file, or `None`.
    requires
        Entries of the configuration that must have a certain value where they are there, one of a frozen set, the size
        that the weights have (some only where they have a part, `WherePresent`), or of a tuple what goes with the
        tensors that are there.
    variants
        What some checkpoints have besides.
    prototypes
        Label prototypes, where the model has them.
    labels
        Labels that the model generates or scores, where it does.
    translation
        Features of another modality whose values the model gives, where it does.
    checkpoints
        Published weights; the first is the default. Empty where the authors publish none.
    needs
        What the matrix must hold, where a recipe says nothing else.
    accepts_bulk
        Whether the authors use it on bulk samples as well, so that those are no reason for a warning.
    sizes
        Sizes that the authors chose, by the names of the fields they belong to, for models that are built anew.
    """

    name: str
    title: str
    reference: str
    card: ModelCard
    vocabulary: (
        VocabularySource
        | RowGenes
        | SpeciesTables
        | TokenLists
        | GeneList
        | ListedGenes
        | VarNames
        | LinkedIds
        | WordVocabulary
        | GeneBinVocabulary
        | VectorGenes
    )
    encoding: Encoding
    architecture: LCMConfig
    keys: KeyMap
    recipes: Mapping[str, Recipe]
    gene_recipes: Mapping[str, GeneRecipe] = field(default_factory=dict)
    arrays: Mapping[str, ArraySource] = field(default_factory=dict)
    weights: tuple[str, ...]
    config: str | InWeights | UnderKey | BesideWeights | PickledModule | InSubmodels | VectorFile | None = "config.json"
    requires: Mapping[str, object] = field(default_factory=dict)
    variants: tuple[Variant, ...] = ()
    prototypes: PrototypeSource | None = None
    labels: GeneratedLabels | ClassLabels | None = None
    translation: Translation | None = None
    checkpoints: Mapping[str, Checkpoint]
    needs: Needs = "counts"
    accepts_bulk: bool = False
    sizes: Mapping[str, object] = field(default_factory=dict)


def holds(condition: Condition, facts: ReleaseFacts, vocabulary: GeneVocabulary) -> bool:  # noqa: PLR0911
    """Whether a condition holds for a release."""
    match condition:
        case VocabularyHas(token):
            return token in vocabulary.specials
        case HasTensor(name):
            return name in facts.shapes
        case LacksTensor(name):
            return name not in facts.shapes
        case Asked(setting, value):
            return facts.given.get(setting.name) == value
        case ConfigIs(key, values):
            return facts.config.get(key) in values
        case AnyOf(conditions):
            return any(holds(each, facts, vocabulary) for each in conditions)
        case NoneOf(conditions):
            return not any(holds(each, facts, vocabulary) for each in conditions)


def with_variants(spec: ModelSpec, facts: ReleaseFacts, vocabulary: GeneVocabulary) -> ModelSpec:
    """Return the spec with every variant merged in whose conditions hold for a release."""
    for variant in spec.variants:
        if all(holds(condition, facts, vocabulary) for condition in variant.when):
            heads = {**spec.architecture.heads, **variant.heads}
            spec = dataclasses.replace(
                spec,
                architecture=dataclasses.replace(spec.architecture, **{**variant.architecture, "heads": heads}),  # type: ignore[arg-type]
                keys=spec.keys + variant.keys,
                recipes={**spec.recipes, **variant.recipes},
                labels=variant.labels or spec.labels,
            )
    return spec
