"""Schedules are fired once a tick, whoever tries it: the duty alone, in memory, on a clock that is set by hand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from msgspec.structs import replace

from rota.client.ids import template_id, tick_id
from rota.client.model import Header
from rota.client.options.timetable import Timetable, timetable
from rota.client.wire.codec import encode_body
from rota.client.wire.keyring import Keyring, Seal
from rota.cluster.events.hub import Events
from rota.cluster.events.records import ClusterEvent, ScheduleRefused, ScheduleSkipped
from rota.cluster.ledger.commits import Commits
from rota.cluster.ledger.ledger import Changes, Delete, Event, Put, Txn, prefix_end
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.master.duties import schedules as duty
from rota.cluster.master.duties.schedules import BATCH, Schedules
from rota.cluster.state.keys import Keys
from rota.cluster.state.records import QueueRecord, Token, decode, encode
from rota.cluster.state.schedules import PENDING_MAX, ScheduleRecord, schedule_in

from ..terms import term

KEYS = Keys("t")
SEAL = Seal(Keyring({"k": b"x" * 32}), "t")
MINUTE_MS = 60_000


class Hand:
    """A clock that is set by hand."""

    def __init__(self) -> None:
        self.now_ms = 1_000 * MINUTE_MS

    def wall(self) -> float:
        return self.now_ms / 1000

    def monotonic(self) -> float:
        return self.now_ms / 1000


class Stage:
    """A store, a clock, and masters that come and go."""

    def __init__(self) -> None:
        self.ledger, self.clock, self.events = MemoryLedger(), Hand(), Events()
        self.heard: list[ClusterEvent] = []
        self.events.listen(self.heard.append, (ScheduleRefused, ScheduleSkipped))

    async def put(self, name: str = "nightly", table: Timetable | None = None, **more: Any) -> ScheduleRecord:
        now = self.clock.now_ms
        record = ScheduleRecord("m:f", "q", "sync", table or timetable(every=60, start_ms=now), now, now, **more)
        header = Header(template_id(name), "m:f", "q", "sync", [0], [1], 0.0)
        template = SEAL.body(header, [b"a"])
        puts = (Put(KEYS.schedule(name), encode(record)), Put(KEYS.template(name), template))
        await self.ledger.commit(Txn((), puts))
        return record

    @asynccontextmanager
    async def master(self) -> AsyncIterator[Schedules]:
        async with Commits(self.ledger) as commits:
            schedules = Schedules(term(self.ledger, commits, KEYS, self.clock, seal=SEAL, events=self.events))
            await schedules.load()
            yield schedules

    async def pass_minutes(self, count: int, schedules: Schedules) -> None:
        """Minute by minute, as a master that is awake does; it sees what the watch would show."""
        for _ in range(count):
            self.clock.now_ms = (self.clock.now_ms // MINUTE_MS + 1) * MINUTE_MS
            await self.look(schedules)

    async def look(self, schedules: Schedules) -> None:
        for _ in range(3):          # once more after each write, whose verdict says no more than that
            await self.show(schedules)
            await schedules.fire_due()
            self.clock.now_ms += 300

    async def show(self, schedules: Schedules) -> None:
        page = await self.ledger.read(KEYS.schedules, prefix_end(KEYS.schedules))
        schedules.see(Changes(page.revision, tuple(Event(False, record) for record in page.records)))

    async def waiting(self) -> list[str]:
        page = await self.ledger.read(KEYS.jobs, prefix_end(KEYS.jobs))
        assert all(decode(Token, record.value) is not None for record in page.records)
        return sorted(record.key.rpartition(b"/")[2].decode() for record in page.records)

    async def end(self, bundle: str) -> None:
        page = await self.ledger.read(KEYS.jobs, prefix_end(KEYS.jobs))
        key = next(record.key for record in page.records if record.key.endswith(bundle.encode()))
        await self.ledger.commit(Txn((), (Delete(key), Delete(KEYS.body(bundle)))))

    async def record(self, name: str = "nightly") -> ScheduleRecord:
        found = schedule_in((await self.ledger.read(KEYS.schedule(name))).records[0].value)
        assert found is not None
        return found


def names(record: ScheduleRecord, *numbers: int, name: str = "nightly") -> list[str]:
    """The bundles of ticks, by number."""
    return sorted(tick_id(name, record.created, record.created + number * MINUTE_MS) for number in numbers)


async def test_each_tick_is_one_job_with_the_template_s_arguments() -> None:
    stage = Stage()
    record = await stage.put()
    async with stage.master() as master:
        await stage.pass_minutes(3, master)
    assert await stage.waiting() == names(record, 1, 2, 3)
    after = await stage.record()
    assert (after.fired, after.last_tick) == (3, record.created + 3 * MINUTE_MS)
    body = (await stage.ledger.read(KEYS.body(after.last))).records[0].value
    header, payloads = SEAL.keyring.verify(body, "t")
    assert (header.bundle, header.task, payloads) == (after.last, "m:f", [b"a"])


async def test_two_masters_at_once_and_one_after_the_other_fire_it_once() -> None:
    stage = Stage()
    record = await stage.put()
    async with stage.master() as first, stage.master() as second:
        stage.clock.now_ms += MINUTE_MS
        await first.fire_due()
        await second.fire_due()         # it has not seen what the first one wrote
        await stage.look(second)
    async with stage.master() as third:
        await stage.look(third)
        await stage.pass_minutes(1, third)
    assert await stage.waiting() == names(record, 1, 2)
    assert (await stage.record()).fired == 2


async def test_many_that_are_due_at_once_are_fired_abreast_and_each_once() -> None:
    """A batch waited for the one before it: a thousand at a second took as many round trips as there are batches."""
    stage, count = Stage(), 2 * BATCH + 5
    for number in range(count):
        await stage.put(f"s{number}")
    await stage.ledger.commit(Txn((), (Put(KEYS.queue("q"), encode(QueueRecord(serial=True))),)))
    async with stage.master() as first, stage.master() as second:
        stage.clock.now_ms += MINUTE_MS
        await asyncio.gather(first.fire_due(), second.fire_due())
        for _ in range(count):          # their queue is serial: one of them at a time moves its tail
            await stage.show(first)
            await first.fire_due()
    assert len(set(await stage.waiting())) == count
    keys = [record.key for record in (await stage.ledger.read(KEYS.jobs, prefix_end(KEYS.jobs))).records]
    assert len(keys) == count and len({key.split(b"/")[-2] for key in keys}) == count, "each has a place of its own"


async def test_one_that_is_deleted_while_those_before_it_are_fired(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(duty, "ABREAST", 1)
    stage = Stage()
    for number in range(BATCH + 1):
        await stage.put(f"s{number}")
    async with stage.master() as master:
        stage.clock.now_ms += MINUTE_MS
        fire = master._fire

        async def fired(names: list[str], now_ms: int, serial: set[str]) -> None:
            await fire(names, now_ms, serial)
            for name in list(master._known.keys() - set(names)):     # as the watch shows that it is gone
                del master._known[name]

        monkeypatch.setattr(master, "_fire", fired)
        await master.fire_due()
    assert len(await stage.waiting()) == BATCH


async def test_what_nobody_fired_is_made_up_for_as_asked() -> None:
    stage = Stage()
    records = {name: await stage.put(name, catch_up=name) for name in ("latest", "all", "none")}
    stage.clock.now_ms += 25 * MINUTE_MS - 10_000
    async with stage.master() as master:
        for _ in range(4):
            await stage.look(master)
    found = await stage.waiting()
    assert [name for name in found if name in names(records["latest"], *range(1, 26), name="latest")] == names(
        records["latest"], 24, name="latest"
    )
    assert set(names(records["all"], *range(1, 25), name="all")) <= set(found)
    assert not set(found) & set(names(records["none"], *range(1, 24), name="none"))


async def test_a_wall_clock_that_is_set_back_fires_nothing_twice() -> None:
    stage = Stage()
    record = await stage.put()
    async with stage.master() as master:
        await stage.pass_minutes(5, master)
    stage.clock.now_ms -= 4 * MINUTE_MS
    async with stage.master() as master:
        await stage.pass_minutes(2, master)
        assert await stage.waiting() == names(record, *range(1, 6))
        await stage.pass_minutes(3, master)
    assert await stage.waiting() == names(record, *range(1, 7))


async def test_a_tick_that_finds_the_job_before_is_skipped_where_asked() -> None:
    stage = Stage()
    record = await stage.put(overlap="skip")
    async with stage.master() as master:
        await stage.pass_minutes(3, master)
        assert await stage.waiting() == names(record, 1)
        await stage.end(*names(record, 1))
        await stage.pass_minutes(1, master)
    assert await stage.waiting() == names(record, 4)
    assert (await stage.record()).skipped == 2
    assert [event.ticks for event in stage.heard if isinstance(event, ScheduleSkipped)] == [1, 1]


async def test_ticks_wait_for_the_job_before_where_asked() -> None:
    stage = Stage()
    record = await stage.put(overlap="queue")
    async with stage.master() as master:
        await stage.pass_minutes(3, master)
        for number in (1, 2, 3):
            assert await stage.waiting() == names(record, number)
            await stage.end(*names(record, number))
            await stage.look(master)
        assert await stage.waiting() == [] and (await stage.record()).pending == ()
        await stage.pass_minutes(PENDING_MAX + 5, master)
    after = await stage.record()
    assert len(after.pending) == PENDING_MAX and after.skipped == 4


async def test_a_paused_schedule_fires_nothing() -> None:
    stage = Stage()
    await stage.put(paused=True)
    async with stage.master() as master:
        await stage.pass_minutes(3, master)
    assert await stage.waiting() == []


async def test_jitter_is_the_same_for_who_asks_again() -> None:
    stage = Stage()
    record = await stage.put(jitter_s=30.0)
    async with stage.master() as master:
        await stage.pass_minutes(1, master)
    page = await stage.ledger.read(KEYS.scheduled, prefix_end(KEYS.scheduled))
    (due,) = [KEYS.parse_due(found.key) for found in page.records]
    assert due is not None and due[2] in names(record, 1)
    assert 0 < due[0] - (record.created + MINUTE_MS) < 30_000


async def test_a_serial_queue_keeps_its_order() -> None:
    stage = Stage()
    await stage.ledger.commit(Txn((), (Put(KEYS.queue("q"), encode(QueueRecord(serial=True))),)))
    await stage.put("a", catch_up="all")
    await stage.put("b", catch_up="all")
    stage.clock.now_ms += 3 * MINUTE_MS
    async with stage.master() as master:
        for _ in range(4):
            await stage.look(master)
    page = await stage.ledger.read(KEYS.jobs, prefix_end(KEYS.jobs))
    orders = [job.order for record in page.records if (job := KEYS.parse_job(record.key)) is not None]
    assert len(orders) == len(set(orders)) == 6
    assert int((await stage.ledger.read(KEYS.tail("q"))).records[0].value) == max(orders)


async def test_a_template_of_something_else_is_refused_and_said_once() -> None:
    stage = Stage()
    await stage.put("a")
    await stage.put("b")
    other = (await stage.ledger.read(KEYS.template("b"))).records[0].value
    unsigned = encode_body(Header(template_id("b"), "m:f", "q", "sync", [0], [1], 0.0), [b"a"])
    await stage.ledger.commit(Txn((), (Put(KEYS.template("a"), other), Put(KEYS.template("b"), unsigned))))
    async with stage.master() as master:
        await stage.pass_minutes(3, master)
    assert await stage.waiting() == []
    assert sorted(event.schedule for event in stage.heard if isinstance(event, ScheduleRefused)) == ["a", "b"]


async def test_a_deleted_schedule_fires_nothing_more() -> None:
    stage = Stage()
    record = await stage.put()
    async with stage.master() as master:
        await stage.pass_minutes(1, master)
        gone = await stage.ledger.commit(Txn((), (Delete(KEYS.schedule("nightly")),)))
        found = (await stage.ledger.read(KEYS.jobs)).revision
        assert found == gone.revision
        stage.clock.now_ms += MINUTE_MS
        await master.fire_due()         # before the watch has shown it: the store refuses
    assert await stage.waiting() == names(record, 1)


async def test_garbage_among_the_schedules_is_left_alone() -> None:
    stage = Stage()
    record = await stage.put()
    never = replace(record, timetable=Timetable(cron="nonsense"))
    await stage.ledger.commit(Txn((), (
        Put(KEYS.schedule("x"), b"\xff"), Put(KEYS.schedule("y"), encode(never)), Put(KEYS.schedules + b"\xff/", b"{}"),
    )))
    async with stage.master() as master:
        await stage.pass_minutes(1, master)
    assert await stage.waiting() == names(record, 1)
