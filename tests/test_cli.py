"""The command line: what it says, what it refuses, and with which status it leaves."""

from __future__ import annotations

import shutil
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import anndata as ad
import numpy as np
import pytest
from typer.testing import CliRunner

import sclcm
from sclcm._settings import settings
from sclcm.cli import app

REFERENCE = Path(str(files("sclcm.reference"))) / "geneformer" / "v1"


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


@pytest.mark.parametrize(
    "arguments", [("models", "list"), ("--debug", "models", "describe", "sclcm-mini"), ("--help",)]
)
def test_reader_who_has_seen_enough_ends_a_command_quietly(arguments):
    run = subprocess.Popen(
        [sys.executable, "-c", "from sclcm.cli import main; main()", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    run.stdout.close()
    assert run.stderr.read() == ""
    run.stderr.close()
    assert run.wait(timeout=60) == 1


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


@pytest.mark.parametrize("name", ["out.h5ad", "out.zarr"])
def test_embed_writes_what_the_function_returns_and_keeps_the_rest(tmp_path, name):
    model = REFERENCE / "checkpoint"
    source = REFERENCE / "input.h5ad"
    result = _run("--quiet", "embed", source, "-m", model, "--family", "geneformer", "-o", tmp_path / name)
    assert result.exit_code == 0, result.stderr
    assert "obsm['X_geneformer']" in result.stdout
    written = ad.read_zarr(tmp_path / name) if name.endswith(".zarr") else ad.read_h5ad(tmp_path / name)
    original = ad.read_h5ad(source)
    expected = sclcm.tl.embed(original, sclcm.models.load(model, family="geneformer"), copy=True)
    np.testing.assert_array_equal(written.obsm["X_geneformer"], expected.obsm["X_geneformer"])
    assert list(written.obs_names) == list(original.obs_names)
    assert list(written.var_names) == list(original.var_names)
    assert abs(written.X - original.X).sum() == 0


def test_embed_draws_a_picture(tmp_path):
    model, picture = REFERENCE / "checkpoint", tmp_path / "umap.png"
    command = ("embed", REFERENCE / "input.h5ad", "-m", model, "--family", "geneformer", "-o", tmp_path / "out.h5ad")
    result = _run("--quiet", *command, "--umap", picture, "--key-added", "mine")
    assert result.exit_code == 0, result.stderr
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert {"mine", "X_umap_mine"} <= set(ad.read_h5ad(tmp_path / "out.h5ad").obsm)


def test_models_are_listed_and_described():
    names = _run("models", "list").stdout.split()
    assert names == sclcm.models.list_models()
    described = _run("models", "describe", names[0])
    assert described.exit_code == 0
    assert f"name: {names[0]}" in described.stdout.splitlines()


def test_fetch_prints_the_folder_of_the_files():
    result = _run("models", "fetch", "sclcm-mini")
    assert result.exit_code == 0
    assert (Path(result.stdout.strip()) / "model.safetensors").is_file()


def test_fetch_of_what_cannot_be_had_is_one_line_that_says_what_to_do(monkeypatch, tmp_path):
    monkeypatch.setattr(sclcm.settings, "offline", True)
    monkeypatch.setattr(sclcm.settings, "cache_dir", tmp_path)
    result = _run("models", "fetch", "geneformer")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert "model.safetensors" in line
    assert str(tmp_path) in line


def test_unknown_model_is_one_clean_line():
    result = _run("models", "describe", "no-such-model")
    assert result.exit_code == 1
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    assert "no-such-model" in line


def test_check_prints_the_report():
    result = _run("check", REFERENCE / "input.h5ad")
    assert result.exit_code == 0
    assert "raw counts" in result.stdout


def test_verify_prints_a_line_per_array_and_a_summary():
    result = _run("--quiet", "verify", "geneformer", "--fixture", REFERENCE)
    assert result.exit_code == 0
    *lines, summary = result.stdout.splitlines()
    statuses = [line.split()[0] for line in lines]
    assert set(statuses) <= {"OK", "DEFERRED"}
    assert summary == f"{statuses.count('OK')} ok, 0 fail, {statuses.count('DEFERRED')} deferred, 0 unknown"


def test_verify_leaves_with_status_one_if_an_expected_value_differs(tmp_path):
    folder = tmp_path / "altered"
    shutil.copytree(REFERENCE, folder)
    arrays = dict(np.load(folder / "expected.npz"))
    name = next(name for name, array in arrays.items() if array.dtype.kind == "f" and array.ndim == 2)
    arrays[name][0, 0] += 1
    np.savez(folder / "expected.npz", **arrays)
    result = _run("--quiet", "verify", "geneformer", "--fixture", folder)
    assert result.exit_code == 1
    assert any(line.startswith(f"FAIL {name} ") for line in result.stdout.splitlines())


def test_conditions_are_passed_on(tmp_path):
    folder = REFERENCE.parents[1] / "nicheformer"
    out = tmp_path / "out.h5ad"
    said = ("--condition", "assay=10x 3' v3", "--condition", "technology_mean=")
    result = _run("-q", "embed", folder / "input.h5ad", "-o", out, "--model", folder / "checkpoint", *said)
    assert result.exit_code == 0, result.output
    noted = ad.read_h5ad(out).uns["nicheformer"]["params"]["conditions"]
    assert noted == {"assay": "10x 3' v3", "technology_mean": "None"}


@pytest.mark.parametrize(
    ("option", "message"),
    [(("--annotate",), "gives no labels itself"), (("--umap", "umap.png"), "A UMAP needs at least 4 cells")],
)
def test_what_would_fail_after_the_cells_are_embedded_is_refused_before(tmp_path, monkeypatch, option, message):
    source = tmp_path / "few.h5ad"
    ad.read_h5ad(REFERENCE / "input.h5ad")[:3].write_h5ad(source)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sclcm.tl._embed.embed", lambda *_, **__: pytest.fail("the cells were embedded"))
    result = _run("embed", source, "-o", "out.h5ad", "-m", REFERENCE / "checkpoint", "--family", "geneformer", *option)
    assert result.exit_code == 1
    assert message in result.stderr


def test_seed_that_no_layout_could_take_is_refused_at_once(file, tmp_path):
    assert _run("embed", file, "-o", tmp_path / "out.h5ad", "--random-state", "-1").exit_code == 2


def test_result_that_could_not_be_written_whole_is_not_there(tmp_path, monkeypatch):
    def write(self, path):
        Path(path).write_bytes(b"the first half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(ad.AnnData, "write_h5ad", write)
    result = _run("-q", "embed", "pbmc68k-reduced", "-o", tmp_path / "out.h5ad")
    assert result.exit_code == 1
    assert "No space left" in result.stderr
    assert not list(tmp_path.iterdir())


def test_closest_names_are_offered_for_a_model_that_is_unknown():
    assert "Did you mean 'scgpt'" in _run("models", "describe", "scgtp").stderr
    assert "Did you mean 'sclcm-mini'" in _run("models", "describe", "sclcm_mini").stderr


def test_condition_without_a_value_is_refused(file, tmp_path):
    result = _run("embed", file, "-o", tmp_path / "out.h5ad", "--condition", "assay")
    assert result.exit_code == 1
    assert "expected name=value" in result.stderr
