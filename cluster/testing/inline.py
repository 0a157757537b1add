"""Jobs that run where they are enqueued: no cluster, no thread, no waiting.

    with rota.testing.inline() as jobs:
        sign_up("ann")                          # enqueues `welcome`, which runs at once
        assert jobs.ran == ["shop.tasks:welcome"]
"""

from __future__ import annotations

import asyncio
import functools
import threading
from collections.abc import Coroutine, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rota.client import default, tasks
from rota.client.engine import value_of
from rota.client.errors import InvalidJob, ResultTimeout, UnknownTask
from rota.client.handle import AsyncOutcomes, JobHandle, JobHandles, Outcomes
from rota.client.ids import Names, job_id, parse_job_id
from rota.client.model import Outcome, ResultEntry
from rota.client.order import Call, Order, Routed
from rota.client.views import EventsPage, JobEvent, JobView, LogView
from rota.worker.channel.frames import Work
from rota.worker.runner import resources

from ..clock import SystemClock
from ..state.upstream import indexes
from .local import call_of, run_async, run_sync

RUNS_MAX = 1_000
"""Of one job: it may snooze for ever."""


class Inline:
    """The default client while `inline()` is entered. Retries happen at once, delays are not waited for; arguments and
    results are serialized as ever."""

    def __init__(self) -> None:
        self.ran: list[str] = []
        """The names of the tasks whose jobs have ended, in order."""
        self._names = Names()
        self._clock = SystemClock()
        self._entries: dict[str, ResultEntry] = {}
        self._waiting: dict[str, str] = {}      # jobs that wait for ever for others, and why

    def place(self, order: Order) -> JobHandle[Any]:
        work, index = self._work(order), 0
        if self._is_stopped(work, order):
            return JobHandle(self, work.bundle, index, order.route.level)
        while True:
            call = call_of(work)
            outcome = _wait(_alone(run_async(call, index, order.payload))) if work.mode == "async" else (
                run_sync(call, index, order.payload)
            )
            if self._ended(work, outcome):
                return JobHandle(self, work.bundle, index, order.route.level)

    async def aplace(self, order: Order) -> JobHandle[Any]:
        work = self._work(order)
        if self._is_stopped(work, order):
            return JobHandle(self, work.bundle, 0, order.route.level)
        while True:
            call = call_of(work)
            outcome = await _alone(run_async(call, 0, order.payload)) if work.mode == "async" else (
                run_sync(call, 0, order.payload)
            )
            if self._ended(work, outcome):
                return JobHandle(self, work.bundle, 0, order.route.level)

    def place_many(self, task: Routed, calls: Iterable[Call | tuple[Any, ...]]) -> JobHandles[Any]:
        handles = [self.place(task.order(*_arguments(call))) for call in calls]
        return JobHandles(self, [(parse_job_id(handle.id)[0], 1) for handle in handles])

    async def aplace_many(self, task: Routed, calls: Iterable[Call | tuple[Any, ...]]) -> JobHandles[Any]:
        handles = [await self.aplace(task.order(*_arguments(call))) for call in calls]
        return JobHandles(self, [(parse_job_id(handle.id)[0], 1) for handle in handles])

    def handle(self, job_id: str) -> JobHandle[Any]:
        return JobHandle(self, *parse_job_id(job_id))

    def close(self) -> None:
        return

    def _work(self, order: Order) -> Work:
        route = order.route
        known = tasks.registry.get(route.task)
        if known is None and not order.code:
            raise UnknownTask(f"no module that this test has imported declares {route.task!r}")
        mode = known.info.mode if known is not None and not order.code else route.mode or "sync"
        return Work(
            1, self._names.next(), route.task, route.queue, mode, 1, 1, self._clock.wall(), order.codec, [],
            order.code or None, route.options, inputs=self._inputs(order),
        )

    def _inputs(self, order: Order) -> dict[str, list[ResultEntry]]:
        """What it gets of the jobs that it was to wait for: here they have ended. Raises `InvalidJob` for others."""
        found: dict[str, list[ResultEntry]] = {}
        for one in order.route.terms.after if order.route.terms is not None else ():
            for index in indexes(int(one.jobs, 16)):
                entry = self._entries.get(job := job_id(one.bundle, index))
                if entry is None:
                    why = self._waiting.get(job)
                    if why is None:
                        raise InvalidJob(f"job {job}, which this one is to wait for, was not enqueued here")
                    entry = ResultEntry(index, "cancelled", error=why)
                found.setdefault(one.bundle, []).append(entry)
        return found

    def _is_stopped(self, work: Work, order: Order) -> bool:
        """Whether a job that it was to wait for, and that did not end well, keeps it from running."""
        job, terms = job_id(work.bundle, 0), order.route.terms
        for bundle, entries in work.inputs.items():
            for entry in entries:
                if entry.status != "ok" and terms is not None and terms.on_upstream != "run":
                    why = f"job {job_id(bundle, entry.index)}, which it waits for, has not ended well ({entry.error})"
                    if terms.on_upstream == "cancel":
                        self._entries[job] = ResultEntry(0, "cancelled", error=why)
                    else:
                        self._waiting[job] = why
                    return True
        return False

    def _ended(self, work: Work, outcome: Outcome) -> bool:
        """False: run it again."""
        work.fence += 1
        if outcome.status in ("retry", "snooze") and work.fence < RUNS_MAX:
            work.attempt += outcome.status == "retry"
            return False
        status = outcome.status if outcome.status in ("ok", "cancelled", "expired") else "failed"
        self._entries[job_id(work.bundle, outcome.index)] = ResultEntry(
            outcome.index, status, outcome.value, outcome.error, outcome.traceback, work.attempt, outcome.codec
        )
        self.ran.append(work.task)
        return True

    # what handles ask

    def result(self, bundle: str, index: int, timeout: float | None) -> Any:
        job = job_id(bundle, index)
        if job in self._waiting:
            raise ResultTimeout(f"job {job} never runs: {self._waiting[job]}", job)
        return value_of(job, self._entries[job])

    async def aresult(self, bundle: str, index: int, timeout: float | None) -> Any:
        return self.result(bundle, index, timeout)

    def outcomes(self, refs: Sequence[tuple[str, int]], timeout: float | None) -> Outcomes:
        for place, (bundle, index) in enumerate(refs):
            yield place, functools.partial(self.result, bundle, index, timeout)

    async def aoutcomes(self, refs: Sequence[tuple[str, int]], timeout: float | None) -> AsyncOutcomes:
        for ended in self.outcomes(refs, timeout):
            yield ended

    def job(self, job_id: str) -> JobView:
        if job_id in self._waiting:
            return JobView(job_id, "awaiting", why=self._waiting[job_id])
        entry = self._entries[job_id]
        return JobView(job_id, "failed" if entry.status == "failed" else "finished", attempt=entry.attempts,
                       error=entry.error, traceback=entry.traceback)

    def log(self, job_id: str) -> LogView:
        return LogView()

    async def alog(self, job_id: str) -> LogView:
        return LogView()

    def news(self, job_id: str, after: str) -> EventsPage:
        view = self.job(job_id)
        state = JobEvent("state", self._clock.wall(), view.place, view.attempt, why=view.error)
        return EventsPage([state], over=True)

    async def anews(self, job_id: str, after: str) -> EventsPage:
        return self.news(job_id, after)

    async def ajob(self, job_id: str) -> JobView:
        return self.job(job_id)

    def cancel_job(self, job_id: str) -> str:
        return "ended"

    async def acancel_job(self, job_id: str) -> str:
        return "ended"


@contextmanager
def inline() -> Iterator[Inline]:
    """While it is entered, `task.enqueue` runs the job before it returns."""
    caller = Inline()
    before = default.swap(caller)
    try:
        yield caller
    finally:
        default.swap(before)
        resources.close_blocking()


def _arguments(call: Call | tuple[Any, ...]) -> tuple[tuple[Any, ...], Any]:
    return (call.args, call.kwargs) if isinstance(call, Call) else (call, {})


async def _alone(run: Coroutine[Any, Any, Outcome]) -> Outcome:
    """An event loop may end with its job, and so must what was made on it."""
    try:
        return await run
    finally:
        await resources.close()


def _wait(coroutine: Any) -> Outcome:
    """Run a coroutine to its end: on a thread of its own, for this one may have a loop that runs."""
    done: list[Outcome] = []
    thread = threading.Thread(target=lambda: done.append(asyncio.run(coroutine)), name="rota inline job")
    thread.start()
    thread.join()
    return done[0]
