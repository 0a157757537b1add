"""Final failures that no runner has seen (its runner died, its node was lost, it cannot be read): a runner that stands
is asked to call the application's error hooks."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Mapping

from ..channel.frames import Report, Work
from .runner_handle import RunnerHandle, State

log = logging.getLogger(__name__)

WAITING_MAX = 10_000
TRIES_MAX = 2
"""A hook that kills its runner is not asked for ever."""
BUSY_S = 1.0


class Reports:
    """`runners`: all there are, by number. A report counts as made when its runner says so."""

    def __init__(self, runners: Mapping[int, RunnerHandle]) -> None:
        self._runners = runners
        self._numbers = 0
        self._waiting: deque[tuple[Report, int]] = deque(maxlen=WAITING_MAX)
        self._sent: dict[int, tuple[int, Report, int]] = {}     # number -> (runner, report, tries)

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, work: Work, index: int, error: str) -> None:
        self._numbers += 1
        bare = Work(
            work.key, work.bundle, work.task, work.queue, work.mode, work.attempt, work.fence, work.enqueued_at,
            work.codec, [],
        )
        self._waiting.append((Report(self._numbers, bare, index, error), 1))
        self.flush()

    def flush(self) -> None:
        while self._waiting and (runner := self._reporter()) is not None:
            report, tries = self._waiting.popleft()
            self._sent[report.number] = (runner.number, report, tries)
            runner.report(report)

    def made(self, number: int) -> None:
        self._sent.pop(number, None)

    def runner_died(self, runner: RunnerHandle) -> None:
        for _, report, tries in [entry for entry in self._sent.values() if entry[0] == runner.number]:
            del self._sent[report.number]
            if tries < TRIES_MAX:
                self._waiting.append((report, tries + 1))
            else:
                log.error("no runner lived to call the error hooks for a failure of %s", report.work.task)

    def _reporter(self) -> RunnerHandle | None:
        """An event loop, else one that is idle, else one that gets on with its jobs."""
        ready = [runner for runner in self._runners.values() if runner.state is State.READY and not runner.leaving]
        loops = [runner for runner in ready if runner.kind == "async" and runner.role == "regular"]
        if loops:
            return loops[0]
        now = asyncio.get_running_loop().time()
        plain = [
            runner for runner in ready
            if runner.kind == "sync" and (not runner.sent or now - runner.head_since < BUSY_S)
        ]
        return min(plain, key=lambda runner: len(runner.sent), default=None)
