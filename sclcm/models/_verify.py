"""`verify`: recompute the authors' numbers on this machine and compare."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, cast

import numpy as np

from sclcm._sizes import ReleaseFacts
from sclcm.checkpoints.readers import read_array, read_json
from sclcm.models._fixture_input import read_fixture_input
from sclcm.models._measure import Measurement
from sclcm.models._release import read_state
from sclcm.reference._probes import Deferred, MaskedLogits, Probe, find_probe
from sclcm.zoo._modules import PickledModule
from sclcm.zoo._registry import get_spec

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from types import ModuleType

    from sclcm._sizes import Rule
    from sclcm.checkpoints.keymap import State
    from sclcm.zoo._spec import ModelSpec

Status = Literal["OK", "FAIL", "DEFERRED", "UNKNOWN"]

HALF = {"bfloat16": 0.1, "float16": 0.02}
"""Share of the size of an array, its root mean square, by which its entries may differ in half precision."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """The comparison of one array; as text, one line of `sclcm verify`.

    Parameters
    ----------
    status
        `"OK"`, `"FAIL"`, `"DEFERRED"` (not computed yet, for a stated reason), `"UNKNOWN"` (no probe).
    array
        Its name.
    max_abs
    max_rel
        Largest absolute and relative difference; the number of differing entries for text.
    tolerance
        What was allowed, or the reason of another status.
    """

    status: Status
    array: str
    max_abs: float = float("nan")
    max_rel: float = float("nan")
    tolerance: str = ""

    def __str__(self) -> str:
        return f"{self.status} {self.array} {self.max_abs:.3g} {self.max_rel:.3g} {self.tolerance}"


def verify(
    family: str | None = None, *, fixture: str | Path | None = None, dtype: str = "float32", device: str = "cpu"
) -> Iterator[Check]:
    """Compare what this installation computes with the results of the authors' own code.

    Parameters
    ----------
    family
        A family; `None` takes every family that has reference numbers.
    fixture
        A folder with `checkpoint/`, `input.h5ad`, `expected.npz`, `expected.json` and possibly `run.json`, or a folder
        that holds such folders; `None` takes those of the package. Requires `family`.
    dtype
        Number type of the computation. Entries of arrays of real numbers may differ by 10% of the array's size in
        bfloat16, by 2% in float16.
    device
        Where to compute.

    Yields
    ------
    A `Check` for each array, with its status, its name, the largest absolute and relative difference, and the
    tolerance.

    Raises
    ------
    ValueError
        The family has no reference numbers, or the folder is no fixture.
    """
    if fixture is not None and family is None:
        msg = f"`fixture` needs a family, one of {', '.join(map(repr, reference_families()))}."
        raise ValueError(msg)
    families = reference_families() if family is None else [family]
    for name in families:
        arrays = _arrays(name)
        root = Path(fixture) if fixture is not None else _packaged(name)
        for folder in find_fixtures(root):
            parts = [name] if family is None else []
            parts += [] if folder == root else [folder.relative_to(root).as_posix()]
            prefix = "/".join([*parts, ""])
            yield from _verify_folder(folder, name, arrays=arrays, prefix=prefix, dtype=dtype, device=device)


def reference_families() -> list[str]:
    """Return the families with reference numbers in the package."""
    root = Path(str(files("sclcm.reference")))
    return sorted(file.parent.name.replace("_", "-") for file in root.glob("*/arrays.py"))


def find_fixtures(root: Path) -> list[Path]:
    """Return the folders with expected arrays, `root` itself or below it; `ValueError` if there are none."""
    found = sorted(file.parent for file in root.rglob("expected.npz"))
    if not found:
        msg = f"{str(root)!r} is no fixture: expected `checkpoint/`, `input.h5ad`, `expected.npz` and `expected.json`."
        raise ValueError(msg)
    return found


def summary(checks: list[Check]) -> str:
    """Return the closing line."""
    statuses = [check.status for check in checks]
    words = (("OK", "ok"), ("FAIL", "fail"), ("DEFERRED", "deferred"), ("UNKNOWN", "unknown"))
    return ", ".join(f"{statuses.count(status)} {word}" for status, word in words)  # type: ignore[arg-type]


def _packaged(family: str) -> Path:
    return Path(str(files("sclcm.reference"))) / family.replace("-", "_")


def _arrays(family: str) -> dict[str, Probe]:
    get_spec(family)
    if family not in reference_families():
        msg = f"{family!r} has no reference numbers; {', '.join(map(repr, reference_families()))} have."
        raise ValueError(msg)
    return _reference(family).ARRAYS


def _reference(family: str) -> ModuleType:
    return import_module(f"sclcm.reference.{family.replace('-', '_')}.arrays")


def _verify_folder(
    folder: Path, family: str, *, arrays: dict[str, Probe], prefix: str, dtype: str, device: str
) -> Iterator[Check]:
    expected = cast("dict[str, np.ndarray]", _require_names(read_array(folder / "expected.npz"), "expected.npz"))
    facts = _require_names(read_json(folder / "expected.json", nan=True), "expected.json")
    facts = {name: fact for name, fact in facts.items() if not name.startswith("_")}  # those are remarks
    adata = read_fixture_input(folder / "input.h5ad")
    checkpoint = folder / "checkpoint" if (folder / "checkpoint").is_dir() else folder  # tables lie beside the input
    yield from _compare_weights(checkpoint, family, prefix)
    measurement = Measurement(
        *(adata, checkpoint),
        family=family,
        draws=expected,
        dtype=dtype,
        device=device,
        run=_run_of(folder),
        facts=facts,
    )
    _check_run(getattr(_reference(family), "STATED", {}), measurement)
    yield from _load_copies(measurement, prefix)
    if cells := getattr(_reference(family), "CELLS_READ", None):
        measurement = measurement.of_cells(cells)
    for name in sorted({*expected, *facts}, key=list({**facts, **expected}).index):
        probe = find_probe(name, arrays)
        if probe is None:
            yield Check(status="UNKNOWN", array=prefix + name, tolerance="no probe computes this array")
        elif isinstance(probe, Deferred):
            yield Check(status="DEFERRED", array=prefix + name, tolerance=probe.reason)
        elif name not in expected or name not in facts:
            yield Check(status="FAIL", array=prefix + name, tolerance="not in both expected.npz and expected.json")
        elif (tolerance := _tolerance(facts[name])) is None:
            reason = "expected.json gives no `tolerance` with an `atol` and an `rtol`, finite and not negative"
            yield Check(status="FAIL", array=prefix + name, tolerance=reason)
        else:
            try:
                found = np.asarray(measurement.take(probe, name))
            except (ValueError, KeyError, RuntimeError, IndexError, TypeError, OSError) as error:
                yield Check(status="FAIL", array=prefix + name, tolerance=f"could not be computed: {error}")
                continue
            wanted = expected[name]
            if isinstance(probe, MaskedLogits):
                found = found[: max(wanted.shape[0] if wanted.ndim else 0, 1)]  # no rows would prove nothing
            yield compare(found, wanted, name=prefix + name, tolerance=_allowed(tolerance, wanted, dtype))


def _run_of(folder: Path) -> dict[str, Any]:
    """Return what `run.json` says of how the arrays were made, where there is one."""
    file = folder / "run.json"
    return _require_names(read_json(file, nan=True), "run.json") if file.is_file() else {}


def _check_run(stated: Mapping[str, Rule], measurement: Measurement) -> None:
    """Refuse a `run.json` that states other sizes than the weights have; the authors' script could not load them."""
    state = measurement.pretrained.lcm.state_dict()
    facts = ReleaseFacts(shapes={name: tuple(tensor.shape) for name, tensor in state.items()})
    for key, rule in stated.items():
        wanted = facts.value(rule)
        if (found := measurement.run.get(key, wanted)) != wanted:
            msg = f"'run.json' says {key!r} is {found!r}, but the weights say {wanted!r}; they are of different models."
            raise ValueError(msg)


