"""Spare runners: one slow queue never holds up another (decision 0011).

When all runners of plain functions are busy with jobs that take long, and a job of a queue waits of which nothing runs
here, it gets a runner of its own: one job at a time, started when it is needed, and gone when it was not for a while.
`async def` jobs get a place beyond the node's capacity instead.
"""

from __future__ import annotations

from rota.client.model import Mode

from .ready import ReadyQueue
from .runner_handle import Role, RunnerHandle, State
from .staff import Staff
from .suspects import Sent

AFTER_S = 0.25
"""Jobs that have run for so long take long."""

IDLE_S = 30.0

SPARE: tuple[Mode, Role] = ("sync", "spare")


class Spares:
    """`runners`: how many there may be, and how many places beyond the capacity."""

    def __init__(self, staff: Staff, runners: int, capacity: dict[Mode, int]) -> None:
        self._staff = staff
        self._max = runners
        self._capacity = capacity
        self._idle_since: dict[int, float] = {}

    def is_stuck(self, now: float) -> bool:
        """Whether every runner of plain functions has a job that takes long."""
        runners = self._staff.of("sync", state=None)
        return bool(runners) and len(runners) >= self._capacity["sync"] and all(
            runner.sent and now - runner.head_since > AFTER_S for runner in runners
        )

    def open_to(self, mode: Mode, queue: str) -> bool:
        """Whether a job of this queue, if it waits, gets a place."""
        if not self._max or queue in self.active(mode):
            return False
        return self._left(mode) > 0

    def active(self, mode: Mode) -> set[str]:
        """The queues of which something runs here."""
        runners = [runner for runner in self._staff.runners.values() if runner.kind == mode]
        if mode == "sync":
            return {head[1].queue for runner in runners if (head := runner.head()) is not None}
        return {work.queue for runner in runners for work, _ in runner.sent.values()}

    def _left(self, mode: Mode) -> int:
        if mode == "sync":
            return self._max - sum(bool(runner.sent) for runner in self._staff.of("sync", "spare", None))
        running = sum(len(runner.sent) for runner in self._staff.of("async", state=None))
        return self._capacity["async"] + self._max - running

    def lend(self, mode: Mode, waiting: ReadyQueue, now: float) -> list[tuple[RunnerHandle, Sent]]:
        """Who gets what now. Starts a runner if one more is needed."""
        if not self._max or not waiting:
            return []
        active = self.active(mode)
        runners = self._free_seats(mode)
        lent: list[tuple[RunnerHandle, Sent]] = []
        while runners and self._left(mode) > len(lent) and (sent := waiting.take_other(active)) is not None:
            lent.append((runners[0] if mode == "async" else runners.pop(), sent))
            active.add(sent[0].queue)
        coming = sum(runner.state is State.STARTING for runner in self._staff.of("sync", "spare", None))
        if mode == "sync" and not coming and self._staff.wanted[SPARE] < self._max and waiting.has_other(active):
            self._staff.wanted[SPARE] += 1
            self._staff.maintain()
        return lent

    def _free_seats(self, mode: Mode) -> list[RunnerHandle]:
        if mode == "async":
            free = [runner for runner in self._staff.of("async") if not runner.waiting()]     # nothing stands before it
            return sorted(free, key=lambda runner: len(runner.sent))
        return [runner for runner in self._staff.of("sync", "spare") if not runner.sent]

    def tidy(self, now: float) -> bool:
        """Let those go that were of no use for a while. True while there are some."""
        for runner in self._staff.of("sync", "spare"):
            if runner.sent:
                self._idle_since.pop(runner.number, None)
            elif now - self._idle_since.setdefault(runner.number, now) > IDLE_S:
                del self._idle_since[runner.number]
                self._staff.wanted[SPARE] -= 1
                self._staff.dismiss(runner)
        return self._staff.wanted[SPARE] > 0
