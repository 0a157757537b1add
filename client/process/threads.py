"""Threads of rota's own, which are real ones, and how others wait for them.

gevent and eventlet put greenlets in the place of threads (`monkey.patch_all()`): all of them share one thread, and an
event loop that waits there stops everybody. So where gevent has done that, the loop of the clients gets a thread by the
function that gevent has set aside, futures get real locks, and a greenlet that waits lets others run meanwhile. With
eventlet there is no way.
"""

from __future__ import annotations

import _thread
import concurrent.futures
import sys
import threading
from collections.abc import Callable
from typing import Any, TypeVar

from ..errors import ConfigError

T = TypeVar("T")

_own: set[int] = set()
"""Whatever waits for an answer, waits for one of these threads. None of them may wait."""


class OwnThread:
    """A daemon thread of rota's own."""

    def __init__(self, target: Callable[[], None], name: str) -> None:
        self._target = target
        self._name = name
        self._ended = _original("allocate_lock")()

    def start(self) -> None:
        """Raises RuntimeError where no thread can be started, `ConfigError` where it would not be one."""
        if _eventlet_patched():
            raise ConfigError(
                "eventlet has put greenlets in the place of threads, and rota's client needs a real one: leave threads "
                "alone, eventlet.monkey_patch(thread=False)"
            )
        self._ended.acquire()
        if _gevent() is None:
            threading.Thread(target=self._run, name=self._name, daemon=True).start()
        else:
            _original("start_new_thread")(self._run, ())

    def join(self, timeout_s: float) -> None:
        if self._ended.acquire(timeout=timeout_s):
            self._ended.release()

    def _run(self) -> None:
        me = _original("get_ident")()
        _own.add(me)
        try:
            self._target()
        finally:
            _own.discard(me)
            self._ended.release()


def is_own() -> bool:
    """Whether this code runs on a thread of rota's own."""
    return _original("get_ident")() in _own


def are_greenlets() -> bool:
    """Whether threads are greenlets here: one that blocks stops all of them."""
    return _gevent() is not None or "eventlet" in sys.modules


class Future(concurrent.futures.Future[T]):
    """One that a real thread resolves, also where locks are greenlets' locks, which lose a release by another thread.
    Ask for its result with `wait`."""

    def __init__(self) -> None:
        super().__init__()
        if _gevent() is not None:
            self._condition = threading.Condition(_original("RLock")())


def wait(future: concurrent.futures.Future[T], timeout_s: float | None = None) -> T:
    """The future's result. Raises TimeoutError."""
    if _gevent() is not None and not future.done():
        _let_others_run(future, timeout_s)
        timeout_s = 0
    return future.result(timeout_s)


def _let_others_run(future: concurrent.futures.Future[Any], timeout_s: float | None) -> None:
    """Wait as a greenlet. What another thread may call of gevent is `send()` of such a watcher, while it is open."""
    from gevent import event, get_hub

    done, watcher = event.Event(), get_hub().loop.async_()
    open_, lock = [True], _original("allocate_lock")()

    def tell(_future: object) -> None:
        with lock:
            if open_:
                watcher.send()

    watcher.start(done.set)
    try:
        future.add_done_callback(tell)
        done.wait(timeout_s)
    finally:
        with lock:
            open_.clear()
        watcher.stop()
        watcher.close()


def _original(name: str) -> Any:
    """A function of the module `_thread`, as it was before gevent."""
    gevent = _gevent()
    return getattr(_thread, name) if gevent is None else gevent.get_original("_thread", name)


def _gevent() -> Any:
    """The module that knows what gevent has replaced, if it has replaced threads."""
    monkey = sys.modules.get("gevent.monkey")
    return monkey if monkey is not None and monkey.is_module_patched("threading") else None


def _eventlet_patched() -> bool:
    patcher = sys.modules.get("eventlet.patcher")
    return patcher is not None and bool(patcher.is_monkey_patched("thread"))