def _require_names(content: Any, file: str) -> dict[str, Any]:
    if not isinstance(content, dict):
        msg = f"{file!r} of the fixture holds a {type(content).__name__}; expected entries named after arrays."
        raise ValueError(msg)
    return content


def _tolerance(fact: Any) -> dict[str, float] | None:
    """Return what `expected.json` allows, or `None` if it does not say so in finite numbers."""
    stored = fact.get("tolerance") if isinstance(fact, dict) else None
    bounds = (stored.get("atol"), stored.get("rtol")) if isinstance(stored, dict) else ()
    good = [bound for bound in bounds if isinstance(bound, int | float) and 0 <= bound < float("inf")]
    return stored if len(good) == 2 else None


def _compare_weights(checkpoint: Path, family: str, prefix: str) -> Iterator[Check]:
    """Files of one release that hold the same weights must agree; only a disagreement is reported."""
    for (file, state), (other, other_state) in _copies(checkpoint, family):
        shared = sorted(state.keys() & other_state.keys())
        if differing := [name for name in shared if not other_state[name].equal(state[name])]:
            text = f"{differing[0]} differs between {file.name} and {other.name}"
            yield Check(status="FAIL", array=f"{prefix}checkpoint", tolerance=text)


def _load_copies(measurement: Measurement, prefix: str) -> Iterator[Check]:
    """Files of one release that hold the same weights must all be whole; only what is not is reported."""
    for _, (file, _state) in _copies(measurement.folder, measurement.family):
        try:
            measurement.load(file)
        except (ValueError, KeyError) as error:
            yield Check(status="FAIL", array=f"{prefix}checkpoint", tolerance=f"could not be loaded: {error}")


