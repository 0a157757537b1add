"""What a job may leave behind for the next one, and what of that is put back between jobs: what is cheap to look at,
and is never left on purpose.

Put back: working directory and umask, stdout and stderr (closed or replaced, as files or as Python's streams), signal
handlers, interval timers and alarms, the default timeout of sockets, the garbage collector's switch. Context variables
(and so decimal contexts) are each job's own. Left as it is, for applications set it up in their first job: the
environment, `sys.path`, locale, warnings filters, modules, threads, resource limits.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import contextlib
import gc
import io
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HANDLERS = tuple(map(int, (
    signal.SIGALRM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGCHLD,
    signal.SIGPIPE, signal.SIGQUIT, signal.SIGPROF, signal.SIGVTALRM,
)))
TIMERS = (signal.ITIMER_REAL, signal.ITIMER_VIRTUAL, signal.ITIMER_PROF)
LOOK_S = 0.001

_handler_of: Callable[[int], Any] = _signal.getsignal
_timer_of: Callable[[int], tuple[float, float]] = _signal.getitimer
"""Without their enums, whose making takes thirty times as long as the call."""


class Stream(io.TextIOWrapper):
    """A standard stream that a job cannot close for the others."""

    def close(self) -> None:
        with contextlib.suppress(ValueError, OSError):
            self.flush()


def protect_streams() -> None:
    """What is printed is a line at once: a job may be killed at any moment."""
    sys.stdout, sys.stderr = sys.__stdout__, sys.__stderr__ = _stream(1), _stream(2)  # type: ignore[misc]


def _stream(descriptor: int) -> Stream:
    raw = io.FileIO(descriptor, "w", closefd=False)
    return Stream(io.BufferedWriter(raw), encoding="utf-8", errors="backslashreplace", line_buffering=True)


class Surroundings:
    """As they are now: after the app was imported and its start hooks have run."""

    def __init__(self) -> None:
        self._cwd = Path.cwd()
        self._cwd_fd = os.open(self._cwd, os.O_PATH | os.O_DIRECTORY)
        self._umask = os.umask(0o022)
        os.umask(self._umask)
        self._files = [os.dup(descriptor) for descriptor in (0, 1, 2)]
        self._stdout, self._stderr = sys.stdout, sys.stderr
        self._handlers = list(map(_handler_of, HANDLERS))
        self._timers = [timer for timer in TIMERS if _timer_of(timer) == (0.0, 0.0)]
        self._timeout = socket.getdefaulttimeout()
        self._collects = gc.isenabled()
        self._looked_at = 0.0

    def restore(self, *, idle: bool) -> None:
        """After every job; `idle`: no other one begins at once. What can only do harm after a while is looked at when
        a while has passed."""
        now = time.monotonic()
        if idle or now >= self._looked_at + LOOK_S:
            self._looked_at = now
            left_on = any(_timer_of(timer)[0] for timer in self._timers)
            if left_on or list(map(_handler_of, HANDLERS)) != self._handlers:
                self._restore_signals()
        try:
            os.fchdir(self._cwd_fd)     # a third of what chdir takes
        except OSError:
            with contextlib.suppress(OSError):
                os.chdir(self._cwd)
        os.umask(self._umask)
        try:
            whole = os.get_inheritable(1) and os.get_inheritable(2)     # as nothing is that Python has opened since
        except OSError:
            whole = False
        if not whole:
            for descriptor, saved in enumerate(self._files):
                os.dup2(saved, descriptor)
        if sys.stdout is not self._stdout or sys.stderr is not self._stderr:
            sys.stdout, sys.stderr = self._stdout, self._stderr
        if socket.getdefaulttimeout() != self._timeout:
            socket.setdefaulttimeout(self._timeout)
        if gc.isenabled() is not self._collects:
            (gc.enable if self._collects else gc.disable)()

    def _restore_signals(self) -> None:
        """Timers first: without the job's handler they would kill."""
        for timer in self._timers:
            signal.setitimer(timer, 0)
        for number, handler in zip(HANDLERS, self._handlers, strict=True):
            if handler is not None:         # (None: not Python's)
                signal.signal(number, handler)
