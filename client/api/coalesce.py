"""Enqueues made at the same time travel together.

Lone jobs with equal routes gather in an open bundle; a frame with all that is open goes out when the frame before it is
answered, so that under load bundles grow by themselves and an idle client waits for nothing. (`bulk.py` cuts many jobs
of one call into bundles directly.)
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Awaitable, Callable
from typing import NamedTuple, Protocol

from ..calls.order import Order, Route
from ..errors import ClientClosed, Overloaded, RotaError
from ..ids import Names, idempotent_id
from ..model import (
    BUNDLE_BYTES_MAX,
    HEADER_SCHEMA,
    JOBS_PER_BUNDLE,
    JOBS_PER_BUNDLE_MAX,
    Codec,
    Enqueue,
    Header,
    Level,
    Receipt,
)
from ..transports.transport import Patience
from ..wire.codec import PYTHON
from ..wire.frames import CLIENT_FRAME_BYTES
from ..wire.keyring import Seal

JOBS_WAITING_MAX = 100_000
BYTES_WAITING_MAX = 64 * 1024 * 1024
"""Of lone jobs that wait in a client for their frame; beyond, an enqueue raises `Overloaded`."""

BUNDLES_PER_FRAME = 256


class Ref(NamedTuple):
    """A stored job."""

    bundle: str
    place: int
    level: Level = "durable"
    existing: bool = False


class Waiter(Protocol):
    """An asyncio future, or one of concurrent.futures: whoever enqueued waits on it."""

    def set_result(self, result: Ref, /) -> None: ...
    def set_exception(self, exception: BaseException, /) -> None: ...
    def done(self) -> bool: ...


WIDTH_PART = 16

AT_ONCE = 96
"""So many lone jobs that wait here at the same time share a bundle, and more where very many wait: it costs the cluster
as much as 60 do, so a few more than 60 are not to be two."""


def width(route: Route, jobs: int, most: int) -> int:
    """How many jobs the next bundle takes, by how many there are (of one call were sent, or wait here): small calls
    spread over the nodes, and of large ones a bundle is a small part. `most`: what the nodes take. What takes turns
    or is counted by a key stays narrow."""
    if route.alone:
        return 1
    wide = min(jobs // WIDTH_PART, most, JOBS_PER_BUNDLE_MAX)
    return wide if wide > JOBS_PER_BUNDLE and not route.by_key else JOBS_PER_BUNDLE


class OpenBundle:
    """Jobs with one route on their way into a bundle."""

    __slots__ = ("bytes", "codec", "jobs_max", "payloads", "route", "since", "waiters")

    def __init__(self, route: Route, since: float, jobs: int = 0, most: int = JOBS_PER_BUNDLE) -> None:
        """`jobs`, `most`: see `width`."""
        self.route = route
        self.since = since
        self.codec: Codec = "pickle"
        self.bytes = 0
        self.jobs_max = width(route, jobs, most)
        self.payloads: list[bytes] = []
        self.waiters: list[Waiter] = []

    def takes(self, payload: bytes) -> bool:
        return len(self.payloads) < self.jobs_max and self.bytes + len(payload) <= BUNDLE_BYTES_MAX

    def add(self, payload: bytes, codec: Codec) -> None:
        self.payloads.append(payload)
        self.bytes += len(payload)
        if codec != "pickle":
            self.codec = codec      # what pickle wrote, cloudpickle reads

    def close(self, bundle: str, seal: Seal, now: float, waited_s: float, python: str = PYTHON) -> Enqueue:
        """Sign it, under that name, if no other follows from what it says. What it has waited here is part of its
        delay. `python`: of whoever has pickled it."""
        route = self.route
        if route.bundle:
            bundle = route.bundle
        elif route.idempotency:
            bundle = idempotent_id(seal.cluster, route.idempotency)
        python = python if route.function or self.codec == "cloudpickle" else ""
        assert route.mode is not None
        delay_s = max(0.0, route.delay_s - waited_s)
        header = Header(
            bundle=bundle,
            task=route.task,
            queue=route.queue,
            mode=route.mode,
            indexes=list(range(len(self.payloads))),
            sizes=list(map(len, self.payloads)),
            enqueued_at=now,
            codec=self.codec,
            python=python,
            function=route.function,
            options=route.options,
            v=HEADER_SCHEMA,
            priority=route.priority,
            key=route.key,
            delay_s=delay_s,
            flow=route.terms.flow.id if route.terms is not None and route.terms.flow is not None else "",
        )
        return Enqueue(
            bundle=bundle,
            task=route.task,
            queue=route.queue,
            count=len(self.payloads),
            mode=route.mode,
            body=seal.body(header, self.payloads),
            priority=route.priority,
            delay_s=delay_s,
            level=route.level,
            python=python,
            function=route.function,
            key=route.key,
            terms=route.terms,
        )


Send = Callable[[list[Enqueue], Patience], Awaitable[list[Receipt | RotaError]]]
"""Hand over bundles (a frame's worth)."""


class Coalescer:
    """Gathers lone jobs that are equally patient. All methods are called on the event loop."""

    def __init__(
        self,
        send: Send,
        seal: Callable[[Patience], Awaitable[Seal]],
        names: Names,
        *,
        retry_s: float,
        connect_s: float,
        jobs_per_bundle: Callable[[], int] = lambda: JOBS_PER_BUNDLE,
        wall: Callable[[], float] = time.time,
    ) -> None:
        self._send = send
        self._seal = seal
        self._names = names
        self._retry_s = retry_s
        self._connect_s = connect_s
        self._jobs_per_bundle = jobs_per_bundle
        self._wall = wall
        self._open: dict[Route, OpenBundle] = {}
        self._full: deque[OpenBundle] = deque()
        self._jobs = 0
        self._bytes = 0
        self._sender: asyncio.Task[None] | None = None

    def add(self, order: Order, waiter: Waiter) -> None:
        """Enqueue one job; `waiter` learns where it is stored, or why not."""
        if self._jobs >= JOBS_WAITING_MAX or self._bytes >= BYTES_WAITING_MAX:
            waiter.set_exception(Overloaded(f"{self._jobs:,} jobs are waiting in this client already: slow down"))
            return
        route, payload = order.route, order.payload
        loop = asyncio.get_running_loop()
        bundle = self._open.get(route)
        if bundle is None or not bundle.takes(payload):
            if bundle is not None:
                self._full.append(bundle)
            bundle = self._open[route] = OpenBundle(
                route, loop.time(), max(self._jobs, AT_ONCE * WIDTH_PART), self._jobs_per_bundle()
            )
        bundle.add(payload, order.codec)
        bundle.waiters.append(waiter)
        self._jobs += 1
        self._bytes += len(payload)
        if self.is_idle:
            self._sender = loop.create_task(self._send_all(), name="rota enqueues")

    async def close(self) -> None:
        """Wait for what is on its way."""
        if self._sender is not None:
            await asyncio.wait([self._sender])

    async def _send_all(self) -> None:
        while self._open or self._full:
            batch = self._take()
            patience = self._patience(batch[0])
            try:
                seal = await self._seal(patience)
                now = asyncio.get_running_loop().time()
                bundles = [
                    bundle.close(self._names.next(), seal, self._wall(), now - bundle.since) for bundle in batch
                ]
                answers = await self._send(bundles, patience)
            except RotaError as error:
                _resolve_all(batch, error)
            except BaseException:
                _resolve_all(batch, ClientClosed("the client was closed before an answer came"))
                raise
            else:
                for bundle, answer in zip(batch, answers, strict=True):
                    _resolve(bundle.waiters, answer)

    @property
    def is_idle(self) -> bool:
        return self._sender is None or self._sender.done()

    def _patience(self, oldest: OpenBundle) -> Patience:
        """What waited long behind another frame still gets half a window of its own."""
        since = max(oldest.since, asyncio.get_running_loop().time() - self._retry_s / 2)
        return Patience(since + self._retry_s, self._connect_s)

    def _take(self) -> list[OpenBundle]:
        """The next frame's worth, oldest first."""
        self._full.extend(self._open.values())
        self._open.clear()
        batch: list[OpenBundle] = []
        size = 0
        while self._full and len(batch) < BUNDLES_PER_FRAME and size + self._full[0].bytes <= CLIENT_FRAME_BYTES:
            bundle = self._full.popleft()
            batch.append(bundle)
            size += bundle.bytes
            self._jobs -= len(bundle.payloads)
        self._bytes -= size
        return batch


def _resolve_all(batch: list[OpenBundle], error: RotaError) -> None:
    for bundle in batch:
        _resolve(bundle.waiters, error)


def _resolve(waiters: list[Waiter], answer: Receipt | RotaError) -> None:
    for index, waiter in enumerate(waiters):
        if waiter.done():       # cancelled by who waited; the job is stored all the same
            continue
        if isinstance(answer, RotaError):
            waiter.set_exception(answer)
        else:
            waiter.set_result(Ref(answer.bundle, index, answer.level, answer.existing))
