"""The rules of the house that can be read off the sources: who imports whom, and what a file may hold.

Each rule is a function from sources to a list of violations. It runs twice: over the package, where it must find
nothing, and over a planted violation, which it must find. Imports inside functions count like those at the top.
Imports under `TYPE_CHECKING` count as well, because an annotation is knowledge of the other module; they are excepted
only where a rule is about what is loaded early.
"""

from __future__ import annotations

import ast
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PACKAGE = Path(__file__).parents[1] / "sclcm"
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)

# From the bottom up. A module imports from rows below its own; neighbours on a row do not know each other.
ROWS = (
    {"_keys", "_settings", "_compat", "_docs", "_lazy", "_sizes", "_warnings", "weights"},
    {"genes"},
    {"checkpoints", "nn", "encoding"},
    {"zoo", "reference", "data"},
    {"engine"},
    {"models"},
    {"pp", "tl", "pl", "get", "datasets"},
    {"cli"},
)
RANK = {unit: rank for rank, row in enumerate(ROWS) for unit in row}

TORCH_FREE = (*(f"sclcm.nn.{file.stem}" for file in sorted((PACKAGE / "nn").glob("*configs.py"))), "sclcm.nn.readouts")
ZOO_READS = (
    *TORCH_FREE,
    *("sclcm.checkpoints.keymap", "sclcm.checkpoints.keyrules"),
    *("sclcm.encoding", "sclcm.genes", "sclcm.zoo"),
)
ANNDATA_UNITS = {"data", "models", "pp", "tl", "pl", "get", "datasets", "cli"}
TORCH_UNITS = {"nn", "checkpoints", "engine", "models"}
FINE_TUNING = {f"sclcm.models.{name}" for name in ("_base", "_classifier", "_integration", "_perturbation")}


@dataclass(frozen=True)
class Import:
    target: str  # the module it reads, as far as the sources tell
    line: int
    early: bool  # runs when the module is imported
    relative: bool = False


@dataclass(frozen=True)
class Source:
    module: str
    path: Path
    text: str
    tree: ast.Module
    imports: tuple[Import, ...]

    @property
    def unit(self) -> str:
        return self.module.split(".")[1] if "." in self.module else ""

    @property
    def is_package(self) -> bool:
        return self.path.name == "__init__.py"

    @property
    def is_family(self) -> bool:
        return self.unit == "zoo" and not self.path.name.startswith("_")

    def at(self, line: int, what: str) -> str:
        return f"{self.module}:{line}: {what}"


def read_sources(package: Path) -> list[Source]:
    paths = sorted(package.rglob("*.py"))
    names = {path: _module_name(package, path) for path in paths}
    known = set(names.values())
    sources = []
    for path, name in names.items():
        text = path.read_text(encoding="utf-8")
        tree = ast.parse(text, filename=str(path))
        sources.append(Source(name, path, text, tree, tuple(_imports(tree, known))))
    return sources


