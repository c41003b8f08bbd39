"""The packaged fixtures of the zoo."""

from __future__ import annotations

from pathlib import Path

import pytest

import sclcm.reference


@pytest.fixture(scope="session")
def reference():
    """Folder with the fixtures of every family."""
    return Path(sclcm.reference.__file__).parent
