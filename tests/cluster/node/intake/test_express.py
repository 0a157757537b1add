"""Which bundles a node tries to begin with their enqueue, by what it knows. (What its transaction sees:
`state/test_express.py`; the whole of it: `tests/simulation/test_express.py`.)"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from msgspec.structs import replace

from rota.client.model import Enqueue, Terms
from rota.cluster.ledger.ledger import Put, Txn
from rota.cluster.node.bodies.cache import BodyCache
from rota.cluster.node.intake.express import BEHIND_S, PAUSE_S, Express
from rota.cluster.node.membership.membership import Identity
from rota.cluster.node.membership.own_record import OwnRecord
from rota.cluster.state.directory import Directory
from rota.cluster.state.express import ExpressRecord
from rota.cluster.state.records import Claim, Member, QueueRecord, TaskRecord, encode

from ..bench import BUNDLE, KEYS, NODE, OTHER, Bench, a_moment, body, play, token

GOOD = Enqueue(BUNDLE, "m:f", "q", 2, "async", body())
BODY = (GOOD.body, None, [])
MEMBER = Member("", ["*"], {"m:f": "async"}, {"async": 2}, "3.11", "0", 0.0)


class Stage:
    """A node that has nothing else, in a cluster whose master lends."""

    def __init__(self, bench: Bench) -> None:
        self.bench = bench
        self.idle = True
        self.begun: list[tuple[str, int]] = []
        self.cache = BodyCache()
        self.directory = Directory(bench.ledger, KEYS)
        self.record = OwnRecord(bench.context, Identity(NODE, 0, 10, KEYS.node(NODE), 0), MEMBER)
        self.express = Express(
            bench.context, self.directory, self.record, self.cache, bench.context.buckets.of(120.0), self
        )

    def is_idle(self) -> bool:
        return self.idle

    def begin_stored(self, bundle: str, claim: Claim, revision: int) -> None:
        self.begun.append((bundle, revision))

    async def store(self, bundle: Enqueue = GOOD) -> bool | None:
        """Whether it was; None: it is not tried."""
        future = await self.express.store(lambda *_: token(bundle.count), bundle, BODY, 7)     # type: ignore[arg-type]
        return None if future is None else (await future).applied


def act(deed: Callable[[Stage], Awaitable[None]]) -> None:
    async def main(bench: Bench) -> None:
        stage = Stage(bench)
        following = asyncio.ensure_future(stage.directory.run())
        await bench.ledger.commit(Txn((), (
            Put(KEYS.task("m:f"), encode(TaskRecord("async"))), Put(KEYS.express, encode(ExpressRecord())),
        )))
        await a_moment()
        await deed(stage)
        following.cancel()

    play(main)


def test_it_begins_when_it_is_stored_and_not_before() -> None:
    async def deed(stage: Stage) -> None:
        future = await stage.express.store(lambda *_: token(), GOOD, BODY, 7)       # type: ignore[arg-type]
        assert future is not None and stage.begun == []
        assert await stage.express.store(lambda *_: token(), replace(GOOD, bundle=OTHER), BODY, 7) is None  # type: ignore[arg-type]
        verdict = await future
        assert verdict.applied and stage.begun == [(BUNDLE, verdict.revision)]
        claim = await stage.bench.record(KEYS.claim(NODE, BUNDLE))
        assert claim.create_revision == verdict.revision and await stage.bench.names(KEYS.jobs) == []

    act(deed)


@pytest.mark.parametrize("bundle", [
    replace(GOOD, level="delayed"), replace(GOOD, terms=Terms()), replace(GOOD, function="0" * 64),
    replace(GOOD, key="k"), replace(GOOD, delay_s=1.0), replace(GOOD, count=3), replace(GOOD, task="m:unknown"),
])
def test_only_what_is_plain_is_tried(bundle: Enqueue) -> None:
    async def deed(stage: Stage) -> None:
        assert stage.express.way(GOOD) is not None and stage.express.way(bundle) is None

    act(deed)


@pytest.mark.parametrize("key", [KEYS.queue("q"), KEYS.task("m:f"), KEYS.express])
def test_what_its_node_has_heard_of_keeps_it_from_trying(key: bytes) -> None:
    said = {
        KEYS.queue("q"): QueueRecord(max_waiting=9), KEYS.task("m:f"): TaskRecord("async", max_concurrency=9),
        KEYS.express: ExpressRecord(queues=("q",)),
    }

    async def deed(stage: Stage) -> None:
        for value in (encode(said[key]), b"nonsense"):
            await stage.bench.put((key, value))
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


def test_what_it_has_stored_in_the_queue_and_was_not_given_stands_before_it() -> None:
    async def deed(stage: Stage) -> None:
        stage.cache.put(OTHER, BODY)        # type: ignore[arg-type]
        stage.express.note_waiting(replace(GOOD, bundle=OTHER))
        assert stage.express.way(GOOD) is None
        stage.cache.take(OTHER)             # it has been given to this node
        assert stage.express.way(GOOD) is not None
        stage.cache.put(OTHER, BODY)        # type: ignore[arg-type]
        await a_moment(2 * BEHIND_S)        # or to another
        assert stage.express.way(GOOD) is not None

    act(deed)


def test_a_queue_where_something_stood_before_it_is_left_alone_for_a_while() -> None:
    async def deed(stage: Stage) -> None:
        waits = KEYS.job("q", 0, 7, OTHER)
        await stage.bench.put((waits, encode(token())))
        assert await stage.store() is False and stage.begun == [] and await stage.store() is None
        await a_moment(1.5 * PAUSE_S)
        assert await stage.store() is False
        await a_moment(1.5 * PAUSE_S)
        assert await stage.store() is None          # twice as long
        await stage.bench.delete(waits)
        await a_moment(PAUSE_S)
        assert await stage.store() is True

    act(deed)
