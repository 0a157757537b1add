"""An application with an outbox in SQLite, two relays that die at any of their steps, and the judge.

    O1  a row that was committed is one job, once, and is gone from the table only when its job is stored; one that was
        rolled back is none
    O2  in the end the table is empty
    O3  where the network is good, rows of a queue become jobs in their order
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack, suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, NamedTuple
from unittest.mock import patch

import msgspec
import sqlalchemy as sa

from rota.client.calls.order import Route
from rota.client.errors import EnqueueUnknown, Overloaded, RotaError, Unreachable
from rota.client.ids import bundle_id
from rota.client.model import Enqueue, Receipt
from rota.client.options import checks
from rota.client.wire.keyring import UNSIGNED, Seal
from rota.client.wire.views import OutboxTurn, TurnAsked
from rota.cluster.admin import outboxes
from rota.cluster.ledger.memory_store import Entry
from rota.cluster.state.keys import Keys
from rota.outbox import relay
from rota.outbox.rows import NewRow, Packed
from rota.outbox.sqlalchemy import SqlRows, table_in

from .history import Order
from .names import job_name
from .people import Client
from .plans import CLUSTER, QUEUES, TASKS

if TYPE_CHECKING:
    from .process import Process
    from .world import World

NAME = "sim"
TRANSACTIONS = 12
ROLLED_BACK = 0.2
TURN_S = 2
"""Of a relay; as long as a lease of a node here."""

ASK_S = 3.0
"""How long a relay repeats what it has sent."""

STEP_S = 0.02
DEATHS = 0.08
"""Of steps of a relay, while there is trouble: a statement to the database, or something asked of a node."""

BUSY = 0.01
MOVED_IN_S = 40.0
"""O2, when all is well again."""


class Written(NamedTuple):
    """A row, in the order of their ids."""

    bundle: str
    queue: str
    committed: bool


class _Died(BaseException):
    """It was killed: nothing of it goes on, no `finally` either."""


class _Relay(relay.Relay):
    """Its database's calls take their time, fail now and then, and are what it dies at: before and after."""

    def __init__(self, rows: SqlRows, holder: str, step: Callable[[], Any]) -> None:
        super().__init__(rows, NAME, urls="http://127.0.0.1:1", token="none", poll=0.2)
        self._holder = holder
        self._step = step
        self.dead = False

    async def _db(self, call: Callable[..., Any], *arguments: Any) -> Any:      # type: ignore[override]
        await self.step()
        found = call(*arguments)
        await self.step()
        return found

    async def _sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)

    async def step(self) -> None:
        if self.dead:
            raise _Died
        try:
            await self._step()
        except _Died:
            self.dead = True
            raise


