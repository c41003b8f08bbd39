"""Settings are checked when they are assigned."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from sclcm._settings import Settings


@pytest.mark.parametrize(
    ("name", "value", "error"),
    [
        ("cache_dir", 3, TypeError),
        ("offline", "yes", TypeError),
        ("endpoint", "huggingface.co", ValueError),
        ("endpoint", "file:///tmp", ValueError),
        ("endpoint", "https://a b", ValueError),
        ("endpoint", None, ValueError),
        ("progress", 1, TypeError),
        ("device", "gpu", ValueError),
        ("device", 0, ValueError),
        ("min_genes_matched", -1, ValueError),
        ("min_genes_matched", 1.5, TypeError),
        ("min_genes_matched", True, TypeError),
        ("min_share", 1.01, ValueError),
        ("min_share", float("nan"), ValueError),
        ("min_share", "half", TypeError),
        ("verbosity", "loud", ValueError),
    ],
)
def test_bad_value_is_refused_with_the_name_of_the_setting(name, value, error):
    settings = Settings()
    before = getattr(settings, name)
    with pytest.raises(error, match=f"`settings.{name}`"):
        setattr(settings, name, value)
    assert getattr(settings, name) == before


@pytest.mark.parametrize(
    ("name", "value"),
    [("device", "cuda:1"), ("device", "mps"), ("min_share", 0), ("min_genes_matched", 0), ("offline", True)],
)
def test_good_value_is_kept(name, value):
    settings = Settings()
    setattr(settings, name, value)
    assert getattr(settings, name) == value


def test_misspelt_setting_is_an_error_that_lists_the_settings():
    with pytest.raises(AttributeError, match=r"no setting 'ofline'.*offline"):
        Settings().ofline = True


def test_cache_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.delenv("SCLCM_CACHE_DIR", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert Settings().cache_dir == tmp_path / "sclcm"
    monkeypatch.setenv("SCLCM_CACHE_DIR", str(tmp_path / "mine"))
    assert Settings().cache_dir == tmp_path / "mine"


def test_cache_folder_may_be_given_as_text():
    assert Settings(cache_dir="~/models").cache_dir == Path("~/models").expanduser()


@pytest.mark.parametrize(
    ("value", "endpoint"),
    [
        (None, "https://huggingface.co"),
        ("", "https://huggingface.co"),
        ("https://mirror.example/", "https://mirror.example"),
        ("mirror.example", "https://mirror.example"),
    ],
)
def test_address_of_the_hub_follows_its_variable(monkeypatch, value, endpoint):
    monkeypatch.delenv("HF_ENDPOINT", raising=False)
    if value is not None:
        monkeypatch.setenv("HF_ENDPOINT", value)
    assert Settings().endpoint == endpoint


@pytest.mark.parametrize(("value", "offline"), [("1", True), ("true", True), ("0", False), ("", False)])
def test_offline_follows_the_hub_variable(monkeypatch, value, offline):
    monkeypatch.setenv("HF_HUB_OFFLINE", value)
    assert Settings().offline is offline


def test_verbosity_sets_the_level_of_the_package_logger():
    logger = logging.getLogger("sclcm")
    level = logger.level
    try:
        Settings().verbosity = "debug"
        assert logger.level == logging.DEBUG
    finally:
        logger.setLevel(level)
