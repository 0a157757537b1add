"""The express lane, one thing at a time: a lone bundle begins with its enqueue, unless its transaction finds something
that stands before it, of which its node has not heard yet."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import pytest

from rota.client.ids import bundle_id, new_session
from rota.client.model import Receipt
from rota.cluster.ledger.ledger import Delete, Op, Put, Txn
from rota.cluster.state.records import QueueRecord, Token, encode

from .faults import Fate
from .plans import TASK_RECORDS
from .process import Process
from .test_one_trouble import BUNDLE, ONCE_EACH, order, play
from .world import World

FIRST, OTHER = (bundle_id(new_session(lambda count: bytes(range(9, count + 9))), number) for number in range(2))
BEFORE = Token("m:async", "q2", 0, 1, 2, "async", 0)
BODY = order("durable", bundle=OTHER).body

LENT_S = 0.3


def began_with_its_enqueue(world: World) -> bool:
    journal = world.store.journal
    assert journal is not None
    keys = world.keys
    for entry in journal:
        made = [change.event.record.key for change in entry.changes if not change.event.deleted]
        if keys.receipt(BUNDLE) in made:
            return any(key.startswith(keys.claims) and key.endswith(BUNDLE.encode()) for key in made)
    raise AssertionError("it was never stored")


async def warm(world: World, process: Process) -> None:
    """The master lends, and nodes have heard of it; there is a lease for receipts; and the node has nothing else."""
    await asyncio.sleep(LENT_S)
    await enqueue(process, FIRST)
    await world.until(world.is_empty, 10.0, "the first has ended")
    await asyncio.sleep(LENT_S)


async def enqueue(process: Process, bundle: str = BUNDLE) -> Receipt:
    (answer,) = await process.node.enqueue([order("durable", bundle=bundle)], 0)
    assert isinstance(answer, Receipt)
    return answer


def test_a_lone_bundle_begins_with_its_enqueue() -> None:
    async def deed(world: World, process: Process) -> None:
        await asyncio.sleep(LENT_S)
        await enqueue(process)
        assert began_with_its_enqueue(world)

    assert play(1, deed) == ONCE_EACH


def test_a_repeat_of_it_finds_the_receipt() -> None:
    async def deed(world: World, process: Process) -> None:
        await asyncio.sleep(LENT_S)
        process.ledger.next_fates.append(Fate.ANSWER_LOST)
        first, second = await enqueue(process), await enqueue(process)
        assert first == second and began_with_its_enqueue(world)

    assert play(1, deed) == ONCE_EACH


@pytest.mark.parametrize("when", ["before", "after"])
def test_a_node_that_dies_with_it_leaves_it_to_another(when: str) -> None:
    async def deed(world: World, first: Process, second: Process) -> None:
        await asyncio.sleep(LENT_S)
        for name in ONCE_EACH:
            world.script(name, 0.2)
        asked = asyncio.ensure_future(enqueue(first))
        while not (world.records(world.keys.claims) if when == "before" else world.runs):     # noqa: ASYNC110
            await asyncio.sleep(0.0001)
        assert began_with_its_enqueue(world)
        await first.die(guard=True)
        asked.cancel()
        await world.until(lambda: len(world.runs) >= 4, 10.0, "the other has run it")

    started = play(2, deed)
    assert set(started) == set(ONCE_EACH)


def _a_pause(world: World, node: str) -> list[Op]:
    return [Put(world.keys.queue("q2"), encode(QueueRecord(paused=True)))]


def _another_that_waits(world: World, node: str) -> list[Op]:
    place = world.keys.job("q2", 0, 1, OTHER)
    return [Put(place, encode(BEFORE)), Put(world.keys.body(OTHER), BODY), Put(world.keys.flag("q2"), b"")]


def _a_limit(world: World, node: str) -> list[Op]:
    limited = msgspec.structs.replace(TASK_RECORDS["m:async"], max_concurrency=2)
    return [Put(world.keys.task("m:async"), encode(limited))]


def _the_masters_word(world: World, node: str) -> list[Op]:
    return [Delete(world.keys.express)]


BEFORE_IT = [_a_pause, _another_that_waits, _a_limit, _the_masters_word]


@pytest.mark.parametrize("what", BEFORE_IT)
def test_what_its_node_has_not_heard_of_keeps_it_in_its_queue(what: Callable[[World, str], list[Op]]) -> None:
    """It is stored all the same, with the same receipt, and nobody who enqueues notices."""
    stands_before(what)


def stands_before(what: Callable[[World, str], list[Op]]) -> None:
    async def deed(world: World, process: Process) -> None:
        await warm(world, process)
        before = len(world.runs)
        world.store.commit(Txn((), tuple(what(world, process.node.node))))
        await enqueue(process)
        assert not began_with_its_enqueue(world)
        if what is _a_pause:
            await asyncio.sleep(0.5)
            assert len(world.runs) == before
            await process.node.set_queue("q2", {"paused": False})

    assert {job for job in play(1, deed) if job.startswith(BUNDLE)} == set(ONCE_EACH)
