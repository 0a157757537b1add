"""The clients: `AsyncClient` for coroutines, `Client` for everyone else, a thin face on the same engine.

    client = rota.Client("http://127.0.0.1:4100")
    handle = client.enqueue(resize, "a.jpg", width=300)
    handle.result(timeout=10)

Both connect when first used, to any of the nodes they were given, and to another one when that node is gone.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Coroutine, Iterable, Sequence
from datetime import timedelta
from os import PathLike
from types import TracebackType
from typing import Any, ParamSpec, Self, TypeVar, overload

from .. import ids
from ..calls.handle import AsyncOutcomes, JobHandle, JobHandles, Outcomes
from ..calls.order import Order, Routed
from ..calls.pickling import load_arguments
from ..ids import parse_job_id
from ..process import background, ending
from ..process.threads import Future
from ..settings.config import CONNECT_TIMEOUT_S, RETRY_WINDOW_S, client_config
from ..tasks.named import NamedTask
from ..tasks.task import Target, Task, as_task
from ..transports.transport import Transport
from ..wire.keyring import Keyring
from . import flows, pipeline
from .answers import Answers
from .bulk import Calls
from .coalesce import Ref
from .engine import Engine, outcome_of, value_of
from .express import Again
from .flows import Flow, FlowHandle
from .gathering import Gathering
from .inspection import AsyncInspection, Inspection
from .operations import AsyncOperations, Operations
from .pipeline import PipelinedHandle
from .progress import afinish, finish, steps
from .requests import listed, open_engine, page, signed_arguments, template
from .schedules import AsyncSchedules, Schedules

P = ParamSpec("P")
R = TypeVar("R")
T = TypeVar("T")


class AsyncClient(AsyncOperations, AsyncInspection, Answers):
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

    @property
    def schedules(self) -> AsyncSchedules:
        """The schedules of the cluster: put, list, pause, resume, run now, delete."""
        return AsyncSchedules(self._page, self._post, lambda asked: template(self._engine(), asked))

    async def arguments(self, job_id: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """The arguments of a job, as (args, kwargs): while it waits or runs, in the failed set, or for as long as
        `keep_finished` says. Raises `JobUnknown` where none are stored, `SignatureRefused`."""
        return load_arguments(*await signed_arguments(self._engine(), job_id))

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
        entry = self._run(lambda engine: engine.result_entry(bundle, index, timeout))
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

    def store_flow(self, flow: Flow) -> None:
        raise RuntimeError("an AsyncClient stores a flow with `async with`")

    def _engine(self) -> Engine:
        loop = asyncio.get_running_loop()
        if self._made is None:
            self._made = open_engine(self._config)
        elif self._made.loop is not loop:
            raise RuntimeError("this AsyncClient belongs to another event loop: make one for each loop")
        return self._made

    async def _page(self, path: str, kind: type[T]) -> T:
        return await page(self._engine(), path, kind)

    async def _list(self, what: str, queue: str | None, item: type[T], limit: int) -> list[T]:
        return await listed(self._engine(), what, queue, item, limit)

    async def _post(self, path: str, body: object, kind: type[T]) -> T:
        return await self._engine().transport.post(path, body, kind)

    async def _arun(self, make: Callable[[Engine], Coroutine[Any, Any, T]]) -> T:
        return await make(self._engine())

    def _run(self, make: Callable[[Engine], Coroutine[Any, Any, T]]) -> T:
        """For another thread than the loop's."""
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            if self._made is None or not self._made.loop.is_running():
                raise RuntimeError("this AsyncClient is not in use on an event loop that is running now") from None
            return background.wait(asyncio.run_coroutine_threadsafe(make(self._made), self._made.loop))
        raise RuntimeError("this would block the event loop: await the handle, or handle.astatus()")


class Client(Operations, Inspection, Answers):
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

    @property
    def schedules(self) -> Schedules:
        """The schedules of the cluster: put, list, pause, resume, run now, delete."""
        return Schedules(self._page, self._post, lambda asked: self._run(lambda engine: template(engine, asked)))

    def arguments(self, job_id: str) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """See `AsyncClient.arguments`. Unpickled on the caller's thread."""
        return load_arguments(*self._run(lambda engine: signed_arguments(engine, job_id)))

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

    def _page(self, path: str, kind: type[T]) -> T:
        return self._run(lambda engine: page(engine, path, kind))

    def _list(self, what: str, queue: str | None, item: type[T], limit: int) -> list[T]:
        return self._run(lambda engine: listed(engine, what, queue, item, limit))

    def _post(self, path: str, body: object, kind: type[T]) -> T:
        return self._run(lambda engine: engine.transport.post(path, body, kind))

    def _run(self, make: Callable[[Engine], Coroutine[Any, Any, T]]) -> T:
        engine, on = self._engine()
        return on.run(make(engine))

    async def _arun(self, make: Callable[[Engine], Coroutine[Any, Any, T]]) -> T:
        engine, on = self._engine()
        return await asyncio.wrap_future(on.start(make(engine)))

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
