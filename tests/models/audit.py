"""Run as a program: load every checkpoint of the packaged fixtures and print each audit event that needs explaining."""

from __future__ import annotations

import json
import pkgutil
import sys
import warnings
from importlib import import_module
from pathlib import Path

import sclcm
import sclcm.reference
from sclcm._sizes import names_given
from sclcm.checkpoints.protofiles import _entry_type
from sclcm.models import Pretrained, load
from sclcm.models._declarations import _hints, _types
from sclcm.zoo._registry import get_spec

# Besides the events below, which are looked at closely, reading and mapping files causes these.
HARMLESS = {"mmap.__new__", "object.__getattr__", "os.listdir", "os.scandir", "builtins.id", "glob.glob", "glob.glob/2"}
HARMLESS |= {
    "pathlib.Path.glob",
    "pathlib.Path.rglob",
    "os.fwalk",
    "os.walk",
    "sys._getframe",
    "sys._getframemodulename",
}
PACKAGES = {"google", "numpy", "safetensors", "sclcm", "torch"} | set(sys.stdlib_module_names)
PLACES = [Path(sys.prefix), Path(sys.base_prefix), Path(sclcm.__file__).parent]


def checkpoints() -> list[tuple[str, Path, Path]]:
    """Family, fixture folder and weights file of every packaged checkpoint."""
    found = []
    for file in sorted(Path(sclcm.reference.__file__).parent.glob("*/arrays.py")):
        spec = get_spec(file.parent.name)
        weights = {path for pattern in spec.weights for path in file.parent.rglob(pattern) if path.is_file()}
        found += [(spec.name, file.parent, path) for path in sorted(weights)]
    return found


def load_fixture(family: str, place: Path, weights: Path) -> Pretrained:
    """Load a packaged checkpoint, with the dictionaries of the main one where it has none of its own."""
    run = place / "run.json"
    stated = json.loads(run.read_text()) if run.is_file() else {}
    given = {name: stated[name] for name in names_given(get_spec(family)) & stated.keys()}
    try:
        return load(weights, family=family, device="cpu", **given)
    except FileNotFoundError:
        return load(weights, family=family, device="cpu", vocabulary=place / "checkpoint", **given)


def is_below(path: object, places: list[Path]) -> bool:
    """Whether a path lies in one of some folders, by its real place."""
    real = Path(str(path)).resolve()
    return any(real.is_relative_to(place.resolve()) for place in places)


def is_explained(event: str, args: tuple, folder: Path) -> bool:
    """Whether an event is one that reading a checkpoint of a folder must or may cause."""
    if event in HARMLESS:
        return True
    if event == "open":
        readable = args[1] in {"r", "rb", None} and not (isinstance(args[2], int) and args[2] & 3)
        return readable and (isinstance(args[0], int) or is_below(args[0], [folder, *PLACES]))
    if event == "import":
        return str(args[0]).partition(".")[0] in PACKAGES
    if event == "compile":  # the source of such a module, where no compiled file of it may be kept
        return Path(str(args[1])).is_absolute() and is_below(args[1], PLACES)
    if event in {"exec", "marshal.loads"}:  # the code of a module of ours that is imported late
        return event == "marshal.loads" or is_below(args[0].co_filename, PLACES)
    return False


def main() -> None:
    """Import what the package itself imports, then listen while checkpoints are loaded."""
    warnings.simplefilter("error")
    for module in pkgutil.walk_packages(sclcm.__path__, "sclcm."):
        if module.name.split(".")[1] in {"checkpoints", "encoding", "genes", "models", "nn", "zoo"}:
            import_module(module.name)
    import_module("google.protobuf.unknown_fields")  # which, with the next line, compiles its own annotations
    _entry_type()
    for kind in _types().values():  # Python compiles the annotations of our own declarations when they are asked for
        _hints(kind)
    events: list[str] = []
    folder: Path | None = None

    def hook(event: str, args: tuple) -> None:
        if folder is not None and not is_explained(event, args, folder):
            events.append(f"{event} {str(args)[:200]}")

    sys.addaudithook(hook)
    outcomes = []
    for family, place, weights in checkpoints():
        folder = place
        try:
            load_fixture(family, place, weights)
            outcome = "loaded"
        except ValueError:  # a kind of model of the family that the zoo does not declare
            outcome = "refused"
        folder = None
        outcomes.append(f"{outcome} {family} {weights.parent.name}")
    sys.stdout.write("\n".join([*events, *outcomes]))


if __name__ == "__main__":
    main()
