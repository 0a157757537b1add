"""Which bundles a node tries to begin with their enqueue, by what it knows. (What its transaction sees:
`state/test_express.py`; the whole of it: `tests/simulation/test_express.py`.)"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from rota.client.errors import LedgerUnavailable
from rota.client.model import Enqueue, Terms
from rota.cluster.ledger.commits import Verdict, Write, created
from rota.cluster.ledger.ledger import Put, Txn
from rota.cluster.node.bodies.cache import BodyCache
from rota.cluster.node.intake.express import PAUSE_S, Express
from rota.cluster.node.membership.membership import Identity
from rota.cluster.node.membership.own_record import OwnRecord
from rota.cluster.state.directory import Directory
from rota.cluster.state.express import ExpressRecord
from rota.cluster.state.records import Member, QueueRecord, TaskRecord, encode

from ..bench import BUNDLE, KEYS, NODE, OTHER, Bench, a_moment, body, play, token

GOOD = Enqueue(BUNDLE, "m:f", "q", 2, "async", body())
BODY = (GOOD.body, None, [])
MEMBER = Member("", ["*"], {"m:f": "async", "m:g": "async"}, {"async": 2}, "3.11", "0", 0.0)


class Stage:
    """A node that has nothing else, in a cluster whose master lends."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.idle = True
        self.expected: list[str] = []
        self.directory = Directory(bench.ledger, KEYS)
        self.record = OwnRecord(bench.context, Identity(NODE, 0, 10, KEYS.node(NODE), 0), MEMBER)
        self.express = Express(
            bench.context, self.directory, self.record, BodyCache(), bench.context.buckets.of(120.0), self
        )

    def is_idle(self) -> bool:
        return self.idle

    def expect(self, bundle: str) -> None:
        self.expected.append(bundle)

    def expect_no_more(self, bundle: str) -> None:
        self.expected.remove(bundle)

    async def store(self, bundle: Enqueue = GOOD) -> bool | None:
        """Whether it was; None: it is not tried."""
        future = await self.express.store(lambda *_: token(bundle.count), bundle, BODY, 7)     # type: ignore[arg-type]
        return None if future is None else (await future).applied

    async def waits(self, number: int = 7) -> None:
        """Another goes the ordinary way, through this node."""
        key = KEYS.job("q", 0, number, OTHER)
        future = self.bench.commits.submit(Write((created(key, 0),), (Put(key, encode(token())),)))
        self.express.note_waiting(replace(GOOD, bundle=OTHER), future)
        await future


def act(deed: Callable[[Stage], Awaitable[None]]) -> None:
    async def main(bench: Bench) -> None:
        stage = Stage(bench)
        following = [asyncio.ensure_future(part.run()) for part in (stage.directory, stage.express)]
        await bench.ledger.commit(Txn((), (
            Put(KEYS.task("m:f"), encode(TaskRecord("async"))), Put(KEYS.express, encode(ExpressRecord())),
        )))
        await a_moment()
        await deed(stage)
        for task in following:
            task.cancel()

    play(main)


def test_body_and_claim_are_stored_together_and_the_claim_is_expected() -> None:
    async def deed(stage: Stage) -> None:
        assert await stage.store() is True and stage.expected == [BUNDLE]
        claim, stored = await stage.bench.record(KEYS.claim(NODE, BUNDLE)), await stage.bench.record(KEYS.body(BUNDLE))
        assert claim.create_revision == stored.create_revision
        assert await stage.bench.names(KEYS.jobs) == await stage.bench.names(KEYS.nonempty) == []

    act(deed)


@pytest.mark.parametrize("bundle", [
    replace(GOOD, level="delayed"), replace(GOOD, terms=Terms()), replace(GOOD, function="0" * 64),
    replace(GOOD, key="k"), replace(GOOD, delay_s=1.0), replace(GOOD, count=3), replace(GOOD, task="m:unknown"),
])
def test_only_what_is_plain_is_tried(bundle: Enqueue) -> None:
    async def deed(stage: Stage) -> None:
        assert stage.express.way(GOOD) is not None and stage.express.way(bundle) is None

    act(deed)


@pytest.mark.parametrize(("key", "said"), [
    (KEYS.queue("q"), QueueRecord(max_waiting=9)), (KEYS.task("m:f"), TaskRecord("async", max_concurrency=9)),
])
def test_what_its_node_has_heard_of_keeps_it_from_trying(key: bytes, said: object) -> None:
    async def deed(stage: Stage) -> None:
        await stage.bench.put((key, encode(said)))
        await a_moment()
        assert stage.express.way(GOOD) is None

    act(deed)


def test_without_the_masters_word_nothing_is_tried() -> None:
    async def deed(stage: Stage) -> None:
        await stage.bench.put((KEYS.express, b"nonsense"))
        await a_moment()
        assert stage.express.way(GOOD) is None
        await stage.bench.put((KEYS.express, encode(ExpressRecord())))
        await a_moment()
        assert stage.express.way(GOOD) is not None
        await stage.bench.delete(KEYS.express)
        await a_moment()
        assert stage.express.way(GOOD) is None

    act(deed)


def test_a_node_that_has_something_else_or_leaves_does_not_try() -> None:
    async def deed(stage: Stage) -> None:
        stage.idle = False
        assert stage.express.way(GOOD) is None
        stage.idle, stage.record.member = True, replace(MEMBER, state="draining")
        assert stage.express.way(GOOD) is None
        stage.record.member = replace(MEMBER, queues=["other"])
        assert stage.express.way(GOOD) is None

    act(deed)


def test_where_it_has_put_the_flag_itself_it_waits_until_that_is_taken_down() -> None:
    async def deed(stage: Stage) -> None:
        await stage.waits()
        await a_moment(1000.0)
        assert stage.express.way(GOOD) is None and stage.express.way(replace(GOOD, queue="other")) is not None
        await stage.bench.delete(KEYS.job("q", 0, 7, OTHER), KEYS.flag("q"))
        await a_moment()
        assert await stage.store() is True

    act(deed)


def test_a_flag_that_was_taken_down_before_it_put_it_again_is_up() -> None:
    async def deed(stage: Stage) -> None:
        await stage.waits()
        await stage.bench.delete(KEYS.flag("q"))
        await stage.waits(8)
        await a_moment()
        assert stage.express.way(GOOD) is None

    act(deed)


def test_what_does_not_wait_in_its_queue_puts_no_flag() -> None:
    async def deed(stage: Stage) -> None:
        stored: asyncio.Future[Verdict] = asyncio.get_running_loop().create_future()
        stage.express.note_waiting(replace(GOOD, delay_s=1.0), stored)
        stage.express.note_waiting(replace(GOOD, terms=Terms(after=("a-0",))), stored)
        assert stage.express.way(GOOD) is not None
        stage.express.note_waiting(GOOD, stored)
        assert stage.express.way(GOOD) is None
        stored.set_exception(LedgerUnavailable("was not stored"))
        await a_moment()
        assert stage.express.way(GOOD) is not None

    act(deed)


def test_a_queue_where_something_stood_before_it_is_left_alone_for_a_while() -> None:
    async def deed(stage: Stage) -> None:
        await stage.bench.put((KEYS.flag("q"), b""))
        assert await stage.store() is False and stage.expected == [] and await stage.store() is None
        await a_moment(1.5 * PAUSE_S)
        assert await stage.store() is False
        await a_moment(1.5 * PAUSE_S)
        assert await stage.store() is None          # twice as long
        await stage.bench.delete(KEYS.flag("q"))
        await a_moment(PAUSE_S)
        assert await stage.store() is True

    act(deed)
