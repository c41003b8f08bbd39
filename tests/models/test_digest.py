"""The digest of a model's files: that of the bytes that were loaded, whenever it is asked for."""

from __future__ import annotations

import copy
import os
import pickle

import pytest

import sclcm.models._digest as module
from sclcm.checkpoints.files import checkpoint_digest
from sclcm.checkpoints.plain import FormatError
from sclcm.models import load
from sclcm.models._digest import Digest


@pytest.fixture(params=[0, 1 << 20], ids=["late", "at once"])
def limit(request, monkeypatch):
    """How large files may be to be hashed at once."""
    monkeypatch.setattr(module, "_AT_ONCE", request.param)
    return request.param


@pytest.fixture
def files(tmp_path):
    paths = [tmp_path / name for name in ("b.bin", "a.json", "c")]
    for path in paths:
        path.write_bytes(path.name.encode() * 1000)
    return paths


def test_digest_is_that_of_the_files_in_any_order(files, limit):
    assert Digest.of(files).value == checkpoint_digest(files)
    assert Digest.of([*files[::-1], files[0]]).value == checkpoint_digest(files)
    assert Digest.of(files[:1]).value == checkpoint_digest(files[:1])


def test_files_may_be_deleted_or_replaced_before_it_is_asked_for(files, limit):
    wanted = checkpoint_digest(files)
    digest = Digest.of(files)
    files[0].unlink()
    other = files[1].with_name("other")
    other.write_bytes(b"other")
    other.replace(files[1])
    assert digest.value == wanted
    assert digest.value == wanted


def test_file_that_is_changed_in_place_is_noticed(files, monkeypatch):
    monkeypatch.setattr(module, "_AT_ONCE", 0)
    for change in (b"shorter", files[0].read_bytes()[::-1]):
        digest = Digest.of(files)
        files[0].write_bytes(change)
        stat = files[0].stat()
        os.utime(files[0], ns=(stat.st_atime_ns, stat.st_mtime_ns + 1_000_000))
        with pytest.raises(
            RuntimeError, match=r"b\.bin' was changed after the model was loaded from it; load the model"
        ):
            digest.value  # noqa: B018


def test_copies_carry_the_digest(files, limit):
    digest = Digest.of(files)
    assert pickle.loads(pickle.dumps(digest)).value == copy.deepcopy(digest).value == checkpoint_digest(files)


def test_what_is_no_file_is_refused(tmp_path, limit):
    with pytest.raises(FormatError, match="is no regular file"):
        Digest.of([tmp_path])


def test_digest_of_a_saved_model_is_that_of_its_three_files(tmp_path, reference, limit):
    model = load(reference / "v1/checkpoint", device="cpu")
    model.save(tmp_path / "saved")
    found = load(tmp_path / "saved", device="cpu")
    assert found.sha256 == checkpoint_digest((tmp_path / "saved").iterdir())
    assert found.to("cpu", "bfloat16").sha256 == found.sha256
    found.save(tmp_path / "saved")
    assert load(tmp_path / "saved", device="cpu").sha256 != model.sha256
