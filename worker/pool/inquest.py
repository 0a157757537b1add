"""What becomes of the jobs that a runner was running when it died."""

from __future__ import annotations

import logging
from collections.abc import Callable

from rota.client.ids import job_id
from rota.client.model import Mode, Outcome, TaskInfo
from rota.client.options.backoff import delay_s as backoff_s

from ..channel.frames import Work
from ..channel.job_numbers import job_number, job_of
from .runner_handle import RunnerHandle
from .suspects import Sent, Suspects
from .time_limits import Overdue

log = logging.getLogger(__name__)

Outcomes = list[tuple[int, Outcome]]


class Inquest:
    """`report` hears of jobs that have failed for good. `requeue` puts jobs at the head of what waits: they begin
    again, and have used up no attempt."""

    def __init__(
        self, info_of: Callable[[str], TaskInfo | None], requeue: Callable[[Mode, list[Sent]], None],
        report: Callable[[Work, int, str], None] = lambda work, index, error: None,
    ) -> None:
        self.suspects = Suspects()
        self._info_of = info_of
        self._requeue = requeue
        self._report = report

    def condemn(self, runner: RunnerHandle, overdue: Overdue) -> None:
        """A runner is going to be killed because of a job. If its loop does not turn, that may be another one."""
        if overdue.blocked:
            runner.blocked = True
        else:
            index = job_of(overdue.number)[1]
            runner.doomed[overdue.number] = (
                runner.doomed.get(overdue.number) or self.ended(overdue.work, index, overdue.error)
            )
        runner.killed_for_job = True

    def hold(self, runner: RunnerHandle, started: list[Sent], status: int) -> Outcomes:
        """`started`: what has no outcome, in the order in which it began. Returns the outcomes of those who pay: the
        one for whom the runner was killed, or who did it. A job that must not run twice pays in any case."""
        text = runner.epitaph(status)
        outcomes: Outcomes = []
        rest: list[Sent] = []
        for sent in started:
            work, (index, _) = sent
            outcome = runner.doomed.get(job_number(work.key, index))
            if outcome is not None:
                outcomes.append((work.key, outcome))
                self._absolve(runner, sent)
            elif runner.killed_for_job and job_number(work.key, index) in runner.told_to_end:  # as those of its batch
                error = f"TimeoutError: it was told to end, did not, and {text}"
                outcomes.append((work.key, self.ended(work, index, error)))
                self._absolve(runner, sent)
            elif runner.kind == "sync" or self._must_not_repeat(work):
                outcomes.append((work.key, self.ended(work, index, text)))
            else:
                rest.append(sent)
        if rest:
            outcomes += self._judge(runner, rest, text, alone=len(started) == 1)
        if outcomes:
            log.warning("%s; %d of the jobs that it was running ended with it", text, len(outcomes))
        return outcomes

    def _judge(self, runner: RunnerHandle, rest: list[Sent], text: str, *, alone: bool) -> Outcomes:
        """They were on an event loop that is no more."""
        if runner.killed_for_job and not runner.blocked:
            log.warning("%d jobs that ran beside that one begin again: it was not their fault", len(rest))
            self._requeue(runner.kind, rest)
            return []
        verdict = self.suspects.died(rest, alone=alone)
        self._requeue(runner.kind, verdict.cleared)
        if not verdict.guilty:
            log.warning(
                "%s; it was running %d jobs, and any of them may have done it: each begins again, apart from all "
                "others, and none has used up an attempt",
                "a runner was killed because its event loop did not turn" if runner.blocked else text, len(rest),
            )
        return [(work.key, self.ended(work, index, text)) for work, (index, _) in verdict.guilty]

    def _absolve(self, runner: RunnerHandle, sent: Sent) -> None:
        """A suspect had to be killed. If its loop did not turn, it was the one, and its company is cleared."""
        number = job_number(sent[0].key, sent[1][0])
        if runner.role == "apart" and number in runner.told_to_end:
            self.suspects.ended(number)
        elif runner.role == "apart":
            self._requeue(runner.kind, self.suspects.died([sent], alone=True).cleared)

    def _must_not_repeat(self, work: Work) -> bool:
        info = self._info_of(work.task)
        return info is not None and info.on_orphan == "fail"

    def ended(self, work: Work, index: int, error: str) -> Outcome:
        """Failed, or to be tried again if the task's options allow it."""
        info = self._info_of(work.task) or TaskInfo(work.task, work.mode)
        job = job_id(work.bundle, index)
        if work.attempt >= (work.options.max_attempts or info.max_attempts):
            log.error("job %s (%s) failed for good, at attempt %d: %s", job, work.task, work.attempt, error)
            self._report(work, index, error)
            return Outcome(index, "failed", error=error)
        delay_s = backoff_s(info, work.options, work.attempt)
        log.warning("job %s (%s) failed, and is tried again in %.3g s: %s", job, work.task, delay_s, error)
        return Outcome(index, "retry", error=error, delay_s=delay_s)
