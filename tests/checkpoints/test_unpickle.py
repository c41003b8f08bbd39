"""Tests of the pickle machine: plain data comes back, everything else is refused and nothing is run."""

from __future__ import annotations

import os
import pickle
import struct
import subprocess
import sys
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sclcm.checkpoints.plain import FormatError, Limits, Record, UnsafeFileError
from sclcm.checkpoints.rebuild import TABLE
from sclcm.checkpoints.unpickle import Machine

PROTOCOLS = range(6)


def load(data, **options):
    return Machine(data, source="file.pkl", table=TABLE, **options).load()


def text(value):
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def named(module, name):
    return b"c" + module.encode() + b"\n" + name.encode() + b"\n"


def call(module, name, args=b")"):
    return b"\x80\x04" + named(module, name) + args + b"R."


class Evil:
    """Pickles to a call of any function, as an attacker writes it."""

    def __init__(self, func, *args):
        self.func, self.args = func, args

    def __reduce__(self):
        return self.func, self.args


ORDERED = b"\x80\x04" + named("collections", "OrderedDict")
RECONSTRUCT = b"\x80\x04" + named("numpy._core.multiarray", "_reconstruct")
ARRAY = RECONSTRUCT + named("numpy", "ndarray") + b"K\x00\x85C\x01b\x87R"


def array(shape, code, raw):
    return ARRAY + b"(K\x01" + shape + dtype_of(code) + b"\x89" + raw + b"tb."


def dtype_of(code, state=b"(K\x03X\x01\x00\x00\x00<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"):
    return named("numpy", "dtype") + text(code) + b"\x89\x88\x87R" + state


def deep(opcode):
    return opcode * 200_000


def bomb(double, rounds=100):
    return b"]q\x00" + (b"0" + double + b"q\x00") * rounds


TUPLES, LISTS = b"h\x00h\x00\x86", b"](h\x00h\x00e"
DICTS = b"}(K\x00h\x00K\x01h\x00u"


NAMES = [
    ("os", "system"),
    ("posix", "system"),
    ("nt", "system"),
    ("subprocess", "Popen"),
    ("builtins", "eval"),
    ("builtins", "exec"),
    ("builtins", "getattr"),
    ("builtins", "__import__"),
    ("__builtin__", "eval"),
    ("__builtin__", "apply"),
    ("builtins", "list"),
    ("importlib", "import_module"),
    ("runpy", "run_path"),
    ("operator", "attrgetter"),
    ("functools", "partial"),
    ("copyreg", "_reconstructor"),
    ("socket", "create_connection"),
    ("webbrowser", "open"),
    ("pickle", "loads"),
    ("marshal", "loads"),
    ("types", "CodeType"),
    ("numpy", "load"),
    ("numpy", "save"),
    ("numpy.core.multiarray", "scalar.__class__"),
    ("torch", "load"),
    ("torch", "FloatStorage.from_file"),
    ("torch.storage", "_load_from_bytes"),
    ("torch.hub", "load"),
    ("torch.jit", "load"),
    ("", ""),
    ("os\x1b[31m", "system"),
]

