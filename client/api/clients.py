"""The clients: `AsyncClient` for coroutines, `Client` for everyone else, a thin face on the same engine.

    client = rota.Client("http://127.0.0.1:4100")
    handle = client.enqueue(resize, "a.jpg", width=300)
    handle.result(timeout=10)

Both connect when first used, to any of the nodes they were given, and to another one when that node is gone.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from os import PathLike
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload
from urllib.parse import quote, urlencode

from .. import ids
from ..calls import default
from ..calls.handle import AsyncOutcomes, JobHandle, JobHandles, Outcomes
from ..calls.order import Order, Routed
from ..calls.pickling import load_arguments
from ..calls.watching import Watch
from ..errors import SignatureRefused
from ..ids import parse_job_id
from ..model import Codec, ResultEntry
from ..options import checks as options
from ..process import background, ending
from ..process.threads import Future
from ..settings.config import CONNECT_TIMEOUT_S, RETRY_WINDOW_S, ClientConfig, client_config
from ..tasks.named import NamedTask
from ..tasks.task import Target, Task, as_task
from ..transports.connection import Connection
from ..transports.transport import Transport
from ..wire.keyring import Keyring
from ..wire.views import (
    EventsPage,
    FailedView,
    FinishedView,
    FlowDone,
    FlowsPage,
    FlowView,
    JobsPage,
    JobView,
    LogView,
    NodeView,
    OutboxView,
    Place,
    QueueView,
    StatsView,
    TaskView,
)
from . import flows, pipeline, schedules
from .bulk import Calls
from .coalesce import Ref
from .engine import Engine, outcome_of, value_of
from .express import Again, Express
from .flows import Flow, FlowHandle
from .gathering import Gathering
from .operations import AsyncOperations, Cancelled, Operations
from .pipeline import PipelinedHandle
from .progress import afinish, finish, steps
from .schedules import AsyncSchedules, Schedules

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class AsyncClient(AsyncOperations):
    """Enqueues jobs and waits for results, on the event loop it is first used on.

    Args:
        urls: one node's address, or several (a list, or comma-separated); else `ROTA_URL`, else local port 4100.
        token: the bearer token; else from `ROTA_TOKEN_FILE` or `ROTA_TOKEN`.
        key: the file with the signing keys (or a Keyring); else `ROTA_KEY_FILE`.
        ca_file: certificates to trust for https; else `ROTA_CA_FILE`.
        retry_window_s: how long an enqueue without a definite answer is repeated before it raises `EnqueueUnknown`, and
            how long nodes may be away before whoever waits for a result is told; else `ROTA_RETRY_WINDOW`, else 30.
        connect_timeout_s: how long to try while no address leads to a node (each is tried once at least), before
            `Unreachable` is raised: then nothing was stored. Else `ROTA_CONNECT_TIMEOUT`, else 3.

    Raises:
        ConfigError: an address, the token or a key file is not usable.
    """

    def __init__(
        self,
        urls: str | Iterable[str] | None = None,
        *,
        token: str | None = None,
        key: Keyring | str | PathLike[str] | None = None,
        ca_file: str | None = None,
        retry_window_s: float | None = None,
        connect_timeout_s: float | None = None,
    ) -> None:
        self._config = client_config(
            urls, token=token, key=key, ca_file=ca_file, retry_window_s=retry_window_s,
            connect_timeout_s=connect_timeout_s,
        )
        self._made: Engine | None = None

    @overload
    async def enqueue(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]: ...
    @overload
    async def enqueue(self, task: str | NamedTask, /, *args: Any, **kwargs: Any) -> JobHandle[Any]: ...
    @overload
    async def enqueue(    # an async def fits both; the first wins, as is meant
        self, task: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> JobHandle[R]: ...
    @overload
    async def enqueue(self, task: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]: ...
    async def enqueue(self, task: Target, /, *args: Any, **kwargs: Any) -> JobHandle[Any]:
        """Enqueue one job: of a task, of a task's name, or of any function, which is then shipped by value. Enqueues
        made at the same time travel together.

        Raises:
            InvalidJob, NotSerializable, JobTooLarge: refused here; nothing was sent.
            UnknownTask, SignatureRefused: refused by the node; nothing is stored.
            Overloaded, Unreachable: not stored within the retry window.
            EnqueueUnknown: no definite answer within the retry window: it may be stored.
        """
        order, pipe, flow = as_task(task).order(args, kwargs), pipeline.current(), flows.current()
        if flow is not None:
            return flow.take(self, order)
        if pipe is None:
            return JobHandle(self, *await self._engine().enqueue(order))
        stored = await self._engine().begin_enqueue(order)
        await pipe.atake(stored, len(order.payload))
        return PipelinedHandle(self, stored, _known)

    @overload
    async def enqueue_many(self, task: Task[P, R], calls: Calls) -> JobHandles[R]: ...
    @overload
    async def enqueue_many(self, task: Target, calls: Calls) -> JobHandles[Any]: ...
    async def enqueue_many(self, task: Target, calls: Calls) -> JobHandles[Any]:
        """Enqueue many jobs of one task, in order. `calls` are tuples of arguments, or what `task.call(...)` gives, and
        may come from a generator. It is gone through here, on the loop's own thread: every few milliseconds others get
        their turn, but a generator that blocks for longer blocks the loop.

        Raises what `enqueue` raises, or `PartlyEnqueued` if some are stored already.
        """
        if (flow := flows.current()) is not None:
            return flow.take_many(self, flows.orders_of(as_task(task), calls))
        engine = self._engine()
        progress = await afinish(steps(engine, as_task(task), calls, engine.begin, in_turns=True))
        return JobHandles(self, progress.stored, progress.levels, progress.existing)

    def handle(self, job_id: str) -> JobHandle[Any]:
        """The handle of a job of any client, by its id."""
        return JobHandle(self, *parse_job_id(job_id))

    def flow(self, name: str, *, keep: float | timedelta = flows.KEEP_S) -> Flow:
        """A block whose jobs are stored as one graph: `async with client.flow("import") as flow:`. See `rota.flow`."""
        return flows.made(self, name, keep)

    def flow_handle(self, flow_id: str) -> FlowHandle:
        """A flow of any client, by its id."""
        return flows.known(self, flow_id)

    async def flows(self, name: str = "", *, limit: int = 100, after: str = "") -> FlowsPage:
        """Flows, those of that name or all, the newest first: those that are not over, and those that are kept. `after`
        is the `next` of the page before."""
        return await self._page(flows.listing(name, limit, after), FlowsPage)

    @property
    def schedules(self) -> AsyncSchedules:
        """The schedules of the cluster: put, list, pause, resume, run now, delete."""
        return AsyncSchedules(self._page, self._post, lambda asked: template(self._engine(), asked))

    async def tasks(self) -> list[TaskView]:
        """The tasks that nodes have registered, by name: how each is called, and which nodes know it now."""
        return await self._page("/v1/tasks", list[TaskView])

    async def nodes(self) -> list[NodeView]:
        """The members of the cluster: who is master, what each runs and how full it is."""
        return await self._page("/v1/nodes", list[NodeView])

    async def outboxes(self) -> list[OutboxView]:
        """The outboxes of databases that have a relay now, and what it told last."""
        return await self._page("/v1/outboxes", list[OutboxView])

    async def queues(self) -> list[QueueView]:
        """Every queue that holds a job or has settings, with its counts."""
        return await self._list("queues", None, QueueView, sys.maxsize)

    async def jobs(
        self, place: Place | None = None, *, queue: str = "", task: str = "", key: str = "", label: str = "",
        since: datetime | timedelta | float | None = None, until: datetime | timedelta | float | None = None,
        limit: int = 100, after: str = "",
    ) -> JobsPage:
        """Jobs by where they are: "running", "claimed", "waiting", "blocked", "retrying", "scheduled", "awaiting",
        "failed", or "finished" (and kept, `keep_finished`); those of a queue, of a task, or all; those with a key that
        `max_per_key` counts by, or that require a label of their node (both of jobs that have not ended); those that
        were enqueued, or, if they have ended, did so, from `since` on and before `until`: a datetime with a time zone,
        seconds since 1970, or a timedelta, which means so long ago. At most 1,000 at a time: `after` is the `next` of
        the part before. A part may be short, or empty, and the list go on: `each_job` goes through all parts. Raises
        `InvalidJob`."""
        return await self._page(_jobs_path(place, queue, task, limit, after, key, label, since, until), JobsPage)

    async def each_job(self, place: Place | None = None, **which: Any) -> AsyncIterator[JobView]:
        """All jobs that `jobs` would list with these arguments, part by part: `async for job in client.each_job(...)`.
        What moves meanwhile may be left out, or come twice."""
        page = JobsPage([], which.pop("after", ""))
        while True:
            page = await self.jobs(place, after=page.next, **which)
            for job in page:
                yield job
            if not page.next:
                return

    async def failed(self, queue: str | None = None, limit: int = 100) -> list[FailedView]:
        """Failed jobs of one queue, or of all, in the order of queues and ids."""
        return await self._list("failed", queue, FailedView, limit)

    async def finished(self, queue: str | None = None, limit: int = 100) -> list[FinishedView]:
        """Jobs that ended well and are kept: those whose task or enqueue says `keep_finished`."""
        return await self._list("finished", queue, FinishedView, limit)

    async def arguments(self, job_id: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a job, as (args, kwargs): while it waits or runs, in the failed set, or for as long as
        `keep_finished` says. Raises `JobUnknown` where none are stored, `SignatureRefused`."""
        return load_arguments(*await signed_arguments(self._engine(), job_id))

    async def stats(self) -> StatsView:
        """Counts of the whole cluster, and what this node has done since it started."""
        return await self._page("/v1/stats", StatsView)

    async def aclose(self) -> None:
        """Wait for enqueues that are on their way, then close. Closing twice is harmless."""
        made, self._made = self._made, None
        if made is not None:
            await made.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.aclose()

    # what its handles ask

    async def aresult(self, bundle: str, index: int, timeout: float | None) -> Any:
        return value_of(ids.job_id(bundle, index), await self._engine().result_entry(bundle, index, timeout))

    def result(self, bundle: str, index: int, timeout: float | None) -> Any:
        """What `JobHandle.result` stands on: the result of one job of a bundle."""
        entry = self._from_outside(lambda engine: engine.result_entry(bundle, index, timeout))
        return value_of(ids.job_id(bundle, index), entry)

    async def aoutcomes(self, refs: Sequence[tuple[str, int]], timeout: float | None) -> AsyncOutcomes:
        gathering = Gathering(self._engine(), refs, timeout)
        try:
            while ended := await gathering.next():
                for place, outcome in ended:
                    yield place, outcome_of(refs[place], outcome)
        finally:
            await gathering.close()

    def outcomes(self, refs: Sequence[tuple[str, int]], timeout: float | None) -> Outcomes:
        raise RuntimeError("handles of an AsyncClient are awaited: aas_completed(), aresults()")

    async def ajob(self, job_id: str) -> JobView:
        return await self._engine().transport.job(job_id)

    async def alog(self, job_id: str) -> LogView:
        return await self._page(f"/v1/jobs/{job_id}/log", LogView)

    def log(self, job_id: str) -> LogView:
        """What is kept of a job's log."""
        return self._from_outside(lambda engine: page(engine, f"/v1/jobs/{job_id}/log", LogView))

    async def anews(self, watch: Watch) -> EventsPage:
        return await _connection(self._engine()).news(watch)

    def news(self, watch: Watch) -> EventsPage:
        """What `JobHandle.events` stands on."""
        return self._from_outside(lambda engine: _connection(engine).news(watch))

    # what its flows ask

    def flow_view(self, flow_id: str, few: bool, wait_s: float) -> FlowView:
        return self._from_outside(lambda engine: page(engine, flows.view_path(flow_id, few, wait_s), FlowView))

    async def aflow_view(self, flow_id: str, few: bool, wait_s: float) -> FlowView:
        return await self._page(flows.view_path(flow_id, few, wait_s), FlowView)

    def flow_entries(self, flow_id: str) -> dict[str, ResultEntry]:
        return self._from_outside(lambda engine: flow_entries(engine, flow_id))

    async def aflow_entries(self, flow_id: str) -> dict[str, ResultEntry]:
        return await flow_entries(self._engine(), flow_id)

    def flow_deed(self, flow_id: str, verb: str) -> FlowDone:
        return self._from_outside(lambda engine: engine.transport.post(f"/v1/flows/{flow_id}/{verb}", {}, FlowDone))

    async def aflow_deed(self, flow_id: str, verb: str) -> FlowDone:
        return await self._post(f"/v1/flows/{flow_id}/{verb}", {}, FlowDone)

    def store_flow(self, flow: Flow) -> None:
        raise RuntimeError("an AsyncClient stores a flow with `async with`")

    async def astore_flow(self, flow: Flow) -> None:
        await flow.send(self._engine())

    def job(self, job_id: str) -> JobView:
        """Where a job is, and why it waits there. Raises `JobUnknown`."""
        return self._from_outside(lambda engine: engine.transport.job(job_id))

    def _engine(self) -> Engine:
        loop = asyncio.get_running_loop()
        if self._made is None:
            self._made = open_engine(self._config)
        elif self._made.loop is not loop:
            raise RuntimeError("this AsyncClient belongs to another event loop: make one for each loop")
        return self._made

    async def acancel_job(self, job_id: str) -> str:
        return await self.cancel(job_id)

    def cancel_job(self, job_id: str) -> str:
        path = f"/v1/jobs/{job_id}/cancel"
        return self._from_outside(lambda engine: engine.transport.post(path, {}, Cancelled)).outcome

    async def _page(self, path: str, kind: type[T]) -> T:
        return await page(self._engine(), path, kind)

    async def _list(self, what: str, queue: str | None, item: type[T], limit: int) -> list[T]:
        return await listed(self._engine(), what, queue, item, limit)

    async def _post(self, path: str, body: object, kind: type[T]) -> T:
        return await self._engine().transport.post(path, body, kind)

    def _from_outside(self, make: Callable[[Engine], Coroutine[Any, Any, T]]) -> T:
        """For another thread than the loop's."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if self._made is None or not self._made.loop.is_running():
                raise RuntimeError("this AsyncClient is not in use on an event loop that is running now") from None
            return background.wait(asyncio.run_coroutine_threadsafe(make(self._made), self._made.loop))
        raise RuntimeError("this would block the event loop: await the handle, or handle.astatus()")


class Client(Operations):
    """`AsyncClient` for code without an event loop. Safe from many threads, and after a fork; all sync clients of a
    process share one thread with an event loop. Takes the same arguments."""

    def __init__(
        self,
        urls: str | Iterable[str] | None = None,
        *,
        token: str | None = None,
        key: Keyring | str | PathLike[str] | None = None,
        ca_file: str | None = None,
        retry_window_s: float | None = None,
        connect_timeout_s: float | None = None,
    ) -> None:
        config = client_config(
            urls, token=token, key=key, ca_file=ca_file, retry_window_s=retry_window_s,
            connect_timeout_s=connect_timeout_s,
        )
        self._begin(lambda: open_engine(config))

    @classmethod
    def over(cls, transport: Transport) -> Self:
        """A client over another transport than a connection of its own: in a runner."""
        client = object.__new__(cls)
        client._begin(lambda: Engine(transport, retry_s=RETRY_WINDOW_S, connect_s=CONNECT_TIMEOUT_S))
        return client

    def _begin(self, open_engine: Callable[[], Engine]) -> None:
        self._open_engine = open_engine
        self._made: Engine | None = None
        self._on: background.Background | None = None

    @overload
    def enqueue(self, task: Task[P, R], /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]: ...
    @overload
    def enqueue(self, task: str | NamedTask, /, *args: Any, **kwargs: Any) -> JobHandle[Any]: ...
    @overload
    def enqueue(    # an async def fits both; the first wins, as is meant
        self, task: Callable[P, Coroutine[Any, Any, R]], /, *args: P.args, **kwargs: P.kwargs
    ) -> JobHandle[R]: ...
    @overload
    def enqueue(self, task: Callable[P, R], /, *args: P.args, **kwargs: P.kwargs) -> JobHandle[R]: ...
    def enqueue(self, task: Target, /, *args: Any, **kwargs: Any) -> JobHandle[Any]:
        """See `AsyncClient.enqueue`."""
        return self.place(as_task(task).order(args, kwargs))

    @overload
    def enqueue_many(self, task: Task[P, R], calls: Calls) -> JobHandles[R]: ...
    @overload
    def enqueue_many(self, task: Target, calls: Calls) -> JobHandles[Any]: ...
    def enqueue_many(self, task: Target, calls: Calls) -> JobHandles[Any]:
        """See `AsyncClient.enqueue_many`."""
        return self.place_many(as_task(task), calls)

    def handle(self, job_id: str) -> JobHandle[Any]:
        """The handle of a job of any client, by its id."""
        return JobHandle(self, *parse_job_id(job_id))

    def flow(self, name: str, *, keep: float | timedelta = flows.KEEP_S) -> Flow:
        """A block whose jobs are stored as one graph: `with client.flow("import") as flow: …`. See `rota.flow`."""
        return flows.made(self, name, keep)

    def flow_handle(self, flow_id: str) -> FlowHandle:
        """A flow of any client, by its id."""
        return flows.known(self, flow_id)

    def flows(self, name: str = "", *, limit: int = 100, after: str = "") -> FlowsPage:
        """See `AsyncClient.flows`."""
        return self._page(flows.listing(name, limit, after), FlowsPage)

    @property
    def schedules(self) -> Schedules:
        """The schedules of the cluster: put, list, pause, resume, run now, delete."""
        def made(asked: schedules.Asked) -> bytes:
            engine, on = self._engine()
            return on.run(template(engine, asked))

        return Schedules(self._page, self._post, made)

    def tasks(self) -> list[TaskView]:
        """See `AsyncClient.tasks`."""
        return self._page("/v1/tasks", list[TaskView])

    def nodes(self) -> list[NodeView]:
        """The members of the cluster: who is master, what each runs and how full it is."""
        return self._page("/v1/nodes", list[NodeView])

    def outboxes(self) -> list[OutboxView]:
        """See `AsyncClient.outboxes`."""
        return self._page("/v1/outboxes", list[OutboxView])

    def queues(self) -> list[QueueView]:
        """Every queue that holds a job or has settings, with its counts."""
        return self._list("queues", None, QueueView, sys.maxsize)

    def jobs(
        self, place: Place | None = None, *, queue: str = "", task: str = "", key: str = "", label: str = "",
        since: datetime | timedelta | float | None = None, until: datetime | timedelta | float | None = None,
        limit: int = 100, after: str = "",
    ) -> JobsPage:
        """See `AsyncClient.jobs`."""
        return self._page(_jobs_path(place, queue, task, limit, after, key, label, since, until), JobsPage)

    def each_job(self, place: Place | None = None, **which: Any) -> Iterator[JobView]:
        """See `AsyncClient.each_job`; `for job in client.each_job(...)`."""
        page = JobsPage([], which.pop("after", ""))
        while True:
            page = self.jobs(place, after=page.next, **which)
            yield from page
            if not page.next:
                return

    def failed(self, queue: str | None = None, limit: int = 100) -> list[FailedView]:
        """Failed jobs of one queue, or of all, in the order of queues and ids."""
        return self._list("failed", queue, FailedView, limit)

    def finished(self, queue: str | None = None, limit: int = 100) -> list[FinishedView]:
        """See `AsyncClient.finished`."""
        return self._list("finished", queue, FinishedView, limit)

    def arguments(self, job_id: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """See `AsyncClient.arguments`. Unpickled on the caller's thread."""
        engine, on = self._engine()
        return load_arguments(*on.run(signed_arguments(engine, job_id)))

    def stats(self) -> StatsView:
        """Counts of the whole cluster, and what this node has done since it started."""
        return self._page("/v1/stats", StatsView)

    def close(self) -> None:
        """Wait for enqueues that are on their way, then close. Closing twice is harmless."""
        with background.lock:
            made, self._made = self._made, None
            on, self._on = self._on, None
        if made is not None and on is not None and on.alive_here():
            on.close(made)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    # what tasks ask of the default client

    def place(self, order: Order) -> JobHandle[Any]:
        if (flow := flows.current()) is not None:
            return flow.take(self, order)
        if (pipe := pipeline.current()) is None:
            return JobHandle(self, *(self._at_once(order) or background.wait(self._hand_over(order))))
        stored = self._hand_over(order)
        pipe.take(stored, len(order.payload))
        return PipelinedHandle(self, stored, background.wait)

    async def aplace(self, order: Order) -> JobHandle[Any]:
        if (flow := flows.current()) is not None:
            return flow.take(self, order)
        stored, pipe = self._hand_over(order), pipeline.current()
        if pipe is None:
            return JobHandle(self, *await asyncio.wrap_future(stored))
        await pipe.atake(stored, len(order.payload))
        return PipelinedHandle(self, stored, background.wait)

    def place_many(self, task: Routed, calls: Calls) -> JobHandles[Any]:
        if (flow := flows.current()) is not None:
            return flow.take_many(self, flows.orders_of(task, calls))
        engine, on = self._engine()
        progress = finish(steps(engine, task, calls, on.start), background.wait)
        return JobHandles(self, progress.stored, progress.levels, progress.existing)

    async def aplace_many(self, task: Routed, calls: Calls) -> JobHandles[Any]:
        if (flow := flows.current()) is not None:
            return flow.take_many(self, flows.orders_of(task, calls))
        engine, on = self._engine()
        progress = await afinish(steps(engine, task, calls, on.begin, in_turns=True))
        return JobHandles(self, progress.stored, progress.levels, progress.existing)

    # what its handles ask

    def result(self, bundle: str, index: int, timeout: float | None) -> Any:
        """What `JobHandle.result` stands on: the result of one job of a bundle."""
        engine, on = self._engine()
        entry = engine.kept_entry(bundle, index) or on.run(engine.result_entry(bundle, index, timeout))
        return value_of(ids.job_id(bundle, index), entry)

    async def aresult(self, bundle: str, index: int, timeout: float | None) -> Any:
        engine, on = self._engine()
        entry = engine.kept_entry(bundle, index)
        if entry is None:
            entry = await asyncio.wrap_future(on.start(engine.result_entry(bundle, index, timeout)))
        return value_of(ids.job_id(bundle, index), entry)

    def log(self, job_id: str) -> LogView:
        """What is kept of a job's log."""
        return self._page(f"/v1/jobs/{job_id}/log", LogView)

    async def alog(self, job_id: str) -> LogView:
        engine, on = self._engine()
        return await asyncio.wrap_future(on.start(page(engine, f"/v1/jobs/{job_id}/log", LogView)))

    def news(self, watch: Watch) -> EventsPage:
        """What `JobHandle.events` stands on."""
        engine, on = self._engine()
        return on.run(_connection(engine).news(watch))

    async def anews(self, watch: Watch) -> EventsPage:
        engine, on = self._engine()
        return await asyncio.wrap_future(on.start(_connection(engine).news(watch)))

    def job(self, job_id: str) -> JobView:
        """Where a job is, and why it waits there. Raises `JobUnknown`."""
        engine, on = self._engine()
        return on.run(engine.transport.job(job_id))

    # what its flows ask

    def flow_view(self, flow_id: str, few: bool, wait_s: float) -> FlowView:
        return self._page(flows.view_path(flow_id, few, wait_s), FlowView)

    async def aflow_view(self, flow_id: str, few: bool, wait_s: float) -> FlowView:
        engine, on = self._engine()
        path = flows.view_path(flow_id, few, wait_s)
        return await asyncio.wrap_future(on.start(page(engine, path, FlowView)))

    def flow_entries(self, flow_id: str) -> dict[str, ResultEntry]:
        engine, on = self._engine()
        return on.run(flow_entries(engine, flow_id))

    async def aflow_entries(self, flow_id: str) -> dict[str, ResultEntry]:
        engine, on = self._engine()
        return await asyncio.wrap_future(on.start(flow_entries(engine, flow_id)))

    def flow_deed(self, flow_id: str, verb: str) -> FlowDone:
        return self._post(f"/v1/flows/{flow_id}/{verb}", {}, FlowDone)

    async def aflow_deed(self, flow_id: str, verb: str) -> FlowDone:
        engine, on = self._engine()
        asked = engine.transport.post(f"/v1/flows/{flow_id}/{verb}", {}, FlowDone)
        return await asyncio.wrap_future(on.start(asked))

    def store_flow(self, flow: Flow) -> None:
        engine, on = self._engine()
        on.run(flow.send(engine))

    async def astore_flow(self, flow: Flow) -> None:
        engine, on = self._engine()
        await asyncio.wrap_future(on.start(flow.send(engine)))

    def outcomes(self, refs: Sequence[tuple[str, int]], timeout: float | None) -> Outcomes:
        engine, on = self._engine()
        gathering = on.run(_gather(engine, refs, timeout))
        try:
            while ended := on.run(gathering.next()):
                for place, outcome in ended:
                    yield place, outcome_of(refs[place], outcome)
        finally:
            on.run(gathering.close())

    async def aoutcomes(self, refs: Sequence[tuple[str, int]], timeout: float | None) -> AsyncOutcomes:
        engine, on = self._engine()
        gathering = await on.begin(_gather(engine, refs, timeout))
        try:
            while ended := await on.begin(gathering.next()):
                for place, outcome in ended:
                    yield place, outcome_of(refs[place], outcome)
        finally:
            await on.begin(gathering.close())

    async def ajob(self, job_id: str) -> JobView:
        engine, on = self._engine()
        return await asyncio.wrap_future(on.start(engine.transport.job(job_id)))

    def _at_once(self, order: Order) -> Ref | None:
        engine, on = self._engine()
        background.check_may_wait()
        done = engine.at_once(order)
        return on.run(engine.again(done)) if isinstance(done, Again) else done

    def _hand_over(self, order: Order) -> Future[Ref]:
        engine, on = self._engine()
        if engine.must_prepare(order.route):
            return on.start(engine.enqueue(order))
        ref: Future[Ref] = Future()
        engine.submit(order, ref)
        return ref

    def cancel_job(self, job_id: str) -> str:
        return self.cancel(job_id)

    async def acancel_job(self, job_id: str) -> str:
        engine, on = self._engine()
        asked = engine.transport.post(f"/v1/jobs/{job_id}/cancel", {}, Cancelled)
        return (await asyncio.wrap_future(on.start(asked))).outcome

    def _page(self, path: str, kind: type[T]) -> T:
        engine, on = self._engine()
        return on.run(page(engine, path, kind))

    def _list(self, what: str, queue: str | None, item: type[T], limit: int) -> list[T]:
        engine, on = self._engine()
        return on.run(listed(engine, what, queue, item, limit))

    def _post(self, path: str, body: object, kind: type[T]) -> T:
        engine, on = self._engine()
        return on.run(engine.transport.post(path, body, kind))

    def _engine(self) -> tuple[Engine, background.Background]:
        """This process's engine: a fork leaves the parent's behind."""
        made, on = self._made, self._on
        if made is not None and on is not None and on.alive_here():
            return made, on
        ending.check()      # before the lock: its holder may be a thread that has ended with the interpreter
        with background.lock:
            on = background.background()
            if self._made is None or self._on is not on:
                made = on.run(self._open())
                if self._made is None or self._on is not on:    # else this very thread has come by meanwhile
                    self._made, self._on = made, on
                    on.owns(made)
            return self._made, on

    async def _open(self) -> Engine:
        return self._open_engine()


