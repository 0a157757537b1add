"""Flows: a graph of jobs that is stored as one, has a name, and can be looked at, cancelled and retried as one.

    with rota.flow("import") as flow:
        pages = fetch.enqueue_many([(url,) for url in urls])
        index = build.enqueue(pages)            # a handle is an argument
    flow.result(timeout=600)                    # what `build` returned

What the block enqueues is kept in this process until it ends, and then stored: nothing of it begins before all of it is
there, and a block that raises has stored nothing.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextvars import ContextVar, Token
from datetime import timedelta
from types import TracebackType
from typing import Any, Protocol, Self
from urllib.parse import urlencode

import msgspec

from ..calls.graphs import FLOW_JOBS_MAX, GRAPH_BYTES_MAX, FlowPart, pack
from ..calls.handle import JobHandle, JobHandles, Source
from ..calls.order import EMPTY, Order, Route, Routed
from ..errors import FlowStuck, InvalidJob, JobUnknown, ResultTimeout, RotaError
from ..ids import BUNDLE, Names, is_name, job_id
from ..model import NO_TERMS, Enqueue, FlowTerms, ResultEntry, Terms
from ..options import checks as options
from ..wire.frames import CLIENT_FRAME_BYTES
from ..wire.keyring import Seal
from ..wire.views import FlowDone, FlowResults, FlowView
from .bulk import Calls, arguments_of
from .coalesce import OpenBundle
from .engine import Engine, value_of

WHOLE_MAX = 32
"""Bundles that are stored in one transaction, if they are not larger than `WHOLE_BYTES`."""

WHOLE_BYTES = 512 * 1024
BUNDLES_PER_FRAME = 64
KEEP_S = 3600.0
WAIT_S = 5.0
"""How long a node is asked to wait for a flow's end, at a time."""

NAMED_MAX = 3

_current: ContextVar[Flow | None] = ContextVar("rota_flow", default=None)


def current() -> Flow | None:
    """The block that this code runs in."""
    flow = _current.get()
    return flow if flow is not None and flow.is_open else None


class FlowSource(Source, Protocol):
    """What a flow asks of its client."""

    def flow_view(self, flow_id: str, few: bool, wait_s: float) -> FlowView: ...
    async def aflow_view(self, flow_id: str, few: bool, wait_s: float) -> FlowView: ...
    def flow_entries(self, flow_id: str) -> dict[str, ResultEntry]: ...
    async def aflow_entries(self, flow_id: str) -> dict[str, ResultEntry]: ...
    def flow_deed(self, flow_id: str, verb: str) -> FlowDone: ...
    async def aflow_deed(self, flow_id: str, verb: str) -> FlowDone: ...
    def store_flow(self, flow: Flow) -> None: ...
    async def astore_flow(self, flow: Flow) -> None: ...


