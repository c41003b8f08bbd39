"""Fetching from the model hub: pinned, checked, atomic, resumed, and clear about what went wrong."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import shutil
import threading
from pathlib import Path

import pytest

import sclcm.reference
from sclcm._settings import settings
from sclcm.checkpoints.hub import fetch_files, file_name
from sclcm.models import _load, describe, fetch, list_models, load
from sclcm.zoo._registry import get_spec
from sclcm.zoo._spec import Checkpoint, HubFiles

REVISION = "0123456789abcdef0123456789abcdef01234567"
OTHER = "f" * 40
CONTENT = bytes(range(256)) * 4096  # a million bytes


def sha256(content):
    return hashlib.sha256(content).hexdigest()


def get(folder, files, **changed):
    fetch_files(folder, files, **{"repository": "owner/name", "revision": REVISION, "by_hand": "BY HAND."} | changed)


def visible(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


def unfinished(folder):
    return [path for path in folder.iterdir() if path.name.endswith(".incomplete")]


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "cache/family/checkpoint"


@pytest.fixture
def one(hub):
    """One large file, with the sha256 that is right."""
    hub.files = {"sub/model.bin": CONTENT}
    return {"sub/model.bin": sha256(CONTENT)}


# ---- what arrives ----


@pytest.mark.parametrize("elsewhere", [False, True])
def test_files_lie_side_by_side_and_unchanged(hub, folder, elsewhere):
    hub.elsewhere = elsewhere
    hub.files = {"sub/a.bin": CONTENT, "sub/deep/b c.json": b"{}", "unasked.bin": b"x"}
    get(folder, {"sub/a.bin": sha256(CONTENT), "sub/deep/b c.json": None})
    assert visible(folder) == {"a.bin": CONTENT, "b c.json": b"{}"}
    assert unfinished(folder) == []


def test_every_request_names_the_pinned_commit(hub, folder, one):
    get(folder, one)
    assert hub.asked
    assert all(path == f"/owner/name/resolve/{REVISION}/sub/model.bin" for _, path, _ in hub.asked)


def test_second_call_asks_nothing_and_works_without_the_hub(hub, folder, one):
    get(folder, one)
    hub.asked.clear()
    get(folder, one)
    assert hub.asked == []
    hub.stop()
    settings.offline = True
    get(folder, one)
    assert visible(folder) == {"model.bin": CONTENT}


def test_only_what_is_missing_is_fetched(hub, folder):
    hub.files = {"a.bin": b"a", "b.bin": b"b"}
    folder.mkdir(parents=True)
    (folder / "a.bin").write_bytes(b"a")
    get(folder, {"a.bin": sha256(b"a"), "b.bin": None})
    assert hub.transfers() == [("b.bin", None)]


def test_empty_file_arrives(hub, folder):
    hub.files = {"empty": b""}
    get(folder, {"empty": sha256(b"")})
    assert visible(folder) == {"empty": b""}


def test_programs_at_once_fetch_once(hub, folder, one):
    problems = []

    def work():
        try:
            get(folder, one)
        except Exception as error:  # noqa: BLE001
            problems.append(error)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert problems == []
    assert len(hub.transfers()) == 1


def test_token_is_for_the_hub_and_goes_nowhere_else(hub, folder, one, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.elsewhere = True
    get(folder, one)
    assert hub.tokens == {
        f"/owner/name/resolve/{REVISION}/sub/model.bin": "Bearer hf_secret",
        "/cdn/sub/model.bin": None,
    }


# ---- what breaks off ----


@pytest.mark.parametrize("elsewhere", [False, True])
def test_broken_transfer_is_continued_where_it_stopped(hub, folder, one, elsewhere):
    hub.elsewhere = elsewhere
    hub.break_after = 300_000
    serve, calls = hub.serve, []

    def once(method, path, wanted):
        if method == "GET" and (path.startswith("/cdn/") or not elsewhere):
            calls.append(wanted)
            if len(calls) > 1:
                hub.status = (503, "")
        return serve(method, path, wanted)

    hub.serve = once
    with pytest.raises(ConnectionError, match=r"what has arrived is kept|status 503.*BY HAND\."):
        get(folder, one)
    assert visible(folder) == {}
    (partial,) = unfinished(folder)
    assert partial.read_bytes() == CONTENT[:300_000]
    hub.serve, hub.status, hub.break_after, hub.bytes_sent = serve, None, None, 0
    hub.asked.clear()
    get(folder, one)
    assert visible(folder) == {"model.bin": CONTENT}
    assert unfinished(folder) == []
    assert hub.transfers()[-1] == ("model.bin", "bytes=300000-")
    assert hub.bytes_sent == len(CONTENT) - 300_000


def test_file_that_only_lacked_its_name_is_not_sent_again(hub, folder, one, monkeypatch):
    def killed(path, target):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("pathlib.Path.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            get(folder, one)
    assert visible(folder) == {}
    hub.asked.clear()
    get(folder, one)
    assert visible(folder) == {"model.bin": CONTENT}
    assert hub.transfers() == []


def test_unfinished_file_of_another_commit_is_not_continued(hub, folder, one):
    folder.mkdir(parents=True)
    stale = folder / ".model.bin.0123456789ab.incomplete"
    stale.write_bytes(b"of another time")
    get(folder, one)
    assert hub.transfers() == [("model.bin", None)]
    assert visible(folder) == {"model.bin": CONTENT}
    assert not stale.exists()


def test_unfinished_file_that_is_too_long_is_started_again(hub, folder, one):
    hub.break_after = 1000
    with pytest.raises(ConnectionError):
        get(folder, one)
    (partial,) = unfinished(folder)
    partial.write_bytes(CONTENT + b"more")
    hub.break_after = None
    get(folder, one)
    assert visible(folder) == {"model.bin": CONTENT}


def test_damaged_unfinished_file_is_noticed_and_removed(hub, folder, one):
    hub.break_after = 1000
    with pytest.raises(ConnectionError):
        get(folder, one)
    (partial,) = unfinished(folder)
    partial.write_bytes(b"x" * 1000)
    hub.break_after = None
    with pytest.raises(ValueError, match="sha256"):
        get(folder, one)
    assert visible(folder) == {}
    assert unfinished(folder) == []
    get(folder, one)
    assert visible(folder) == {"model.bin": CONTENT}


# ---- what is not the right file ----


def test_other_content_is_refused_with_both_digests_and_not_kept(hub, folder):
    hub.files = {"model.bin": b"something else"}
    with pytest.raises(ValueError, match="it is not the file that was published") as caught:
        get(folder, {"model.bin": sha256(CONTENT)})
    for part in (
        "'model.bin'",
        sha256(b"something else"),
        sha256(CONTENT),
        "owner/name",
        "try again later",
        "BY HAND.",
    ):
        assert part in str(caught.value)
    assert visible(folder) == {}
    assert unfinished(folder) == []


def test_file_put_there_by_hand_is_checked_and_kept(hub, folder, one):
    folder.mkdir(parents=True)
    (folder / "model.bin").write_bytes(b"another")
    with pytest.raises(ValueError, match=r"'model.bin' has the sha256 .*Remove '.*model.bin' to fetch it again"):
        get(folder, one)
    assert visible(folder) == {"model.bin": b"another"}
    assert hub.asked == []


def test_digest_of_the_hub_guards_what_has_none_of_its_own(hub, folder, monkeypatch):
    hub.files, hub.elsewhere = {"model.bin": CONTENT}, True
    content = hub._content
    monkeypatch.setattr(hub, "_content", lambda *asked: (*content(*asked)[:2], CONTENT[:-1] + b"!"))
    with pytest.raises(ValueError, match="sha256"):
        get(folder, {"model.bin": None})
    assert visible(folder) == {}


def test_another_commit_than_the_one_asked_for_is_refused(hub, folder, one):
    hub.answers_as = OTHER
    with pytest.raises(ValueError, match=f"'{OTHER}'; it is not used"):
        get(folder, one)
    assert hub.transfers() == []


# ---- what the hub refuses ----


@pytest.mark.parametrize(
    ("changed", "kind", "says"),
    [
        ({"repository": "owner/gone"}, FileNotFoundError, r"no repository 'owner/gone'"),
        ({"revision": OTHER}, FileNotFoundError, rf"'owner/name' has no revision '{OTHER}' any more, and no other"),
        ({"files": {"gone.bin": None}}, FileNotFoundError, r"no file 'gone.bin' in .*'owner/name'"),
    ],
)
def test_what_the_hub_does_not_have_is_named(hub, folder, one, changed, kind, says):
    files = changed.pop("files", one)
    with pytest.raises(kind, match=says) as caught:
        get(folder, files, **changed)
    assert str(caught.value).endswith("BY HAND.")
    assert caught.value.__cause__ is not None
    assert hub.transfers() == []
    assert visible(folder) == {}


@pytest.mark.parametrize(
    ("status", "kind", "says"),
    [
        ((401, ""), PermissionError, r"closed to you, or does not exist \(status 401\).*HF_TOKEN"),
        ((401, "RepoNotFound"), PermissionError, r"closed to you, or does not exist \(status 401\).*HF_TOKEN"),
        ((403, ""), PermissionError, r"status 403"),
        ((403, "GatedRepo"), PermissionError, r"open on request only: accept its terms there, then log in"),
        ((429, ""), ConnectionError, r"status 429.*try again later"),
        ((500, ""), ConnectionError, r"status 500.*try again later"),
        ((503, ""), ConnectionError, r"status 503.*try again later"),
    ],
)
def test_refusal_says_what_to_do(hub, folder, one, status, kind, says):
    hub.status = status
    with pytest.raises(kind, match=says) as caught:
        get(folder, one)
    assert str(caught.value).endswith("BY HAND.")
    assert caught.value.__cause__ is not None


def test_page_of_a_proxy_is_no_file(hub, folder, one):
    hub.strange = True
    with pytest.raises(ConnectionError, match=r"does not answer like a model hub.*HF_ENDPOINT.*BY HAND\."):
        get(folder, one)
    assert visible(folder) == {}


@pytest.mark.parametrize("endpoint", [None, "http://no-such-host.invalid"])
def test_no_network_is_said_plainly(hub, folder, one, endpoint):
    hub.stop()
    settings.endpoint = endpoint or hub.endpoint
    with pytest.raises(ConnectionError, match=r"cannot be reached.*Check the network.*BY HAND\.") as caught:
        get(folder, one)
    assert caught.value.__cause__ is not None
    assert not unfinished(folder)


def test_offline_setting_forbids_every_request(hub, folder, one):
    settings.offline = True
    with pytest.raises(FileNotFoundError, match=r"lacks 'model.bin'.*offline.*BY HAND\."):
        get(folder, one)
    assert hub.asked == []
    assert not folder.exists()


def test_offline_variable_is_heeded_whatever_the_setting(hub, folder, one, monkeypatch):
    from huggingface_hub.errors import OfflineModeIsEnabled

    def refuse(url, **options):
        raise OfflineModeIsEnabled(url)

    monkeypatch.setattr("huggingface_hub.get_hf_file_metadata", refuse)
    with pytest.raises(FileNotFoundError, match=r"HF_HUB_OFFLINE was set.*BY HAND\."):
        get(folder, one)


# ---- what this machine refuses ----


def test_full_disk_is_noticed_before_the_transfer(hub, folder, one, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda path: shutil._ntuple_diskusage(10, 9, 1))
    with pytest.raises(OSError, match=r"no room for the files in '.*checkpoint'.*SCLCM_CACHE_DIR.*BY HAND\."):
        get(folder, one)
    assert hub.transfers() == []


def test_disk_that_fills_up_on_the_way_is_said_and_what_arrived_is_kept(hub, folder, one, monkeypatch):
    def fill(url, file, **options):
        file.write(CONTENT[:100])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr("huggingface_hub.file_download.http_get", fill)
        with pytest.raises(OSError, match="no room for the files"):
            get(folder, one)
    get(folder, one)
    assert hub.transfers() == [("model.bin", "bytes=100-")]


def test_folder_that_cannot_be_written_is_named(hub, tmp_path, one):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(OSError, match=r"Cannot write to '.*file.deep'.*SCLCM_CACHE_DIR.*BY HAND\."):
        get(tmp_path / "file/deep", one)
    assert hub.asked == []


# ---- what is not asked for at all ----


@pytest.mark.parametrize(
    "path",
    ["../escape", "a/../../escape", "/etc/passwd", "a//b", "a/./b", "", "a/", "..", "a\\b", "C:/x", "a/..\\b", "c:x"],
)
def test_path_that_leaves_the_folder_is_refused(hub, folder, path):
    with pytest.raises(ValueError, match="no path inside a repository"):
        get(folder, {path: None})
    assert hub.asked == []
    assert not folder.exists()


@pytest.mark.parametrize("revision", ["main", "v1.0", "", REVISION[:12], REVISION.upper(), REVISION + "\n"])
def test_revision_that_can_move_is_refused(hub, folder, one, revision):
    with pytest.raises(ValueError, match="is not pinned; expected the 40 hexadecimal digits"):
        get(folder, one, revision=revision)
    assert hub.asked == []


@pytest.mark.parametrize("repository", ["name", "a/b/c", "../b", "a/..", "owner/", "/name", "owner/na me", "o/n?x"])
def test_name_that_is_no_repository_is_refused(hub, folder, one, repository):
    with pytest.raises(ValueError, match="no repository of the model hub; expected 'owner/name'"):
        get(folder, one, repository=repository)
    assert hub.asked == []


def test_files_of_one_name_and_digests_that_are_none_are_refused(hub, folder):
    with pytest.raises(ValueError, match=r"called 'x.bin'; they would overwrite each other"):
        get(folder, {"a/x.bin": None, "b/x.bin": None})
    with pytest.raises(ValueError, match=r"'md5' is no sha256 for 'x.bin'"):
        get(folder, {"x.bin": "md5"})
    assert hub.asked == []


# ---- what is seen ----


@pytest.mark.parametrize("shown", [True, False])
def test_progress_bar_names_the_file_unless_it_is_switched_off(hub, folder, one, capfd, monkeypatch, shown):
    from huggingface_hub.utils import are_progress_bars_disabled

    monkeypatch.setenv("TQDM_POSITION", "-1")  # the hub's bars show on terminals alone, save with this
    before = are_progress_bars_disabled()
    settings.progress = shown
    get(folder, one)
    printed = capfd.readouterr()
    assert ("model.bin" in printed.err) == shown
    assert shown or printed == ("", "")
    assert are_progress_bars_disabled() == before


# ---- from a name to a model ----


@pytest.fixture
def published(hub, monkeypatch):
    """The packaged release as its authors publish it: weights in one folder, dictionaries in another."""
    release = Path(sclcm.reference.__file__).parent / "geneformer/v1/checkpoint"
    places = {
        "config.json": "The-Model/config.json",
        "model.safetensors": "The-Model/model.safetensors",
        "token_dictionary_gc30M.pkl": "code/dictionaries/token_dictionary_gc30M.pkl",
        "gene_median_dictionary_gc30M.pkl": "code/dictionaries/gene_median_dictionary_gc30M.pkl",
        "ensembl_mapping_dict_gc30M.pkl": "code/dictionaries/ensembl_mapping_dict_gc30M.pkl",
    }
    for name, path in places.items():
        hub.files[path] = (release / name).read_bytes()
    hub.elsewhere = True
    source = HubFiles(
        repository=hub.repository,
        revision=hub.revision,
        files={path: sha256(content) for path, content in hub.files.items()},
        n_bytes=1_234_567,
    )
    fetched = Checkpoint(description="as published", license="MIT", hub=source)
    by_hand = Checkpoint(description="as published", license="MIT", source="their page", files=tuple(hub.files))
    spec = dataclasses.replace(get_spec("geneformer"), checkpoints={"tiny": fetched, "by-hand": by_hand})
    monkeypatch.setattr(_load, "get_spec", lambda name: spec if name == "geneformer" else get_spec(name))
    return release


def same_model(a, b):
    left, right = a.lcm.state_dict(), b.lcm.state_dict()
    assert left.keys() == right.keys()
    assert all(left[name].equal(right[name]) for name in left)
    assert a.vocabulary.digest() == b.vocabulary.digest()
    assert a.sha256 == b.sha256


def test_name_is_fetched_and_loads_to_the_same_model(hub, published):
    found = load("geneformer")
    same_model(found, load(published))
    assert found.name == "geneformer"
    hub.asked.clear()
    hub.stop()
    settings.offline = True
    same_model(load("geneformer.tiny"), found)
    assert hub.asked == []


def test_fetched_folder_loads_by_its_path(hub, published):
    folder = fetch("geneformer.tiny")
    assert folder == settings.cache_dir / "geneformer/tiny"
    same_model(load(folder), load(published))


def test_files_put_by_hand_where_the_error_says_load_by_name(hub, published):
    for name in ("geneformer.tiny", "geneformer.by-hand"):
        settings.offline = True
        with pytest.raises(FileNotFoundError) as caught:
            load(name)
        folder = settings.cache_dir / name.replace(".", "/")
        text = str(caught.value)
        assert f"into {str(folder)!r}; `sclcm.models.load({name!r})` finds them there" in text
        folder.mkdir(parents=True)
        for path in hub.files:
            assert path in text
            shutil.copy(published / file_name(path), folder)
        same_model(load(name), load(published))
    assert hub.asked == []


def test_what_is_got_by_hand_is_never_asked_of_the_hub(hub, published):
    folder = settings.cache_dir / "geneformer/by-hand"
    folder.mkdir(parents=True)
    shutil.copy(published / "config.json", folder)
    with pytest.raises(FileNotFoundError, match="cannot be fetched automatically") as caught:
        fetch("geneformer.by-hand")
    assert "their page" in str(caught.value)
    assert "model.safetensors" in str(caught.value)
    assert "config.json" not in str(caught.value)
    assert hub.asked == []


def test_argument_that_the_family_does_not_take_is_refused_before_anything_is_fetched(hub, published):
    with pytest.raises(TypeError, match="hidden_sizes"):
        load("geneformer", hidden_sizes=32)
    assert hub.asked == []


def test_description_says_where_from_how_large_and_where_to(hub, published):
    found = describe("geneformer.tiny")
    assert (found["fetchable"], found["weights_mb"]) == (True, 1)
    assert found["source"] == f"{hub.endpoint}/owner/name/tree/{REVISION}"
    assert found["folder"] == str(settings.cache_dir / "geneformer/tiny")
    assert set(found["files"]) == set(hub.files)
    found = describe("geneformer.by-hand")
    assert (found["fetchable"], found["weights_mb"], found["source"]) == (False, None, "their page")


@pytest.mark.parametrize("name", [name for name in list_models() if describe(name)["fetchable"]])
def test_declared_checkpoint_is_pinned_and_can_be_got_by_hand(hub, name):
    settings.offline = True
    with pytest.raises(FileNotFoundError) as caught:
        load(name)
    found = describe(name)
    for part in (*found["files"], found["source"], found["folder"], f"sclcm.models.load({name!r})"):
        assert part in str(caught.value)
    assert hub.asked == []


def test_fetch_of_what_comes_with_the_package_is_its_folder(hub):
    assert (fetch("sclcm-mini") / "model.safetensors").is_file()
    assert hub.asked == []