def _known(stored: concurrent.futures.Future[Ref]) -> Ref:
    """To wait here would block the loop that brings the answer."""
    if not stored.done():
        raise RuntimeError("this job is on its way: its id is known when the pipeline's block has ended")
    return stored.result()


async def _gather(engine: Engine, refs: Sequence[tuple[str, int]], timeout: float | None) -> Gathering:
    return Gathering(engine, refs, timeout)


def open_engine(config: ClientConfig) -> Engine:
    """An engine over a connection of its own, on the running loop."""
    connection = Connection(
        config.urls, config.keyring, config.token, tls=config.tls(), local=config.local,
        connect_s=config.connect_timeout_s, retry_s=config.retry_window_s,
    )
    engine = Engine(connection, retry_s=config.retry_window_s, connect_s=config.connect_timeout_s)
    engine.express = Express(connection, engine.names, retry_s=config.retry_window_s)
    return engine


async def page(engine: Engine, path: str, kind: type[T]) -> T:
    return await _connection(engine).get(path, kind)


async def template(engine: Engine, asked: schedules.Asked) -> bytes:
    """What a schedule's jobs are made of, signed."""
    route = await engine.prepare(asked.order.route, b"", engine.patience())
    seal = await engine.seal(engine.patience())
    asked = asked._replace(order=asked.order._replace(route=route))
    return seal.body(schedules.header_of(asked, options.now_s()), [asked.order.payload])


