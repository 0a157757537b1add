"""The event loop of all sync clients of a process: one thread, started when first needed, fresh after a fork.

Nothing of the caller's runs on it: calls are serialized and results rebuilt by who asks. Python itself may still run
somebody's code there (a finalizer that the garbage collector calls, a log handler): such code cannot wait for what its
own thread has to bring about, and is told so.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import os
import threading
from collections.abc import Coroutine
from typing import Any, Protocol, TypeVar

from ..errors import ClientClosed
from . import ending, threads
from .threads import Future, OwnThread

T = TypeVar("T")

EXIT_S = 2.0
"""How long a process that ends waits for its connections to close."""


class Closeable(Protocol):
    async def close(self) -> None: ...


class Background:
    """A loop in a daemon thread, and what is to be closed before it ends."""

    def __init__(self) -> None:
        self.loop = _new_loop()
        self._thread = OwnThread(self._run, "rota client")
        self._open: list[Closeable] = []
        self._thread.start()

    def alive_here(self) -> bool:
        """Whether this is the loop of this very process, and not of the parent that it was forked from."""
        return _background is self

    def start(self, coroutine: Coroutine[Any, Any, T]) -> Future[T]:
        """Run a coroutine on the loop, from any other thread."""
        answer: Future[T] = Future()
        try:
            self.loop.call_soon_threadsafe(self._carry_out, coroutine, answer)
        except RuntimeError:            # the loop is closed
            coroutine.close()
            raise ClientClosed("the event loop of rota's clients has been closed") from None
        return answer

    def _carry_out(self, coroutine: Coroutine[Any, Any, T], answer: Future[T]) -> None:
        task = self.loop.create_task(coroutine, name="rota call")

        def cancel(asked: concurrent.futures.Future[T]) -> None:
            if asked.cancelled() and not self.loop.is_closed():
                self.loop.call_soon_threadsafe(task.cancel)

        task.add_done_callback(lambda done: _hand_on(done, answer))
        answer.add_done_callback(cancel)

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Future[T]:
        """Run a coroutine on the loop, from a coroutine on another one."""
        return asyncio.wrap_future(self.start(coroutine))

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the loop and wait for it."""
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
            threads.wait(self.start(close_all()), EXIT_S + 1)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self._thread.join(EXIT_S)

    def _run(self) -> None:
        asyncio.set_event_loop(self.loop)
        try:
            self.loop.run_forever()
        finally:
            self.loop.close()


lock = threading.RLock()
"""Guards the creation of the loop and of what clients keep on it; new after a fork, when its holder may be gone. Its
holder may come again: a signal handler or a finalizer can begin anywhere."""

_background: Background | None = None
_left_behind: list[Background] = []
"""The parent's loop and all that hangs on it. A child must not touch it, not even to free it: they share sockets."""


def background() -> Background:
    """The loop of this process. The caller holds `lock`. Raises `ClientClosed` when the process ends."""
    global _background
    if _background is None:
        ending.check()
        try:
            _background = Background()
        except RuntimeError as error:       # "can't create new thread at interpreter shutdown"
            raise ClientClosed(str(error)) from None
    return _background


def check_may_wait() -> None:
    """Raise RuntimeError on a thread of rota's own."""
    if threads.is_own():
        raise RuntimeError(
            "this code runs on a thread of rota's own, which cannot wait for its own work: it is a finalizer (__del__, "
            "a weakref's callback) or a log handler that Python happened to call here. Let another thread do this"
        )


def wait(future: concurrent.futures.Future[T]) -> T:
    """The future's result; interrupted, it is cancelled."""
    check_may_wait()
    try:
        return threads.wait(future)
    except BaseException:
        future.cancel()
        raise


def _hand_on(task: asyncio.Task[T], answer: Future[T]) -> None:
    error = None if task.cancelled() else task.exception()
    if task.cancelled():
        answer.cancel()
    elif not answer.set_running_or_notify_cancel():
        pass                # nobody waits for it any more
    elif error is not None:
        answer.set_exception(error)
    else:
        answer.set_result(task.result())


def _end() -> None:
    global _background
    with lock:
        ending, _background = _background, None
    if ending is not None:
        ending.end()


def _after_fork() -> None:
    global _background, lock
    lock = threading.RLock()
    if _background is not None:
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
ending.last_of_all.append(_end)
