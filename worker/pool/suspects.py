"""Who killed a runner of many jobs? Blame inside a node (docs/decisions/0010). Pure.

A runner of `async def` jobs that dies takes all of them along, and nobody knows which of them did it. So all become
suspects: none has used up an attempt, and each runs apart from all others, in a runner of its own, the last begun
first. A runner that dies with one job names the guilty one: only that one pays, and the others of its company are
cleared. Who ends by itself has shown its innocence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import NamedTuple

from ..channel.frames import Work
from ..channel.job_numbers import job_number
from .ready import Job

Sent = tuple[Work, Job]


class Verdict(NamedTuple):
    guilty: list[Sent]
    cleared: list[Sent]     # they may run among others again; in the order in which they were begun


class Suspects:
    """Jobs are known by their numbers. What is handed out by `take` counts as running apart until it ends."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[int, Sent]] = deque()        # (number of the crash, job)
        self._apart: dict[int, tuple[int, Sent]] = {}
        self._crashes = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def has(self, key: int) -> bool:
        """Whether jobs of this work are among them."""
        entries = [*self._waiting, *self._apart.values()]
        return any(work.key == key for _, (work, _) in entries)

    def died(self, started: Sequence[Sent], *, alone: bool) -> Verdict:
        """A runner has died of one of these, which it was running; in the order in which they were begun. `alone`: of
        nothing else but the one."""
        if alone and len(started) == 1:
            return Verdict(list(started), self._clear(_number_of(started[0])))
        self._crashes += 1
        for sent in started:
            self._apart.pop(_number_of(sent), None)
        self._waiting.extend((self._crashes, sent) for sent in reversed(started))
        return Verdict([], [])

    def _clear(self, number: int) -> list[Sent]:
        crash, _ = self._apart.pop(number, (0, None))
        cleared = [sent for number, sent in self._waiting if number == crash]
        self._waiting = deque(entry for entry in self._waiting if entry[0] != crash)
        return cleared[::-1]

    def take(self) -> Sent | None:
        """The next to run apart."""
        if not self._waiting:
            return None
        entry = self._waiting.popleft()
        self._apart[_number_of(entry[1])] = entry
        return entry[1]

    def untake(self, number: int) -> None:
        """It has not begun: its runner died before."""
        if (entry := self._apart.pop(number, None)) is not None:
            self._waiting.appendleft(entry)

    def ended(self, number: int) -> None:
        self._apart.pop(number, None)

    def remove(self, number: int) -> bool:
        """Take out one that waits; False if it is not here."""
        before = len(self._waiting)
        self._waiting = deque(entry for entry in self._waiting if _number_of(entry[1]) != number)
        return len(self._waiting) < before

    def withdraw(self, keys: set[int] | None) -> dict[int, list[int]]:
        """Take out what waits of these works, or all: key to indexes."""
        given: dict[int, list[int]] = {}
        for _, (work, job) in self._waiting:
            if keys is None or work.key in keys:
                given.setdefault(work.key, []).append(job[0])
        self._waiting = deque(entry for entry in self._waiting if entry[1][0].key not in given)
        return given

    def clear(self) -> None:
        self._waiting.clear()
        self._apart.clear()


def _number_of(sent: Sent) -> int:
    return job_number(sent[0].key, sent[1][0])