async def signed_arguments(engine: Engine, job_id: str) -> tuple[Codec, bytes]:
    """Codec and payload of one job, its signature checked."""
    bundle, index = parse_job_id(job_id)
    body = await _connection(engine).fetch_to_unpickle(f"/v1/jobs/{ids.job_id(bundle, index)}/body")
    seal = await engine.seal(engine.patience())
    header, payloads = seal.keyring.verify(body, seal.cluster)
    if (header.bundle, header.indexes) != (bundle, [index]):
        raise SignatureRefused(f"asked for job {job_id}, got those of {header.bundle}")
    return header.codec, payloads[0]


async def flow_entries(engine: Engine, flow_id: str) -> dict[str, ResultEntry]:
    """What the last jobs of a flow returned, its signatures checked."""
    fetch = _connection(engine).fetch_to_unpickle
    return await flows.entries_of(fetch, await engine.seal(engine.patience()), flow_id)


def _connection(engine: Engine) -> Connection:
    if not isinstance(engine.transport, Connection):
        raise RuntimeError("inside a job there is no view of the cluster: make a rota.Client of its own")
    return engine.transport


def _jobs_path(
    place: str | None, queue: str, task: str, limit: int, after: str, key: str = "", label: str = "",
    since: datetime | timedelta | float | None = None, until: datetime | timedelta | float | None = None,
) -> str:
    query = {
        "place": place or "", "queue": queue, "task": task, "key": key, "label": label,
        "since": options.moment(since, "since"), "until": options.moment(until, "until"),
        "limit": int(limit), "after": after,
    }
    return f"/v1/jobs?{urlencode({name: value for name, value in query.items() if value != ''})}"


