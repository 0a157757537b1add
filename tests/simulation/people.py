"""Who asks things of the cluster: clients that enqueue, and a person who looks after it."""

from __future__ import annotations

import asyncio
import random
import zlib
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING

import msgspec

from rota.client.errors import EnqueueError, InvalidJob, Overloaded, RotaError, SignatureRefused
from rota.client.ids import bundle_id, new_session
from rota.client.model import HEADER_SCHEMA, Enqueue, Header, Level, Mode, Receipt
from rota.client.wire.codec import encode_body, function_digest
from rota.client.wire.views import FailedFilter, Verb
from rota.cluster.node.service import Service

from .history import Order
from .names import job_name
from .plans import CLUSTER, CRASH, GOOD, KEYS, NARROW, POISON, QUEUES, RETRY_WINDOW_S, SERIAL, TASKS, TURNS
from .trust import signer_for

if TYPE_CHECKING:
    from .process import Process
    from .world import World

ANSWERS_LOST = 0.05
"""Of those of nodes, where the network is bad."""

COUNTS = (1, 1, 2, 7, 20)
SERIAL_COUNTS = (1, 1, 2, 12)
FEW_COUNTS = (1, 2, 5)
WIDE_COUNTS = (61, 130, 480)

SHIPPED = 0.2
"""Bundles whose code comes along, where jobs are signed: each has code of its own."""

PYTHON = "3.11"

KINDS = ("plain", "serial", "limited", "keyed", "narrow", "once", "patient", "delayed", "none")
KIND_WEIGHTS = (26, 26, 12, 8, 6, 8, 6, 8, 6)


def code_of(bundle: str) -> bytes:
    return b"code of " + bundle.encode()


class Client:
    """Enqueues bundle after bundle: the same one again, to any node, until the answer is definite or time is over."""

    def __init__(
        self, world: World, *, wide: int = 0, poison: int = 0, crashing: int = 0, rng: random.Random | None = None
    ) -> None:
        self.world = world
        self.rng = rng or random.Random(world.rng.getrandbits(64))
        self.session = new_session(lambda count: self.rng.randbytes(count))
        self.poison = poison
        self.crashing = crashing
        self.wide = wide
        self.seen = 0       # the newest revision it has been told
        self.keyring = signer_for(random.Random(f"{world.seed} {self.session}"), world.plan.keys)

    @property
    def bundles(self) -> int:
        return self.world.plan.bundles

    async def run(self) -> None:
        for counter in range(self.bundles):
            await asyncio.sleep(self.rng.uniform(0.0, 1.6 * self.world.plan.trouble_s / self.bundles))
            await self._enqueue(self._order(bundle_id(self.session, counter)))

    def _order(self, bundle: str) -> Enqueue:
        rng = self.rng
        if self.wide:
            self.wide -= 1
            task = rng.choice(("m:sync", "m:async", "m:once", "m:patient"))
            return self._bundle(bundle, task, rng.choice(QUEUES), rng.choice(WIDE_COUNTS))
        if self.poison:
            self.poison -= 1
            return self._bundle(bundle, POISON, "q1", 3)
        if self.crashing:
            self.crashing -= 1
            return self._bundle(bundle, CRASH, "q2", 3)
        if self.world.plan.keys and rng.random() < SHIPPED:
            digest = function_digest(code_of(bundle))
            return self._bundle(bundle, "m:async", rng.choice(QUEUES), rng.choice(COUNTS), function=digest)
        (kind,) = rng.choices(KINDS, KIND_WEIGHTS)
        plain = rng.choice(("m:sync", "m:async", TURNS) if self.world.plan.codes else ("m:sync", "m:async"))
        match kind:
            case "serial":
                task = rng.choice((plain, plain, plain, "m:once", "m:patient"))
                return self._bundle(bundle, task, SERIAL, rng.choice(SERIAL_COUNTS))
            case "keyed":
                return self._bundle(bundle, "m:keyed", rng.choice(QUEUES), rng.choice(FEW_COUNTS), key=rng.choice(KEYS))
            case "narrow":
                return self._bundle(bundle, plain, NARROW, rng.choice(FEW_COUNTS))
            case "delayed":
                task = rng.choice((plain, plain, "m:once", "m:patient"))
                return self._bundle(bundle, task, rng.choice(QUEUES), rng.choice(COUNTS), level="delayed")
            case "none":
                return self._bundle(bundle, plain, rng.choice(QUEUES), rng.choice(COUNTS), level="none")
        task = plain if kind == "plain" else f"m:{kind}"
        return self._bundle(
            bundle, task, rng.choice(QUEUES), rng.choice(COUNTS), priority=rng.choice((0, 0, 5)),
            delay_s=rng.choice((0.0, 0.0, 0.0, 1.0)),
        )

    def _bundle(
        self, bundle: str, task: str, queue: str, count: int, *, priority: int = 0, delay_s: float = 0.0,
        level: Level = "durable", key: str = "", function: str = "",
    ) -> Enqueue:
        mode: Mode = self.rng.choice(("sync", "async")) if task == TURNS else TASKS[task].mode  # as its own code says
        header = Header(
            bundle, task, queue, mode, list(range(count)), [1] * count, 0.0, function=function,
            python=PYTHON if function else "",
        )
        if self.world.plan.keys:        # else as the release before wrote it
            header = msgspec.structs.replace(header, v=HEADER_SCHEMA, priority=priority, key=key, delay_s=delay_s)
        payloads = [b"x"] * count
        whole = self.world.plan.keys and zlib.crc32(bundle.encode()) % 2 == 0      # though not all have its key
        return Enqueue(
            bundle, task, queue, count, header.mode,
            encode_body(self.keyring.sign(header, payloads, CLUSTER, whole=whole), payloads), priority=priority,
            delay_s=delay_s, level=level, key=key, function=function, python=header.python,
        )

    async def _enqueue(self, order: Enqueue) -> None:
        world, rng, bundle = self.world, self.rng, order.bundle
        world.invoked[bundle] = {job_name(bundle, index) for index in range(order.count)}
        asked = world.orders[bundle] = Order(
            task=order.task, queue=order.queue, level=order.level, delay_s=order.delay_s, count=order.count
        )
        give_up = world.clock.monotonic() + RETRY_WINDOW_S
        while (now := world.clock.monotonic()) < give_up:
            process, revision = world.any_process(rng), world.store.revision
            asked.asked.setdefault(process.name, now)
            answer = await self._ask(process, order)
            if isinstance(answer, Receipt):
                asked.taken[process.name] = world.clock.monotonic()
                if order.level != "none":
                    world.acknowledged[bundle] = answer.revision
                    self.seen = max(self.seen, answer.revision)
                return
            if isinstance(answer, Overloaded):
                asked.overloads[process.name] = asked.overloads.get(process.name, 0) + 1
            elif isinstance(answer, RotaError) and not isinstance(answer, SignatureRefused):   # others have the key
                asked.refused_at = revision
                world.note(f"refused {bundle}: {answer}")
                return
            await asyncio.sleep(rng.uniform(0.01, 0.3))

    async def _request(self, node: Service, order: Enqueue) -> list[Receipt | EnqueueError]:
        if order.function:
            await node.put_function(order.function, self.keyring.sign_function(code_of(order.bundle), CLUSTER, PYTHON))
        return await node.enqueue([order], self.seen)

    async def _ask(self, process: Process, order: Enqueue) -> Receipt | RotaError | None:
        """One node, once. None: no answer in time; what was asked mostly goes on in the node."""
        request = asyncio.ensure_future(self._request(process.node, order))
        await asyncio.wait([request], timeout=self.rng.choice((0.2, 1.0, 5.0)))
        if not request.done():
            if self.rng.random() < 0.3:
                request.cancel()
            self.world.left_behind.append(request)
            return None
        error = request.exception()
        if self.rng.random() < ANSWERS_LOST and self.world.faults is not GOOD:
            return None         # on its way from the node
        if error is None:
            return request.result()[0]
        if not isinstance(error, RotaError):
            raise error
        return error if isinstance(error, Overloaded) else None


