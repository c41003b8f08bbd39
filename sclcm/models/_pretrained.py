"""`Pretrained`: a model with its vocabulary, encoding and recipes; what `load` returns and every task takes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

import numpy as np
import torch

from sclcm._sizes import as_int
from sclcm.encoding.sentences import CellSentences, Encoding, encode
from sclcm.models._device import choose_device, choose_dtype, copy_to
from sclcm.nn.cell_configs import PlaceMean, TanhClassHead
from sclcm.nn.configs import DomainNorm
from sclcm.nn.fixed_vectors import FixedTable, NoVectors
from sclcm.nn.readouts import Concatenated, FromEnd, LayeredHead, LinearHead
from sclcm.nn.set_configs import ActivatedHead, BagOfGenes, MixtureLatent, MixtureReadout, TokenItself
from sclcm.nn.table_configs import ExpressionSum
from sclcm.zoo._recipes import BlockMean, BlockSum, GeneRecipe
from sclcm.zoo._spec import Needs, Recipe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from sclcm.encoding.chunks import CellChunk
    from sclcm.encoding.draws import Draws
    from sclcm.genes.vocabulary import GeneVocabulary
    from sclcm.models._digest import Digest
    from sclcm.models._prototypes import Prototypes
    from sclcm.nn.configs import LCMConfig
    from sclcm.nn.lcm import LCM
    from sclcm.zoo._labels import ClassLabels, GeneratedLabels
    from sclcm.zoo._modules import Translation


ROWS = 4_096
"""Genes that are looked up at a time."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Pretrained:
    """A loaded model.

    Parameters
    ----------
    name
        Name of the model, after which the slots it writes are named.
    family
        Its family.
    vocabulary
        The genes it knows, and its special tokens.
    gene_columns
        Columns of `.var` in which its authors expect gene names.
    pad, mask
        Names of the padding token (empty if sentences are never padded) and of the mask token, if there is one.
    encoding
        How counts become sentences or, if tokens are cells, what is summed for each cell.
    architecture
        The configuration of the network, with all sizes.
    recipes, gene_recipes
        Published ways to compute cell embeddings, and to read the decoder for each gene, by name.
    submodel
        Which of the models in its file it is, if there are several.
    arrays
        Further inputs of the encoding by name, in the order of the vocabulary.
    prototypes
        Label prototypes for annotation without training, if the model has any.
    labels
        Labels that the model generates or scores, if it does.
    translation
        Another modality that the model predicts, if it does.
    needs
        What a matrix must hold: raw counts, or expression in any unit.
    accepts_bulk
        Whether its authors also use it on bulk samples.
    lcm
        The network, in evaluation mode.
    digest
        Digest of the files that it was read from.
    """

    name: str
    family: str
    vocabulary: GeneVocabulary
    gene_columns: tuple[str, ...]
    pad: str
    mask: str | None
    encoding: Encoding
    architecture: LCMConfig
    recipes: Mapping[str, Recipe]
    gene_recipes: Mapping[str, GeneRecipe] = field(default_factory=dict)
    submodel: str | None = None
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    prototypes: Prototypes | None = None
    labels: GeneratedLabels | ClassLabels | None = None
    translation: Translation | None = None
    needs: Needs = "counts"
    accepts_bulk: bool = False
    lcm: LCM
    digest: Digest

    def __repr__(self) -> str:
        shape = f"{self.n_parameters:,} weights in {self.lcm.n_blocks} blocks" if self.lcm.n_blocks else "gene vectors"
        return (
            f"<Pretrained {self.name!r}: {shape} of width {self.d_model}, {self.vocabulary.n_features:,} genes, "
            f"recipes {', '.join(map(repr, self.recipes))}; "
            f"{str(self.dtype).removeprefix('torch.')} on {self.device}>"
        )

    @property
    def sha256(self) -> str:
        """Digest of the files it was read from."""
        return self.digest.value

    @property
    def device(self) -> torch.device:
        """Device of the weights."""
        return self.lcm.embed.gene.weight.device

    @property
    def dtype(self) -> torch.dtype:
        """Number type of the weights."""
        return self.lcm.embed.gene.weight.dtype

    @property
    def d_model(self) -> int:
        """Width of a token vector."""
        return as_int(self.architecture.d_model)

    @property
    def token_unit(self) -> Literal["gene", "cell"]:
        """What a token is; where it is a cell, a sentence is a set of cells."""
        return "cell" if isinstance(self.architecture.gene, BagOfGenes) else "gene"

    @property
    def n_conditions(self) -> int | None:
        """Number of batches that the model is bound to, or `None` if it knows no batches."""
        if self.architecture.condition is not None:
            return as_int(self.architecture.condition.n_conditions)
        norm = self.architecture.embedding_norm
        return as_int(norm.n_domains) if isinstance(norm, DomainNorm) else None

    @property
    def reads_species(self) -> bool:
        """Whether the model needs to know the species of each cell."""
        return self.architecture.prefix is not None or self.architecture.fusion is not None

    @property
    def n_parameters(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.lcm.parameters())

    def to(self, device: str | torch.device = "auto", dtype: str | torch.dtype = "auto") -> Pretrained:
        """Return this model on a device and in a number type; itself, if it is there already."""
        target = choose_device(device)
        # Vectors that are only summed stay as they are: they would gain nothing from another precision.
        is_kept = dtype in ("auto", self.dtype) and not self.lcm.n_blocks and target.type != "mps"
        kind = self.dtype if is_kept else choose_dtype(dtype, target)
        same_device = target.type == self.device.type and target.index in (None, self.device.index)
        if same_device and kind == self.dtype:
            return self
        return dataclasses.replace(self, lcm=copy_to(self.lcm, device=target, dtype=kind))

    def recipe(self, recipe: str | Recipe) -> Recipe:
        """Return a recipe by name, or the one given; `ValueError` lists those that exist."""
        if isinstance(recipe, Recipe):
            chosen = recipe
        elif isinstance(recipe, str) and recipe in self.recipes:
            chosen = self.recipes[recipe]
        else:
            msg = f"`recipe` is {recipe!r}; {self.name!r} has {', '.join(map(repr, self.recipes))}."
            raise ValueError(msg)
        self.depth(chosen)
        self.width(chosen)
        self._check_reading(chosen)
        if isinstance(chosen.pooling, TokenItself) != (self.token_unit == "cell"):
            msg = (
                f"`recipe.pooling` is {chosen.pooling!r}, but the tokens of {self.name!r} are {self.token_unit}s; "
                "`TokenItself` is for tokens that are cells, and nothing else is."
            )
            raise ValueError(msg)
        if chosen.decoding is not None and (
            chosen.layer != -1 or chosen.head is not None or not isinstance(chosen.pooling, FromEnd)
        ):
            msg = f"`recipe` is {chosen!r}; what is decoded is pooled by `FromEnd` over the last block, without a head."
            raise ValueError(msg)
        if not chosen.mask_padding and (chosen.decoding is not None or self.encoding.max_tokens is None):
            msg = (
                f"`recipe` is {chosen!r}; padding cannot be seen by what decodes, nor where sentences have no longest "
                "length, up to which there would be padding. Set `mask_padding=True`."
            )
            raise ValueError(msg)
        return chosen

    def gene_recipe(self, recipe: str | GeneRecipe) -> GeneRecipe:
        """Return a recipe of what the decoder says of genes; `ValueError` lists those that exist."""
        decoder = self.architecture.decoder
        if decoder is None and not self.gene_recipes:
            msg = f"{self.name!r} has no decoder, so it cannot predict genes that a cell does not express."
            raise ValueError(msg)
        if self.translation is not None:
            msg = (
                f"The decoder of {self.name!r} predicts {self.translation.modality}s and not genes; use "
                "`sclcm.tl.translate`."
            )
            raise ValueError(msg)
        if isinstance(recipe, GeneRecipe):
            chosen = recipe
        elif isinstance(recipe, str) and recipe in self.gene_recipes:
            chosen = self.gene_recipes[recipe]
        else:
            msg = f"`recipe` is {recipe!r}; {self.name!r} has {', '.join(map(repr, self.gene_recipes))}."
            raise ValueError(msg)
        heads = self.architecture.heads if chosen.cells is not None or decoder is None else decoder.heads
        if chosen.head not in (None, *heads) or (decoder is None and None in (chosen.head, chosen.cells)):
            what = "model" if decoder is None else "decoder"
            msg = (
                f"`recipe` reads the head {chosen.head!r}; the {what} of {self.name!r} has {sorted(heads)}. "
                "Weights that were fine-tuned may lack heads of the pre-trained ones."
            )
            raise ValueError(msg)
        if chosen.cells is not None:
            self.recipe(chosen.cells)
        self._check_reading(chosen)
        return chosen

    def _check_reading(self, recipe: Recipe | GeneRecipe) -> None:
        """Refuse a recipe of another submodel, or one that asks for a depth where none can be asked for."""
        if recipe.submodels and self.submodel not in recipe.submodels:
            msg = (
                f"The recipe is for the submodel {' or '.join(map(repr, recipe.submodels))}, but this is "
                f"{self.submodel!r}; load that one, as in `load(..., submodel={recipe.submodels[0]!r})`."
            )
            raise ValueError(msg)
        encoding = recipe.encoding or self.encoding
        if recipe.depth is not None and (encoding.depth is None or encoding.depth.target is None):
            msg = f"`recipe.depth` is {recipe.depth!r}, but no token of {self.name!r} says which depth is asked for."
            raise ValueError(msg)

    def reading(self, recipe: Recipe | GeneRecipe) -> Pretrained:
        """Return this model, reading matrices as a recipe does."""
        encoding = recipe.encoding or self.encoding
        if recipe.depth is not None and encoding.depth is not None:
            encoding = dataclasses.replace(encoding, depth=encoding.depth.aiming_at(recipe.depth))
        bulk = isinstance(recipe, Recipe) and recipe.accepts_bulk
        return dataclasses.replace(
            self, encoding=encoding, needs=recipe.needs or self.needs, accepts_bulk=self.accepts_bulk or bulk
        )

    def depth(self, recipe: Recipe) -> int:
        """Return how many blocks a recipe runs through."""
        if isinstance(recipe.layer, BlockMean | BlockSum):
            return max(self.blocks(recipe)) + 1
        depth = self.lcm.n_blocks + 1 + recipe.layer
        if recipe.layer >= 0 or depth < 0:
            msg = f"`recipe.layer` is {recipe.layer}; expected -1 (the last block) to {-self.lcm.n_blocks - 1}."
            raise ValueError(msg)
        return depth

    def blocks(self, recipe: Recipe) -> tuple[int, ...]:
        """Return the blocks over which a recipe averages or adds up."""
        blocks = recipe.layer.blocks if isinstance(recipe.layer, BlockMean | BlockSum) else ()
        if not isinstance(blocks, tuple) or not blocks or not set(blocks) <= set(range(self.lcm.n_blocks)):
            msg = f"`recipe.layer` names the blocks {blocks!r}; expected numbers from 0 to {self.lcm.n_blocks - 1}."
            raise ValueError(msg)
        return blocks

    def width(self, recipe: Recipe) -> int:
        """Return the width of a recipe's cell vectors."""
        if isinstance(recipe.pooling, ExpressionSum):
            return self._width_of_tables(recipe.pooling)
        if recipe.head is None:
            return self.d_model * (len(recipe.pooling.parts) if isinstance(recipe.pooling, Concatenated) else 1)
        if recipe.head not in self.lcm.heads:
            msg = f"`recipe.head` is {recipe.head!r}; {self.name!r} has the heads {sorted(self.lcm.heads)}."
            raise ValueError(msg)
        heads = self.architecture.heads
        head = heads[recipe.head]
        if isinstance(head, MixtureReadout) and isinstance(latent := heads[head.latent], MixtureLatent):
            return as_int(latent.d_latent)
        if isinstance(head, ActivatedHead):
            return as_int(head.d_latent)
        if isinstance(head, TanhClassHead):
            return as_int(head.n_classes)
        if not isinstance(head, LinearHead | LayeredHead):
            kind = type(head).__name__
            msg = f"`recipe.head` is {recipe.head!r}, a {kind}, which projects no cells; a LinearHead does."
            raise ValueError(msg)
        return as_int(head.d_out)

    def places(self, recipe: Recipe) -> int | None:
        """Return to how many places a recipe's sentences are padded, or `None` if its vectors know no padding."""
        return as_int(recipe.pooling.n_places) if isinstance(recipe.pooling, PlaceMean) else None

    def _width_of_tables(self, pooling: ExpressionSum) -> int:
        widths = []
        for name in pooling.tables:
            if name != "vectors" and name not in self.arrays:
                known = ", ".join(map(repr, ("vectors", *self.arrays)))
                msg = f"`recipe.pooling.tables` names {name!r}; {self.name!r} has the tables {known}."
                raise ValueError(msg)
            widths.append(self.d_model if name == "vectors" else self.arrays[name].shape[1])
        if pooling.combine == "sum" and len(set(widths)) > 1:
            msg = f"Tables of widths {widths} cannot be added; put them side by side: `combine='concat'`."
            raise ValueError(msg)
        return sum(widths) if pooling.combine == "concat" else widths[0]

    def encode(
        self, chunk: CellChunk, *, limit: int | None = None, random_state: int = 0, draws: Draws | None = None
    ) -> CellSentences:
        """Turn aligned counts into sentences; `limit` overrides how many genes a sentence may have."""
        return encode(
            chunk,
            self.encoding,
            vocabulary=self.vocabulary,
            arrays=self.arrays,
            limit=limit,
            random_state=random_state,
            draws=draws,
        )

    def of_species(self, species: str) -> Pretrained:
        """Return this model for data of one species; one that knows several tells it from the data otherwise.

        Parameters
        ----------
        species
            Its name, as `describe` lists it; `ValueError` lists those that there are.
        """
        return dataclasses.replace(self, vocabulary=self.vocabulary.of_species(species))

    def gene_vectors(self) -> np.ndarray:
        """Return the vectors of the vocabulary's genes, shape `(features, width)`, float32."""
        if isinstance(self.lcm.embed.gene, NoVectors):
            msg = f"{self.name!r} has no vectors of genes: its tokens differ by their values and places alone."
            raise ValueError(msg)
        return self._rows(self.lcm.embed.genes)

    def fixed_gene_vectors(self) -> np.ndarray:
        """Return the vectors that genes have before they are projected, shape `(features, their width)`, float32."""
        if not isinstance(self.lcm.embed.gene, FixedTable):
            msg = f"{self.name!r} has no fixed vectors of genes: those of its table are its own."
            raise ValueError(msg)
        return self._rows(self.lcm.embed.gene)

    def _rows(self, look_up: Callable[[torch.Tensor], torch.Tensor]) -> np.ndarray:
        """Look up all genes, some thousand at a time."""
        rows = torch.from_numpy(self.vocabulary.token_ids.astype(np.int64))
        with torch.inference_mode():
            return np.concatenate([look_up(part.to(self.device)).float().cpu().numpy() for part in rows.split(ROWS)])

    def save(self, path: str | Path) -> None:
        """Write the model as a folder of JSON and safetensors, which `load` reads back bit by bit.

        Parameters
        ----------
        path
            The folder; made if it does not exist. `FileExistsError` if it holds anything but a saved model.
        """
        from sclcm.models._saved import write_saved

        write_saved(self, path)