class FlowHandle:
    """A flow, of whichever client. Methods that begin with `a` are for coroutines."""

    def __init__(self, source: FlowSource, flow_id: str) -> None:
        self._source = source
        self.id = flow_id
        """Its id, to find it again: `rota.flow_handle(id)`, `rota flow ID`."""
        self._empty: FlowView | None = None     # of a block that enqueued nothing: nothing is stored

    # -- looking

    def status(self) -> FlowView:
        """Where it is: its state, its jobs and theirs. Raises `FlowUnknown`."""
        return self._empty if self._empty is not None else self._source.flow_view(self.id, False, 0.0)

    async def astatus(self) -> FlowView:
        """`status` for coroutines."""
        return self._empty if self._empty is not None else await self._source.aflow_view(self.id, False, 0.0)

    def wait(self, timeout: float | None = None) -> FlowView:
        """Wait until it is over, or until nothing of it can go on before a person has retried or cancelled what failed
        (`state` "stuck"). Raises `ResultTimeout` after `timeout` seconds, `FlowUnknown`."""
        if self._empty is not None:
            return self._empty
        until = _until(timeout)
        while (view := self._source.flow_view(self.id, True, _wait_s(until))).state == "running":
            self._check(view, until, timeout)
        return view

    async def await_(self, timeout: float | None = None) -> FlowView:
        """`wait` for coroutines."""
        if self._empty is not None:
            return self._empty
        until = _until(timeout)
        while (view := await self._source.aflow_view(self.id, True, _wait_s(until))).state == "running":
            self._check(view, until, timeout)
        return view

    def results(self, timeout: float | None = None) -> list[Any]:
        """Wait for its end and return the results of its last jobs: those that none of the others waits for, in the
        order of their enqueues. They are kept as long as the flow is, however short their `keep_result`.

        Raises:
            FlowStuck: it cannot go on, since jobs have failed.
            JobFailed, JobCancelled: the first of those jobs that did not end well.
            ResultTimeout: it has not ended within `timeout` seconds.
        """
        view = self._settled(self.wait(timeout))
        if not view.last:
            return []
        entries = self._source.flow_entries(self.id)
        return [_value(job, entries) for job in view.last]

    async def aresults(self, timeout: float | None = None) -> list[Any]:
        """`results` for coroutines."""
        view = self._settled(await self.await_(timeout))
        if not view.last:
            return []
        entries = await self._source.aflow_entries(self.id)
        return [_value(job, entries) for job in view.last]

    def result(self, timeout: float | None = None) -> Any:
        """The result of its last job, of a flow that ends with one. As `results`; `InvalidJob` if it ends with more."""
        return self._only(self.results(timeout))

    async def aresult(self, timeout: float | None = None) -> Any:
        """`result` for coroutines."""
        return self._only(await self.aresults(timeout))

    # -- doing

    def cancel(self) -> int:
        """Cancel all of its jobs that have not ended, the last ones first; what runs is asked to stop. Returns how many
        they were."""
        count = 0
        while self._empty is None:
            done = self._source.flow_deed(self.id, "cancel")
            count += done.done + done.asked
            if not done.left:
                break
        return count

    async def acancel(self) -> int:
        """`cancel` for coroutines."""
        count = 0
        while self._empty is None:
            done = await self._source.aflow_deed(self.id, "cancel")
            count += done.done + done.asked
            if not done.left:
                break
        return count

    def retry(self) -> int:
        """Run its failed jobs again; what waited for them goes on when they have ended. Returns how many they were."""
        return 0 if self._empty is not None else self._source.flow_deed(self.id, "retry").done

    async def aretry(self) -> int:
        """`retry` for coroutines."""
        return 0 if self._empty is not None else (await self._source.aflow_deed(self.id, "retry")).done

    def add(self) -> Flow:
        """A block whose jobs become part of this flow, all of them at once: `with flow.add(): …`. For jobs of a flow
        (`rota.current_flow()`), and for others while it is not over."""
        return Flow(self._source, self.id, "", KEEP_S, new=False)

    # -- what they stand on

    def _check(self, view: FlowView, until: float | None, timeout: float | None) -> None:
        if until is not None and time.monotonic() >= until:
            counts = ", ".join(f"{count:,} {state}" for state, count in view.counts.items())
            raise ResultTimeout(f"flow {self.id} is not over within {timeout:g} s: of {view.jobs:,} jobs {counts}")

    def _settled(self, view: FlowView) -> FlowView:
        if view.state == "stuck":
            raise FlowStuck(self.id, view.failed[:NAMED_MAX], view.counts.get("failed", 0))
        return view

    def _only(self, results: list[Any]) -> Any:
        if len(results) != 1:
            raise InvalidJob(f"flow {self.id} ends with {len(results):,} jobs: flow.results() gives what they returned")
        return results[0]

    def __repr__(self) -> str:
        return f"<flow {self.id}>"


