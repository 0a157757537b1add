"""The machinery of one client on one event loop: enqueues out, results in. `api.py` puts faces on it."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections import deque
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from .. import ids
from ..calls.order import Order, Route
from ..calls.pickling import load_value
from ..errors import ClientClosed, ResultTimeout, RotaError, UnknownTask
from ..ids import Names
from ..model import Enqueue, Mode, Receipt, ResultEntry
from ..process import threads
from ..tasks import queues
from ..transports.transport import Patience, Transport
from ..wire.keyring import Seal
from .coalesce import Coalescer, Ref
from .express import Again, Express
from .results import Results, check_entry

T = TypeVar("T")

MODES_KEPT_MAX = 10_000
OTHERS_MAX = 20
WHERE_S = 1.0
"""How long a node may take to say where a job is whose result did not come in time."""


class Engine:
    """All methods but `submit` and `kept_entry` are called on the loop that it was made on."""

    def __init__(self, transport: Transport, *, retry_s: float, connect_s: float) -> None:
        self.transport = transport
        self.names = Names()
        self.loop = asyncio.get_running_loop()
        self._retry_s = retry_s
        self._connect_s = connect_s
        self._seen_revision = 0
        self._sealed: Seal | None = None
        self._coalescer = self._coalesce(retry_s, connect_s)
        self._others: dict[tuple[float, float], Coalescer] = {}     # of enqueues that say how patient they are
        self._results = Results(transport, self._own_seal)
        self._modes: dict[str, Mode] = {}
        self._declared: set[str] = set()        # queues whose settings the cluster has been told
        self.express: Express | None = None     # where a thread may wait on a socket of its own
        self._inbox: deque[tuple[Order, concurrent.futures.Future[Ref]]] = deque()
        self._drain_planned = False

    def patience(self, route: Route | None = None) -> Patience:
        """How long to go on with what begins now, as the enqueue says or else the client."""
        retry_s = self._retry_s if route is None or route.retry_s is None else route.retry_s
        connect_s = self._connect_s if route is None or route.connect_s is None else route.connect_s
        return Patience(self.loop.time() + retry_s, connect_s)

    async def seal(self, patience: Patience) -> Seal:
        if self._sealed is None:
            self._sealed = await self.transport.seal(patience)
        return self._sealed

    async def send(self, bundles: list[Enqueue], patience: Patience) -> list[Receipt | RotaError]:
        answers = await self.transport.enqueue(bundles, self._seen(), patience)
        for answer in answers:
            if isinstance(answer, Receipt) and answer.revision > self._seen_revision:
                self._seen_revision = answer.revision
        return answers

    def jobs_per_bundle(self) -> int:
        """How many jobs of one bundle the nodes take, as far as is known now."""
        return self.transport.jobs_per_bundle

    def _seen(self) -> int:
        """The newest revision of the store that this client knows of."""
        return max(self._seen_revision, self.express.seen_revision) if self.express is not None else self._seen_revision

    def at_once(self, order: Order) -> Ref | Again | None:
        """Enqueue one job on a socket of this thread's; None where that is not for it. Called from any thread."""
        if self.express is None or self._sealed is None or self.must_prepare(order.route):
            return None
        return self.express.enqueue(order, self._sealed, self._seen_revision, alone=self._coalescer.is_idle)

    async def again(self, asked: Again) -> Ref:
        """What did not go that way."""
        assert self.express is not None
        patience = self.patience()
        patience = patience._replace(until=patience.until - asked.spent_s)
        receipt = await self.express.again(asked, self._seen(), patience)
        self._seen_revision = max(self._seen_revision, receipt.revision)
        return Ref(receipt.bundle, 0, receipt.level, receipt.existing)

    async def prepare(self, route: Route, code: bytes, patience: Patience) -> Route:
        """Make code known to the cluster, and what this process declares of the queue; find out how a task runs that is
        known by name only."""
        if self._must_declare(route.queue):
            await self.transport.declare(queues.declared[route.queue], patience)
            self._declared.add(route.queue)
        if route.function:
            await self.transport.put_function(route.function, code, patience)
        if route.mode is not None:
            return route
        mode = self._modes.get(route.task)
        if mode is None:
            mode = await self.transport.task_mode(route.task, patience)
            if mode is None:
                raise UnknownTask(f"no node has ever registered {route.task!r}: is its module in some node's --app?")
            if len(self._modes) < MODES_KEPT_MAX:
                self._modes[route.task] = mode
        return route._replace(mode=mode)

    def _coalesce(self, retry_s: float, connect_s: float) -> Coalescer:
        return Coalescer(
            self.send, self.seal, self.names, retry_s=retry_s, connect_s=connect_s,
            jobs_per_bundle=self.jobs_per_bundle,
        )

    def _coalescer_of(self, route: Route) -> Coalescer:
        """The impatient do not wait behind the patient."""
        if route.retry_s is None and route.connect_s is None:
            return self._coalescer
        retry_s = self._retry_s if route.retry_s is None else route.retry_s
        connect_s = self._connect_s if route.connect_s is None else route.connect_s
        if (retry_s, connect_s) not in self._others:
            if len(self._others) >= OTHERS_MAX:
                self._others = {key: other for key, other in self._others.items() if not other.is_idle}
            self._others[retry_s, connect_s] = self._coalesce(retry_s, connect_s)
        return self._others[retry_s, connect_s]

    def must_prepare(self, route: Route) -> bool:
        """Whether `prepare` has anything to do. May be called from any thread."""
        return bool(route.function) or route.mode is None or self._must_declare(route.queue)

    def _must_declare(self, queue: str) -> bool:
        info = queues.declared.get(queue)
        return info is not None and queue not in self._declared and bool(info.settings)

    async def enqueue(self, order: Order) -> Ref:
        if self.must_prepare(order.route):
            route = await self.prepare(order.route, order.code, self.patience(order.route))
            order = order._replace(route=route)
        future: asyncio.Future[Ref] = self.loop.create_future()
        self._coalescer_of(order.route).add(order, future)
        return await future

    async def begin_enqueue(self, order: Order) -> threads.Future[Ref]:
        """Enqueue, and wait for nothing but what is to be prepared."""
        if self.must_prepare(order.route):
            route = await self.prepare(order.route, order.code, self.patience(order.route))
            order = order._replace(route=route)
        stored: threads.Future[Ref] = threads.Future()
        self.submit(order, stored)
        return stored

    def submit(self, order: Order, stored: concurrent.futures.Future[Ref]) -> None:
        """Enqueue from any thread what needs no preparation: one wake-up of the loop for all that come meanwhile."""
        self._inbox.append((order, stored))
        if not self._drain_planned:
            self._drain_planned = True
            try:
                self.loop.call_soon_threadsafe(self._drain)
            except RuntimeError:
                raise ClientClosed("the event loop of rota's clients has been closed") from None

    def _drain(self) -> None:
        self._drain_planned = False     # before looking: what is appended from here on plans anew
        inbox = self._inbox
        while inbox:
            order, stored = inbox.popleft()
            if stored.set_running_or_notify_cancel():       # from here on it cannot be cancelled
                self._coalescer_of(order.route).add(order, stored)

    def begin(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Let a part of a bulk enqueue run."""
        return self.loop.create_task(coroutine, name="rota bulk")

    def kept_entry(self, bundle: str, index: int) -> ResultEntry | None:
        """A job's outcome, if it is here already. May be called from any thread."""
        return self._results.kept(bundle, index)

    async def result_entry(self, bundle: str, index: int, timeout: float | None) -> ResultEntry:
        """A job's outcome. A timeout of 0 looks once, however long that takes."""
        if timeout is not None and timeout <= 0:
            entry = await self.look(bundle, index)
        else:
            try:
                async with asyncio.timeout(timeout):
                    await self.seal(self.patience())
                    return await self._results.wait(bundle, index)
            except TimeoutError:
                entry = None
        if entry is not None:
            return entry
        job_id = ids.job_id(bundle, index)
        where = await self._where(job_id)
        raise ResultTimeout(f"no result of job {job_id} within {timeout:g} s: {where}", job_id)

    async def look(self, bundle: str, index: int) -> ResultEntry | None:
        """A job's outcome, if there is one now."""
        await self.seal(self.patience())
        return await self._results.look(bundle, index)

    async def _where(self, job_id: str) -> str:
        """What to tell who has waited in vain; a moment later than was asked, if that is how long a node takes."""
        try:
            async with asyncio.timeout(WHERE_S):
                view = await self.transport.job(job_id)
        except (TimeoutError, RotaError) as error:
            return f"where it is, no node says now ({type(error).__name__})"
        return f"it is {view.place}" + (f" ({view.why})" if view.why else "")

    async def close(self) -> None:
        """Wait for enqueues that are on their way (at most a retry window), then close."""
        await asyncio.gather(*(coalescer.close() for coalescer in (self._coalescer, *self._others.values())))
        if self.express is not None:
            self.express.close()
        self._results.close()
        await self.transport.close()

    def _own_seal(self) -> Seal:
        assert self._sealed is not None     # result_entry() waited for it
        return self._sealed


def value_of(job_id: str, entry: ResultEntry) -> Any:
    """A job's result, or what became of it as an exception. Unpickles: on the caller's thread."""
    check_entry(job_id, entry)
    return load_value(entry.codec, entry.value)


def outcome_of(ref: tuple[str, int], ended: ResultEntry | RotaError) -> Callable[[], Any]:
    """What gives a job's result, or raises what became of it: on the thread that calls it."""
    def outcome() -> Any:
        if isinstance(ended, RotaError):
            raise ended
        return value_of(ids.job_id(*ref), ended)

    return outcome