HOSTILE = {
    **{f"global {m}.{n}": call(m, n, text("echo hacked") + b"\x85") for m, n in NAMES},
    **{f"stack global {m}.{n}": b"\x80\x04" + text(m) + text(n) + b"\x93)R." for m, n in NAMES},
    "os.system by reduce, protocol 2": pickle.dumps(Evil(os.system, "echo hacked"), 2),
    "os.system by reduce, protocol 5": pickle.dumps({"weights": Evil(os.system, "echo hacked")}, 5),
    "eval within honest data": pickle.dumps({"a": 1, "b": [Evil(eval, "1")]}, 4),
    "chain of calls": pickle.dumps(Evil(getattr, Evil(__import__, "os"), "system"), 4),
    "dotted global": b"\x80\x04" + text("numpy.core.multiarray") + text("scalar.__class__.__base__") + b"\x93.",
    "global with list for a name": b"\x80\x04]]\x93.",
    "call of a dictionary": b"\x80\x04})R.",
    "call of a text": b"\x80\x04" + text("os.system") + b")R.",
    "call with a list": ORDERED + b"]R.",
    "a bare function": b"\x80\x04" + named("_codecs", "encode") + b".",
    "a bare type in a list": b"\x80\x04]" + named("torch", "FloatStorage") + b"a.",
    "build on a list": b"\x80\x04]}b.",
    "build on a text": b"\x80\x04" + text("a") + b"}b.",
    "build with __setstate__": ORDERED + b")R}" + text("__setstate__") + b"Nsb.",
    "build with __dict__": ORDERED + b")R}" + text("__dict__") + b"}sb.",
    "build on a function": b"\x80\x04" + named("_codecs", "encode") + b"}b.",
    "INST": b"(" + text("echo hacked") + b"ios\nsystem\n.",
    "INST of an allowed name": b"(icollections\nOrderedDict\n.",
    "OBJ": b"(" + named("os", "system") + text("echo hacked") + b"o.",
    "OBJ of an allowed name": b"(" + named("collections", "OrderedDict") + b"o.",
    "NEWOBJ": ORDERED + b")\x81.",
    "NEWOBJ_EX": ORDERED + b")}\x92.",
    "persistent id": b"\x80\x04" + text("storage") + b"Q.",
    "text of Python 2": b"S'echo hacked'\n.",
    "persistent id as text": b"Pstorage\n.",
    "EXT1": b"\x80\x02\x82\x01.",
    "EXT2": b"\x80\x02\x83\x01\x00.",
    "EXT4": b"\x80\x02\x84\x01\x00\x00\x00.",
    "NEXT_BUFFER": b"\x80\x05\x97.",
    "READONLY_BUFFER": b"\x80\x05\x98.",
    "memo bomb of tuples": b"\x80\x04" + bomb(TUPLES) + b".",
    "memo bomb of lists": b"\x80\x04" + bomb(LISTS) + b".",
    "memo bomb of dictionaries": b"\x80\x04" + bomb(DICTS) + b".",
    "memo bomb as a key": b"\x80\x04}" + bomb(TUPLES) + b"Ns.",
    "memo bomb in a set": b"\x80\x04\x8f(" + bomb(TUPLES) + b"\x90.",
    "deep lists": b"\x80\x04" + b"]" * 200_000 + b"a" * 199_999 + b".",
    "deep tuples": b"\x80\x04)" + deep(b"\x85") + b".",
    "deep tuple as a key": b"\x80\x04})" + deep(b"\x85") + b"Ns.",
    "deep tuple as an encoding": call("_codecs", "encode", text("a") + b")" + deep(b"\x85") + b"\x86"),
    "deep tuple as a byte order": dtype_of("f8", b"(K\x03)" + deep(b"\x85") + b"NNNK\x00K\x00K\x00tb") + b".",
    "deep marks": b"\x80\x04" + b"(" * 100_000 + b".",
    "a list in itself": b"\x80\x04]q\x00h\x00a.",
    "a dictionary in itself": b"\x80\x04}q\x00K\x01h\x00s.",
    "an integer of a megabyte": b"\x80\x02\x8b" + struct.pack("<i", 1 << 20) + b"\x01" * (1 << 20) + b".",
    "an integer of a million digits": b"I" + b"1" * 1_000_000 + b"\n.",
    "a long of a million digits": b"L" + b"1" * 1_000_000 + b"L\n.",
    "a float of a million digits": b"F" + b"1" * 1_000_000 + b"\n.",
    "a global of a megabyte": b"c" + b"a" * 1_000_000 + b"\nb\n.",
    "a key of 100 bytes": b"\x80\x02}\x8a\x64" + b"\x01" * 100 + b"Ns.",
    "a list as a key": b"\x80\x04}]Ns.",
    "a function as a key": b"\x80\x04}" + named("_codecs", "encode") + b"Ns.",
    "encoding other than latin1": call("_codecs", "encode", text("a") + text("rot13") + b"\x86"),
    "encoding with a handler": call("_codecs", "encode", text("a") + text("latin1") + text("strict") + b"\x87"),
    "bytes of a number": call("builtins", "bytes", b"J\x00\x00\x00\x7f\x85"),
    "bytearray of a number": call("builtins", "bytearray", b"J\x00\x00\x00\x7f\x85"),
    "text multiplied": b"\x80\x04" + named("_codecs", "encode") + b"q\x00" + text("a" * 1_000_000) + text("latin1")
    + b"\x86q\x01]" + b"h\x00h\x01Ra" * 2000 + b"00.",
    "array never filled": ARRAY + b".",
    "array of a subclass": RECONSTRUCT + named("numpy", "dtype") + b"K\x00\x85C\x01b\x87R.",
    "array beyond its bytes": array(b"J\x00\x00\x00\x7f\x85", "f8", b"C\x08" + bytes(8)),
    "array with a negative side": array(b"J\xff\xff\xff\xff\x85", "f8", b"C\x00"),
    "array of objects from bytes": array(b"K\x01\x85", "O8", b"C\x08" + b"A" * 8),
    "array of containers": array(b"K\x01\x85", "O8", b"]]a"),
    "dtype of records": b"\x80\x04" + named("numpy", "dtype") + text("V8") + b"\x89\x88\x87R.",
    "dtype of a list": b"\x80\x04" + named("numpy", "dtype") + b"]\x89\x88\x87R.",
    "dtype with fields": b"\x80\x04" + dtype_of("f8", b"(K\x03" + text("<") + b"N)}K\x00K\x00K\x00tb") + b".",
    "dtype of giant texts": b"\x80\x04" + dtype_of("U999999999") + b".",
    "scalar of objects": call("numpy.core.multiarray", "scalar", dtype_of("O8") + b"C\x08" + b"A" * 8 + b"\x86"),
    "tensor without a storage": call("torch._utils", "_rebuild_tensor_v2", b"(NK\x00))\x89}t"),
    "parameter of a list": call("torch._utils", "_rebuild_parameter", b"]\x89}\x87"),
    "a nested torch file": call("torch.storage", "_load_from_bytes", b"C\x01a\x85"),
}  # fmt: skip

