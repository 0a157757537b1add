"""Arguments, results and code as bytes: what arrives is what was sent, or it is not sent."""

from __future__ import annotations

import io
import os
import pickle
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rota.client.calls import pickling, script
from rota.client.errors import NotSerializable, ResultInvalid

from ..fake_service import TOKEN, fake_node_in_thread


class Point:
    def __init__(self, x: int) -> None:
        self.x = x

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Point) and self.x == other.x

    __hash__ = None  # type: ignore[assignment]


class Refuses:
    def __reduce__(self) -> Any:
        raise RuntimeError("not me")


def test_arguments_arrive_as_they_were() -> None:
    args, kwargs = (1, "two", [3.0], Point(4), None, b"\0"), {"key": {"a": {1, 2}}}
    payload, kind = pickling.dump_arguments(args, kwargs)
    assert kind == "pickle"
    assert pickling.load_arguments(kind, payload) == (args, kwargs)


def test_what_pickle_refuses_goes_through_cloudpickle() -> None:
    number = 5
    payload, kind = pickling.dump_arguments((lambda x: x + number,), {})
    assert kind == "cloudpickle"
    assert pickling.load_arguments(kind, payload)[0][0](1) == 6


def test_instances_of_classes_of_a_script_travel_with_their_class(monkeypatch: pytest.MonkeyPatch) -> None:
    """pickle would only name `__main__.Local`, which no runner can import."""
    local = type("Local", (), {"x": 5, "__module__": "__main__"})
    with monkeypatch.context() as patch:
        patch.setattr(script, "name_where_runs", lambda task: "")
        patch.setattr(sys.modules["__main__"], "Local", local, raising=False)
        payload, kind = pickling.dump_arguments((local(),), {})
        value, value_kind = pickling.dump_value(local())
    assert kind == value_kind == "cloudpickle"
    assert pickling.load_arguments(kind, payload)[0][0].x == pickling.load_value(value_kind, value).x == 5


def test_an_argument_that_cannot_be_pickled_is_named() -> None:
    with pytest.raises(NotSerializable, match=r"argument 2, a _thread\.lock, cannot be pickled.*A lock holds"):
        pickling.dump_arguments((1, threading.Lock()), {})
    with pytest.raises(NotSerializable, match=r"argument 'to', a .*Refuses, cannot be pickled: RuntimeError: not me"):
        pickling.dump_arguments((1,), {"to": Refuses()})


def test_values() -> None:
    for value, kind in ((1, "pickle"), (Point(2), "pickle"), ({"a": [1, None]}, "json")):
        payload, got = pickling.dump_value(value, kind)  # type: ignore[arg-type]
        assert got == kind and pickling.load_value(got, payload) == value
    payload, got = pickling.dump_value(lambda: 3)
    assert got == "cloudpickle" and pickling.load_value(got, payload)() == 3


@pytest.mark.parametrize(("value", "kind"), [(Refuses(), "pickle"), (Point(1), "json"), (float("nan"), "json")])
def test_values_that_cannot_travel(value: object, kind: Any) -> None:
    with pytest.raises(NotSerializable, match="the result, a "):
        pickling.dump_value(value, kind)


def test_a_value_that_cannot_be_rebuilt() -> None:
    for payload in (b"garbage", pickle.dumps(Point(1)).replace(b"Point", b"Paint")):
        with pytest.raises(ResultInvalid, match="cannot be rebuilt"):
            pickling.load_value("pickle", payload)


# -- what belongs to this process


@pytest.fixture
def open_file(tmp_path: Path) -> Iterator[io.TextIOWrapper]:
    (tmp_path / "text").write_text("contents")
    with (tmp_path / "text").open() as file:
        yield file


def refused(value: Any, advice: str) -> None:
    for args in ((value,), ([{"deep": value}],)):
        with pytest.raises(NotSerializable, match="argument 1, a "):
            pickling.dump_arguments(args, {})
    with pytest.raises(NotSerializable, match=advice):
        pickling.dump_arguments((value,), {})
    with pytest.raises(NotSerializable, match="the result, a "):
        pickling.dump_value(value)
    with pytest.raises(NotSerializable, match=r"cannot be shipped by value.*functools\.wraps"):
        pickling.dump_function(lambda: value, "Or use functools.wraps.")