class Relays(Client):
    """The application, and its two relays: each that has died is started again."""

    def __init__(self, world: World) -> None:
        super().__init__(world, rng=random.Random(f"{world.seed} relays"))
        self._engine = sa.create_engine("sqlite://", poolclass=sa.pool.StaticPool)
        self._table = table_in(sa.MetaData())
        self._table.metadata.create_all(self._engine)
        self._number = 0

    async def run(self) -> None:
        clock = self.world.clock
        with ExitStack() as stack:
            stack.enter_context(patch.object(checks, "now_s", clock.wall))
            stack.enter_context(patch.object(relay, "_clock", clock.monotonic))
            stack.enter_context(patch.object(outboxes, "TTL_S", TURN_S))
            relays = [asyncio.create_task(self._keep_running(), name="relay") for _ in range(2)]
            try:
                for _ in range(TRANSACTIONS):
                    await asyncio.sleep(self.rng.uniform(0.0, 2 * self.world.plan.trouble_s / TRANSACTIONS))
                    self._write()
                await self.world.until(lambda: not self._left(), MOVED_IN_S + 60.0, "O2: all rows are moved")
            finally:
                for task in relays:
                    task.cancel()
                await asyncio.gather(*relays, return_exceptions=True)
                self._engine.dispose()

    # -- the application ---------------------------------------------------------------------------------------------

    def _write(self) -> None:
        rng, world = self.rng, self.world
        keep = rng.random() >= ROLLED_BACK
        with self._engine.connect() as connection:
            for _ in range(rng.choice((1, 2, 5))):
                bundle, queue, task = bundle_id(self.session, self._number), rng.choice(QUEUES), "m:async"
                self._number += 1
                job = msgspec.msgpack.encode(Packed(task, queue, b"x", mode=TASKS[task].mode))
                row = NewRow(bundle, task, queue, job, "", int(world.clock.wall() * 1000))
                connection.execute(sa.insert(self._table).values(row._asdict()))
                world.rows.append(Written(bundle, queue, keep))
            if keep:
                connection.commit()
            else:
                connection.rollback()

    def _left(self) -> int:
        with self._engine.connect() as connection:
            return connection.scalar(sa.select(sa.func.count()).select_from(self._table)) or 0

    # -- the relays --------------------------------------------------------------------------------------------------

    async def _keep_running(self) -> None:
        while True:
            self._number += 1
            one = _Relay(SqlRows(self._engine, self._table), f"relay-{self._number}", self._step)
            with suppress(_Died):
                await self._live(one)
            self.world.note("a relay died")
            await asyncio.sleep(self.rng.uniform(0.1, 1.0))

    async def _live(self, one: _Relay) -> None:
        """As `Relay.arun`, for as long as it lives."""
        engine: Any = _Engine(self, one)
        while True:
            try:
                rows = await one._go(engine)
                await asyncio.sleep(0.0 if rows else 0.2)
            except (RotaError, sa.exc.OperationalError):
                await asyncio.sleep(0.2)

    async def _step(self) -> None:
        rng, world = self.rng, self.world
        await asyncio.sleep(rng.uniform(0.0, STEP_S))
        if world.clock.monotonic() < world.plan.trouble_s:
            if rng.random() < DEATHS:
                raise _Died
            if rng.random() < BUSY:
                raise sa.exc.OperationalError("", {}, Exception("database is locked"))

    # -- what a relay asks of nodes ----------------------------------------------------------------------------------

    async def turn(self, asked: TurnAsked) -> OutboxTurn:
        request = asyncio.ensure_future(self._turn(self.world.any_process(self.rng), asked))
        answer = await self._answer(request)
        if answer is None:
            raise Unreachable("no answer")
        turn: OutboxTurn = answer
        return turn

    @staticmethod
    async def _turn(process: Process, asked: TurnAsked) -> OutboxTurn:
        return await process.node.outboxes.turn(NAME, asked)

    async def send(self, bundles: Sequence[Enqueue]) -> list[Receipt | RotaError]:
        """Again and again, to any node, until the answer is definite or time is over."""
        world = self.world
        for bundle in bundles:
            world.invoked[bundle.bundle] = {job_name(bundle.bundle, 0)}
            world.orders.setdefault(bundle.bundle, Order(
                task=bundle.task, queue=bundle.queue, level=bundle.level, delay_s=0.0, count=1
            ))
        give_up = world.clock.monotonic() + ASK_S
        while (now := world.clock.monotonic()) < give_up:
            process = world.any_process(self.rng)
            for bundle in bundles:
                world.orders[bundle.bundle].asked.setdefault(process.name, now)
            answers = await self._answer(asyncio.ensure_future(process.node.enqueue(list(bundles), self.seen)))
            if answers is not None:
                self._note(process, bundles, answers)
                return list(answers)
            await asyncio.sleep(self.rng.uniform(0.01, 0.3))
        return [EnqueueUnknown("no answer")] * len(bundles)

    def _note(self, process: Process, bundles: Sequence[Enqueue], answers: Iterable[object]) -> None:
        world = self.world
        for bundle, answer in zip(bundles, answers, strict=True):
            order = world.orders[bundle.bundle]
            if isinstance(answer, Receipt):
                order.taken[process.name] = world.clock.monotonic()
                world.acknowledged[bundle.bundle] = answer.revision
                self.seen = max(self.seen, answer.revision)
            elif isinstance(answer, Overloaded):
                order.overloads[process.name] = order.overloads.get(process.name, 0) + 1

    async def _answer(self, request: asyncio.Future[Any]) -> Any:
        """None: there was none in time (what was asked goes on in the node), or it was no definite one."""
        self.world.left_behind.append(request)
        await asyncio.wait([request], timeout=self.rng.choice((0.2, 1.0, 3.0)))
        if not request.done() or request.cancelled():
            return None
        error = request.exception()
        if error is not None and not isinstance(error, RotaError):
            raise error
        return request.result() if error is None else None


class _Engine:
    """What a relay asks of the engine of its client."""

    def __init__(self, relays: Relays, one: _Relay) -> None:
        self._relays = relays
        self._one = one
        self.transport = SimpleNamespace(post=self._post)

    def patience(self, route: Route | None = None) -> None:
        return None

    async def seal(self, patience: None) -> Seal:
        return Seal(UNSIGNED, CLUSTER)

    async def prepare(self, route: Route, code: bytes, patience: None) -> Route:
        return route

    async def send(self, bundles: Sequence[Enqueue], patience: None) -> list[Receipt | RotaError]:
        await self._one.step()
        answers = await self._relays.send(bundles)
        await self._one.step()
        return answers

    async def _post(self, path: str, request: dict[str, Any], answer: type[OutboxTurn]) -> OutboxTurn:
        return await self._relays.turn(msgspec.convert(request, TurnAsked))


def check(rows: Sequence[Written], journal: Iterable[Entry], keys: Keys, *, in_order: bool) -> list[str]:
    """O1 and O3. A job is stored when its receipt is."""
    stored: dict[str, list[int]] = {}
    bundles = {keys.receipt(row.bundle): row.bundle for row in rows}
    for entry in journal:
        for change in entry.changes:
            bundle = bundles.get(change.event.record.key)
            if bundle is not None and not change.event.deleted and change.previous is None:
                stored.setdefault(bundle, []).append(entry.revision)
    said = []
    for row in rows:
        times = len(stored.get(row.bundle, ()))
        if times != row.committed:
            said.append(f"O1 row {row.bundle} was {'committed' if row.committed else 'rolled back'}: {times} jobs")
    last: dict[str, tuple[int, str]] = {}
    for row in rows if in_order else ():
        at = stored.get(row.bundle, [0])[0], row.bundle
        if row.committed and at < last.get(row.queue, at):
            said.append(f"O3 row {row.bundle} became a job before {last[row.queue][1]}, which was written before it")
        last[row.queue] = max(at, last.get(row.queue, at)) if row.committed else last.get(row.queue, (0, ""))
    return said
