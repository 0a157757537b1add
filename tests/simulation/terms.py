"""What a job's options promise, held against what the runners saw: when it may start, how often, and where.

    T1  a job does not start before its time
    T2  a retry does not start before its delay is over, and follows the attempt before it
    T3  an orphan with a `requeue_delay` waits that long
    T4  `on_orphan="fail"`: what may have begun when its node was lost is not started again, unless a person says so
    T5  level `none`: it runs where it was taken, each attempt once, and ends, unless the runners there were killed
    T6  when a runner dies, only a job that kills runners pays for it
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Mapping, Sequence

from rota.client.model import TaskInfo

from .history import Job, Order
from .scripted import Run


class Terms:
    """`again`: when a person had a job run again; `orphaned`: when which node that held it was lost; `own`: the
    (bundle, node) whose claim an enqueue brought along; `killings`: when all runners of a process were killed,
        `changes`: when its code was changed."""

    def __init__(
        self, tasks: Mapping[str, TaskInfo], orders: Mapping[str, Order], *,
        again: Mapping[Job, Sequence[float]], orphaned: Mapping[Job, Sequence[tuple[float, str]]],
        own: Container[tuple[str, str]], killings: Sequence[tuple[float, str]], slack_s: float,
        kills: Callable[[Job, Order], bool] = lambda job, order: False, changes: Sequence[tuple[float, str]] = (),
    ) -> None:
        self._tasks = tasks
        self._orders = orders
        self._again = again
        self._orphaned = orphaned
        self._own = own
        self._killings = killings
        self._slack_s = slack_s
        self._kills = kills
        self._changes = changes
        self.violations: list[str] = []

    def judge(self, runs: Iterable[Run]) -> list[str]:
        """`runs` in the order of time."""
        by_job: dict[Job, list[Run]] = {}
        for run in runs:
            bundle, _, index = run.job.partition("/")
            by_job.setdefault((bundle, int(index)), []).append(run)
        for job, some in by_job.items():
            order = self._orders.get(job[0])
            if order is None:           # nobody asked for it: that is S2's, or S22's where a tick comes twice
                continue
            self._check_blame(job, order, some)
            if order.level == "none":
                self._check_volatile(job, order, some)
                continue
            counted = [run for run in some if run.fence or (job[0], run.node) in self._own]
            self._check_times(job, order, counted)
            if self._tasks[order.task].on_orphan == "fail":
                self._check_once(job, some)
        self._check_taken(by_job)
        return self.violations

    def _say(self, rule: str, run: Run, text: str) -> None:
        self.violations.append(f"{rule}: job {run.job} was started at {run.at:.3f} s on {run.node or 'a node'}, {text}")

    # -- when --------------------------------------------------------------------------------------------------------

    def _check_times(self, job: Job, order: Order, runs: Iterable[Run]) -> None:
        """T1, T2 and T3. What a person has run again begins at its first attempt, and waits for nothing."""
        wait_s = self._tasks[order.task].requeue_delay_s
        asked = min(order.asked.values())
        retries: dict[int, Run] = {}
        last_s = 0.0
        for run in runs:
            if run.outcome == "retry":
                retries.setdefault(run.attempt, run)
            if run.what != "start":
                continue
            again = self._since(job, last_s, run.at)
            if again is not None:
                retries.clear()
            elif run.at < asked + order.delay_s - self._slack_s:
                self._say("T1", run, f"and was to wait for {order.delay_s:g} s from {asked:.3f} s on")
            self._check_retry(run, retries)
            self._check_orphan(job, run, wait_s)
            last_s = run.at

    def _check_orphan(self, job: Job, run: Run, wait_s: float) -> None:
        """(The lost node itself may begin what it held until it knows.)"""
        for lost, node in self._orphaned.get(job, ()):
            early = node != run.node and lost <= run.at < lost + wait_s - self._slack_s
            if early and self._since(job, lost, run.at) is None:
                self._say("T3", run, f"its node was lost at {lost:.3f} s, and it was to wait for {wait_s:g} s")

    def _check_retry(self, run: Run, retries: Mapping[int, Run]) -> None:
        before = retries.get(run.attempt - 1)
        if run.attempt > 1 and before is None:
            self._say("T2", run, f"as attempt {run.attempt}, and no attempt {run.attempt - 1} asked for it")
        elif before is not None and run.at < before.at + before.delay_s - self._slack_s:
            self._say("T2", run, f"and was to wait for {before.delay_s:.3f} s from {before.at:.3f} s on")

    def _since(self, job: Job, after_s: float, until_s: float) -> float | None:
        """When a person had it run again, between two moments."""
        return next((at for at in self._again.get(job, ()) if after_s < at <= until_s), None)

    def _check_blame(self, job: Job, order: Order, runs: Iterable[Run]) -> None:
        """T6."""
        for run in runs:
            if run.blamed and not self._kills(job, order):
                self._say("T6", run, "and pays for the death of a runner that another job has killed")

    # -- how often, and where ----------------------------------------------------------------------------------------

    def _check_once(self, job: Job, runs: Iterable[Run]) -> None:
        """T4: a second start follows from a retry that was asked for, or from a person."""
        last: Run | None = None
        asked = 0
        for run in runs:
            if run.outcome in ("retry", "sleep", "wait"):
                asked = run.attempt + (run.outcome == "retry")
            if run.what != "start":
                continue
            if last is not None and run.attempt != asked and self._since(job, last.at, run.at) is None:
                self._say("T4", run, f"and had been started at {last.at:.3f} s on {last.node or 'a node'}")
            last, asked = run, 0

    def _check_volatile(self, job: Job, order: Order, runs: Iterable[Run]) -> None:
        """T5, and T2: a process that was asked to take it runs it, attempt by attempt."""
        seen: dict[str, int] = {}
        retries: dict[str, dict[int, Run]] = {}
        for run in runs:
            process = run.node.partition("-")[0]
            if run.outcome == "retry":
                retries.setdefault(process, {})[run.attempt] = run
            if run.what == "crashed":
                seen[process] = run.attempt - 1
            if run.what != "start":
                continue
            if run.fence:
                if not self._again.get(job):
                    self._say("T5", run, "out of the store, though nobody had it run again")
                continue        # it failed, and a person retried it: it is a job like any other
            if process not in order.asked or run.at < order.asked[process]:
                self._say("T5", run, "which was not asked to take it")
            if run.attempt != seen.get(process, 0) + 1:
                self._say("T5", run, f"as attempt {run.attempt} after attempt {seen.get(process, 0)}")
            self._check_retry(run, retries.get(process, {}))
            seen[process] = run.attempt

    def _check_taken(self, by_job: Mapping[Job, Sequence[Run]]) -> None:
        """T5: what a node said it has taken ends there, unless its runners were killed meanwhile."""
        ended: dict[tuple[str, str], set[Job]] = {}
        for job, runs in by_job.items():
            for run in runs:
                if run.outcome in ("ok", "failed"):
                    ended.setdefault((job[0], run.node.partition("-")[0]), set()).add(job)
        for bundle, order in self._orders.items():
            for process in order.taken if order.level == "none" else ():
                happened = (*self._killings, *self._changes)    # what is tried again needs its code
                killed = any(who == process and at >= order.asked[process] for at, who in happened)
                if not killed and len(ended.get((bundle, process), ())) < order.count:
                    self.violations.append(f"T5: bundle {bundle} was taken by {process}, and has not ended there")