def test_open_files_are_refused(open_file: io.TextIOWrapper, tmp_path: Path) -> None:
    refused(open_file, "an open file .*Pass its path")
    with (tmp_path / "text").open("rb") as binary, (tmp_path / "text").open("rb", buffering=0) as raw:
        refused(binary, "Pass its path")
        refused(raw, "Pass its path")
    with tempfile.NamedTemporaryFile() as temporary, tempfile.TemporaryFile("w+") as nameless:
        refused(temporary, "an open file")
        refused(nameless, "Pass its path")
    reading, writing = os.pipe()
    with os.fdopen(reading) as a, os.fdopen(writing, "w") as b:
        refused(a, "Pass its path")
        refused(b, "Pass its path")


def test_files_in_memory_are_not_files() -> None:
    text, data = io.StringIO("some text"), io.BytesIO(b"some bytes")
    text.seek(5)
    (here, there), _ = pickling.load_arguments(*reversed(pickling.dump_arguments((text, data), {})))    # type: ignore[arg-type]
    assert (here.read(), there.read()) == ("text", b"some bytes")
    payload, codec = pickling.dump_value((text, lambda: 1))
    assert pickling.load_value(codec, payload)[0].read() == "text"


@pytest.mark.parametrize("make", [
    threading.Lock, threading.RLock, threading.Condition, threading.Semaphore, threading.BoundedSemaphore,
])  # fmt: skip
def test_locks_are_refused(make: Any) -> None:
    refused(make(), "A lock holds within one process")


def test_what_has_not_run_yet_and_connections_are_refused() -> None:
    async def later() -> None: ...

    async def many() -> Any:
        yield 1

    coroutine = later()
    refused(coroutine, "pass what it gives")
    coroutine.close()
    refused((number for number in range(3)), "pass what it gives, as a list")
    refused(many(), "pass what it gives")
    refused(memoryview(b"abc"), r"Pass bytes\(view\)")
    refused(threading.Event(), "open it in the job")
    with socket.socket() as connection:
        refused(connection, "an address")


# -- the module that was started


SHOP = """
import dataclasses, enum, subprocess, sys
import rota
from rota.client.calls import pickling

class Color(enum.Enum):
    RED = 1

@dataclasses.dataclass
class Order:
    color: Color
    class Line: pass

class Refused(Exception): pass

if __name__ == "__main__":
    for task in sys.argv[1:]:
        payload, codec = pickling.dump_arguments((Order(Color.RED), Color.RED, Refused, Order.Line()), {}, task)
        other = subprocess.run([sys.executable, "-c", OTHER, payload.hex()], check=True, capture_output=True, text=True)
        *said, back = other.stdout.split()
        order, color = pickling.load_value("pickle", bytes.fromhex(back))
        print(codec, *said, isinstance(order, Order), color is Color.RED)
"""

OTHER = """
import sys
from rota.client.calls import pickling
(order, color, refused, line), _ = pickling.load_arguments("pickle", bytes.fromhex(sys.argv[1]))
import {0} as shop
print(isinstance(order, shop.Order), color is shop.Color.RED, refused is shop.Refused,
      isinstance(line, shop.Order.Line))
print(pickling.dump_value((shop.Order(shop.Color.RED), shop.Color.RED))[0].hex())
"""

SAME = "pickle True True True True True True"