async def listed(engine: Engine, what: str, queue: str | None, item: type[T], limit: int) -> list[T]:
    """Up to `limit` items of a list: as many as there are, however many a node tells at a time."""
    queue = "" if queue is None else f"queue={quote(queue, safe='')}&"
    return await _connection(engine).listed(f"/v1/{what}?{queue}", item, limit)


def connect(
    urls: str | Iterable[str] | None = None,
    *,
    token: str | None = None,
    key: Keyring | str | PathLike[str] | None = None,
    ca_file: str | None = None,
    retry_window_s: float | None = None,
    connect_timeout_s: float | None = None,
) -> Client:
    """Make a `Client` and have `task.enqueue` use it, in this process."""
    client = Client(
        urls, token=token, key=key, ca_file=ca_file, retry_window_s=retry_window_s,
        connect_timeout_s=connect_timeout_s,
    )
    default.replace(client)
    return client


def handle(job_id: str) -> JobHandle[Any]:
    """The handle of a job of any client, by its id, through the default client. Raises ValueError for what is not an
    id."""
    return default.client().handle(job_id)


def flow(name: str, *, keep: float | timedelta = flows.KEEP_S) -> Flow:
    """A block whose jobs are stored as one graph, under a name: `with rota.flow("import") as flow:`, or `async with`.

    What the block enqueues (through the default client) is kept here until it ends, and then stored: nothing of it
    begins before all is there, and a block that raises has stored nothing. Then `flow` is a handle of it, as
    `rota.flow_handle(flow.id)` finds it anywhere.

    Args:
        name: what it is called: letters, digits and _ . : @ -. Many flows may have one name; each has its id.
        keep: how long it is kept when all of its jobs have ended, with the results of its last jobs: seconds, or a
            timedelta.

    Raises, at the end of the block:
        InvalidJob: it is too large (50,000 jobs in one block), or a job in it is refused.
        What `enqueue` raises: nothing of it will ever begin; after `EnqueueUnknown`, it may.
    """
    made: Flow = default.client().flow(name, keep=keep)
    return made


def flow_handle(flow_id: str) -> FlowHandle:
    """A flow of any client, by its id, through the default client. Raises `InvalidJob` for what is no id."""
    known: FlowHandle = default.client().flow_handle(flow_id)
    return known
