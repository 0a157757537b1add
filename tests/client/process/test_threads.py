"""Where something has put greenlets in the place of threads: a real thread all the same, or a refusal that says so."""

from __future__ import annotations

import _thread
import importlib.util
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

from rota.client.api.clients import Client
from rota.client.errors import ConfigError
from rota.client.process.threads import OwnThread, is_own

from ..fake_service import KEYRING, TOKEN, FakeNode, fake_node_in_thread
from ..sample_tasks import add

ROOT = Path(__file__).parents[3]


@pytest.fixture
def node() -> Iterator[FakeNode]:
    with fake_node_in_thread() as running:
        yield running


def module(name: str, **functions: object) -> ModuleType:
    made = ModuleType(name)
    vars(made).update(functions)
    return made


def test_under_gevent_the_thread_is_the_one_that_gevent_has_set_aside(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def get_original(of: str, name: str) -> object:
        asked.append(f"{of}.{name}")
        return getattr(_thread, name)

    def greenlet(self: threading.Thread) -> None:
        raise AssertionError("this would be a greenlet")

    gevent = module("gevent.monkey", get_original=get_original, is_module_patched=lambda name: name == "threading")
    monkeypatch.setitem(sys.modules, "gevent.monkey", gevent)
    monkeypatch.setattr(threading.Thread, "start", greenlet)
    seen: list[bool] = []
    thread = OwnThread(lambda: seen.append(is_own()), "rota test")
    thread.start()
    thread.join(10)
    assert seen == [True] and not is_own() and "_thread.start_new_thread" in asked


def test_eventlet_is_refused_with_advice(monkeypatch: pytest.MonkeyPatch, node: FakeNode) -> None:
    patcher = module("eventlet.patcher", is_monkey_patched=lambda what: what == "thread")
    monkeypatch.setitem(sys.modules, "eventlet.patcher", patcher)
    from rota.client.process import background

    monkeypatch.setattr(background, "_background", None)
    with (
        Client(node.url, token=TOKEN, key=KEYRING) as client,
        pytest.raises(ConfigError, match=r"monkey_patch\(thread=False\)"),
    ):
        client.enqueue(add, 1)


GEVENT = """
from gevent import monkey; monkey.patch_all()
import gevent, threading, time
from rota.client.wire.keyring import Keyring
from tests.client.sample_tasks import add
import rota
rota.connect({url!r}, token={token!r}, key=Keyring({{'k1': b'0123456789abcdef0123456789abcdef'}}))
beats = []
def beat():
    while True:
        beats.append(time.monotonic())
        gevent.sleep(0.01)
gevent.spawn(beat)
assert add.enqueue(0).result(timeout=20) == 0
assert beats, "greenlets run while one waits"
jobs = gevent.joinall([gevent.spawn(lambda n=n: add.enqueue(n).result(timeout=20)) for n in range(50)])
assert sorted(job.value for job in jobs) == list(range(50))
assert len(add.enqueue_many((n,) for n in range(3_000))) == 3_000
thread = threading.Thread(target=lambda: print(add.enqueue(7).result(timeout=20)))
thread.start(); thread.join()
"""


@pytest.mark.skipif(importlib.util.find_spec("gevent") is None, reason="gevent is not installed")
def test_greenlets_wait_for_results_and_others_run_meanwhile(node: FakeNode) -> None:
    text = GEVENT.format(url=node.url.replace("127.0.0.1", "localhost"), token=TOKEN)
    done = subprocess.run([sys.executable, "-c", text], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout) == (0, "7\n"), done.stderr
