"""The packaged Geneformer checkpoints, to read and to change copies of."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

import sclcm.reference

REFERENCE = Path(sclcm.reference.__file__).parent / "geneformer"


@pytest.fixture
def reference():
    """Folder with `v1` and `v2`."""
    return REFERENCE


@pytest.fixture
def release(tmp_path):
    """Copy the files of a packaged release, by default V1, to a folder that a test may change."""

    def copy(version="v1", name="release"):
        return Path(shutil.copytree(REFERENCE / version / "checkpoint", tmp_path / name))

    return copy
