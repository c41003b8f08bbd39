"""The folder of a saved model: JSON and safetensors, written whole or not at all, and read without being trusted."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from safetensors.torch import save_file

from sclcm.checkpoints.files import named_in_errors
from sclcm.checkpoints.readers import read_json, read_tensors
from sclcm.encoding.sentences import Encoding
from sclcm.genes.vocabulary import GeneVocabulary
from sclcm.models._build import build_lcm, check_settings
from sclcm.models._declarations import fits, from_json, to_json
from sclcm.models._device import DTYPES
from sclcm.models._digest import Digest
from sclcm.models._pretrained import Pretrained
from sclcm.models._prototypes import Prototypes
from sclcm.nn.configs import LCMConfig
from sclcm.nn.table_configs import NoBackbone
from sclcm.zoo._labels import ClassLabels, GeneratedLabels
from sclcm.zoo._modules import Translation
from sclcm.zoo._recipes import GeneRecipe
from sclcm.zoo._spec import Needs, Recipe

if TYPE_CHECKING:
    from collections.abc import Mapping

    from sclcm.nn.lcm import LCM

FORMAT = "sclcm/1"
SAVED_FILES = ("config.json", "vocabulary.json", "model.safetensors")
_ARRAY = "arrays."
_PROTOTYPES = "prototypes"
_OF_ARRAYS = {
    torch.float64,
    torch.float32,
    torch.float16,
    torch.int64,
    torch.int32,
    torch.int16,
    torch.int8,
    torch.bool,
}
_CONFIG: Mapping[str, Any] = {
    "name": str,
    "family": str,
    "pad": str,
    "mask": str | None,
    "gene_columns": list[str],
    "encoding": dict[str, Any],
    "architecture": dict[str, Any],
    "recipes": dict[str, Any],
    "prototypes": dict[str, Any] | None,
}
_CONFIG_MORE: Mapping[str, Any] = {"needs": Needs, "accepts_bulk": bool, "submodel": str | None}
_VOCABULARY: Mapping[str, Any] = {
    "features": list[str],
    "token_ids": list[int],
    "specials": dict[str, int],
    "ids": str,
    "species": list[str],
    "names": dict[str, str] | None,
    "modality": str,
}
_VOCABULARY_MORE: Mapping[str, Any] = {
    "synonyms": dict[str, list[str]],
    "merge": str,
    "universe": dict[str, Any],
    "respell": list[list[str]],
    "ignore_case": bool,
    "siblings": dict[str, dict[str, Any]],
}
_LABELS: Mapping[str, Any] = {
    "labels": list[str],
    "ontology_ids": list[str],
    "scale": float,
    "min_score": float,
    "recipe": str,
}


# ---- writing ----


def write_saved(model: Pretrained, path: str | Path) -> None:
    """Write a model into a folder that others see either as it was or complete."""
    folder = Path(path).resolve()
    check_target(path)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=f".{folder.name[:40]}.", dir=folder.parent) as scratch:
        fresh, old = Path(scratch) / "new", Path(scratch) / "old"
        fresh.mkdir()
        _write_files(model, fresh)
        if not folder.exists():
            fresh.replace(folder)
            return
        folder.replace(old)
        try:
            fresh.replace(folder)
        except OSError:
            old.replace(folder)
            raise


def check_target(path: str | Path) -> None:
    """Refuse a place that holds anything but a saved model."""
    folder = Path(path)
    if not folder.exists():
        return
    if not folder.is_dir():
        msg = f"{str(folder)!r} is a file; a model is saved as a folder, so give another name."
        raise FileExistsError(msg)
    present = sorted(file.name for file in folder.iterdir())
    if foreign := present if not is_saved(folder) else [name for name in present if name not in SAVED_FILES]:
        msg = f"{str(folder)!r} holds {foreign[0]!r} already; save into a new or empty folder."
        raise FileExistsError(msg)


def _write_files(model: Pretrained, folder: Path) -> None:
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in model.lcm.state_dict().items()}
    arrays = {_ARRAY + name: torch.from_numpy(np.ascontiguousarray(array)) for name, array in model.arrays.items()}
    labels = {} if model.prototypes is None else {_PROTOTYPES: torch.from_numpy(model.prototypes.vectors)}
    save_file(weights | arrays | labels, folder / "model.safetensors")
    (folder / "vocabulary.json").write_text(json.dumps(model.vocabulary.to_json()))
    (folder / "config.json").write_text(json.dumps(_config_of(model), indent=1))


def _config_of(model: Pretrained) -> dict[str, object]:
    plain = ("name", "family", "pad", "mask", "needs", "accepts_bulk", "submodel")
    return {
        "format": FORMAT,
        "source_sha256": model.sha256,
        "gene_columns": list(model.gene_columns),
        **{key: getattr(model, key) for key in plain},
        "encoding": to_json(model.encoding),
        "architecture": to_json(model.architecture),
        "recipes": to_json(model.recipes),
        "gene_recipes": to_json(model.gene_recipes),
        "prototypes": None if model.prototypes is None else model.prototypes.to_json(),
        "labels": to_json(model.labels),
        "translation": to_json(model.translation),
    }


# ---- reading ----


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
    """Read a folder that `Pretrained.save` wrote; its weights stay in the file until they are used."""
    files = [folder / name for name in SAVED_FILES]
    with named_in_errors(folder, files):
        return _read_saved(files)


def _read_saved(files: list[Path]) -> Pretrained:
    digest = Digest.of(files)
    config = {"labels": None, "translation": None, "gene_recipes": {}, **_read_fields(files[0], _CONFIG)}
    more = {name: config[name] for name in _CONFIG_MORE if name in config}
    _check_fields(more, {name: hint for name, hint in _CONFIG_MORE.items() if name in more}, files[0])
    tensors = read_tensors(files[2], mapped=True)
    arrays = {
        name.removeprefix(_ARRAY): _as_array(tensors.pop(name), name, files[2])
        for name in list(tensors)
        if name.startswith(_ARRAY)
    }
    prototypes = None if config["prototypes"] is None else _prototypes(config["prototypes"], tensors, files)
    architecture = _declared(config, "architecture", LCMConfig, file=files[0])
    lcm = build_lcm(architecture, tensors)
    _check_dtypes(lcm, files[2], exact=isinstance(architecture.backbone, NoBackbone))
    pretrained = Pretrained(
        name=config["name"],
        family=config["family"],
        vocabulary=_vocabulary(files[1], config, n_rows=lcm.embed.gene.num_embeddings),
        gene_columns=tuple(config["gene_columns"]),
        pad=config["pad"],
        mask=config["mask"],
        encoding=_declared(config, "encoding", Encoding, file=files[0]),
        architecture=architecture,
        recipes=_declared(config, "recipes", dict[str, Recipe], file=files[0]),
        gene_recipes=_declared(config, "gene_recipes", dict[str, GeneRecipe], file=files[0]),
        arrays=arrays,
        prototypes=prototypes,
        labels=_declared(config, "labels", GeneratedLabels | ClassLabels | None, file=files[0]),
        translation=_declared(config, "translation", Translation | None, file=files[0]),
        lcm=lcm,
        digest=digest,
        **more,
    )
    _check_conditions(pretrained, files[0])
    return pretrained


def _as_array(tensor: torch.Tensor, name: str, file: Path) -> np.ndarray:
    if tensor.dtype.is_complex or tensor.dtype not in _OF_ARRAYS:
        _damaged(file, f"holds {name!r} in numbers of the type {tensor.dtype}")
    return tensor.numpy()


def _check_dtypes(lcm: LCM, file: Path, *, exact: bool) -> None:
    """All weights are of one type that networks are computed in; tables of vectors may have double precision."""
    found = {weights.dtype: name for name, weights in lcm.named_parameters()}
    known = {*DTYPES.values(), *((torch.float64,) if exact else ())}
    if odd := [name for dtype, name in found.items() if dtype not in known or len(found) > 1]:
        types = ", ".join(sorted(str(dtype).removeprefix("torch.") for dtype in found))
        _damaged(file, f"holds weights of the types {types}, such as {odd[-1]!r}, where all are of one")


def _check_conditions(model: Pretrained, file: Path) -> None:
    """Refuse encodings whose conditions are no tokens of the vocabulary, or do not belong together."""
    own = [recipe.encoding for recipe in model.recipes.values() if recipe.encoding is not None]
    for encoding in (model.encoding, *own):
        names = {name for token in encoding.context for name in (*token.tokens, *token.aliases.values())}
        for choice in encoding.choices:
            names |= choice.by_token.keys()
            if not {choice.otherwise, *choice.by_token.values()} <= choice.arrays.keys():
                _damaged(file, f"lacks arrays among which {choice.name!r} is to choose")
        if unknown := sorted(names - model.vocabulary.specials.keys()):
            _damaged(file, f"names the token {unknown[0]!r}, which its vocabulary does not have")


def _read_fields(file: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    stored = read_json(file)
    if not isinstance(stored, dict):
        _damaged(file, f"holds a {type(stored).__name__} where an object belongs")
    _check_fields(stored, fields, file)
    return stored


def _check_fields(stored: Mapping[str, Any], fields: Mapping[str, Any], file: Path) -> None:
    for name, hint in fields.items():
        if name not in stored:
            _damaged(file, f"lacks `{name}`")
        if not fits(stored[name], hint):
            _damaged(file, f"has a `{name}` that is not of its type")


def _declared(config: Mapping[str, Any], name: str, hint: Any, *, file: Path) -> Any:
    found = from_json(config[name])
    if not fits(found, hint):
        _damaged(file, f"has a `{name}` that is something else")
    check_settings(found)
    return found


def _prototypes(stored: Mapping[str, Any], tensors: dict[str, torch.Tensor], files: list[Path]) -> Prototypes:
    file = files[0]
    _check_fields(stored, _LABELS, file)
    _check_groups(stored.get("groups", []), file)
    if _PROTOTYPES not in tensors:
        _damaged(file, "names prototypes whose vectors are missing")
    return Prototypes.from_json(stored, _as_array(tensors.pop(_PROTOTYPES), _PROTOTYPES, files[2]))


def _check_groups(groups: Any, file: Path) -> None:
    group = {"name": str, "ontology_id": str, "labels": list[str]}
    if not fits(groups, list[dict[str, Any]]):
        _damaged(file, "has `groups` of labels that are not of their type")
    for each in groups:
        _check_fields(each, group, file)


def _vocabulary(file: Path, config: Mapping[str, Any], *, n_rows: int) -> GeneVocabulary:
    stored = _read_fields(file, _VOCABULARY)
    _check_tokens(stored, file, n_rows=n_rows)
    if "universe" in stored:
        wider = stored["universe"]
        _check_fields(wider, _VOCABULARY, file)
        _check_tokens(wider, file, n_rows=n_rows + 2 * len(wider["features"]))
    for sibling in stored.get("siblings", {}).values():
        _check_fields(sibling, _VOCABULARY, file)
        _check_tokens(sibling, file, n_rows=n_rows)
    for name in ("pad", "mask"):
        if config[name] and config[name] not in stored["specials"]:
            _damaged(file, f"lacks the special token {config[name]!r}, by which the model is to {name}")
    return GeneVocabulary.from_json(stored)


def _check_tokens(stored: Mapping[str, Any], file: Path, *, n_rows: int) -> None:
    if unknown := sorted(stored.keys() - _VOCABULARY.keys() - _VOCABULARY_MORE.keys()):
        _damaged(file, f"has the unknown entry {unknown[0]!r}")
    _check_fields(stored, {name: hint for name, hint in _VOCABULARY_MORE.items() if name in stored}, file)
    if not stored["species"]:
        _damaged(file, "names no `species`")
    token_ids = [*stored["token_ids"], *stored["specials"].values()]
    if token_ids and not 0 <= min(token_ids) <= max(token_ids) < n_rows:
        spread = f"from {min(token_ids)} to {max(token_ids)}"
        _damaged(file, f"has token ids {spread} for a table of {n_rows:,} rows in the model")


def _damaged(file: Path, what: str) -> None:
    msg = f"{str(file)!r} {what}; the saved model is damaged. Save or convert it again."
    raise ValueError(msg)
