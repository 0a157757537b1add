"""Schedules: a person who puts, changes, pauses and deletes them, and the judge of what becomes of their ticks.

    S22 each tick makes one job, in the write that moves its schedule on; none is left out but as the schedule says
    L12 a tick that is due is fired in time
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING

from rota.client.errors import RotaError
from rota.client.ids import template_id, tick_id
from rota.client.model import HEADER_SCHEMA, Header
from rota.client.wire.codec import encode_body
from rota.client.wire.keyring import UNSIGNED
from rota.client.wire.views import NewSchedule
from rota.cluster.admin.schedules import ScheduleAdmin
from rota.cluster.ledger.memory_store import Entry
from rota.cluster.state.keys import Keys
from rota.cluster.state.schedules import ScheduleRecord, schedule_in

from .history import Actor, Order
from .plans import CLUSTER, QUEUES, SERIAL, TASKS

if TYPE_CHECKING:
    from .world import World

MASTER = "the master"
"""Who asks for the job of a tick."""

FIRED_IN_S = 1.5
"""L12, when all is well again."""


class Timekeeper:
    """A person with schedules. `end`: they are looked at once more, and deleted."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.rng = random.Random(f"{world.seed} ticks")

    async def run(self) -> None:
        for deed in (self._put, self._put):
            await self._try(deed)
        while True:
            await asyncio.sleep(self.rng.uniform(0.3, 2.0))
            await self._try(self.rng.choices((self._put, self._pause, self._resume, self._delete), (4, 1, 2, 1))[0])

    async def end(self) -> None:
        world, prefix = self.world, self.world.keys.schedules
        await world.until(lambda: not list(self._late()), 5.0, "every tick that is due is fired")
        while records := world.records(prefix, 1):
            name = records[0].key[len(prefix):].decode()
            await self._try(lambda admin, name=name: admin.delete(name))  # type: ignore[misc]
            await asyncio.sleep(0.05)

    def _late(self) -> Iterator[str]:
        """L12: what should have been fired by now."""
        now_ms = int((self.world.clock.wall() - FIRED_IN_S) * 1000)
        for record in self.world.records(self.world.keys.schedules):
            schedule = schedule_in(record.value)
            if schedule is not None and not schedule.paused and schedule.timetable.due(schedule.tick, now_ms, "latest"):
                yield record.key.decode()

    async def _try(self, deed: Callable[[ScheduleAdmin], Awaitable[object]]) -> None:
        try:
            async with asyncio.timeout(3.0):
                await deed(self.world.any_node(self.rng).schedules)
        except (TimeoutError, RotaError):
            return

    async def _put(self, admin: ScheduleAdmin) -> None:
        """A new one, or other settings for one that is there."""
        rng, name = self.rng, self.rng.choice(("s0", "s1", "s2"))
        task, queue = rng.choice(("m:sync", "m:async", "m:once")), rng.choice((*QUEUES, SERIAL))
        header = Header(template_id(name), task, queue, TASKS[task].mode, [0], [1], 0.0, v=HEADER_SCHEMA)
        new = NewSchedule(
            template=encode_body(UNSIGNED.sign(header, [b"x"], CLUSTER), [b"x"]), every_s=rng.choice((1.0, 1.3, 3.0)),
            catch_up=rng.choice(("latest", "all", "all")), overlap=rng.choice(("allow", "skip", "queue")),
            jitter_s=rng.choice((0.0, 0.0, 1.0)),
        )
        self.world.note(f"schedule {name}: every {new.every_s} s, {new.catch_up}, {new.overlap}")
        await admin.put(name, new)

    async def _pause(self, admin: ScheduleAdmin) -> None:
        await admin.pause(self.rng.choice(("s0", "s1", "s2")))

    async def _resume(self, admin: ScheduleAdmin) -> None:
        await admin.resume(self.rng.choice(("s0", "s1", "s2")))

    async def _delete(self, admin: ScheduleAdmin) -> None:
        await admin.delete(self.rng.choice(("s0", "s1", "s2")))


class Ticks:
    """Judges one revision after the other. `orders`: what the jobs of ticks were asked to be."""

    def __init__(self, keys: Keys, say: Callable[[str, str], None]) -> None:
        self._keys = keys
        self._say = say
        self.orders: dict[str, Order] = {}

    def see(self, entry: Entry, actor: Actor) -> set[str]:
        """The bundles of ticks that have to appear with this revision."""
        put = {
            change.event.record.key.rpartition(b"/")[2].decode() for change in entry.changes
            if not change.event.deleted and change.event.record.key.startswith((self._keys.jobs, self._keys.scheduled))
        }
        fired: set[str] = set()
        for change in entry.changes:
            record = change.event.record
            if change.event.deleted or change.previous is None or not record.key.startswith(self._keys.schedules):
                continue
            before, after = schedule_in(change.previous.value), schedule_in(record.value)
            if before is None or after is None or before.created != after.created:
                continue
            name = record.key[len(self._keys.schedules):].decode()
            if actor.fence:
                fired |= self._advance(name, before, after, put, entry.at)
            elif (before.fired, before.skipped, before.last) != (after.fired, after.skipped, after.last):
                self._say("S22", f"schedule {name} was moved on, and not by a master")
        return fired

    def _advance(
        self, name: str, before: ScheduleRecord, after: ScheduleRecord, put: set[str], at: float
    ) -> set[str]:
        came = [tick for tick in _between(before, after.tick) if tick > before.tick]
        bundles = {tick: tick_id(name, before.created, tick) for tick in (*before.pending, *came)}
        fired = {tick for tick, bundle in bundles.items() if bundle in put}
        skipped, waits = after.skipped - before.skipped, set(after.pending)
        if after.tick < before.tick:
            self._say("S22", f"schedule {name} went back from tick {before.tick} to {after.tick}")
        if len(fired) != after.fired - before.fired:
            self._say("S22", f"schedule {name} says {after.fired - before.fired} ticks are fired, and {len(fired)} are")
        if before.catch_up == "all" and len(fired) + skipped + len(waits) != len(bundles):
            self._say("S22", f"schedule {name}: of {len(bundles)} ticks {len(fired)} were fired and {skipped} skipped, "
                             f"{len(waits)} wait")
        if came and not skipped and came[-1] not in fired | waits and before.overlap != "skip":
            self._say("S22", f"schedule {name}: tick {came[-1]} is neither fired, nor does it wait")
        for tick in fired:
            self.orders[bundles[tick]] = Order(task=before.task, queue=before.queue, asked={MASTER: at})
        return {bundles[tick] for tick in fired}


def _between(schedule: ScheduleRecord, until_ms: int) -> Iterator[int]:
    """Its ticks so far. (By arithmetic of our own.)"""
    step, number = round(schedule.timetable.every_s * 1000), 1
    while (tick := schedule.timetable.start_ms + number * step) <= until_ms:
        yield tick
        number += 1
