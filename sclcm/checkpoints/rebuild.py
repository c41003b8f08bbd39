"""The table of names a pickle may mention, and our own functions that run in their place: containers, numpy, torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from sclcm.checkpoints.plain import Constructor, Pending, Refusal, Symbol, Unfinished

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from sclcm.checkpoints.plain import Table

# Storage class of torch -> its torch dtype and bytes per element.
STORAGES = {
    "FloatStorage": ("float32", 4),
    "DoubleStorage": ("float64", 8),
    "HalfStorage": ("float16", 2),
    "BFloat16Storage": ("bfloat16", 2),
    "LongStorage": ("int64", 8),
    "IntStorage": ("int32", 4),
    "ShortStorage": ("int16", 2),
    "CharStorage": ("int8", 1),
    "ByteStorage": ("uint8", 1),
    "BoolStorage": ("bool", 1),
    "ComplexFloatStorage": ("complex64", 8),
    "ComplexDoubleStorage": ("complex128", 16),
    "UntypedStorage": ("uint8", 1),
}
_DTYPES = frozenset(
    {name for name, _ in STORAGES.values()} | {"uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2"}
)


@dataclass(slots=True, eq=False)
class Storage(Unfinished):
    """The bytes of a torch storage, and the type that the file gives them."""

    label: str
    dtype: str
    data: torch.Tensor  # uint8, one dimension


def _require(condition: object, what: str) -> None:
    if not condition:
        raise Refusal(what)


def _is_count(value: Any) -> bool:
    return type(value) is int and 0 <= value < 1 << 62


def _is_one_of(value: Any, *words: str) -> bool:
    return type(value) is str and value in words  # never hash or compare what a file built


def _is_shape(value: Any) -> bool:
    return isinstance(value, tuple) and len(value) <= 32 and all(_is_count(n) for n in value)


# ---- containers ----


def _ordered_dict(args: tuple[Any, ...]) -> dict[Any, Any]:
    _require(args == (), "only an empty one can be made, its items follow")
    return {}


def _empty_or(kind: Callable[..., Any], accepted: type) -> Callable[[tuple[Any, ...]], Any]:
    def make(args: tuple[Any, ...]) -> Any:
        _require(len(args) == 0 or (len(args) == 1 and type(args[0]) is accepted), f"takes one {accepted.__name__}")
        return kind(*args)

    return make


def _complex(args: tuple[Any, ...]) -> complex:
    _require(len(args) == 2 and all(type(part) is float for part in args), "takes two floats")
    return complex(*args)


def _encode(args: tuple[Any, ...]) -> bytes:
    accepted = len(args) == 2 and type(args[0]) is str and _is_one_of(args[1], "latin1", "latin-1")
    _require(accepted, "only `(text, 'latin1')` is accepted")
    text: str = args[0]
    return text.encode("latin-1")


# ---- numpy ----

_NUMERIC = re.compile(r"[biufc](?:1|2|4|8|16|32)|\?")
_TEXTUAL = re.compile(r"[SU][1-9]\d{0,5}")


def array_dtype(code: Any, order: Any = "=", *, objects: bool = False) -> np.dtype[Any]:
    """Turn a type code such as `f8` or `U12` into a dtype; refuse objects, records, dates and subarrays."""
    known = isinstance(code, str) and (
        _NUMERIC.fullmatch(code) or _TEXTUAL.fullmatch(code) or (objects and code in {"O", "O8"})
    )
    _require(known, "its dtype is not a plain number, boolean or text")
    _require(_is_one_of(order, "<", ">", "|", "="), "its byte order is unknown")
    try:
        dtype = np.dtype(code)
    except TypeError as error:
        what = "its dtype does not exist"
        raise Refusal(what) from error
    return dtype.newbyteorder(order) if order in {"<", ">"} else dtype


def _dtype(args: tuple[Any, ...]) -> Pending:
    _require(1 <= len(args) <= 3 and isinstance(args[0], str), "takes a type code")
    code = args[0]
    array_dtype(code, objects=True)

    def finish(state: Any) -> np.dtype[Any]:
        _require(isinstance(state, tuple) and len(state) == 8, "its state is not that of a plain dtype")
        _require(state[2] is None and state[3] is None and state[4] is None, "it has fields")
        return array_dtype(code, state[1], objects=True)

    return Pending("numpy.dtype", finish)


def make_array(raw: Any, dtype: Any, shape: Any, *, order: str = "C") -> np.ndarray:
    """Make an array from its bytes; shape and dtype must account for every byte."""
    _require(isinstance(dtype, np.dtype) and _is_shape(shape), "no dtype and shape are given")
    count = math.prod(shape)
    if dtype.hasobject:
        _require(type(raw) is list and len(raw) == count, f"a list of {count:,} objects is missing")
        return _object_array(raw, shape, order)
    _require(type(raw) in {bytes, bytearray}, "its bytes are missing")
    _require(len(raw) == count * dtype.itemsize, f"its shape {shape} does not fit its {len(raw):,} bytes")
    array = np.frombuffer(raw, dtype)
    if dtype.kind == "U":
        code_points = array.view(np.dtype("u4").newbyteorder(dtype.byteorder))
        _require(not count or code_points.max() <= 0x10FFFF, "its text is damaged")
    return (array.copy() if type(raw) is bytes else array).reshape(shape, order=order)  # type: ignore[call-overload]


def _object_array(items: list[Any], shape: tuple[int, ...], order: str) -> np.ndarray:
    simple = (str, int, float, bool, bytes, type(None), np.generic)
    _require(all(isinstance(item, simple) for item in items), "it holds objects other than text and numbers")
    flat = np.empty(len(items), dtype=object)
    flat[:] = items
    return flat.reshape(shape, order=order)  # type: ignore[call-overload]


def _reconstruct(args: tuple[Any, ...]) -> Pending:
    accepted = len(args) == 3 and args[0] is _NDARRAY
    _require(accepted, "only a plain `numpy.ndarray` can be made")
    return Pending("numpy.ndarray", _array_state)


def _array_state(state: Any) -> np.ndarray:
    _require(isinstance(state, tuple) and len(state) == 5, "its state is not that of an array")
    _, shape, dtype, fortran, raw = state
    return make_array(raw, dtype, shape, order="F" if fortran is True else "C")


def _from_buffer(args: tuple[Any, ...]) -> np.ndarray:
    _require(len(args) == 4 and _is_one_of(args[3], "C", "F"), "takes bytes, dtype, shape and order")
    raw, dtype, shape, order = args
    _require(isinstance(dtype, np.dtype) and not dtype.hasobject, "its dtype is not a plain number, boolean or text")
    return make_array(raw, dtype, shape, order=order)


def _scalar(args: tuple[Any, ...]) -> Any:
    accepted = len(args) == 2 and isinstance(args[0], np.dtype) and not args[0].hasobject
    _require(accepted, "takes a dtype of numbers or text and its bytes")
    return make_array(args[1], args[0], (1,))[0]


_NDARRAY = Symbol("numpy.ndarray")

# ---- torch ----


def _size(args: tuple[Any, ...]) -> tuple[int, ...]:
    shape = tuple(args[0]) if len(args) == 1 and type(args[0]) in {tuple, list} else None
    _require(_is_shape(shape), "takes a shape")
    return shape or ()


def _device(args: tuple[Any, ...]) -> str:
    kind, index = args if len(args) == 2 else (*args, None) if len(args) == 1 else (None, None)
    accepted = isinstance(kind, str) and re.fullmatch(r"[a-z]{2,12}", kind) and (index is None or _is_count(index))
    _require(accepted, "takes a device name")
    return f"{kind}" if index is None else f"{kind}:{index}"


def _view(storage: Any, dtype: str, place: tuple[Any, ...]) -> torch.Tensor:
    import torch

    offset, size, stride = place
    _require(isinstance(storage, Storage) and _is_count(offset), "takes a storage and an offset")
    _require(_is_shape(size) and _is_shape(stride) and len(size) == len(stride), "takes a shape and strides")
    target: torch.dtype = getattr(torch, dtype)
    _require(storage.data.numel() % target.itemsize == 0, "its type does not fit its storage")
    flat = storage.data.view(target)
    count, room = math.prod(size), flat.numel()
    _require(
        all(step or n <= 1 for n, step in zip(size, stride, strict=True)), "a tensor repeats one element (stride 0)"
    )
    if count:
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        _require(last < room, f"a tensor of shape {size} reaches beyond its storage of {room:,} elements")
        _require(count <= room, f"a tensor of shape {size} repeats the {room:,} elements of its storage")
    else:
        _require(offset <= room, "an empty tensor begins beyond its storage")
    return torch.as_strided(flat, size, stride, offset)


def _tensor(args: tuple[Any, ...]) -> torch.Tensor:
    _require(len(args) in {4, 6, 7}, "takes a storage, offset, shape, strides")
    _require(len(args) < 7 or args[6] is None or args[6] == {}, "its metadata is not empty")
    _require(isinstance(args[0], Storage), "takes a storage")
    return _view(args[0], args[0].dtype, args[1:4])


def _tensor_v3(args: tuple[Any, ...]) -> torch.Tensor:
    _require(len(args) == 7 and isinstance(args[6], Symbol) and args[6].value in _DTYPES, "takes a torch dtype")
    return _view(args[0], args[6].value, args[1:4])


def _parameter(args: tuple[Any, ...]) -> torch.Tensor:
    import torch

    _require(len(args) == 3 and isinstance(args[0], torch.Tensor), "takes a tensor")
    data: torch.Tensor = args[0]
    return data


# ---- the table ----

_TENSOR = 1024  # what torch keeps of a tensor, in bytes


def _attribute_dicts() -> dict[tuple[str, str], Symbol | Constructor]:
    """Lightning's dictionary of hyper-parameters, which is read as a plain one."""
    modules = (
        "lightning.fabric.utilities.data",
        "lightning_fabric.utilities.data",
        "pytorch_lightning.utilities.parsing",
        "lightning.pytorch.utilities.parsing",
    )
    name = "AttributeDict"
    return {(module, name): Constructor(f"{module}.{name}", _ordered_dict, new=True) for module in modules}