class Flow(FlowHandle):
    """What `rota.flow()` gives: `with`, or `async with` in a coroutine; a handle of the flow from then on."""

    def __init__(self, source: FlowSource, flow_id: str, name: str, keep_s: float, *, new: bool = True) -> None:
        self._names = Names()
        super().__init__(source, flow_id or self._names.next())
        self._terms = FlowTerms(self.id, self.id if new else self._names.next(), name=name, keep_s=keep_s)
        self.name = name
        self.is_open = False
        self._bundles: list[tuple[str, OpenBundle, bytes]] = []
        self._count = 0
        self._lock = threading.Lock()
        self._token: Token[Flow | None] | None = None

    def take(self, source: object, order: Order) -> JobHandle[Any]:
        """One more job. Raises `InvalidJob` for what cannot be stored with others."""
        self._check_order(source, order.route)
        with self._lock:
            last = self._bundles[-1] if self._bundles else None     # its jobs keep the order of their enqueues
            if last is None or last[1].route != order.route or not last[1].takes(order.payload):
                last = self._begin(order)
            return JobHandle(self._source, last[0], self._add(last[1], order), "durable")

    def take_many(self, source: object, orders: Iterator[Order]) -> JobHandles[Any]:
        """The jobs of one `enqueue_many`: in bundles of their own."""
        stored: list[tuple[str, int]] = []
        name, bundle = "", None
        for order in orders:
            self._check_order(source, order.route)
            with self._lock:
                if bundle is None or bundle.route != order.route or not bundle.takes(order.payload):
                    name, bundle, _ = self._begin(order)
                    stored.append((name, 0))
                stored[-1] = (name, self._add(bundle, order) + 1)
        return JobHandles(self._source, stored)

    def _begin(self, order: Order) -> tuple[str, OpenBundle, bytes]:
        self._bundles.append((self._names.next(), OpenBundle(order.route, time.monotonic()), order.code))
        return self._bundles[-1]

    def _add(self, bundle: OpenBundle, order: Order) -> int:
        if self._count >= FLOW_JOBS_MAX:
            raise InvalidJob(
                f"one block of a flow holds {FLOW_JOBS_MAX:,} jobs: let a job add the rest (rota.current_flow().add())"
            )
        self._count += 1
        bundle.add(order.payload, order.codec)
        return len(bundle.payloads) - 1

    def _check_order(self, source: object, route: Route) -> None:
        if source is not self._source:
            raise InvalidJob("a flow is stored by one client: this job goes through another one")
        if route.level != "durable":
            raise InvalidJob(f"the jobs of a flow are stored durably; persistence level {route.level!r} is not")
        if route.bundle:
            raise InvalidJob("jobs of a flow are stored together, so their arguments cannot lie in an object store")
        if route.idempotency or (route.terms is not None and route.terms.unique):
            raise InvalidJob(
                "a job of a flow is stored with the others, so it has no unique key and no idempotency key: enqueue it "
                "before the block, and pass its handle"
            )

    def __enter__(self) -> Self:
        if self._token is not None:
            raise RuntimeError("a block of a flow is used once: rota.flow() makes another, flow.add() adds to it")
        if current() is not None:
            raise RuntimeError("this is in the block of a flow already")
        self.is_open = True
        self._token = _current.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        if error is None and self._has_jobs():
            self._source.store_flow(self)
            self._bundles = []

    async def __aenter__(self) -> Self:
        return self.__enter__()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()
        if error is None and self._has_jobs():
            await self._source.astore_flow(self)
            self._bundles = []

    def _leave(self) -> None:
        self.is_open = False
        assert self._token is not None
        _current.reset(self._token)

    def _has_jobs(self) -> bool:
        if not self._bundles and self._terms.section == self.id:
            now = options.now_s()
            self._empty = FlowView(self.id, self.name, "done", 0, now, now)
        return bool(self._bundles)

    # -- storing it

    def orders(self) -> Iterator[tuple[str, int, Order]]:
        """Its jobs (bundle, index, order), in order."""
        for name, bundle, code in self._bundles:
            for index, payload in enumerate(bundle.payloads):
                yield name, index, Order(bundle.route, payload, bundle.codec, code)

    def graph(self) -> list[FlowPart]:
        return [_part(name, bundle) for name, bundle, _ in self._bundles]

    async def send(self, engine: Engine) -> None:
        """Bundles in order, what waits behind what it waits for; the last one with the graph makes it all begin."""
        parts = self.graph()
        graph = pack(parts)
        if len(graph) > GRAPH_BYTES_MAX:
            raise InvalidJob(
                f"the graph of this flow has {len(graph):,} bytes, and {GRAPH_BYTES_MAX:,} is the limit: let jobs in "
                "between gather some of what others wait for"
            )
        seal, own = await engine.seal(engine.patience()), {part.bundle for part in parts}
        size = sum(bundle.bytes for _, bundle, _ in self._bundles)
        whole = len(parts) == 1 or (len(parts) <= WHOLE_MAX and size + len(graph) <= WHOLE_BYTES)
        frame: list[Enqueue] = []
        frame_bytes = 0
        for number, (name, bundle, code) in enumerate(self._bundles):
            first, last = number == 0, number == len(self._bundles) - 1
            terms = msgspec.structs.replace(
                self._terms, part="whole" if whole else "last" if last else "first" if first else "more",
                jobs=self._count if last else 0, graph=graph if last else b"",
                name=self._terms.name if last else "",
            )
            if frame and not whole and (
                number == 1 or last or len(frame) >= BUNDLES_PER_FRAME
                or frame_bytes + bundle.bytes > CLIENT_FRAME_BYTES
            ):
                await _send(engine, frame)
                frame, frame_bytes = [], 0
            frame.append(await _closed(engine, seal, name, bundle, code, terms, own))
            frame_bytes += bundle.bytes
        await _send(engine, frame)


