"""The packaged reference numbers are the ones that came from upstream: sums of all files are pinned."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from sclcm.checkpoints.files import sha256_of
from sclcm.reference._probes import Deferred, Embedding, find_probe

PINNED = json.loads((Path(__file__).parent / "reference_sha256.json").read_text())


def test_every_file_of_the_reference_is_pinned(reference):
    files = [file for file in reference.rglob("*") if file.is_file() and file.suffix not in (".py", ".pyc")]
    assert sorted(file.relative_to(reference).as_posix() for file in files) == sorted(PINNED)


@pytest.mark.parametrize("file", PINNED)
def test_file_of_the_reference_is_as_it_came(reference, file):
    assert sha256_of(reference / file) == PINNED[file]


def test_probe_is_found_by_name_then_by_the_longest_pattern():
    embedding = Embedding(recipe="embed")
    probes = {"a_*": Deferred("short"), "a_b_*": Deferred("long"), "a_b_c": embedding}
    assert find_probe("a_b_c", probes) is embedding
    assert find_probe("a_b_d", probes) == Deferred("long")
    assert find_probe("a_x", probes) == Deferred("short")
    assert find_probe("b", probes) is None
