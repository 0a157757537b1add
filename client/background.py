"""The event loop of all sync clients of a process: one thread, started when first needed, fresh after a fork."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

T = TypeVar("T")

EXIT_S = 2.0
"""How long a process that ends waits for its connections to close."""


class Closeable(Protocol):
    async def close(self) -> None: ...


class Background:
    """A loop in a daemon thread, and what is to be closed before it ends."""

    def __init__(self) -> None:
        self.loop = _new_loop()
        self._thread = threading.Thread(target=self._run, name="rota client", daemon=True)
        self._open: list[Closeable] = []
        self._thread.start()

    def alive_here(self) -> bool:
        """Whether this is the loop of this very process, and not of the parent that it was forked from."""
        return _background is self

    def start(self, coroutine: Coroutine[Any, Any, T]) -> concurrent.futures.Future[T]:
        """Run a coroutine on the loop, from any other thread."""
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it."""
        if threading.current_thread() is self._thread:
            coroutine.close()
            raise RuntimeError("a sync client's own thread cannot wait for it")
        return wait(self.start(coroutine))

    def owns(self, item: Closeable) -> None:
        """Close this, too, when the process ends."""
        self._open.append(item)

    def close(self, item: Closeable) -> None:
        if item in self._open:
            self._open.remove(item)
        self.run(item.close())

    def end(self) -> None:
        """Close everything, within `EXIT_S`."""
        async def close_all() -> None:
            async with asyncio.timeout(EXIT_S):
                await asyncio.gather(*(item.close() for item in self._open), return_exceptions=True)

        with contextlib.suppress(TimeoutError, RuntimeError):       # the process ends anyway
            self.start(close_all()).result(EXIT_S + 1)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(EXIT_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()


lock = threading.Lock()
"""Guards the creation of the loop and of what clients keep on it; new after a fork, when its holder may be gone."""

_background: Background | None = None
_left_behind: list[Background] = []
"""The parent's loop and all that hangs on it. A child must not touch it, not even to free it: they share sockets."""


def background() -> Background:
    """The loop of this process. The caller holds `lock`."""
    global _background
    if _background is None:
        _background = Background()
        atexit.register(_end)
    return _background


def wait(future: concurrent.futures.Future[T]) -> T:
    """The future's result; interrupted, it is cancelled."""
    try:
        return future.result()
    except BaseException:
        future.cancel()
        raise


def _end() -> None:
    global _background
    with lock:
        ending, _background = _background, None
    if ending is not None:
        ending.end()


def _after_fork() -> None:
    global _background, lock
    lock = threading.Lock()
    if _background is not None:
        atexit.unregister(_end)
        _left_behind.append(_background)
        _background = None


def _new_loop() -> asyncio.AbstractEventLoop:
    try:
        import uvloop
    except ImportError:
        return asyncio.new_event_loop()
    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


os.register_at_fork(after_in_child=_after_fork)