def run(folder: Path, *arguments: str) -> list[str]:
    done = subprocess.run(
        [sys.executable, *arguments], cwd=folder, env=os.environ | {"PYTHONPATH": str(folder)}, capture_output=True,
        text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def started(folder: Path, module: str, *how: str) -> list[str]:
    """Start a module of a user's; it sends what is its own to a process that imports it, and back."""
    file = folder / (module.replace(".", "/") + ".py")
    file.parent.mkdir(exist_ok=True)
    file.write_text(f"OTHER = {OTHER.format(module)!r}" + SHOP)
    return run(folder, *how)


def test_classes_of_a_module_that_was_started_are_those_of_the_module(tmp_path: Path) -> None:
    assert started(tmp_path, "shop", "-m", "shop", "shop:look", "") == [SAME, SAME]
    assert started(tmp_path, "shop", "shop.py", "shop:look") == [SAME]
    assert started(tmp_path, "stores.shop", "stores/shop.py", "stores.shop:look") == [SAME]


SCRIPT = """
import enum, subprocess, sys
from rota.client.calls import pickling
class Color(enum.Enum):
    RED = 1
def same(color): return color is Color.RED
function = pickling.dump_function(same)
payload, codec = pickling.dump_arguments((Color.RED,), {}, "")
elsewhere, again = pickling.dump_arguments((Color.RED,), {}, "shop.tasks:look")
print(codec, again, flush=True)
subprocess.run([sys.executable, "-c", THERE, function.hex(), payload.hex(), elsewhere.hex()], check=True)
"""

THERE = """
import pickle, sys
function, (args, _), (other, _) = (pickle.loads(bytes.fromhex(text)) for text in sys.argv[1:])
print(function(*args), other == args)
"""


def test_what_a_script_sends_to_those_who_do_not_know_it_takes_its_classes_along(tmp_path: Path) -> None:
    """Their code travels: it is the same for all that comes from one process."""
    (tmp_path / "script.py").write_text(f"THERE = {THERE!r}" + SCRIPT)
    assert run(tmp_path, "script.py") == ["cloudpickle cloudpickle", "True True"]


SPAWNS = """
import enum, multiprocessing, rota, sys
from rota.client.calls import pickling
class Color(enum.Enum):
    RED = 1
@rota.task
def look(color): return color.name
def child(task):
    payload, codec = pickling.dump_arguments((Color.RED,), {}, task)
    print(codec, look.name, look.by_value, payload.hex())
if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=child, args=(sys.argv[1],))
    process.start(); process.join()
"""


def test_a_child_of_multiprocessing_is_the_same_module(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SPAWNS)
    for how, said in (
        (("-m", "shop", "shop:look"), ["pickle", "shop:look", "False"]),
        (("shop.py", "shop:look"), ["pickle", "__main__:look", "True"]),
        (("shop.py", "other:task"), ["cloudpickle", "__main__:look", "True"]),
    ):
        (line,) = run(tmp_path, *how)
        *words, payload = line.split()
        assert words == said
        if "cloudpickle" in words:
            (color,), _ = pickling.load_arguments("cloudpickle", bytes.fromhex(payload))
            assert color.name == "RED" and pickling.dump_value(color)[1] == "cloudpickle"


ENQUEUES = """
import enum, rota
class Color(enum.Enum):
    RED = 1
@rota.task
def look(color):
    import fake_shop
    return color is fake_shop.Color.RED, fake_shop.Color.RED
if __name__ == "__main__":
    import sys
    from rota.client.wire.keyring import Keyring
    rota.connect(sys.argv[1], token=sys.argv[2], key=Keyring({"k1": b"0123456789abcdef0123456789abcdef"}))
    same, back = look.enqueue(Color.RED).result(timeout=60)
    many = look.enqueue_many([(Color.RED,)])[0].result(timeout=60)
    print(look.name, same, back is Color.RED, many == (True, Color.RED))
"""


def test_a_started_module_enqueues_what_is_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "fake_shop.py").write_text(ENQUEUES)
    monkeypatch.syspath_prepend(str(tmp_path))
    import fake_shop  # type: ignore[import-not-found]  # noqa: F401 - as the node does it

    try:
        with fake_node_in_thread() as node:
            assert run(tmp_path, "-m", "fake_shop", node.url, TOKEN) == ["fake_shop:look True True True"]
    finally:
        del sys.modules["fake_shop"]
