"""A job's arguments for people, without making any of them: a pickle is read as a text about objects, opcode by opcode,
and nothing it names is imported or called. So a node may show what it must never unpickle.

What is unusual is shown as `…`; what is large is cut.
"""

from __future__ import annotations

import json
import pickletools
from collections.abc import Callable
from typing import Any

import msgspec

from rota.client.errors import RotaError
from rota.client.wire.codec import decode_header, payloads
from rota.client.wire.offload import is_check
from rota.client.wire.sealing import is_sealed, key_of

CHARS_MAX = 4_000
TEXT_MAX = 300
DEPTH_MAX = 8
ITEMS_MAX = 50


class Shape(msgspec.Struct):
    """An object as far as it is shown: `open` and `close` around its items. `pairs`: keys and values in turn."""

    open: str
    close: str
    items: list[Any]
    pairs: bool = False


class Text(str):
    """Shown as it is."""

    __slots__ = ()


UNKNOWN = Text("…")
_MARK = object()


class Unreadable(Exception):
    """Not a pickle, or one that does what is not shown."""


def described(body: bytes) -> str:
    """The call of the one job in a body, as in Python; one sentence where it cannot be shown."""
    try:
        header, _ = decode_header(body)
        (payload,) = payloads(body)
        if is_check(payload):
            return "These arguments lie in the object store: `rota job ID --arguments` fetches them."
        if is_sealed(payload):
            return f"These arguments are encrypted, with key {key_of(payload)}: `rota job ID --arguments` opens them."
        if header.codec == "json":
            call = json.loads(payload)
            return called(call.get("args", []), call.get("kwargs", {}))
        return called(*_call_in(payload))
    except (RotaError, Unreadable, ValueError, AttributeError, RecursionError, LookupError, TypeError):
        return "These arguments cannot be shown."


def called(args: Any, kwargs: Any) -> str:
    writer = _Writer()
    positional = args.items if isinstance(args, Shape) else args
    named = _pairs(kwargs)
    for number, value in enumerate(positional[:ITEMS_MAX]):
        writer.write(", " if number else "")
        writer.value(value, 0)
    for number, (name, value) in enumerate(named[:ITEMS_MAX]):
        writer.write(", " if number or positional else "")
        writer.write(f"{name!s:.100}=")
        writer.value(value, 0)
    return writer.text or "(no arguments)"


def _pairs(mapping: Any) -> list[tuple[Any, Any]]:
    if isinstance(mapping, Shape):
        return list(zip(mapping.items[::2], mapping.items[1::2], strict=False))
    return list(mapping.items())


