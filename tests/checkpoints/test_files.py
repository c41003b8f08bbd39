"""Tests of finding, digesting and writing files."""

from __future__ import annotations

import hashlib
import subprocess

import numpy as np
import pytest

from sclcm.checkpoints.files import checkpoint_digest, find_one, sha256_of, write_atomically


def fill(folder, *names):
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / name).write_text(name)
    return folder


def test_sha256_is_that_of_the_bytes(tmp_path):
    path = tmp_path / "a.bin"
    path.write_bytes(b"abc" * 1000)
    assert sha256_of(path) == hashlib.sha256(b"abc" * 1000).hexdigest()


def test_digest_of_one_file_is_its_sha256(tmp_path):
    folder = fill(tmp_path, "a.bin")
    assert checkpoint_digest([folder / "a.bin"]) == sha256_of(folder / "a.bin")


def test_digest_does_not_depend_on_order_or_folder(tmp_path):
    one, two = fill(tmp_path / "one", "a", "b"), fill(tmp_path / "two", "a", "b")
    digest = checkpoint_digest([one / "a", one / "b"])
    assert checkpoint_digest([two / "b", two / "a"]) == digest
    listing = subprocess.run(["sha256sum", "a", "b"], cwd=one, capture_output=True, check=False)
    if listing.returncode == 0:
        assert hashlib.sha256(listing.stdout).hexdigest() == digest


def test_digest_depends_on_contents_and_names(tmp_path):
    folder = fill(tmp_path, "a", "b", "c")
    digest = checkpoint_digest([folder / "a", folder / "b"])
    assert checkpoint_digest([folder / "a", folder / "c"]) != digest
    (folder / "b").write_text("other")
    assert checkpoint_digest([folder / "a", folder / "b"]) != digest
    with pytest.raises(ValueError, match="`paths` is empty"):
        checkpoint_digest([])


def test_first_pattern_that_matches_wins(tmp_path):
    folder = fill(tmp_path, "model.safetensors", "other.safetensors", "pytorch_model.bin")
    assert find_one(folder, ["model.safetensors", "*.bin"]).name == "model.safetensors"
    assert find_one(folder, ["model.pt", "*.bin"]).name == "pytorch_model.bin"


def test_further_folders_are_searched_for_each_pattern(tmp_path):
    first, second = fill(tmp_path / "first", "b.pkl"), fill(tmp_path / "second", "a.pkl")
    assert find_one(first, ["a.pkl", "b.pkl"], also=[second]) == second / "a.pkl"
    assert find_one(first, ["b.pkl"], also=[tmp_path / "missing"]) == first / "b.pkl"


def test_several_matches_are_listed(tmp_path):
    folder = fill(tmp_path, "token_a.pkl", "token_b.pkl")
    with pytest.raises(ValueError, match=r"2 files like `token_\*\.pkl`: `token_a\.pkl`, `token_b\.pkl`"):
        find_one(folder, ["token_*.pkl"])


def test_no_match_says_what_is_there(tmp_path):
    folder = fill(tmp_path, "readme.md")
    with pytest.raises(FileNotFoundError, match=r"No file like `a\.pkl` or `\*\.bin`.*holds `readme\.md`"):
        find_one(folder, ["a.pkl", "*.bin"])
    with pytest.raises(FileNotFoundError, match="does not exist"):
        find_one(folder / "missing", ["a.pkl"])


def test_folders_are_no_files(tmp_path):
    (tmp_path / "model.bin").mkdir()
    with pytest.raises(FileNotFoundError):
        find_one(tmp_path, ["*.bin"])


@pytest.mark.parametrize("pattern", ["../*.bin", "/etc/passwd", "a/../../b", "", "C:\\a"])
def test_patterns_that_leave_the_folder_are_refused(tmp_path, pattern):
    with pytest.raises(ValueError, match="points outside the folder"):
        find_one(tmp_path, [pattern])


def test_files_are_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "a.json"
    assert write_atomically(path, "old") == path

    def fail(target):
        target.write_text("half")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, fail)
    assert path.read_text() == "old"
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert [file.name for file in tmp_path.iterdir()] == ["a.json"]


def test_writers_that_look_at_the_suffix_can_be_used(tmp_path):
    write_atomically(tmp_path / "a.npz", lambda target: np.savez(target, x=np.arange(3)))
    assert np.load(tmp_path / "a.npz")["x"].tolist() == [0, 1, 2]