class Operator:
    """Retries and skips the head of the serial queue, cancels one job or many, pauses, empties a queue, retries or
    deletes the failed set. When things have calmed down, only what keeps the cluster from finishing is done: nothing
    stays paused or blocked."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = random.Random(world.rng.getrandbits(64))
        self.calm = False

    async def run(self) -> None:
        while True:
            if self.calm:
                await asyncio.sleep(0.3)
                await self._tidy_up()
            elif not self.world.plan.operator:
                await asyncio.sleep(0.3)
            else:
                await asyncio.sleep(self.rng.uniform(0.1, 1.2))
                what = self.rng.choices(
                    (self._head, self._cancel, self._pause, self._retry_failed, self._delete_failed, self._empty,
                     self._cancel_many),
                    (6, 4, 1, 3, 2, 1, 1),
                )[0]
                if not self.calm:       # what would be retried now is not among the work that is left
                    await self._try(what)

    async def _tidy_up(self) -> None:
        if self.world.is_paused("q2"):
            await self._try(self._resume)
        if self.world.is_blocked(SERIAL):
            await self._try(self._skip)

    async def _try(self, deed: Callable[[Service], Awaitable[None]]) -> None:
        try:
            async with asyncio.timeout(3.0):
                await deed(self.world.any_node(self.rng))
        except (TimeoutError, RotaError):
            return

    async def _head(self, node: Service) -> None:
        verb = self.rng.choice(("retry", "skip"))
        self.world.note(f"{verb} {await node.queue_head(SERIAL, verb)}")

    async def _skip(self, node: Service) -> None:
        self.world.note(f"skip {await node.queue_head(SERIAL, 'skip')}")

    async def _cancel(self, node: Service) -> None:
        jobs = [job for bundle in self.world.acknowledged for job in sorted(self.world.invoked[bundle])]
        if jobs:
            job = self.rng.choice(jobs[-40:])
            try:
                self.world.note(f"cancel {job}: {await node.cancel(job)}")
            except InvalidJob as error:
                self.world.note(f"cancel {job}: {error}")

    async def _retry_failed(self, node: Service) -> None:
        await self._begin(node, "retry", FailedFilter(all=True))

    async def _delete_failed(self, node: Service) -> None:
        await self._begin(node, "delete", FailedFilter(queue="q2"))

    async def _empty(self, node: Service) -> None:
        await self._begin(node, "empty", FailedFilter(queue=self.rng.choice(QUEUES)))

    async def _cancel_many(self, node: Service) -> None:
        await self._begin(node, "cancel", FailedFilter(queue=self.rng.choice(QUEUES), task="m:async"))

    async def _begin(self, node: Service, verb: Verb, which: FailedFilter) -> None:
        """Nobody waits for its end: it goes on whatever becomes of the node that was asked."""
        self.world.note(f"operation {await node.begin(verb, which)}: {verb} {which.words}")

    async def _pause(self, node: Service) -> None:
        await node.set_queue("q2", {"paused": True})
        await asyncio.sleep(self.rng.uniform(0.1, 1.0))
        await self._resume(node)

    async def _resume(self, node: Service) -> None:
        await node.set_queue("q2", {"paused": False})
