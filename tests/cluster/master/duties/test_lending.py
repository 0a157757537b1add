"""What the master lends, and which flags he takes down: nothing goes past what waits."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from rota.client.model import Rate
from rota.cluster.ledger.commits import created
from rota.cluster.ledger.ledger import Changes, Event, Put, Record, Txn
from rota.cluster.master.dispatch.picture import Picture
from rota.cluster.master.duties.flags import UP_S, UP_S_MAX
from rota.cluster.master.duties.lending import KEPT_S, MANY, QUEUES_SEEN_MAX, WAITS_S, Lending
from rota.cluster.master.election.authority import Authority
from rota.cluster.master.election.election import Deposed
from rota.cluster.state.express import ExpressRecord
from rota.cluster.state.records import Member, QueueRecord, TaskRecord, Token, decode, encode

from ...node.bench import KEYS, Bench, a_moment, play

LEASE = 7
FENCE = KEYS.candidate(LEASE)
MEMBER = Member("", ["*"], {"m:f": "sync"}, {"sync": 1}, "3.11", "0", 0.0, flags=True)
AGES = 10 * UP_S_MAX


class Stage:
    """A master, and a node that runs task m:f. What is put it sees at once."""

    def __init__(self, bench: Bench, fence: int) -> None:
        self.bench = bench
        self.picture = Picture(KEYS)
        self.authority = Authority()
        self.lending = Lending(bench.term(created(FENCE, fence)), self.picture, self.authority)

    async def put(self, key: bytes, record: object, lease: int = LEASE) -> int:
        value = record if isinstance(record, bytes) else encode(record)
        at = (await self.bench.ledger.commit(Txn((), (Put(key, value, lease),)))).revision
        self.see(Event(False, Record(key, value, at, at, 1, lease)), at)
        return at

    async def delete(self, key: bytes) -> None:
        at = await self.bench.delete(key)
        self.see(Event(True, Record(key, b"", 0, at, 0)), at)

    def see(self, event: Event, at: int) -> None:
        self.picture.apply([event], at, self.bench.clock.monotonic())
        self.lending.see(Changes(at, (event,)))

    async def wait(self, queue: str = "q", number: int = 0, task: str = "m:f") -> bytes:
        """A job waits there. Its queue has its flag."""
        key = KEYS.job(queue, 0, number, f"b-{number}")
        await self.put(KEYS.flag(queue), b"", 0)
        await self.put(key, Token(task, queue, 0, number, 1, "sync", 0), 0)
        return key

    async def is_open(self, after_s: float = 1.5 * WAITS_S) -> bool:
        await a_moment(after_s)
        page = await self.bench.ledger.read(KEYS.express)
        return bool(page.records) and decode(ExpressRecord, page.records[0].value) is not None

    async def flags(self, after_s: float = AGES) -> list[str]:
        await a_moment(after_s)
        return await self.bench.names(KEYS.nonempty)


def act(deed: Callable[[Stage], Awaitable[None]]) -> None:
    async def main(bench: Bench) -> None:
        fence = await bench.put((FENCE, b"n1"))
        await bench.ledger.grant(60_000, LEASE)
        stage = Stage(bench, fence)
        await stage.put(KEYS.node("n"), MEMBER)
        running = asyncio.ensure_future(stage.lending.run())
        await deed(stage)
        running.cancel()

    play(main)


# -- what is lent ------------------------------------------------------------------------------------------------------


def test_what_is_on_its_way_does_not_wait() -> None:
    async def deed(stage: Stage) -> None:
        assert await stage.is_open()
        at = (await stage.bench.record(KEYS.express)).mod_revision
        for number in range(5):
            key = await stage.wait(number=number)
            assert await stage.is_open(WAITS_S / 2)
            await stage.delete(key)
        record = await stage.bench.record(KEYS.express)
        assert (record.mod_revision, record.lease) == (at, LEASE)

    act(deed)


def test_while_jobs_wait_for_slots_nothing_goes_past_them_and_a_little_longer() -> None:
    async def deed(stage: Stage) -> None:
        key = await stage.wait()
        assert not await stage.is_open(3 * WAITS_S)
        await stage.delete(key)
        assert not await stage.is_open(KEPT_S / 2) and await stage.is_open(KEPT_S)

    act(deed)


def test_a_backlog_that_moves_waits_too() -> None:
    async def deed(stage: Stage) -> None:
        for number in range(MANY + 1):
            await stage.wait(number=number)
        assert not await stage.is_open()

    act(deed)


@pytest.mark.parametrize("why", ["paused", "rate of its queue", "limit", "rate", "nobody has its code"])
def test_what_waits_for_something_else_keeps_others_from_nothing(why: str) -> None:
    """But those of its own queue, whose flag is up."""
    async def deed(stage: Stage) -> None:
        if why == "paused":
            await stage.put(KEYS.queue("q"), QueueRecord(paused=True))
        elif why == "rate of its queue":
            await stage.put(KEYS.queue("q"), QueueRecord(rate=Rate(1, 60.0)))
        elif why == "limit":
            await stage.put(KEYS.task("m:f"), TaskRecord("sync", max_concurrency=1))
            stage.picture.limits.of_task["m:f"] = 1
        elif why == "rate":
            await stage.put(KEYS.task("m:f"), TaskRecord("sync", rate=Rate(1, 60.0)))
        await stage.wait(task="m:other" if why == "nobody has its code" else "m:f")
        assert await stage.is_open(4 * WAITS_S) and await stage.flags() == ["q"]

    act(deed)


def test_with_very_many_queues_nothing_is_lent() -> None:
    async def deed(stage: Stage) -> None:
        assert await stage.is_open()
        for number in range(QUEUES_SEEN_MAX + 1):
            stage.picture.queue(f"other{number}")
        await stage.wait("other0")
        assert not await stage.is_open(2 * KEPT_S)

    act(deed)


def test_nothing_is_lent_while_a_member_puts_no_flags() -> None:
    """It is of the release before; others may be, too, by then."""
    async def deed(stage: Stage) -> None:
        assert await stage.is_open()
        await stage.put(KEYS.node("old"), replace(MEMBER, flags=False))
        assert not await stage.is_open(0.001)
        await stage.delete(KEYS.node("old"))
        assert await stage.is_open()

    act(deed)


def test_what_a_node_of_the_release_before_has_left_gets_its_flag_before_anything_is_lent() -> None:
    async def deed(stage: Stage) -> None:
        await stage.put(KEYS.node("old"), replace(MEMBER, flags=False))
        assert not await stage.is_open()
        await stage.put(KEYS.task("m:f"), TaskRecord("sync", rate=Rate(1, 60.0)))
        await stage.put(KEYS.job("q", 0, 1, "b-1"), Token("m:f", "q", 0, 1, 1, "sync", 0), 0)
        await stage.delete(KEYS.node("old"))
        assert not await stage.is_open(0.001) or await stage.flags(0.0) == ["q"]
        assert await stage.flags(2 * KEPT_S) == ["q"]

    act(deed)


def test_it_is_said_anew_where_somebody_has_written_over_it() -> None:
    async def deed(stage: Stage) -> None:
        assert await stage.is_open()
        await stage.put(KEYS.express, b"nonsense")
        assert await stage.is_open()
        await stage.delete(KEYS.express)
        assert await stage.is_open()

    act(deed)


def test_the_word_of_the_term_before_is_this_terms_word_from_now_on() -> None:
    async def deed(stage: Stage) -> None:
        await stage.bench.put((KEYS.express, encode(ExpressRecord())))
        await stage.wait()
        assert await stage.is_open(WAITS_S) and (await stage.bench.record(KEYS.express)).lease == LEASE
        assert not await stage.is_open(3 * WAITS_S)

    act(deed)


def test_who_is_succeeded_hears_of_it() -> None:
    async def deed(stage: Stage) -> None:
        await stage.bench.put((FENCE, b"n2"))
        await stage.bench.delete(FENCE)
        with pytest.raises(Deposed):
            await stage.authority.lost()

    act(deed)


# -- flags -------------------------------------------------------------------------------------------------------------


def test_a_flag_goes_when_nothing_waits_there() -> None:
    async def deed(stage: Stage) -> None:
        key = await stage.wait()
        assert await stage.flags() == ["q"]
        await stage.delete(key)
        assert await stage.flags() == []

    act(deed)


def test_so_does_that_of_a_queue_of_which_nothing_is_known() -> None:
    async def deed(stage: Stage) -> None:
        await stage.bench.put((KEYS.flag("once"), b""), (KEYS.nonempty + b"not/ours", b""))
        await stage.lending.load((await stage.bench.record(KEYS.flag("once"))).mod_revision)
        await stage.put(KEYS.flag("other"), b"", 0)
        assert await stage.flags() == ["not/ours"]

    act(deed)


def test_what_is_being_given_out_waits_as_long_as_there_is_no_verdict() -> None:
    async def deed(stage: Stage) -> None:
        key = await stage.wait()
        item = stage.picture.queues["q"].windows[0].remove(key)
        assert item is not None
        stage.picture.deciding[key] = item
        assert await stage.flags() == ["q"]
        stage.picture.deciding.clear()
        assert await stage.flags() == []

    act(deed)


def test_a_queue_that_is_not_known_as_a_whole_may_hold_something() -> None:
    async def deed(stage: Stage) -> None:
        await stage.put(KEYS.flag("q"), b"", 0)
        stage.picture.expect_page("q", 0)
        assert await stage.flags() == ["q"]
        stage.picture.page("q", 0, [], more=False)
        stage.picture.queue("q").splitting = 1
        assert await stage.flags() == ["q"]
        stage.picture.queue("q").splitting = 0
        assert await stage.flags() == []

    act(deed)


def test_one_that_was_put_again_stays_though_the_master_has_not_seen_it() -> None:
    async def deed(stage: Stage) -> None:
        await stage.put(KEYS.flag("q"), b"", 0)
        await stage.bench.put((KEYS.flag("q"), b""), (KEYS.job("q", 0, 1, "b-1"), b"token"))
        assert await stage.flags() == ["q"]

    act(deed)


def test_of_those_that_there_were_it_learns_as_they_were_at_its_snapshot() -> None:
    """A later one would belong to a job that the picture does not show yet."""
    async def deed(stage: Stage) -> None:
        then = await stage.bench.put((KEYS.flag("q"), b""))
        await stage.bench.put((KEYS.flag("q"), b""), (KEYS.job("q", 0, 1, "b-1"), b"token"))
        await stage.lending.load(then)
        await stage.put(KEYS.node("other"), MEMBER)
        assert await stage.flags() == ["q"]

    act(deed)


def test_one_that_comes_back_at_once_stays_up_for_longer() -> None:
    async def deed(stage: Stage) -> None:
        async def up_s() -> float:
            began = stage.bench.clock.monotonic()
            await stage.put(KEYS.flag("q"), b"", 0)
            while await stage.flags(UP_S / 4):
                pass
            at = (await stage.bench.ledger.read(KEYS.flag("q"))).revision
            stage.see(Event(True, Record(KEYS.flag("q"), b"", 0, at, 0)), at)
            return stage.bench.clock.monotonic() - began

        times = [await up_s() for _ in range(10)]
        assert times[0] < 2 * WAITS_S < times[5] and times[-1] < 2 * UP_S_MAX
        await a_moment(AGES)
        assert await up_s() < 4 * UP_S

    act(deed)
