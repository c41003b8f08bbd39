"""`Pretrained`: a model with its vocabulary, encoding and recipes; what `load` returns and every task takes."""

from __future__ import annotations

import copy
import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from safetensors.torch import save_file

from sclcm._sizes import as_int
from sclcm.checkpoints.files import checkpoint_digest
from sclcm.checkpoints.readers import read_json, read_tensors
from sclcm.encoding.sentences import CellSentences, Encoding, encode
from sclcm.genes.vocabulary import GeneVocabulary
from sclcm.models._declarations import from_json, to_json
from sclcm.models._device import choose_device, choose_dtype
from sclcm.models._prototypes import Prototypes
from sclcm.nn.lcm import LCM
from sclcm.nn.readouts import Concatenated, LinearHead
from sclcm.zoo._spec import Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sclcm.encoding.chunks import CellChunk
    from sclcm.encoding.draws import Draws
    from sclcm.nn.configs import LCMConfig

FORMAT = "sclcm/1"
ARRAY = "arrays."
PROTOTYPES = "prototypes"
SAVED_FILES = ("config.json", "vocabulary.json", "model.safetensors")


@dataclass(frozen=True, kw_only=True, eq=False)
class Pretrained:
    """A loaded model.

    Parameters
    ----------
    name
        Name of the model, from which the slots it writes are named.
    family
        Its family in the zoo.
    vocabulary
        The genes it knows, and its special tokens.
    gene_columns
        Columns of var that its authors' input contract names.
    pad
    mask
        Names of the padding token and, where there is one, of the token that hides another.
    encoding
        How counts become sentences.
    architecture
        The model's configuration, sizes filled in.
    recipes
        Embeddings as published, by name.
    arrays
        Companion arrays that the encoding reads, in vocabulary order.
    prototypes
        Label prototypes for annotation without training, where the model has them.
    lcm
        The network, in evaluation mode.
    sha256
        Digest of the files it was read from.
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
    arrays: Mapping[str, np.ndarray] = field(default_factory=dict)
    prototypes: Prototypes | None = None
    lcm: LCM
    sha256: str

    def __repr__(self) -> str:
        return (
            f"<Pretrained {self.name!r}: {self.n_parameters:,} weights in {self.lcm.n_blocks} blocks of width "
            f"{self.d_model}, {self.vocabulary.n_features:,} genes, recipes {', '.join(map(repr, self.recipes))}; "
            f"{str(self.dtype).removeprefix('torch.')} on {self.device}>"
        )

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
    def n_parameters(self) -> int:
        """Number of weights."""
        return sum(parameter.numel() for parameter in self.lcm.parameters())

    def to(self, device: str | torch.device = "auto", dtype: str | torch.dtype = "auto") -> Pretrained:
        """Return this model on a device and in a number type; itself, if it is there already."""
        target = choose_device(device)
        kind = choose_dtype(dtype, target)
        same_device = target.type == self.device.type and target.index in (None, self.device.index)
        if same_device and kind == self.dtype:
            return self
        return dataclasses.replace(self, lcm=copy.deepcopy(self.lcm).to(device=target, dtype=kind))

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
        return chosen

    def depth(self, recipe: Recipe) -> int:
        """Return how many blocks a recipe runs through."""
        depth = self.lcm.n_blocks + 1 + recipe.layer
        if recipe.layer >= 0 or depth < 0:
            msg = f"`recipe.layer` is {recipe.layer}; expected -1 (the last block) to {-self.lcm.n_blocks - 1}."
            raise ValueError(msg)
        return depth

    def width(self, recipe: Recipe) -> int:
        """Return the width of a recipe's cell vectors."""
        if recipe.head is None:
            return self.d_model * (len(recipe.pooling.parts) if isinstance(recipe.pooling, Concatenated) else 1)
        if recipe.head not in self.lcm.heads:
            msg = f"`recipe.head` is {recipe.head!r}; {self.name!r} has the heads {sorted(self.lcm.heads)}."
            raise ValueError(msg)
        head = self.architecture.heads[recipe.head]
        if not isinstance(head, LinearHead):
            kind = type(head).__name__
            msg = f"`recipe.head` is {recipe.head!r}, a {kind}, which projects no cells; a LinearHead does."
            raise ValueError(msg)
        return as_int(head.d_out)

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

    def gene_vectors(self) -> np.ndarray:
        """Return the vectors of the vocabulary's genes, shape `(features, width)`, float32."""
        rows = torch.from_numpy(self.vocabulary.token_ids.astype(np.int64)).to(self.device)
        with torch.inference_mode():
            return self.lcm.embed.genes(rows).float().cpu().numpy()

    def save(self, path: str | Path) -> None:
        """Write the model as a folder of JSON and safetensors, which `load` reads back bit by bit.

        Parameters
        ----------
        path
            The folder; made if it does not exist. `FileExistsError` if it holds anything but a saved model.
        """
        folder = Path(path)
        folder.mkdir(parents=True, exist_ok=True)
        present = sorted(file.name for file in folder.iterdir())
        if foreign := present if not is_saved(folder) else [name for name in present if name not in SAVED_FILES]:
            msg = f"{str(folder)!r} holds {foreign[0]!r} already; save into a new or empty folder."
            raise FileExistsError(msg)
        weights = {name: tensor.detach().cpu().contiguous() for name, tensor in self.lcm.state_dict().items()}
        arrays = {ARRAY + name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in self.arrays.items()}
        labels = {} if self.prototypes is None else {PROTOTYPES: torch.from_numpy(self.prototypes.vectors)}
        save_file(weights | arrays | labels, folder / "model.safetensors")
        (folder / "vocabulary.json").write_text(json.dumps(self.vocabulary.to_json()))
        (folder / "config.json").write_text(json.dumps(self._config(), indent=1))

    def _config(self) -> dict[str, object]:
        plain = ("name", "family", "pad", "mask")
        return {
            "format": FORMAT,
            "source_sha256": self.sha256,
            "gene_columns": list(self.gene_columns),
            **{key: getattr(self, key) for key in plain},
            "encoding": to_json(self.encoding),
            "architecture": to_json(self.architecture),
            "recipes": to_json(self.recipes),
            "prototypes": None if self.prototypes is None else self.prototypes.to_json(),
        }


