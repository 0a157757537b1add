"""When the scheduler looks, and how far."""

from __future__ import annotations

import asyncio
import random

from rota.client.wire.keyring import UNSIGNED, Seal
from rota.cluster.clock import SystemClock
from rota.cluster.ledger.buckets import Buckets
from rota.cluster.ledger.commits import Commits
from rota.cluster.ledger.ledger import Changes, Delete, Event, Page, Put, Record, Txn, TxnResult, prefix_end
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.master.duties.due import LOOK_S_MAX
from rota.cluster.master.duties.ends import Ends
from rota.cluster.master.duties.scheduler import Scheduler
from rota.cluster.state.discarding import Discards
from rota.cluster.state.keys import Keys
from rota.cluster.state.quarantine import SetAside
from rota.cluster.state.records import Token, encode

from ..terms import term

KEYS = Keys("t")
HOUR_MS = 3_600_000


class Watched(MemoryLedger):
    """Remembers the ends of what was read."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[bytes] = []
        self.looked = asyncio.Event()

    async def read(self, key: bytes, range_end: bytes = b"", **how: object) -> Page:
        self.ends.append(range_end)
        self.looked.set()
        return await super().read(key, range_end, **how)  # type: ignore[arg-type]


def aside(ledger: MemoryLedger, clock: SystemClock) -> SetAside:
    return SetAside(ledger, KEYS, clock, Seal(UNSIGNED, "t"), Buckets(ledger, clock, random.Random()))


def discards(ledger: MemoryLedger, clock: SystemClock) -> Discards:
    return Discards(ledger, KEYS, Seal(UNSIGNED, "t"), Buckets(ledger, clock, random.Random()))


def scheduler_of(ledger: MemoryLedger, clock: SystemClock, commits: Commits, serial: str = "") -> Scheduler:
    ends = Ends(ledger, KEYS, commits, lambda queue: queue == serial)
    aside_, discards_ = aside(ledger, clock), discards(ledger, clock)
    return Scheduler(term(ledger, commits, KEYS, clock), aside_, discards_, ends)


async def test_it_reads_no_further_than_to_its_next_look() -> None:
    """etcd walks over every key of a range: with a million jobs of next week in it, each look would take long."""
    clock, ledger = SystemClock(), Watched()
    now_ms = int(clock.wall() * 1000)
    later = KEYS.due(now_ms + HOUR_MS, "q", "later")
    token = encode(Token("m:f", "q", 0, 1, 1, "async", 0))
    await ledger.commit(Txn((), (Put(KEYS.due(now_ms - 1, "q", "due"), token), Put(later, token))))
    async with Commits(ledger) as commits:
        scheduler = scheduler_of(ledger, clock, commits)
        await scheduler.move_due()
        limit = KEYS.due_before(int((clock.wall() + LOOK_S_MAX) * 1000))
        assert ledger.ends and max(ledger.ends) <= limit < later
        moved = await ledger.read(KEYS.jobs, prefix_end(KEYS.jobs), keys_only=True)
        assert [record.key.rpartition(b"/")[2] for record in moved.records] == [b"due"]


async def test_only_what_is_due_before_the_next_look_wakes_it() -> None:
    clock, ledger = SystemClock(), Watched()
    async with Commits(ledger) as commits:
        scheduler = scheduler_of(ledger, clock, commits)
        task = asyncio.create_task(scheduler.run())
        try:
            await ledger.looked.wait()
            await asyncio.sleep(0.1)
            ledger.looked.clear()
            for number in range(1_000):
                seen(scheduler, clock, HOUR_MS, number)
            await asyncio.sleep(0.1)
            assert not ledger.looked.is_set()
            seen(scheduler, clock, 50, 0)
            async with asyncio.timeout(LOOK_S_MAX - 1):
                await ledger.looked.wait()
        finally:
            task.cancel()
            await asyncio.wait([task])


async def test_what_is_due_and_comes_while_it_moves_others_is_moved_at_once() -> None:
    """Its delay was shorter than its commit: it is due already when the watch shows it."""
    clock, ledger = SystemClock(), LateArrival()
    async with Commits(ledger) as commits:
        scheduler = scheduler_of(ledger, clock, commits)
        ledger.scheduler = scheduler
        ledger.key = KEYS.due(int(clock.wall() * 1000) - 5, "q", "late")
        task = asyncio.create_task(scheduler.run())
        try:
            async with asyncio.timeout(LOOK_S_MAX - 1):
                while not (await ledger.read(KEYS.jobs, prefix_end(KEYS.jobs))).records:  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
        finally:
            task.cancel()
            await asyncio.wait([task])


async def test_in_a_serial_queue_what_is_due_is_its_new_end() -> None:
    """A node that had seen less of the store appended before it: when the job was tried again, it was not the head any
    more (seed 325, Q2)."""
    clock, ledger = SystemClock(), Meanwhile()
    due_ms, tail = int(clock.wall() * 1000) - 5, KEYS.tail("q")
    await ledger.commit(Txn((), (
        Put(tail, b"40"),
        *(Put(KEYS.due(due_ms, queue, name), encode(Token("m:f", queue, 0, 1, 1, "async", 0)))
          for queue, name in (("q", "b0"), ("q", "b1"), ("plain", "b2"))),
    )))
    ledger.tail = tail
    async with Commits(ledger) as commits:
        await scheduler_of(ledger, clock, commits, "q").move_due()
    assert (await ledger.read(tail)).records[0].value == b"52"          # behind what came meanwhile, each at its place
    moved = (await ledger.read(KEYS.jobs, prefix_end(KEYS.jobs), keys_only=True)).records
    names = {record.key.rpartition(b"/")[2]: KEYS.parse_job(record.key) for record in moved}
    assert {name: job.order for name, job in names.items() if job is not None and job.queue == "q"} == {
        b"b0": 51, b"b1": 52,
    }
    assert names[b"b2"] is not None and not (await ledger.read(KEYS.tail("plain"))).records


async def test_what_is_due_in_a_serial_queue_enters_it_together() -> None:
    """Each by itself it was a read and a commit for each, and what is due in other queues waited."""
    clock, ledger = SystemClock(), Counting()
    due_ms = int(clock.wall() * 1000) - 5
    names = [f"b{number:02d}" for number in range(30)]
    await ledger.commit(Txn((), tuple(
        Put(KEYS.due(due_ms, "q", name), encode(Token("m:f", "q", 0, 1, 1, "async", 0))) for name in names
    )))
    ledger.taken, ledger.commits = KEYS.due(due_ms, "q", "b03"), 0
    async with Commits(ledger) as commits:
        await scheduler_of(ledger, clock, commits, "q").move_due()
    moved = (await ledger.read(KEYS.jobs, prefix_end(KEYS.jobs), keys_only=True)).records
    places = [KEYS.parse_job(record.key) for record in moved]
    assert [place.bundle for place in places if place is not None] == [name for name in names if name != "b03"]
    assert ledger.commits == 1 + 20 + 1         # what one of twenty had been taken from, came one by one


class Counting(MemoryLedger):
    """One of the jobs is cancelled just after it was seen to be due."""

    taken = b""
    commits = 0

    async def commit(self, txn: Txn) -> TxnResult:
        self.commits += 1
        if self.taken:
            taken, self.taken = self.taken, b""
            await super().commit(Txn((), (Delete(taken),)))
        return await super().commit(txn)


class Meanwhile(MemoryLedger):
    """A node appends just after the tail was read."""

    tail = b""

    async def read(self, key: bytes, range_end: bytes = b"", **how: object) -> Page:
        page = await super().read(key, range_end, **how)  # type: ignore[arg-type]
        if self.tail and key == self.tail:
            self.tail = b""
            await self.commit(Txn((), (Put(key, b"50"),)))
        return page


class LateArrival(MemoryLedger):
    """A job is scheduled just after the first look at what is due, and the watch shows it at once."""

    scheduler: Scheduler
    key = b""

    async def read(self, key: bytes, range_end: bytes = b"", **how: object) -> Page:
        page = await super().read(key, range_end, **how)  # type: ignore[arg-type]
        if self.key and key == KEYS.scheduled:
            late, self.key = self.key, b""
            done = await self.commit(Txn((), (Put(late, encode(Token("m:f", "q", 0, 1, 1, "async", 0))),)))
            record = Record(late, b"", done.revision, done.revision, 1)
            self.scheduler.see(Changes(done.revision, (Event(False, record),)))
        return page


def seen(scheduler: Scheduler, clock: SystemClock, in_ms: int, number: int) -> None:
    """The watch shows that a job was scheduled."""
    key = KEYS.due(int(clock.wall() * 1000) + in_ms, "q", f"b{number}")
    scheduler.see(Changes(number + 1, (Event(False, Record(key, b"", number + 1, number + 1, 1)),)))