DAMAGED = {
    "empty": b"",
    "no stop": b"\x80\x04}",
    "no opcode": b"\x80\x04\xff.",
    "protocol 6": b"\x80\x06N.",
    "stack of two": b"\x80\x04NN.",
    "stack of none": b"\x80\x04.",
    "open mark": b"\x80\x04N(.",
    "stack underflow": b"\x80\x04a.",
    "tuple underflow": b"\x80\x04N\x87.",
    "memo never set": b"\x80\x04h\x05.",
    "odd number of items": b"\x80\x04}(NNNu.",
    "frame beyond the end": b"\x80\x04\x95" + struct.pack("<Q", 1 << 60) + b"N.",
    "BINBYTES8 of 2**63": b"\x80\x04\x8e" + struct.pack("<Q", 1 << 63) + b"ab.",
    "BINBYTES of 4 GB": b"\x80\x04B" + struct.pack("<I", 0xFFFFFFFF) + b"ab.",
    "BINUNICODE8 of 2**62": b"\x80\x04\x8d" + struct.pack("<Q", 1 << 62) + b"ab.",
    "BYTEARRAY8 of 2**64-1": b"\x80\x05\x96" + struct.pack("<Q", (1 << 64) - 1) + b"ab.",
    "LONG4 of minus one": b"\x80\x02\x8b" + struct.pack("<i", -1) + b"ab.",
    "text that is not UTF-8": b"\x80\x04\x8c\x02\xff\xfe.",
    "number that is none": b"I1x\n.",
    "web page": b"<!DOCTYPE html><html><body>404</body></html>",
}


# ---- honest data ----

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**300), 2**300)
    | st.floats(allow_nan=False)
    | st.text(max_size=300)
    | st.binary(max_size=300)
)
keys = (
    st.text()
    | st.integers(-(2**63), 2**63)
    | st.booleans()
    | st.floats(allow_nan=False)
    | st.binary(max_size=9)
    | st.none()
)
simple = scalars | st.sets(keys, max_size=5) | st.frozensets(keys, max_size=5) | st.binary(max_size=9).map(bytearray)
plain = st.recursive(
    simple | st.complex_numbers(allow_nan=False),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.lists(inner, max_size=5).map(tuple)
        | st.dictionaries(keys | st.tuples(keys, keys), inner, max_size=5)
    ),
    max_leaves=25,
)


@given(value=plain, protocol=st.sampled_from(PROTOCOLS))
@settings(max_examples=150, deadline=None)
def test_plain_data_comes_back_equal_in_every_protocol(value, protocol):
    data = pickle.dumps(value, protocol)
    assert repr(load(data)) == repr(pickle.loads(data))


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_arrays_and_numpy_numbers_come_back_equal(protocol):
    arrays = {
        "c": np.arange(24, dtype="<i4").reshape(2, 3, 4),
        "f": np.asfortranarray(np.arange(6.0).reshape(2, 3)),
        "big": np.arange(3, dtype=">f8"),
        "none": np.zeros((0, 4), "f2"),
        "point": np.array(2.5),
        "bool": np.array([True, False]),
        "complex": np.array([1 + 2j]),
        "bytes": np.array([b"ab", b"c"]),
        "text": np.array(["ab", "c\u00e9"]),
        "objects": np.array(["B cell", None, 3], dtype=object).reshape(3, 1),
    }
    loaded = load(pickle.dumps(arrays, protocol))
    for name, array in arrays.items():
        assert loaded[name].dtype == array.dtype
        np.testing.assert_array_equal(loaded[name], array)
        assert loaded[name].flags.f_contiguous == array.flags.f_contiguous
    numbers = {np.int16(3): np.float64(2.5), "a": np.bool_(True), "b": np.float32(1), "c": np.str_("x")}
    back = load(pickle.dumps(numbers, protocol))
    assert back == numbers
    assert [type(value) for value in back.values()] == [type(value) for value in numbers.values()]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_shared_objects_stay_shared(protocol):
    part, array = [1, 2], np.arange(3)
    loaded = load(pickle.dumps([part, part, array, array], protocol))
    assert loaded[0] is loaded[1]
    assert loaded[2] is loaded[3]


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_ordered_dictionaries_come_back_in_order(protocol):
    value = OrderedDict([("b", 1), ("a", OrderedDict())])
    assert list(load(pickle.dumps(value, protocol)).items()) == [("b", 1), ("a", {})]