def _constructors() -> dict[tuple[str, str], Symbol | Constructor]:
    functions: list[tuple[str, str, Callable[[tuple[Any, ...]], Any], int]] = [
        ("collections", "OrderedDict", _ordered_dict, 128),
        ("_codecs", "encode", _encode, 128),
        ("numpy", "dtype", _dtype, 512),
        ("torch", "Size", _size, 128),
        ("torch", "device", _device, 128),
        ("torch._utils", "_rebuild_tensor", _tensor, _TENSOR),
        ("torch._utils", "_rebuild_tensor_v2", _tensor, _TENSOR),
        ("torch._utils", "_rebuild_tensor_v3", _tensor_v3, _TENSOR),
        ("torch._utils", "_rebuild_parameter", _parameter, 128),
    ]
    for core in ("numpy.core", "numpy._core"):
        functions += [
            (f"{core}.multiarray", "_reconstruct", _reconstruct, 512),
            (f"{core}.multiarray", "scalar", _scalar, 128),
            (f"{core}.numeric", "_frombuffer", _from_buffer, 256),
        ]
    for module in ("builtins", "__builtin__"):
        functions += [
            (module, "bytes", _empty_or(bytes, bytes), 128),
            (module, "bytearray", _empty_or(bytearray, bytes), 128),
            (module, "complex", _complex, 128),
        ]
    return {
        (module, name): Constructor(f"{module}.{name}", build, cost=cost) for module, name, build, cost in functions
    }


