"""What `import sclcm` loads, and that the public names are where they are said to be."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest

import sclcm

SLOW = {"anndata", "dask", "h5py", "lightning", "matplotlib", "numba", "pandas", "scanpy", "scipy", "scvi", "torch"}
SUBPACKAGES = ("datasets", "genes", "get", "models", "pl", "pp", "tl")


def _modules_after(code: str) -> set[str]:
    report = "import json, sys; print(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    command = [sys.executable, "-c", f"{code}\n{report}"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return set(json.loads(done.stdout))


def test_import_loads_nothing_slow():
    assert not _modules_after("import sclcm") & (SLOW | {"numpy"})


def test_sub_packages_settings_and_version_load_nothing_slow():
    touched = "; ".join(f"sclcm.{name}" for name in (*SUBPACKAGES, "settings", "__version__"))
    assert not _modules_after(f"import sclcm; {touched}") & (SLOW | {"numpy"})


def test_command_line_loads_nothing_slow():
    assert not _modules_after("import sclcm.cli") & (SLOW | {"numpy"})


def test_version_is_that_of_the_distribution():
    assert sclcm.__version__ != "unknown"
    assert sclcm.__version__[0].isdigit()


def test_unknown_name_is_an_attribute_error_that_lists_the_known_ones():
    with pytest.raises(AttributeError, match=r"no attribute 'embedd'.*tl"):
        sclcm.embedd  # noqa: B018


@pytest.mark.parametrize("name", SUBPACKAGES)
def test_unknown_name_of_a_sub_package_is_an_attribute_error(name):
    with pytest.raises(AttributeError, match=r"no attribute 'nonsense'"):
        import_module(f"sclcm.{name}").nonsense  # noqa: B018


@pytest.mark.parametrize("name", SUBPACKAGES)
def test_lazy_names_are_those_a_type_checker_sees(name):
    package = import_module(f"sclcm.{name}")
    tree = ast.parse(Path(package.__file__).read_text(encoding="utf-8"))
    imported = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert set(package.__all__) == set(dir(package)) == imported - {"annotations", "attach", "TYPE_CHECKING"}


@pytest.mark.parametrize("name", SUBPACKAGES)
def test_every_public_name_can_be_loaded_and_is_documented(name):
    package = import_module(f"sclcm.{name}")
    undocumented = [public for public in package.__all__ if not getattr(package, public).__doc__]
    assert undocumented == []