def _copies(checkpoint: Path, family: str) -> Iterator[tuple[tuple[Path, State], tuple[Path, State]]]:
    """Yield the first file of a release's weights with each other one of the same model, and their tensors."""
    spec = get_spec(family)
    found = list(dict.fromkeys(file for pattern in spec.weights for file in sorted(checkpoint.glob(pattern))))
    if len(found) < 2 or isinstance(spec.config, PickledModule):  # each of those is a model of its own
        return
    states = [read_state(spec, file) for file in found]
    for file, state in zip(found[1:], states[1:], strict=True):
        is_tuned = state.keys() - states[0].keys() and states[0].keys() - state.keys()  # beside the pre-trained one
        if not is_tuned and not _are_of_two_models(spec, found[0].name, file.name):
            yield (found[0], states[0]), (file, state)


def _are_of_two_models(spec: ModelSpec, one: str, other: str) -> bool:
    """Whether checkpoints of the family name both files, and none names both at once."""
    listed = [set(checkpoint.files) for checkpoint in spec.checkpoints.values()]
    return all(any(name in files for files in listed) for name in (one, other)) and not any(
        {one, other} <= files for files in listed
    )


def _allowed(tolerance: Mapping[str, Any], wanted: np.ndarray, dtype: str) -> Mapping[str, Any]:
    """Return the tolerance for a number type: the stored one, or a share of the array's size in half precision."""
    if dtype not in HALF or wanted.dtype.kind != "f" or not wanted.size:
        return tolerance
    half = HALF[dtype]
    size = float(np.sqrt(np.nanmean(np.square(wanted, dtype=np.float64))))
    return {**tolerance, "atol": max(tolerance["atol"], half * size), "rtol": max(tolerance["rtol"], half)}


def compare(found: np.ndarray, wanted: np.ndarray, *, name: str, tolerance: Mapping[str, Any]) -> Check:
    """Compare an array with the expected one: text must be equal, numbers within the tolerance."""
    text, numbers = "USO", "biuf"
    if not any(found.dtype.kind in kind and wanted.dtype.kind in kind for kind in (text, numbers)):
        return Check(status="FAIL", array=name, tolerance=f"{found.dtype}, expected {wanted.dtype}")
    if found.shape != wanted.shape:
        return Check(status="FAIL", array=name, tolerance=f"shape {found.shape}, expected {wanted.shape}")
    if wanted.dtype.kind in text:
        wrong = float((found.astype(str) != wanted.astype(str)).sum())
        return Check(status="FAIL" if wrong else "OK", array=name, max_abs=wrong, max_rel=wrong, tolerance="equal")
    atol, rtol = float(tolerance["atol"]), float(tolerance["rtol"])
    a, b = found.astype(np.float64), wanted.astype(np.float64)
    same_nan = np.isnan(a) & np.isnan(b) & bool(tolerance.get("nan_equal"))
    difference = np.where(same_nan, 0.0, np.abs(a - b))
    size = np.where(same_nan, 1.0, np.abs(b))
    with np.errstate(divide="ignore", invalid="ignore"):
        relative = np.where(difference == 0, 0.0, difference / size)
    within = bool((np.isfinite(difference) & (difference <= atol + rtol * size)).all())
    return Check(
        status="OK" if within else "FAIL",
        array=name,
        max_abs=float(difference.max(initial=0.0)),
        max_rel=float(relative.max(initial=0.0)),
        tolerance=f"atol={atol:g},rtol={rtol:g}",
    )