async def _send(engine: Engine, frame: list[Enqueue]) -> None:
    """Raises what became of the first that is not stored: then nothing of the block ever begins."""
    for answer in await engine.send(frame, engine.patience()):
        if isinstance(answer, RotaError):
            raise answer


async def _closed(
    engine: Engine, seal: Seal, name: str, bundle: OpenBundle, code: bytes, flow: FlowTerms, own: set[str]
) -> Enqueue:
    route = bundle.route
    if engine.must_prepare(route):
        route = await engine.prepare(route, code, engine.patience(route))
    terms = route.terms or NO_TERMS
    after = tuple(msgspec.structs.replace(one, own=one.bundle in own) for one in terms.after)
    bundle.route = route._replace(terms=msgspec.structs.replace(terms, after=after, flow=flow))
    return bundle.close(name, seal, options.now_s(), time.monotonic() - bundle.since)


def _part(name: str, bundle: OpenBundle) -> FlowPart:
    terms: Terms = bundle.route.terms or NO_TERMS
    return FlowPart(
        name, bundle.route.task, bundle.route.queue, len(bundle.payloads),
        tuple((one.bundle, one.jobs) for one in terms.after), terms.on_upstream,
    )


def _value(job: str, entries: dict[str, ResultEntry]) -> Any:
    entry = entries.get(job)
    if entry is not None and entry.status == "ok" and not entry.value:
        entry = None        # nothing is pickled as nothing
    if entry is None:
        raise JobUnknown(f"job {job} has ended well, and its result is not kept (keep_result=0)", job)
    return value_of(job, entry)


def view_path(flow_id: str, few: bool, wait_s: float) -> str:
    return f"/v1/flows/{flow_id}?{'few=1&' if few else ''}wait={wait_s:.3f}"


async def entries_of(fetch: Callable[[str], Awaitable[bytes]], seal: Seal, flow_id: str) -> dict[str, ResultEntry]:
    """What is kept of its last jobs, verified, by job. `fetch`: from a node's port."""
    entries: dict[str, ResultEntry] = {}
    after = ""
    while True:
        path = f"/v1/flows/{flow_id}/results?{urlencode({'after': after})}"
        page = msgspec.msgpack.decode(await fetch(path), type=FlowResults)
        for bundle, record in page.results:
            for entry in seal.results(bundle, record).entries:
                entries[job_id(bundle, entry.index)] = entry
        if not page.next:
            return entries
        after = page.next


def orders_of(task: Routed, calls: Calls) -> Iterator[Order]:
    for number, call in enumerate(calls, 1):
        try:
            yield task.order(call, EMPTY) if type(call) is tuple else task.order(*arguments_of(call))
        except RotaError as error:
            error.add_note(f"call {number:,} of enqueue_many")
            raise


def made(source: FlowSource, name: str, keep: float | timedelta = KEEP_S) -> Flow:
    """A new flow. Raises `InvalidJob` for a name that is none."""
    if not is_name(name):
        raise InvalidJob(f"{name!r:.80} is not a valid name of a flow: letters, digits and _ . : @ -, at most 128")
    return Flow(source, "", name, options.duration_s(keep, "keep"))


def known(source: FlowSource, flow_id: str) -> FlowHandle:
    """Raises `InvalidJob` for what is no id."""
    return FlowHandle(source, normal_id(flow_id))


def normal_id(text: str) -> str:
    """As flows are called: their ids look like those of bundles. Raises `InvalidJob`."""
    text = text.strip().replace("_", "-")
    if BUNDLE.match(text) is None or "." in text:
        raise InvalidJob(f"{text!r:.80} is not a valid flow id; one looks like k3f9q2m7xa5t-00000000")
    return text


def listing(name: str, limit: int, after: str) -> str:
    query = {"name": name, "limit": limit, "after": after}
    return f"/v1/flows?{urlencode({key: value for key, value in query.items() if value})}"


def _wait_s(until: float | None) -> float:
    return WAIT_S if until is None else max(0.0, min(WAIT_S, until - time.monotonic()))


def _until(timeout: float | None) -> float | None:
    return None if timeout is None else time.monotonic() + timeout

