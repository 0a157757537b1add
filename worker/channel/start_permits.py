"""Who started what, decided by the kernel: a counting eventfd that node and runner share; the guard makes it.

The node adds a permit for each job *before* it sends the job; the runner takes one before each start, in the order
in which the jobs were sent. So what is left in the counter is, at any moment, the number of jobs that were not
started, and they are the last ones sent. The node can take them back at once, from a runner that is busy for an hour or
dead, without asking it.
"""

from __future__ import annotations

import os


def grant(fd: int, count: int) -> None:
    os.eventfd_write(fd, count)


def take(fd: int) -> bool:
    """Take one permit; False if there is none."""
    try:
        os.eventfd_read(fd)
    except BlockingIOError:
        return False
    return True


def take_back(fd: int, count_max: int) -> int:
    """Take all that is left, at most `count_max` + 1: more than `count_max` means that somebody wrote to it."""
    for taken in range(count_max + 1):
        if not take(fd):
            return taken
    return count_max + 1


def left(fd: int) -> int | None:
    """How many there are, without taking any; None where the kernel does not tell."""
    try:
        with open(f"/proc/self/fdinfo/{fd}") as info:  # noqa: PTH123 - not a path of anybody's
            for line in info:
                if line.startswith("eventfd-count:"):
                    return int(line.split()[1], 16)
    except (OSError, ValueError):
        return None
    return None
