"""What is particular to Geneformer."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

import sclcm.reference.geneformer
from sclcm.models import load

ROOT = Path(sclcm.reference.geneformer.__file__).parent
CONTRADICTED = {
    "vocab_size": 225,
    "hidden_size": 72,
    "num_hidden_layers": 3,
    "intermediate_size": 36,
    "max_position_embeddings": 35,
    "type_vocab_size": 1,
}
OTHER_KINDS = {"position_embedding_type": "relative_key", "is_decoder": True, "model_type": "roberta"}


def with_setting(folder: Path, name: str, value: object) -> Path:
    """Copy the second generation with another setting."""
    shutil.copytree(ROOT / "v2" / "checkpoint", folder)
    file = folder / "config.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), name: value}))
    return folder


@pytest.mark.parametrize("name", CONTRADICTED)
def test_configuration_that_contradicts_the_weights_is_refused(tmp_path, name):
    folder = with_setting(tmp_path / "release", name, CONTRADICTED[name])
    with pytest.raises(ValueError, match=f"says '{name}' is {CONTRADICTED[name]}, but the weights say"):
        load(folder, device="cpu")


@pytest.mark.parametrize("name", OTHER_KINDS)
def test_configuration_of_another_kind_of_bert_is_refused(tmp_path, name):
    folder = with_setting(tmp_path / "release", name, OTHER_KINDS[name])
    with pytest.raises(ValueError, match=f"says '{name}' is {OTHER_KINDS[name]!r}, but only models with"):
        load(folder, family="geneformer", device="cpu")