class _Writer:
    """Writes until there is enough: what refers to itself, or to one thing a million times, ends there too."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._left = CHARS_MAX

    @property
    def text(self) -> str:
        return "".join(self._parts)

    def write(self, text: str) -> None:
        if self._left > 0:
            self._parts.append(text if len(text) <= self._left else text[: self._left] + "…")
            self._left -= len(text)

    def value(self, value: Any, depth: int) -> None:
        if self._left <= 0:
            return
        match value:
            case Text():
                self.write(value)
            case Shape():
                self._shape(value, depth)
            case list():
                self._shape(Shape("[", "]", value), depth)
            case dict():
                self._shape(Shape("{", "}", [it for pair in value.items() for it in pair], True), depth)
            case str() | bytes() | bytearray() if len(value) > TEXT_MAX:
                unit = "characters" if isinstance(value, str) else "bytes"
                self.write(f"{value[:TEXT_MAX]!r}… ({len(value):,} {unit})")
            case int() if abs(value).bit_length() > 1_000:
                self.write("(a number of over 300 digits)")
            case _:
                self.write(repr(value))

    def _shape(self, shape: Shape, depth: int) -> None:
        if depth >= DEPTH_MAX:
            self.write(f"{shape.open}…{shape.close}")
            return
        self.write(shape.open)
        step = 2 if shape.pairs else 1
        for at in range(0, min(len(shape.items), ITEMS_MAX * step), step):
            self.write(", " if at else "")
            self.value(shape.items[at], depth + 1)
            if shape.pairs and at + 1 < len(shape.items):
                self.write(": ")
                self.value(shape.items[at + 1], depth + 1)
        if len(shape.items) > ITEMS_MAX * step:
            self.write(f", … {len(shape.items) // step - ITEMS_MAX:,} more")
        self.write(shape.close)


def _call_in(payload: bytes) -> tuple[Any, Any]:
    found = _Reader().read(payload)
    if not (isinstance(found, Shape) and len(found.items) == 2):
        raise Unreadable
    return found.items[0], found.items[1]


class _Reader:
    """The machine that a pickle is a program for, with texts in place of what it would import."""

    def __init__(self) -> None:
        self._stack: list[Any] = []
        self._memo: dict[int, Any] = {}

    def read(self, payload: bytes) -> Any:
        for opcode, argument, _ in pickletools.genops(payload):
            if opcode.name == "STOP":
                return self._stack.pop()
            self._step(opcode.name, argument)
        raise Unreadable

    def _step(self, name: str, argument: Any) -> None:
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name]())
        elif (step := _STEPS.get(name)) is not None:
            step(self, argument)
        elif name not in ("PROTO", "FRAME"):
            raise Unreadable

    def marked(self) -> list[Any]:
        items: list[Any] = []
        while (item := self._stack.pop()) is not _MARK:
            items.append(item)
        return items[::-1]

    def pop(self, count: int) -> list[Any]:
        items = self._stack[-count:]
        if len(items) < count:
            raise Unreadable
        del self._stack[-count:]
        return items

    def mark(self, _: Any) -> None:
        self._stack.append(_MARK)

    def tuple_of(self, items: list[Any]) -> None:
        self._stack.append(Shape("(", ",)" if len(items) == 1 else ")", items))

    def extend(self, items: list[Any]) -> None:
        target = self._stack[-1]
        if isinstance(target, Shape):
            target.items.extend(items)
        elif not isinstance(target, Text):
            raise Unreadable

    def put(self, at: int | None) -> None:
        self._memo[len(self._memo) if at is None else at] = self._stack[-1]

    def get(self, at: int) -> None:
        self._stack.append(self._memo[at])

    def found(self, argument: str | None) -> None:
        """A class or a function: its name."""
        module, name = self.pop(2) if argument is None else argument.split(" ", 1)
        self._stack.append(Text(f"{module}.{name}" if module != "builtins" else name))

    def build_call(self, _: Any) -> None:
        what, arguments = self.pop(2)
        items = arguments.items if isinstance(arguments, Shape) else [UNKNOWN]
        self._stack.append(Shape(f"{what if isinstance(what, Text) else '…'}(", ")", list(items)))

    def build_call_ex(self, _: Any) -> None:
        what, _arguments, _named = self.pop(3)
        self._stack.append(Shape(f"{what if isinstance(what, Text) else '…'}(", ")", [UNKNOWN]))

    def state(self, _: Any) -> None:
        """What an object is made of comes after it."""
        (state,) = self.pop(1)
        self.extend([state])


_LITERALS = {
    "INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT", "SHORT_BINUNICODE",
    "BINUNICODE", "BINUNICODE8", "UNICODE", "SHORT_BINBYTES", "BINBYTES", "BINBYTES8", "BYTEARRAY8", "SHORT_BINSTRING",
    "BINSTRING", "STRING",
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None, "NEWTRUE": lambda: True, "NEWFALSE": lambda: False,
    "EMPTY_LIST": lambda: Shape("[", "]", []), "EMPTY_TUPLE": lambda: Shape("(", ")", []),
    "EMPTY_DICT": lambda: Shape("{", "}", [], True), "EMPTY_SET": lambda: Shape("{", "}", []),
}
_STEPS: dict[str, Callable[[_Reader, Any], None]] = {
    "MARK": _Reader.mark,
    "TUPLE": lambda it, _: it.tuple_of(it.marked()),
    "TUPLE1": lambda it, _: it.tuple_of(it.pop(1)),
    "TUPLE2": lambda it, _: it.tuple_of(it.pop(2)),
    "TUPLE3": lambda it, _: it.tuple_of(it.pop(3)),
    "FROZENSET": lambda it, _: it._stack.append(Shape("frozenset({", "})", it.marked())),
    "APPEND": lambda it, _: it.extend(it.pop(1)),
    "APPENDS": lambda it, _: it.extend(it.marked()),
    "ADDITEMS": lambda it, _: it.extend(it.marked()),
    "SETITEM": lambda it, _: it.extend(it.pop(2)),
    "SETITEMS": lambda it, _: it.extend(it.marked()),
    "MEMOIZE": lambda it, _: it.put(None),
    "BINPUT": _Reader.put, "LONG_BINPUT": _Reader.put, "PUT": _Reader.put,
    "BINGET": _Reader.get, "LONG_BINGET": _Reader.get, "GET": _Reader.get,
    "GLOBAL": _Reader.found, "STACK_GLOBAL": lambda it, _: it.found(None),
    "REDUCE": _Reader.build_call, "NEWOBJ": _Reader.build_call, "NEWOBJ_EX": _Reader.build_call_ex,
    "BUILD": _Reader.state,
    "POP": lambda it, _: it.pop(1).clear(),
    "POP_MARK": lambda it, _: it.marked().clear(),
    "DUP": lambda it, _: it._stack.append(it._stack[-1]),
}