def is_saved(folder: Path) -> bool:
    """Whether a folder holds what `Pretrained.save` wrote; `ValueError` if another version of it did."""
    file = folder / "config.json"
    config = read_json(file) if file.is_file() else {}
    stored = config.get("format") if isinstance(config, dict) else None
    if isinstance(stored, str) and stored.startswith("sclcm/") and stored != FORMAT:
        msg = f"{str(folder)!r} was saved in the format {stored!r}; this version reads {FORMAT!r}. Update sclcm."
        raise ValueError(msg)
    return stored == FORMAT


def load_saved(folder: Path) -> Pretrained:
    """Read a folder that `Pretrained.save` wrote."""
    config = read_json(folder / "config.json")
    tensors = read_tensors(folder / "model.safetensors")
    arrays = {name.removeprefix(ARRAY): tensors.pop(name).numpy() for name in list(tensors) if name.startswith(ARRAY)}
    labels = config["prototypes"]
    prototypes = None if labels is None else Prototypes.from_json(labels, tensors.pop(PROTOTYPES).numpy())
    architecture = from_json(config["architecture"])
    return Pretrained(
        name=config["name"],
        family=config["family"],
        vocabulary=GeneVocabulary.from_json(read_json(folder / "vocabulary.json")),
        gene_columns=tuple(config["gene_columns"]),
        pad=config["pad"],
        mask=config["mask"],
        encoding=from_json(config["encoding"]),
        architecture=architecture,
        recipes=from_json(config["recipes"]),
        arrays=arrays,
        prototypes=prototypes,
        lcm=build_lcm(architecture, tensors),
        sha256=checkpoint_digest([folder / file for file in SAVED_FILES]),
    )


def build_lcm(architecture: LCMConfig, state: dict[str, torch.Tensor]) -> LCM:
    """Build a model and fill in every weight; `ValueError` lists weights that are missing, left over or misshapen."""
    with torch.device("meta"):
        lcm = LCM(architecture)
    try:
        lcm.load_state_dict({name: tensor.clone() for name, tensor in state.items()}, strict=True, assign=True)
    except RuntimeError as error:
        msg = f"The checkpoint does not fit the model that it describes. {error}"
        raise ValueError(msg) from error
    lcm.requires_grad_(False)  # noqa: FBT003
    return lcm.eval()
