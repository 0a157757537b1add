"""Jobs that run where they are enqueued: no cluster, no thread, no waiting.

    with rota.testing.inline() as jobs:
        sign_up("ann")                          # enqueues `welcome`, which runs at once
        assert jobs.ran == ["shop.tasks:welcome"]
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import threading
from collections import Counter
from collections.abc import Coroutine, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from rota.client.api import flows
from rota.client.api.engine import value_of
from rota.client.api.flows import Flow, FlowHandle
from rota.client.calls import default, graphs
from rota.client.calls.graphs import FlowPart
from rota.client.calls.handle import AsyncOutcomes, JobHandle, JobHandles, Outcomes
from rota.client.calls.order import Call, Order, Routed
from rota.client.calls.watching import Watch
from rota.client.errors import FlowUnknown, InvalidJob, ResultTimeout, UnknownTask
from rota.client.ids import Names, job_id, parse_job_id
from rota.client.model import Outcome, ResultEntry, Step, Upstream
from rota.client.process.threads import Future
from rota.client.tasks import task as tasks
from rota.client.wire.views import (
    EventsPage,
    FlowDone,
    FlowJobState,
    FlowPartView,
    FlowState,
    FlowView,
    JobEvent,
    JobView,
    LogView,
)
from rota.worker.channel.frames import Acknowledged, AskRemember, AskSteps, Question, Remembered, Reply, Work
from rota.worker.runner import resources, steps
from rota.worker.runner.context import Runner
from rota.worker.runner.telling import telling

from ..clock import SystemClock
from ..node.outcomes.settle import GOES_ON, upstream_in
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
        self._graphs: dict[str, InlineFlow] = {}
        self._steps: dict[int, dict[str, Step]] = {}        # what jobs that run remember, by key
        self._keys = itertools.count(1)
        self._waiting: dict[str, str] = {}      # jobs that wait for ever for others, and why

    def place(self, order: Order) -> JobHandle[Any]:
        if (flow := flows.current()) is not None:
            return flow.take(self, order)
        return self._run(order, self._names.next())

    def _run(self, order: Order, bundle: str, index: int = 0, flow: str = "") -> JobHandle[Any]:
        work = self._work(order, bundle, flow)
        if self._is_stopped(work, order, index):
            return JobHandle(self, work.bundle, index, order.route.level)
        while True:
            call = call_of(work)
            outcome = _wait(_alone(run_async(call, index, order.payload))) if work.mode == "async" else (
                run_sync(call, index, order.payload)
            )
            if self._ended(work, outcome):
                return JobHandle(self, work.bundle, index, order.route.level)

    async def aplace(self, order: Order) -> JobHandle[Any]:
        if (flow := flows.current()) is not None:
            return flow.take(self, order)
        return await self._arun(order, self._names.next())

    async def _arun(self, order: Order, bundle: str, index: int = 0, flow: str = "") -> JobHandle[Any]:
        work = self._work(order, bundle, flow)
        if self._is_stopped(work, order, index):
            return JobHandle(self, work.bundle, index, order.route.level)
        while True:
            call = call_of(work)
            outcome = await _alone(run_async(call, index, order.payload)) if work.mode == "async" else (
                run_sync(call, index, order.payload)
            )
            if self._ended(work, outcome):
                return JobHandle(self, work.bundle, index, order.route.level)

    def place_many(self, task: Routed, calls: Iterable[Call | tuple[Any, ...]]) -> JobHandles[Any]:
        if (flow := flows.current()) is not None:
            return flow.take_many(self, flows.orders_of(task, calls))
        handles = [self.place(task.order(*_arguments(call))) for call in calls]
        return JobHandles(self, [(parse_job_id(handle.id)[0], 1) for handle in handles])

    async def aplace_many(self, task: Routed, calls: Iterable[Call | tuple[Any, ...]]) -> JobHandles[Any]:
        if (flow := flows.current()) is not None:
            return flow.take_many(self, flows.orders_of(task, calls))
        handles = [await self.aplace(task.order(*_arguments(call))) for call in calls]
        return JobHandles(self, [(parse_job_id(handle.id)[0], 1) for handle in handles])

    def handle(self, job_id: str) -> JobHandle[Any]:
        return JobHandle(self, *parse_job_id(job_id))

    def close(self) -> None:
        return

    def _work(self, order: Order, bundle: str, flow: str) -> Work:
        route = order.route
        known = tasks.registry.get(route.task)
        if known is None and not order.code:
            raise UnknownTask(f"no module that this test has imported declares {route.task!r}")
        mode = known.info.mode if known is not None and not order.code else route.mode or "sync"
        return Work(
            next(self._keys), bundle, route.task, route.queue, mode, 1, 1, self._clock.wall(), order.codec, [],
            order.code or None, route.options, inputs=self._inputs(order), flow=flow,
        )

    def _inputs(self, order: Order) -> dict[str, list[ResultEntry]]:
        """What it gets of the jobs that it was to wait for: here they have ended. Raises `InvalidJob` for others."""
        return self._entries_of(order.route.terms.after if order.route.terms is not None else ())

    def _entries_of(self, upstream: Iterable[Upstream]) -> dict[str, list[ResultEntry]]:
        found: dict[str, list[ResultEntry]] = {}
        for one in upstream:
            for index in indexes(int(one.jobs, 16)):
                entry = self._entries.get(job := job_id(one.bundle, index))
                if entry is None:
                    why = self._waiting.get(job)
                    if why is None:
                        raise InvalidJob(f"job {job}, which this one is to wait for, was not enqueued here")
                    entry = ResultEntry(index, "cancelled", error=why)
                found.setdefault(one.bundle, []).append(entry)
        return found

    def ask(self, question: Question) -> Future[Reply]:
        """What a job asks for itself. Here a sleep is over at once."""
        future: Future[Reply] = Future()
        if isinstance(question, AskSteps):
            future.set_result(Remembered(0, list(self._steps.get(question.key, {}).values())))
        elif isinstance(question, AskRemember):
            step = question.step
            over = step if step.kind == "step" else replace(step, ended_ms=0)
            self._steps.setdefault(question.key, {})[step.name] = over
            future.set_result(Acknowledged(0))
        return future

    def _is_stopped(self, work: Work, order: Order, index: int) -> bool:
        """Whether a job that it was to wait for, and that did not end well, keeps it from running."""
        job, terms = job_id(work.bundle, index), order.route.terms
        for bundle, entries in work.inputs.items():
            for entry in entries:
                if entry.status != "ok" and terms is not None and terms.on_upstream != "run":
                    why = f"job {job_id(bundle, entry.index)}, which it waits for, has not ended well ({entry.error})"
                    if terms.on_upstream == "cancel":
                        self._entries[job] = ResultEntry(index, "cancelled", error=why)
                    else:
                        self._waiting[job] = why
                    return True
        return False

    def _ended(self, work: Work, outcome: Outcome) -> bool:
        """False: run it again."""
        work.fence += 1
        telling.ended(work, outcome.index)
        if outcome.status in GOES_ON and work.fence < RUNS_MAX:
            work.attempt += outcome.status == "retry"
            if outcome.status == "wait":
                work.inputs = work.inputs | self._entries_of(upstream_in(outcome))
            return False
        self._steps.pop(work.key, None)
        status = outcome.status if outcome.status in ("ok", "cancelled", "expired") else "failed"
        self._entries[job_id(work.bundle, outcome.index)] = ResultEntry(
            outcome.index, status, outcome.value, outcome.error, outcome.traceback, work.attempt, outcome.codec
        )
        self.ran.append(work.task)
        return True

    # -- flows: their jobs run, in order, when their block has ended

    def flow(self, name: str, *, keep: float | timedelta = flows.KEEP_S) -> Flow:
        return flows.made(self, name, keep)

    def flow_handle(self, flow_id: str) -> FlowHandle:
        return flows.known(self, flow_id)

    def store_flow(self, flow: Flow) -> None:
        self._graphs.setdefault(flow.id, InlineFlow(flow.name, self._clock.wall())).parts += flow.graph()
        for bundle, index, order in flow.orders():
            self._run(order, bundle, index, flow.id)

    async def astore_flow(self, flow: Flow) -> None:
        self._graphs.setdefault(flow.id, InlineFlow(flow.name, self._clock.wall())).parts += flow.graph()
        for bundle, index, order in flow.orders():
            await self._arun(order, bundle, index, flow.id)

    def flow_view(self, flow_id: str, few: bool, wait_s: float) -> FlowView:
        if flow_id not in self._graphs:
            raise FlowUnknown(f"no flow {flow_id} was made here")
        return self._graphs[flow_id].view(flow_id, self._entries)

    async def aflow_view(self, flow_id: str, few: bool, wait_s: float) -> FlowView:
        return self.flow_view(flow_id, few, wait_s)

    def flow_entries(self, flow_id: str) -> dict[str, ResultEntry]:
        return self._entries

    async def aflow_entries(self, flow_id: str) -> dict[str, ResultEntry]:
        return self._entries

    def flow_deed(self, flow_id: str, verb: str) -> FlowDone:
        return FlowDone()       # all that could run, has

    async def aflow_deed(self, flow_id: str, verb: str) -> FlowDone:
        return FlowDone()

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

    def news(self, watch: Watch) -> EventsPage:
        view = self.job(watch.job)
        state = JobEvent("state", self._clock.wall(), view.place, view.attempt, why=view.error)
        return EventsPage([state], over=True)

    async def anews(self, watch: Watch) -> EventsPage:
        return self.news(watch)

    async def ajob(self, job_id: str) -> JobView:
        return self.job(job_id)

    def cancel_job(self, job_id: str) -> str:
        return "ended"

    async def acancel_job(self, job_id: str) -> str:
        return "ended"


class InlineFlow:
    """What is known of a flow whose jobs have run."""

    def __init__(self, name: str, at: float) -> None:
        self.name = name
        self.at = at
        self.parts: list[FlowPart] = []

    def view(self, flow_id: str, entries: Mapping[str, ResultEntry]) -> FlowView:
        states = [[_state(entries.get(job)) for job in part.ids] for part in self.parts]
        counts: Counter[str] = Counter(state for now in states for state in now)
        places = {part.bundle: place for place, part in enumerate(self.parts)}
        ended = not counts["awaiting"] and not counts["failed"]
        state: FlowState = "stuck" if not ended else "failed" if counts["cancelled"] else "done"
        return FlowView(
            flow_id, self.name, state, counts.total(), self.at, self.at if ended else None, dict(counts),
            [
                FlowPartView(part.task, part.queue, part.ids, now, [
                    places[bundle] for bundle, _ in part.after if bundle in places
                ], part.on_upstream)
                for part, now in zip(self.parts, states, strict=True)
            ],
            [job_id(*ref) for ref in graphs.each(graphs.last_of(self.parts))],
            [job for part in self.parts for job in part.ids if _state(entries.get(job)) == "failed"],
        )


def _state(entry: ResultEntry | None) -> FlowJobState:
    if entry is None:
        return "awaiting"
    return "cancelled" if entry.status == "expired" else entry.status


@contextmanager
def inline() -> Iterator[Inline]:
    """While it is entered, `task.enqueue` runs the job before it returns."""
    caller = Inline()
    before, asked = default.swap(caller), Runner.ask
    Runner.ask = caller.ask
    steps.install()
    try:
        yield caller
    finally:
        default.swap(before)
        Runner.ask = asked
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
