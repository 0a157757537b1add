"""A job may fork. The child has a copy of the runner that it must not use: it can say nothing to the node, and when the
job's code is through with it, it leaves like any child, with a status of its own."""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
from collections.abc import Iterable
from typing import NoReturn

forked = False
"""Whether this process was forked off a runner, by a job."""


def watch(descriptors: Iterable[int]) -> None:
    """In a runner, before user code runs. `descriptors` are those that it shares with its node."""
    kept = tuple(descriptors)

    def after() -> None:
        global forked
        forked = True
        null = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for descriptor in kept:
            with contextlib.suppress(OSError):
                os.dup2(null, descriptor, inheritable=False)
        os.close(null)

    os.register_at_fork(after_in_child=after)


def leave(error: BaseException | None) -> NoReturn:
    """What the interpreter does at its end, and no more: with what else lies on this stack, or waits on an event loop,
    the parent goes on. `error`: what has left the job's code, if anything."""
    status = 1
    with contextlib.suppress(BaseException):        # whatever: it ends here
        status = _status(error)
    with contextlib.suppress(BaseException):
        for thread in threading.enumerate():
            if thread is not threading.current_thread() and not thread.daemon:
                thread.join()
    with contextlib.suppress(BaseException):
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(BaseException):
            stream.flush()
    os._exit(status)


def _status(error: BaseException | None) -> int:
    if error is None:
        return 0
    if not isinstance(error, SystemExit):
        sys.excepthook(type(error), error, error.__traceback__)
        return 1
    if error.code is None:
        return 0
    if isinstance(error.code, int):
        return error.code & 0xFF
    print(error.code, file=sys.stderr)  # noqa: T201 - as the interpreter does
    return 1
