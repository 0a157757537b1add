"""Where the master lends: not past what waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from rota.client.model import Rate
from rota.cluster.ledger.commits import created
from rota.cluster.ledger.ledger import Event, Put, Record, Txn
from rota.cluster.master.dispatch.picture import Picture
from rota.cluster.master.duties.lending import AGAIN_S, KEPT_S, LOOK_S, MANY, QUEUES_SEEN_MAX, Lending
from rota.cluster.master.election.authority import Authority
from rota.cluster.master.election.election import Deposed
from rota.cluster.state.express import QUEUES_MAX, ExpressRecord
from rota.cluster.state.records import Member, QueueRecord, TaskRecord, Token, decode, encode

from ...node.bench import KEYS, Bench, a_moment, play

LEASE = 7
FENCE = KEYS.candidate(LEASE)
OPEN, CLOSED = ExpressRecord(), ExpressRecord(closed=True)


class Stage:
    """A master, and a node that runs task m:f."""

    def __init__(self, bench: Bench, fence: int) -> None:
        self.bench = bench
        self.picture = Picture(KEYS)
        self.authority = Authority()
        self.lending = Lending(bench.term(created(FENCE, fence)), self.picture, self.authority)
        self.now = 100.0
        self._revision = 10
        self.see(KEYS.node("n"), encode(Member("", ["*"], {"m:f": "sync"}, {"sync": 1}, "3.11", "0", 0.0)))

    def see(self, key: bytes, value: bytes | None) -> None:
        self._revision += 1
        at = self._revision
        self.picture.apply([Event(value is None, Record(key, value or b"", at, at, 1, 3))], at, self.now)

    def wait(self, queue: str = "q", number: int = 0, task: str = "m:f") -> bytes:
        key = KEYS.job(queue, 0, number, f"b-{number}")
        self.see(key, encode(Token(task, queue, 0, number, 1, "sync", 0)))
        return key

    def look(self, after_s: float = LOOK_S) -> ExpressRecord:
        self.now += after_s
        return self.lending.word(self.now)

    async def said(self) -> ExpressRecord | None:
        return decode(ExpressRecord, (await self.bench.record(KEYS.express)).value)


def act(deed: Callable[[Stage], Awaitable[None]]) -> None:
    async def main(bench: Bench) -> None:
        fence = await bench.put((FENCE, b"n1"))
        await bench.ledger.grant(60, LEASE)
        await deed(Stage(bench, fence))

    play(main)


def test_what_is_on_its_way_does_not_wait() -> None:
    async def deed(stage: Stage) -> None:
        for number in range(5):
            key = stage.wait(number=number)
            assert stage.look() == OPEN
            stage.see(key, None)

    act(deed)


def test_while_jobs_wait_for_slots_nothing_goes_past_them_and_a_little_longer() -> None:
    async def deed(stage: Stage) -> None:
        key = stage.wait()
        assert [stage.look(), stage.look()] == [OPEN, CLOSED]
        stage.see(key, None)
        assert [stage.look(), stage.look(KEPT_S)] == [CLOSED, OPEN]

    act(deed)


def test_a_backlog_that_moves_waits_too() -> None:
    async def deed(stage: Stage) -> None:
        for number in range(MANY + 1):
            stage.wait(number=number)
        assert stage.look() == CLOSED

    act(deed)


@pytest.mark.parametrize("why", ["paused", "rate of its queue", "limit", "rate", "nobody has its code"])
def test_what_waits_for_something_else_keeps_its_own_queue_closed(why: str) -> None:
    async def deed(stage: Stage) -> None:
        if why == "paused":
            stage.see(KEYS.queue("q"), encode(QueueRecord(paused=True)))
        elif why == "rate of its queue":
            stage.see(KEYS.queue("q"), encode(QueueRecord(rate=Rate(1, 60.0))))
        elif why == "limit":
            stage.see(KEYS.task("m:f"), encode(TaskRecord("sync", max_concurrency=1)))
            stage.picture.limits.of_task["m:f"] = 1
        elif why == "rate":
            stage.see(KEYS.task("m:f"), encode(TaskRecord("sync", rate=Rate(1, 60.0))))
        stage.wait(task="m:other" if why == "nobody has its code" else "m:f")
        assert [stage.look(), stage.look()] == [OPEN, ExpressRecord(queues=("q",))]

    act(deed)


def test_of_many_queues_none_is_named() -> None:
    async def deed(stage: Stage) -> None:
        keys = [stage.wait(f"q{number}", task="m:other") for number in range(QUEUES_MAX)]
        assert stage.look() == OPEN and len(stage.look().queues) == QUEUES_MAX
        keys += [stage.wait(f"one-more{number}", task="m:other") for number in range(2)]
        assert stage.look() == CLOSED
        for key in keys:
            stage.see(key, None)
        assert stage.look(2 * KEPT_S) == OPEN
        for number in range(QUEUES_SEEN_MAX + 1):
            stage.picture.queue(f"other{number}")
        assert stage.look() == CLOSED

    act(deed)


def test_it_is_said_on_the_masters_lease_and_anew_where_somebody_has_written_over_it() -> None:
    async def deed(stage: Stage) -> None:
        await stage.bench.put((KEYS.express, b"of the term before"))
        running = asyncio.ensure_future(stage.lending.run())
        await a_moment(2 * LOOK_S)
        assert await stage.said() == OPEN and (await stage.bench.record(KEYS.express)).lease == LEASE
        at = (await stage.bench.record(KEYS.express)).mod_revision
        stage.wait()
        await a_moment(3 * LOOK_S)
        assert await stage.said() == CLOSED
        assert (await stage.bench.record(KEYS.express)).mod_revision > at
        await stage.bench.put((KEYS.express, b"nonsense"))
        await a_moment(AGAIN_S + 1)
        assert await stage.said() == CLOSED
        running.cancel()

    act(deed)


def test_who_is_succeeded_hears_of_it() -> None:
    async def deed(stage: Stage) -> None:
        await stage.bench.ledger.commit(Txn((), (Put(FENCE, b"n2"),)))
        await stage.bench.delete(FENCE)
        running = asyncio.ensure_future(stage.lending.run())
        with pytest.raises(Deposed):
            await stage.authority.lost()
        running.cancel()

    act(deed)