def _module_name(package: Path, path: Path) -> str:
    parts = ["sclcm", *path.relative_to(package).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _imports(node: ast.AST, known: set[str], *, early: bool = True) -> Iterator[Import]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (Import(alias.name, child.lineno, early) for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            base = child.module or ""
            for alias in child.names:
                inner = f"{base}.{alias.name}"
                yield Import(inner if inner in known else base, child.lineno, early, relative=child.level > 0)
        elif isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
            yield from _imports(child, known, early=False)
        else:
            is_function = isinstance(child, (*FUNCTIONS, ast.Lambda))
            yield from _imports(child, known, early=early and not is_function)


def _ours(source: Source) -> Iterator[tuple[Import, str]]:
    """Our own imports with the unit (sub-package or bottom-row module) they reach into; the root is left out."""
    for item in source.imports:
        parts = item.target.split(".")
        if parts[0] == "sclcm" and len(parts) > 1:
            yield item, parts[1]


def _reading(source: Source, *packages: str) -> list[Import]:
    return [item for item in source.imports if any((item.target + ".").startswith(f"{p}.") for p in packages)]


def _docstrings(tree: ast.Module) -> set[int]:
    """Ids of the string nodes that are docstrings."""
    owners = (ast.Module, ast.ClassDef, *FUNCTIONS)
    bodies = [node.body for node in ast.walk(tree) if isinstance(node, owners) and node.body]
    return {id(body[0].value) for body in bodies if isinstance(body[0], ast.Expr)}


# ---- who imports whom


def units_without_a_row(sources: list[Source]) -> list[str]:
    return [s.at(1, f"{s.unit!r} stands on no row of ROWS") for s in sources if s.unit and s.unit not in RANK]


def upward_imports(sources: list[Source]) -> list[str]:
    return [
        s.at(item.line, f"imports {item.target}, which is not below {s.unit!r}")
        for s in sources
        for item, unit in _ours(s)
        if s.unit and unit != s.unit and RANK.get(unit, len(ROWS)) >= RANK.get(s.unit, -1)
    ]


def imports_from_an_init(sources: list[Source]) -> list[str]:
    packages = {s.module for s in sources if s.is_package}
    return [
        s.at(item.line, "imports from an `__init__`; import from the defining module")
        for s in sources
        for item in s.imports
        if s.module != "sclcm" and (item.relative or item.target in packages)
    ]


def zoo_reads_more_than_declarations(sources: list[Source]) -> list[str]:
    return [
        s.at(item.line, f"zoo reads {item.target}")
        for s in sources
        if s.unit == "zoo"
        for item, unit in _ours(s)
        if RANK.get(unit) != 0 and not any((item.target + ".").startswith(f"{allowed}.") for allowed in ZOO_READS)
    ]


def torch_out_of_place(sources: list[Source]) -> list[str]:
    found = []
    for s in sources:
        for item in _reading(s, "torch", "safetensors.torch"):
            if s.unit not in TORCH_UNITS or s.module in TORCH_FREE:
                found.append(s.at(item.line, "torch has no business here"))
            elif item.early and s.unit == "checkpoints":
                found.append(s.at(item.line, "torch is imported early; import it inside the function"))
    return found


def anndata_out_of_place(sources: list[Source]) -> list[str]:
    return [
        s.at(item.line, "AnnData and scanpy stay at the edge")
        for s in sources
        if s.unit not in ANNDATA_UNITS
        for item in _reading(s, "anndata", "scanpy")
    ]


def scvi_out_of_place(sources: list[Source]) -> list[str]:
    return [
        s.at(item.line, "scvi-tools belongs to the fine-tuning modules of `models`")
        for s in sources
        if s.module not in FINE_TUNING
        for item in _reading(s, "scvi")
    ]


def lightning_out_of_place(sources: list[Source]) -> list[str]:
    return [
        s.at(item.line, "Lightning belongs to `engine.training` and `models`")
        for s in sources
        if s.unit != "models" and not s.module.startswith("sclcm.engine.training")
        for item in _reading(s, "lightning", "pytorch_lightning")
    ]


def slow_imports_in_the_command_line(sources: list[Source]) -> list[str]:
    slow = ("anndata", "matplotlib", "numpy", "pandas", "scanpy", "scipy")
    return [
        s.at(i.line, f"{i.target} at the top")
        for s in sources
        if s.unit == "cli"
        for i in _reading(s, *slow)
        if i.early
    ]


# ---- what a file may hold


def long_files(sources: list[Source]) -> list[str]:
    lengths = ((s, len(s.text.splitlines())) for s in sources)
    return [s.at(n, f"{n} lines; split it by concept at 400") for s, n in lengths if n > 400]


def long_functions(sources: list[Source]) -> list[str]:
    functions = [(s, n) for s in sources for n in ast.walk(s.tree) if isinstance(n, FUNCTIONS)]
    lengths = [(s, n, (n.end_lineno or n.lineno) - n.lineno + 1) for s, n in functions]
    return [s.at(n.lineno, f"`{n.name}` has {length} lines, 80 at most") for s, n, length in lengths if length > 80]


def missing_openings(sources: list[Source]) -> list[str]:
    opening = "from __future__ import annotations"
    return [
        s.at(1, f"starts without a docstring or `{opening}`")
        for s in sources
        if not ast.get_docstring(s.tree) or (len(s.tree.body) > 1 and opening not in s.text)
    ]


def asserts_prints_and_globals(sources: list[Source]) -> list[str]:
    return [
        s.at(node.lineno, f"{ast.unparse(node)[:40]!r}: raise an exception, log, or pass an argument")
        for s in sources
        for node in ast.walk(s.tree)
        if isinstance(node, ast.Assert | ast.Global)
        or (isinstance(node, ast.Call) and ast.unparse(node.func) in {"print", "exit", "sys.exit", "quit"})
    ]


def environment_writes(sources: list[Source]) -> list[str]:
    write = re.compile(r"os\.environ\[.+\]\s*=[^=]|os\.environ\.(update|setdefault|pop)\(|os\.(putenv|unsetenv)\(")
    lines = [(s, n, line) for s in sources for n, line in enumerate(s.text.splitlines(), 1)]
    return [s.at(n, "writes to the environment") for s, n, line in lines if write.search(line)]


def loading_that_executes(sources: list[Source]) -> list[str]:
    unsafe = {"pickle.load", "pickle.loads", "torch.load", "joblib.load", "dill.load", "pd.read_pickle", "eval", "exec"}
    found = []
    for s in sources:
        for node in ast.walk(s.tree):
            if isinstance(node, ast.Call):
                may_unpickle = any(k.arg == "allow_pickle" and ast.unparse(k.value) != "False" for k in node.keywords)
                if may_unpickle or ast.unparse(node.func) in unsafe:
                    found.append(s.at(node.lineno, f"`{ast.unparse(node.func)}` may run what the file says"))
    return found


def definitions_in_an_init(sources: list[Source]) -> list[str]:
    allowed = (ast.Expr, ast.Import, ast.ImportFrom, ast.If, ast.Assign)
    return [
        s.at(node.lineno, "an `__init__` holds a docstring, re-exports and `__all__`")
        for s in sources
        if s.is_package and s.module != "sclcm"
        for node in s.tree.body
        if not isinstance(node, allowed)
    ]


def zoo_files_that_compute(sources: list[Source]) -> list[str]:
    statements = (ast.Expr, ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign)
    expressions = (ast.Lambda, ast.IfExp, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.NamedExpr)
    found = []
    for s in (s for s in sources if s.is_family):
        bad = [node for node in s.tree.body if not isinstance(node, statements)]
        bad += [node for node in ast.walk(s.tree) if isinstance(node, expressions)]
        found += [s.at(node.lineno, "a zoo file holds imports, constants and SPEC only") for node in bad]
        names = {ast.unparse(t) for n in s.tree.body if isinstance(n, ast.Assign) for t in n.targets}
        names |= {ast.unparse(n.target) for n in s.tree.body if isinstance(n, ast.AnnAssign)}
        if "SPEC" not in names:
            found.append(s.at(1, "declares no SPEC"))
    return found


def family_names_in_the_core(sources: list[Source]) -> list[str]:
    families = {s.path.stem.replace("_", "") for s in sources if s.is_family}
    core = [s for s in sources if s.unit in {"nn", "engine", "models"}]
    return [
        s.at(line, f"{text[:60]!r} names the family {name!r}; the core never asks which family it is")
        for s in core
        for line, text in _identifiers_and_strings(s.tree)
        for name in sorted(families & _runs(text))
    ]


def _identifiers_and_strings(tree: ast.Module) -> Iterator[tuple[int, str]]:
    docstrings = _docstrings(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings:
            yield node.lineno, node.value
        for field in ("id", "attr", "arg", "name", "asname", "module"):
            value = getattr(node, field, None)
            if isinstance(value, str):
                yield getattr(node, "lineno", 0), value


@cache
def _runs(text: str) -> frozenset[str]:
    """Lower-case words of a text and what neighbouring parts of one word make: `scGPTHead` holds `scgpt`."""
    runs = set()
    for word in re.findall(r"[\w.-]+", text):
        parts = re.findall(r"[A-Z]+(?![a-z])\d*|[A-Z]?[a-z]+\d*|\d+", word)
        pieces = [part.lower() for part in parts]
        runs |= {"".join(pieces[i:j]) for i in range(len(pieces)) for j in range(i + 1, min(i + 4, len(pieces)) + 1)}
    return frozenset(runs)


# ---- each rule with a violation that it has to notice: file -> text

HEAD = '"""Planted."""\n\nfrom __future__ import annotations\n\n'
TOY_FAMILY = {"zoo/toycell.py": HEAD + "SPEC = 1\n"}
PLANTED: list[tuple[Callable[[list[Source]], list[str]], dict[str, str]]] = [
    (units_without_a_row, {"utils/misc.py": HEAD}),
    (upward_imports, {"nn/a.py": HEAD + "def f():\n    from sclcm.models._load import load\n"}),
    (upward_imports, {"nn/a.py": HEAD + "from sclcm.encoding.batches import TokenBatch\n"}),
    (upward_imports, {"genes/a.py": HEAD + "if TYPE_CHECKING:\n    import sclcm.engine.infer\n"}),
    (upward_imports, {"data/a.py": HEAD + "from sclcm import tl\n", "tl/__init__.py": HEAD}),
    (imports_from_an_init, {"nn/__init__.py": HEAD, "engine/a.py": HEAD + "from sclcm.nn import pool\n"}),
    (imports_from_an_init, {"nn/a.py": HEAD, "nn/b.py": HEAD + "from .a import pool\n"}),
    (imports_from_an_init, {"__init__.py": HEAD, "tl/a.py": HEAD + "import sclcm\n"}),
    (zoo_reads_more_than_declarations, {"zoo/toycell.py": HEAD + "from sclcm.nn.layers import Norm\n"}),
    (torch_out_of_place, {"encoding/a.py": HEAD + "def f():\n    import torch.nn as nn\n"}),
    (torch_out_of_place, {"checkpoints/a.py": HEAD + "from torch import Tensor\n"}),
    (torch_out_of_place, {"nn/configs.py": HEAD + "import torch\n"}),
    (anndata_out_of_place, {"engine/a.py": HEAD + "from anndata import AnnData\n"}),
    (scvi_out_of_place, {"models/_load.py": HEAD + "def f():\n    from scvi.model.base import BaseModelClass\n"}),
    (lightning_out_of_place, {"engine/infer.py": HEAD + "import lightning.pytorch as pl\n"}),
    (slow_imports_in_the_command_line, {"cli.py": HEAD + "import scanpy\n"}),
    (long_files, {"nn/a.py": HEAD + "x = 1\n" * 400}),
    (long_functions, {"nn/a.py": HEAD + "def f():\n" + "    x = 1\n" * 80}),
    (missing_openings, {"nn/a.py": "x = 1\n"}),
    (missing_openings, {"nn/a.py": '"""Says something."""\nx = 1\n'}),
    (asserts_prints_and_globals, {"nn/a.py": HEAD + "def f(x):\n    assert x\n"}),
    (asserts_prints_and_globals, {"nn/a.py": HEAD + "def f(x):\n    print(x)\n"}),
    (asserts_prints_and_globals, {"nn/a.py": HEAD + "def f():\n    global x\n    x = 1\n"}),
    (environment_writes, {"nn/a.py": HEAD + "import os\n\nos.environ['A'] = '1'\n"}),
    (loading_that_executes, {"checkpoints/a.py": HEAD + "torch.load(path, weights_only=True)\n"}),
    (loading_that_executes, {"checkpoints/a.py": HEAD + "np.load(path, allow_pickle=True)\n"}),
    (definitions_in_an_init, {"nn/__init__.py": HEAD + "def f():\n    return 1\n"}),
    (zoo_files_that_compute, {"zoo/toycell.py": HEAD + "SPEC = 1\n\ndef f():\n    return 1\n"}),
    (zoo_files_that_compute, {"zoo/toycell.py": HEAD + "SPEC = lambda: 1\n"}),
    (zoo_files_that_compute, {"zoo/toycell.py": HEAD + "if True:\n    SPEC = 1\n"}),
    (zoo_files_that_compute, {"zoo/toycell.py": HEAD + "SPEC = [x for x in (1, 2)]\n"}),
    (zoo_files_that_compute, {"zoo/toycell.py": HEAD + "OTHER = 1\n"}),
    (family_names_in_the_core, TOY_FAMILY | {"nn/a.py": HEAD + "class ToyCellHead: ...\n"}),
    (family_names_in_the_core, TOY_FAMILY | {"models/a.py": HEAD + "if name == 'toycell.human': pass\n"}),
    (family_names_in_the_core, TOY_FAMILY | {"engine/a.py": HEAD + "def f(is_toycell): ...\n"}),
]
RULES = list(dict.fromkeys(rule for rule, _ in PLANTED))


def _write(files: dict[str, str], folder: Path) -> Path:
    for name, text in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture(scope="module")
def package_sources() -> list[Source]:
    return read_sources(PACKAGE)


@pytest.mark.parametrize("rule", RULES, ids=lambda rule: rule.__name__)
def test_package_has_no(rule, package_sources):
    violations = rule(package_sources)
    assert not violations, "\n".join(violations)


@pytest.mark.parametrize(("rule", "files"), PLANTED, ids=[rule.__name__ for rule, _ in PLANTED])
def test_rule_notices_planted(rule, files, tmp_path):
    assert rule(read_sources(_write(files, tmp_path)))


def test_rules_accept_a_clean_package(tmp_path):
    clean = TOY_FAMILY | {
        "__init__.py": HEAD,
        "_keys.py": HEAD,
        "nn/__init__.py": HEAD,
        "nn/pooling.py": HEAD + "from torch import Tensor\n\nx = 'the toy cell'\n",
        "checkpoints/keymap.py": HEAD + "if TYPE_CHECKING:\n    from torch import Tensor\n",
        "models/_base.py": HEAD
        + "def f():\n    'Load `toycell`.'\n    from sclcm.nn.pooling import pool\n    import scvi\n",
        "tl/_embed.py": HEAD + "from sclcm import _keys\n",
    }
    sources = read_sources(_write(clean, tmp_path))
    assert [violation for rule in RULES for violation in rule(sources)] == []
