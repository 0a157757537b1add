"""The lease's deadline, on the clock that runs while the machine is suspended: a timer for the guard, and a page of
memory in which runners see it, so that they begin nothing past it, even if the guard itself stood still meanwhile."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import struct
import time

CLOCK_BOOTTIME = time.CLOCK_BOOTTIME
NEVER, ALWAYS = float("inf"), 0.0
_libc = ctypes.CDLL(None, use_errno=True)


class Page:
    """Eight bytes that the guard writes and its runners read (`rota.worker.channel.deadline`). `fd` is only read."""

    def __init__(self) -> None:
        memory = os.memfd_create("rota-lease", os.MFD_CLOEXEC)
        os.ftruncate(memory, 8)
        self._deadline = memoryview(mmap.mmap(memory, 8)).cast("d")
        self.fd = os.open(f"/proc/self/fd/{memory}", os.O_RDONLY | os.O_CLOEXEC)
        os.close(memory)
        self.set(NEVER)

    def set(self, deadline: float) -> None:
        self._deadline[0] = deadline


class Timer:
    """A timer on the clock that runs while the machine is suspended: poll's own does not."""

    def __init__(self) -> None:
        self.fd = _libc.timerfd_create(CLOCK_BOOTTIME, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def set(self, at: float | None) -> None:
        """At an absolute time, which may be past; None: never."""
        nanoseconds = 0 if at is None else max(1, int(at * 1e9))
        spec = struct.pack("qqqq", 0, 0, *divmod(nanoseconds, 10**9))
        if _libc.timerfd_settime(self.fd, 1, spec, None) != 0:      # 1: TFD_TIMER_ABSTIME
            raise OSError(ctypes.get_errno(), "timerfd_settime")

    def read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(self.fd, 8)
