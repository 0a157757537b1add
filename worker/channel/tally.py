"""What a runner of plain functions tells its node without a message: which jobs have returned None, and how long each
ran, in memory that both see; the guard makes it.

A message for each job costs both ends more than a quick job does. So the runner says how a job has ended when it has
nothing left to do, or has not said so for `HOLD_S`; what ends between is noted here. What is noted is safe: whatever
the next job does to the process, its node reads it. And the node looks by itself, when `HOLD_S` is over after a
message: what ended before a job that takes long need not wait for that.
"""

from __future__ import annotations

import contextlib
import fcntl
import mmap
import os

HOLD_S = 0.001
PLACES = 2048
"""More than a runner is ever sent ahead (`rota.worker.pool.ready.AHEAD_JOBS_MAX`): none is written over unread."""
BYTES = 8 + PLACES * 16         # as in guard.py, which imports nothing of ours
SEALS = 0x10 | fcntl.F_SEAL_SEAL        # F_SEAL_FUTURE_WRITE: the memory that is mapped is written to, and no file


class _Memory:
    """How many there ever were; their job numbers; how long they ran. Takes the descriptor over."""

    def __init__(self, descriptor: int, protection: int) -> None:
        with memoryview(mmap.mmap(descriptor, BYTES, prot=protection)) as whole:
            self.count = whole[:8].cast("Q")
            self.numbers = whole[8 : 8 + PLACES * 8].cast("Q")
            self.ran = whole[8 + PLACES * 8 :].cast("d")
        if protection & mmap.PROT_WRITE:
            with contextlib.suppress(OSError):      # Linux has it since 5.1
                fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, SEALS)       # (`mmap` keeps a file of its own open)
        os.close(descriptor)


class Tally:
    """The runner's side."""

    def __init__(self, descriptor: int) -> None:
        memory = _Memory(descriptor, mmap.PROT_READ | mmap.PROT_WRITE)
        self._count, self._numbers, self._ran = memory.count, memory.numbers, memory.ran
        self._noted = 0

    def note(self, number: int, ran_s: float) -> None:
        at = self._noted % PLACES
        self._numbers[at] = number
        self._ran[at] = ran_s
        self._noted += 1
        self._count[0] = self._noted


class TallyReader:
    """The node's side."""

    def __init__(self, descriptor: int) -> None:
        self._memory = _Memory(descriptor, mmap.PROT_READ)
        self._read = 0

    def new(self) -> tuple[list[int], list[float]]:
        """What was noted and not `taken` yet, in order: job numbers, and how long each ran. Raises ValueError if it is
        more than a runner notes: somebody else wrote there."""
        memory = self._memory
        count = memory.count[0] - self._read
        if not count:
            return [], []
        if not 0 < count <= PLACES:
            raise ValueError("a count that no runner makes")
        first, last = self._read % PLACES, (self._read + count) % PLACES
        if first < last:
            return memory.numbers[first:last].tolist(), list(memory.ran[first:last])
        return (
            memory.numbers[first:].tolist() + memory.numbers[:last].tolist(),
            [*memory.ran[first:], *memory.ran[:last]],
        )

    def taken(self, count: int) -> None:
        self._read += count