def test_names_of_older_numpy_are_known():
    data = pickle.dumps([np.arange(3), np.int8(1)], 4).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    data = data.replace(b"\x8c\x16numpy.core", b"\x8c\x15numpy.core")
    data = data[:2] + data[11:]  # the length of the frame no longer fits
    assert load(data)[1] == 1


def test_classes_named_as_inert_are_kept_as_records():
    evil = pickle.dumps({"made": Evil(os.system, "echo hacked"), "path": Path("a")}, 4)
    asked = frozenset(
        {"posix.system", "nt.system", "pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath"}
    )
    loaded = load(evil, inert=asked)
    assert isinstance(loaded["made"], Record)
    assert loaded["made"].args == ("echo hacked",)
    assert isinstance(loaded["path"], Record)
    assert load(pickle.dumps([os.system], 4), inert=asked)[0].name == f"{os.name}.system"


def test_the_machine_stops_behind_its_pickle():
    first, second = pickle.dumps([1], 4), pickle.dumps("two", 2)
    machine = Machine(first + second, source="two", table=TABLE)
    assert machine.load() == [1]
    assert load(first + second, start=machine.at) == "two"


# ---- hostile data ----


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pickles_are_refused(name):
    with pytest.raises(UnsafeFileError, match=r"(?s)`file\.pkl` .*Nothing in it was run"):
        load(HOSTILE[name])


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_pickles_are_reported(name):
    with pytest.raises(FormatError, match=r"`file\.pkl`"):
        load(DAMAGED[name])


def test_refusal_names_what_was_asked_for():
    with pytest.raises(UnsafeFileError, match=r"asks for the Python object `os\.system`"):
        load(call("os", "system"))
    with pytest.raises(UnsafeFileError, match="INST"):
        load(HOSTILE["INST"])
    with pytest.raises(UnsafeFileError, match=r"misuses `_codecs\.encode`"):
        load(HOSTILE["encoding other than latin1"])


def test_names_in_messages_hold_no_control_characters():
    with pytest.raises(UnsafeFileError, match=r"os\?\[31m\.system") as caught:
        load(call("os\x1b[31m", "system"))
    assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("limit", ["opcodes", "memo", "containers", "calls"])
def test_every_limit_is_kept(limit):
    data = pickle.dumps([np.float32(i) for i in range(20)] + [[i] for i in range(20)], 4)
    with pytest.raises(UnsafeFileError, match="more than 5"):
        load(data, limits=Limits(**{limit: 5}))


def test_many_tuples_as_keys_are_refused():
    data = pickle.dumps({(i, "cell_emb"): i for i in range(20)}, 4)
    assert len(load(data)) == 20
    with pytest.raises(UnsafeFileError, match="more than 10 tuples"):
        load(data, limits=Limits(tuple_keys=10))


def attempt(data):
    try:
        loaded = load(data)
    except (UnsafeFileError, FormatError):
        return
    assert repr(loaded)  # what is returned can at least be looked at


@given(data=st.data())
@settings(max_examples=250, deadline=2000, suppress_health_check=[HealthCheck.too_slow])
def test_flipped_bytes_never_raise_anything_else(data):
    value = {
        "a": [1, 2.5, None, (True, "x" * 20)],
        "b": np.arange(4.0),
        "c": np.int16(2),
        "d": {b"y", 3},
        "e": ["x"] * 3,
    }
    raw = bytearray(pickle.dumps(value, data.draw(st.sampled_from(PROTOCOLS))))
    for _ in range(data.draw(st.integers(1, 8))):
        raw[data.draw(st.integers(0, len(raw) - 1))] = data.draw(st.integers(0, 255))
    attempt(bytes(raw))


@given(raw=st.binary(max_size=200))
@settings(max_examples=300, deadline=2000)
def test_random_bytes_never_raise_anything_else(raw):
    attempt(b"\x80\x04" + raw)


def test_reading_hostile_and_honest_pickles_imports_and_runs_nothing(tmp_path):
    for i, data in enumerate([*HOSTILE.values(), *DAMAGED.values()]):
        (tmp_path / f"hostile{i}.pkl").write_bytes(data)
    (tmp_path / "honest.pkl").write_bytes(pickle.dumps({"a": np.arange(3), "b": np.int16(1), "c": {1, 2}}, 4))
    script = Path(__file__).with_name("audit.py")
    run = subprocess.run([sys.executable, script, tmp_path], capture_output=True, text=True, check=False, timeout=120)
    assert run.stdout == f"{len(HOSTILE) + len(DAMAGED) + 1} files, 1 read", run.stderr
    assert "hacked" not in run.stdout + run.stderr
