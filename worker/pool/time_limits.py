"""Time limits of jobs, kept by the node: what is overdue in a runner, and whose fault that is.

A runner of `async def` jobs keeps them itself as long as its loop turns: it says when it has told a job to end. A job
that was told and goes on is stubborn. If nothing was told the loop does not turn, and any job on it may be why.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from rota.client.model import TaskInfo

from ..channel.frames import Work
from ..channel.job_numbers import job_number
from .ready import Job
from .runner_handle import RunnerHandle

CANCEL_GRACE_S = 2.0
"""How long a job that was told to end may go on, where its task is not known."""


class Overdue(NamedTuple):
    number: int
    work: Work
    error: str
    blocked: bool       # the loop does not turn: it need not be this one's fault


class TimeLimits:
    def __init__(self, info_of: Callable[[str], TaskInfo | None]) -> None:
        self._info_of = info_of

    def timeout_s(self, work: Work) -> float | None:
        if work.options.timeout_s is not None:
            return work.options.timeout_s
        info = self._info_of(work.task)
        return None if info is None else info.timeout_s

    def grace_s(self, work: Work) -> float:
        info = self._info_of(work.task)
        return CANCEL_GRACE_S if info is None else info.cancel_grace_s

    def expect(self, runner: RunnerHandle, work: Work, jobs: list[Job], now: float) -> None:
        """Jobs are sent to a runner. (Of a plain function's runner the first that has no outcome is looked at.)"""
        timeout_s = self.timeout_s(work)
        if runner.kind == "async" and timeout_s is not None:
            for index, _ in jobs:
                runner.expect(job_number(work.key, index), now + timeout_s + self.grace_s(work))

    def look(self, runner: RunnerHandle, now: float) -> Overdue | None:
        """One job for which a runner has to go."""
        return self._look_sync(runner, now) if runner.kind == "sync" else self._look_async(runner, now)

    def _look_sync(self, runner: RunnerHandle, now: float) -> Overdue | None:
        head = runner.head()
        if head is None:
            return None
        number, work = head
        timeout_s = self.timeout_s(work)
        if timeout_s is not None and now >= max(runner.head_since, runner.touched.get(number, 0.0)) + timeout_s:
            runner.read_now()
            if number in runner.sent and now >= runner.touched.get(number, 0.0) + timeout_s:
                return Overdue(number, work, f"TimeoutError: timed out after {timeout_s:g} s", False)
        for doomed in list(runner.overdue(now)):      # asked to stop, and it did not
            runner.read_now()
            if doomed in runner.sent:
                return Overdue(doomed, runner.sent[doomed][0], "cancelled", False)
        return None

    def _look_async(self, runner: RunnerHandle, now: float) -> Overdue | None:
        numbers = list(runner.overdue(now))
        if not numbers:
            return None
        runner.read_now()
        started = set(runner.started())
        for number in numbers:
            if number not in runner.sent:
                continue
            work = runner.sent[number][0]
            limit = runner.touched.get(number, 0.0) + (self.timeout_s(work) or 0.0) + self.grace_s(work)
            if number not in started:         # something blocks the loop, but not this one
                runner.expect(number, now + CANCEL_GRACE_S)
            elif now < limit and number not in runner.doomed:
                runner.expect(number, limit)
            else:
                return self._blame(runner, number, work, alone=len(started) == 1)
        return None

    def _blame(self, runner: RunnerHandle, number: int, work: Work, *, alone: bool) -> Overdue:
        if number in runner.told_to_end or alone:
            error = f"TimeoutError: did not end when it was cancelled after its timeout of {self.timeout_s(work)} s"
            return Overdue(number, work, error, False)
        return Overdue(number, work, "", True)
