"""The lease's deadline as a runner sees it: in a page of memory that its guard writes.

The guard kills runners at the deadline. But a machine that stood still, with everything on it, may let a runner go on
before its guard: its jobs may have ended elsewhere by then, and it must not begin them. So it looks at the clock that
ran meanwhile.
"""

from __future__ import annotations

import mmap
import os
import time

LOOK_S = 0.01

_clock, _BOOTTIME = time.clock_gettime, time.CLOCK_BOOTTIME


def now() -> float:
    """Seconds, of the clock that runs while the machine is suspended."""
    return _clock(_BOOTTIME)


class Lease:
    """Of the node that this process runs jobs for. Takes the descriptor over."""

    def __init__(self, fd: int) -> None:
        self._deadline = memoryview(mmap.mmap(fd, 8, prot=mmap.PROT_READ)).cast("d")
        os.close(fd)

    def wait(self) -> float:
        """Return while the lease runs: at once, or not before it has been renewed. Past its deadline this process is
        about to be killed, so that nothing else of it need go on either. Returns what `now` says then: a job that
        begins needs no second look at the clock."""
        while (at := _clock(_BOOTTIME)) >= self._deadline[0]:
            time.sleep(LOOK_S)
        return at
