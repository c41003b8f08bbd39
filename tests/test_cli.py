"""The command line: what it says, what it refuses, and with which status it leaves."""

from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from typer.testing import CliRunner

import sclcm
from sclcm._settings import settings
from sclcm.cli import app


@pytest.fixture(autouse=True)
def _keep_settings():
    before = settings.verbosity, settings.progress
    yield
    settings.verbosity, settings.progress = before


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "cells.h5ad"
    ad.AnnData(np.ones((3, 2), dtype=np.float32)).write_h5ad(path)
    return path


def _run(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_version_is_shown():
    result = _run("--version")
    assert result.exit_code == 0
    assert result.stdout.strip() == sclcm.__version__


def test_help_lists_the_commands():
    result = _run("--help")
    assert result.exit_code == 0
    for command in ("embed", "check", "verify", "models"):
        assert command in result.stdout


@pytest.mark.parametrize("command", ["embed", "check", "verify", "models", "nonsense"])
def test_wrong_usage_leaves_with_status_two(command):
    assert _run(command, "--no-such-option").exit_code == 2


def test_error_is_one_line_on_stderr_and_leaves_with_status_one():
    result = _run("check", "no-such-data")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.splitlines() == [
        "error: 'no-such-data' is neither a file nor a bundled data set (pbmc68k-reduced)."
    ]


@pytest.mark.parametrize("arguments", [("--debug", "check", "no-such-data"), ("check", "no-such-data", "--debug")])
def test_debug_lets_the_error_through_wherever_it_stands(arguments):
    result = _run(*arguments)
    assert result.exit_code == 1
    assert isinstance(result.exception, FileNotFoundError)


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("cells.csv", "must end in .h5ad or .zarr"),
        ("cells.h5ad", "is the input itself"),
        ("missing/out.h5ad", "there is no folder"),
    ],
)
def test_output_that_cannot_be_written_is_refused_before_any_work(file, output, message):
    result = _run("embed", file, "-o", file.parent / output)
    assert result.exit_code == 2
    assert message in " ".join(result.stderr.replace("│", " ").split())


def test_picture_in_an_unknown_format_is_refused_before_any_work(file):
    result = _run("embed", file, "-o", file.parent / "out.h5ad", "--umap", file.parent / "umap.xyz")
    assert result.exit_code == 2
    assert ".png or .pdf or .svg" in " ".join(result.stderr.split())


@pytest.mark.parametrize(("flag", "level"), [("--quiet", "warning"), ("--debug", "debug")])
def test_flags_set_how_much_is_logged(flag, level):
    _run(flag, "check", "no-such-data")
    assert settings.verbosity == level
