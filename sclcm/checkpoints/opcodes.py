"""The pickle opcodes that plain data needs; every other one is refused by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sclcm.checkpoints.plain import Constructor, FormatError, Inert, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from sclcm.checkpoints.unpickle import Machine


_SET = 216  # bytes of an empty set, of which a file could ask for many

# The few codes that make up nearly all of a dictionary are written out: twice as fast as the general way.


def _byte(m: Machine) -> int:
    value: int = m.data[m.at]
    m.at += 1
    return value


def _short_text(m: Machine) -> None:
    start = m.at + 1
    stop = start + m.data[m.at]
    if stop > m.end:
        m.truncated()
    m.stack.append(str(m.data[start:stop], "utf-8", "surrogatepass"))
    m.at = stop


def _memoize(m: Machine) -> None:
    m.remember(len(m.memo))


def _get(m: Machine) -> None:
    m.stack.append(m.memo[m.data[m.at]])
    m.at += 1


def _small(m: Machine) -> None:
    m.stack.append(m.data[m.at])
    m.at += 1


def _from_memo(layout: str, n: int) -> Callable[[Machine], None]:
    return lambda m: m.push(m.memo[m.number(layout, n)])


def _to_memo(layout: str, n: int) -> Callable[[Machine], None]:
    return lambda m: m.remember(m.number(layout, n))


def _number(layout: str, n: int) -> Callable[[Machine], None]:
    return lambda m: m.push(m.number(layout, n))


def _text(layout: str, n: int) -> Callable[[Machine], None]:
    return lambda m: m.push(m.take(m.number(layout, n)).decode("utf-8", "surrogatepass"))


def _raw(layout: str, n: int) -> Callable[[Machine], None]:
    return lambda m: m.push(m.take(m.number(layout, n)))


def _constant(value: object) -> Callable[[Machine], None]:
    return lambda m: m.stack.append(value)


def _short_tuple(n: int) -> Callable[[Machine], None]:
    def run(m: Machine) -> None:
        if len(m.stack) < n:
            raise IndexError
        items = tuple(m.stack[-n:])
        del m.stack[-n:]
        m.push_container(items)

    return run


def _protocol(m: Machine) -> None:
    version = m.number("<B", 1)
    if version > 5:
        msg = f"`{m.source}` is a pickle of protocol {version}; 0 to 5 are known. Write it again with protocol 4."
        raise FormatError(msg)


def _frame(m: Machine) -> None:
    if m.number("<Q", 8) > m.end - m.at:
        m.truncated()


def _pop(m: Machine) -> None:
    if m.stack:
        m.stack.pop()
    else:
        m.pop_mark()


def _mark(m: Machine) -> None:
    if len(m.marks) > m.limits.depth:
        m.unsafe(f"nests deeper than {m.limits.depth} levels")
    m.marks.append(m.stack)
    m.stack = []


def _integer_text(text: bytes) -> int:
    digits = text.removeprefix(b"-")
    if not digits.isdigit():
        msg = "not a number"
        raise ValueError(msg)
    return int(text)


def _int_line(m: Machine) -> None:
    text = m.line(1000)
    m.push(text == b"01" if text in {b"00", b"01"} else _integer_text(text))


def _long_line(m: Machine) -> None:
    m.push(_integer_text(m.line(1000).removesuffix(b"L")))


def _long(layout: str, n: int) -> Callable[[Machine], None]:
    def run(m: Machine) -> None:
        length = m.number(layout, n)
        if length > m.limits.integer_bytes:
            m.unsafe(f"holds an integer of {length:,} bytes")
        m.push(int.from_bytes(m.take(length), "little", signed=True))

    return run


def _global(m: Machine) -> None:
    module = m.line(200).decode("utf-8")
    m.find(module, m.line(200).decode("utf-8"))


def _stack_global(m: Machine) -> None:
    name = m.stack.pop()
    m.find(m.stack.pop(), name)


def _reduce(m: Machine) -> None:
    args = m.stack.pop()
    m.call(m.stack.pop(), args)


def _new_object(m: Machine) -> None:
    args = m.stack.pop()
    cls = m.stack.pop()
    if not (isinstance(cls, Inert) or (isinstance(cls, Constructor) and cls.new)):
        m.unsafe(f"creates an instance of {describe(cls)}")
    m.call(cls, args)


def _list_of_mark(m: Machine) -> None:
    m.push_container(m.pop_mark())


def _tuple_of_mark(m: Machine) -> None:
    m.push_container(tuple(m.pop_mark()))


def _dict_of_mark(m: Machine) -> None:
    items = m.pop_mark()
    m.push_container({})
    _store(m, items)


def _empty_set(m: Machine) -> None:
    m.charge((), cost=_SET)
    m.push_container(set())


def _set_of_mark(m: Machine) -> None:
    items = m.pop_mark()
    m.check_keys(items)
    m.charge((), cost=_SET)
    m.push_container(frozenset(items))


def _append(m: Machine) -> None:
    _extend(m, [m.stack.pop()])


def _appends(m: Machine) -> None:
    _extend(m, m.pop_mark())


def _extend(m: Machine, items: list[Any]) -> None:
    target = m.stack[-1]
    if type(target) is not list:
        m.unsafe(f"appends to {describe(target)}")
    target.extend(items)


def _set_item(m: Machine) -> None:
    value = m.stack.pop()
    _store(m, [m.stack.pop(), value])


def _set_items(m: Machine) -> None:
    _store(m, m.pop_mark())


def _store(m: Machine, items: list[Any]) -> None:
    target = m.stack[-1]
    if type(target) is not dict:
        m.unsafe(f"sets items of {describe(target)}")
    keys = items[::2]
    m.check_keys(keys)
    target.update(zip(keys, items[1::2], strict=True))


def _add_items(m: Machine) -> None:
    items = m.pop_mark()
    target = m.stack[-1]
    if type(target) is not set:
        m.unsafe(f"adds items to {describe(target)}")
    m.check_keys(items)
    target.update(items)


def _persistent(m: Machine) -> None:
    pid = m.stack.pop()
    if m.persistent is None:
        m.unsafe("refers to data outside itself (a persistent id)")
    m.calls += 1
    if m.calls > m.limits.calls:
        m.unsafe(f"makes more than {m.limits.calls:,} calls")
    m.push(m.persistent(pid))


_FORBIDDEN = {
    b"i": "INST, which creates an instance of any class",
    b"o": "OBJ, which creates an instance of any class",
    b"\x82": "EXT1, a class of the extension registry",
    b"\x83": "EXT2, a class of the extension registry",
    b"\x84": "EXT4, a class of the extension registry",
    b"P": "PERSID, a reference to data outside the file",
    b"\x92": "NEWOBJ_EX, which creates an instance of any class",
    b"\x97": "NEXT_BUFFER, data outside the file",
    b"\x98": "READONLY_BUFFER, data outside the file",
    b"S": "STRING of Python 2",
    b"T": "BINSTRING of Python 2",
    b"U": "SHORT_BINSTRING of Python 2",
}


def _refuse(code: int) -> Callable[[Machine], None]:
    known = _FORBIDDEN.get(bytes([code]))

    def run(m: Machine) -> None:
        if known is not None:
            m.unsafe(f"uses the pickle opcode {known}")
        msg = f"`{m.source}` is not a pickle, or a damaged one: byte {m.at - 1:,} is no opcode. Get the file again."
        raise FormatError(msg)

    return run


STOP = ord(".")
_ALLOWED: Mapping[bytes, Callable[[Machine], None]] = {
    b"\x80": _protocol,
    b"\x95": _frame,
    b"(": _mark,
    b"0": _pop,
    b"1": lambda m: m.pop_mark().clear(),
    b"2": lambda m: m.push(m.stack[-1]),
    b"N": _constant(value=None),
    b"\x88": _constant(value=True),
    b"\x89": _constant(value=False),
    b"I": _int_line,
    b"L": _long_line,
    b"F": lambda m: m.push(float(m.line(100))),
    b"J": _number("<i", 4),
    b"K": _small,
    b"M": _number("<H", 2),
    b"\x8a": _long("<B", 1),
    b"\x8b": _long("<i", 4),
    b"G": _number(">d", 8),
    b"V": lambda m: m.push(m.line(m.end).decode("raw-unicode-escape")),
    b"\x8c": _short_text,
    b"X": _text("<I", 4),
    b"\x8d": _text("<Q", 8),
    b"C": _raw("<B", 1),
    b"B": _raw("<I", 4),
    b"\x8e": _raw("<Q", 8),
    b"\x96": lambda m: m.push(bytearray(m.take(m.number("<Q", 8)))),
    b"]": lambda m: m.push_container([]),
    b"}": lambda m: m.push_container({}),
    b"\x8f": _empty_set,
    b")": lambda m: m.stack.append(()),
    b"\x85": _short_tuple(1),
    b"\x86": _short_tuple(2),
    b"\x87": _short_tuple(3),
    b"t": _tuple_of_mark,
    b"l": _list_of_mark,
    b"d": _dict_of_mark,
    b"\x91": _set_of_mark,
    b"a": _append,
    b"e": _appends,
    b"s": _set_item,
    b"u": _set_items,
    b"\x90": _add_items,
    b"g": lambda m: m.push(m.memo[_integer_text(m.line(20))]),
    b"h": _get,
    b"j": _from_memo("<I", 4),
    b"p": lambda m: m.remember(_integer_text(m.line(20))),
    b"q": lambda m: m.remember(_byte(m)),
    b"r": _to_memo("<I", 4),
    b"\x94": _memoize,
    b"c": _global,
    b"\x93": _stack_global,
    b"R": _reduce,
    b"\x81": _new_object,
    b"b": lambda m: m.build(m.stack.pop()),
    b"Q": _persistent,
}
HANDLERS = [_ALLOWED.get(bytes([code])) or _refuse(code) for code in range(256)]
