"""The event loop of `async def` jobs: no job ends it for the others, and none takes it along when it forks."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import os
import select
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

from ...channel.frames import EXIT_CHANNEL
from . import forks

log = logging.getLogger("rota.job")


def run(main: Coroutine[Any, Any, None]) -> None:
    """On uvloop where it is installed."""
    factory = None
    with contextlib.suppress(ImportError):
        import uvloop

        factory = uvloop.new_event_loop
    with asyncio.Runner(loop_factory=factory) as runner:
        loop = runner.get_loop()
        _Forks(loop).watch()
        _drive(loop, main)


def _drive(loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, None]) -> None:
    """What leaves the loop (SystemExit, KeyboardInterrupt in a subtask or a callback) and what stops it is one job's
    doing: the loop goes on with the others. Who awaits that subtask gets the exception, and fails."""
    task = loop.create_task(main, name="runner")
    task.add_done_callback(lambda _: loop.stop())
    while not task.done():
        error: BaseException | None = None
        try:
            loop.run_forever()
        except BaseException as left:
            error = left
        if forks.forked:
            forks.leave(error)
        if task.done():
            break
        if loop.is_closed():
            os._exit(EXIT_CHANNEL)
        if error is None:
            log.error("a job has stopped the event loop: it goes on")
        else:
            log.error("an exception has left a callback or a subtask of a job: the event loop goes on", exc_info=error)
    task.result()


class _Forks:
    """A process that an `async def` job has forked has a copy of the loop, and of the jobs on it. They are its
    parent's: none of their steps may be made in the child, and none of their sockets be read. Who comes back to the
    loop there, leaves."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._thread = threading.get_ident()
        probe = loop.call_soon(int)
        self._kind = type(probe)
        self._own = {id(handle): handle for handle in self._handles()}      # how uvloop calls itself

    def watch(self) -> None:
        os.register_at_fork(after_in_child=self._in_child)

    def _handles(self) -> list[Any]:
        return [found for found in gc.get_objects() if type(found) is self._kind]

    def _in_child(self) -> None:
        if threading.get_ident() != self._thread:
            return
        for handle in self._handles():
            if id(handle) not in self._own:
                handle.cancel()
        for file in Path("/proc/self/fd").iterdir():        # the kernel's end of a loop is shared with the parent
            with contextlib.suppress(OSError):
                if os.readlink(file) == "anon_inode:[eventpoll]":  # noqa: PTH115 - no path of a file
                    with select.epoll() as own:
                        os.dup2(own.fileno(), int(file.name), inheritable=False)
        self._loop.call_soon(forks.leave, RuntimeError(
            "a job has forked, and the child came back to the event loop: there it can only end. Use multiprocessing, "
            "or let the child exit"
        ))