def _sets() -> dict[tuple[str, str], Symbol | Constructor]:
    return {
        (module, kind.__name__): Constructor(
            f"{module}.{kind.__name__}", _empty_or(kind, list), hashes=True, cost=512, factor=6
        )
        for module in ("builtins", "__builtin__")
        for kind in (set, frozenset)
    }


def _symbols() -> dict[tuple[str, str], Symbol | Constructor]:
    table: dict[tuple[str, str], Symbol | Constructor] = {("numpy", "ndarray"): _NDARRAY}
    table |= {("torch", name): Symbol(f"torch.{name}", name) for name in (*STORAGES, *sorted(_DTYPES))}
    table["torch.storage", "UntypedStorage"] = Symbol("torch.storage.UntypedStorage", "UntypedStorage")
    return table


TABLE: Table = _constructors() | _sets() | _attribute_dicts() | _symbols()

# Classes of plain records that hyper-parameters are made of: kept as `Record`, never brought to life.
RECORDS = frozenset(
    {
        "argparse.Namespace",
        "datetime.date",
        "datetime.datetime",
        "datetime.timedelta",
        *(f"pathlib{sub}.{kind}Path" for sub in ("", "._local") for kind in ("", "Posix", "Windows")),
        *(f"pathlib{sub}.Pure{kind}Path" for sub in ("", "._local") for kind in ("", "Posix", "Windows")),
        "torch.torch_version.TorchVersion",
        "types.SimpleNamespace",
        "uuid.UUID",
    }
)
