"""Whether there is room in a queue that takes so many waiting jobs only: by what one node knows, whatever others do."""

from __future__ import annotations

import msgspec
import pytest

from rota.client.errors import QueueFull
from rota.client.model import Enqueue, Terms, Upstream
from rota.cluster.clock import SystemClock
from rota.cluster.ledger.commits import Commits, Verdict
from rota.cluster.ledger.ledger import Delete, Put, Txn
from rota.cluster.ledger.memory import MemoryLedger
from rota.cluster.node.intake.bounds import COUNTED_S, Bounds
from rota.cluster.state import moves
from rota.cluster.state.records import QueueRecord, Token, encode

from ..bench import KEYS

ONE, THREE = QueueRecord(max_waiting=1), QueueRecord(max_waiting=3)


class Clock(SystemClock):
    now = 100.0

    def monotonic(self) -> float:
        return self.now


class Node:
    """One that takes jobs in; `made` names its bundles."""

    def __init__(self, ledger: MemoryLedger, commits: Commits, name: str, clock: Clock) -> None:
        self.bounds = Bounds(ledger, KEYS, clock)
        self._commits = commits
        self._name = name
        self._made = 0

    def bundle(self, count: int = 1) -> Enqueue:
        self._made += 1
        return Enqueue(f"{self._name}{self._made}", "m:f", "q", count, "sync", b"")

    async def write(self, bundle: Enqueue, bound: moves.Bound | None) -> Verdict:
        token = Token("m:f", "q", 0, self._made, bundle.count, "sync", 0)
        verdict = await self._commits.submit(
            moves.enqueue(KEYS, (), bundle.bundle, token, b"", "", 0, bound=bound)
        )
        if verdict.applied:
            self.bounds.took(bundle, verdict.revision)
        else:
            self.bounds.changed("q")
        return verdict

    async def enqueue(self, settings: QueueRecord, count: int = 1) -> bool:
        bundle = self.bundle(count)
        return (await self.write(bundle, await self.bounds.room(bundle, settings))).applied


async def test_of_two_nodes_one_takes_the_last_place() -> None:
    ledger = MemoryLedger()
    async with Commits(ledger) as commits:
        first, second = (Node(ledger, commits, name, Clock()) for name in "ab")
        one, other = first.bundle(), second.bundle()
        rooms = [await first.bounds.room(one, ONE), await second.bounds.room(other, ONE)]
        assert (await first.write(one, rooms[0])).applied
        verdict = await second.write(other, rooms[1])
        assert not verdict.applied and verdict.failed is not None and verdict.failed.key == KEYS.bound("q")
        with pytest.raises(QueueFull, match="1 jobs wait in queue q, which takes 1"):
            await second.bounds.room(other, ONE)


async def test_it_counts_anew_only_where_it_may_be_full() -> None:
    ledger, clock = MemoryLedger(), Clock()
    async with Commits(ledger) as commits:
        node = Node(ledger, commits, "a", clock)
        assert await node.enqueue(THREE, 2)
        with pytest.raises(QueueFull):
            await node.enqueue(THREE, 2)
        await ledger.commit(Txn((), (Delete(KEYS.job("q", 0, 1, "a1")),)))      # a node has been given it
        with pytest.raises(QueueFull):
            await node.enqueue(THREE, 2)                # it was counted a moment ago
        clock.now += 1.0
        assert await node.enqueue(THREE, 3)


async def test_what_comes_back_is_counted_in_time() -> None:
    ledger, clock = MemoryLedger(), Clock()
    async with Commits(ledger) as commits:
        node = Node(ledger, commits, "a", clock)
        assert await node.enqueue(THREE)
        back = Token("m:f", "q", 0, 50, 3, "sync", 0, attempt=2)
        await ledger.commit(Txn((), (Put(KEYS.job("q", 0, 50, "b"), encode(back)),)))
        assert await node.enqueue(THREE)                # it cannot know yet
        clock.now += COUNTED_S + 0.1
        with pytest.raises(QueueFull, match="5 jobs wait"):
            await node.enqueue(THREE)


async def test_of_an_old_count_and_what_others_did_since_nobody_is_refused_for_nothing() -> None:
    ledger, clock = MemoryLedger(), Clock()
    async with Commits(ledger) as commits:
        idle, busy = (Node(ledger, commits, name, clock) for name in "ab")
        assert await idle.enqueue(THREE)
        for number in range(5):
            clock.now += 1.0
            assert await busy.enqueue(THREE)
            await ledger.commit(Txn((), (Delete(KEYS.job("q", 0, number + 1, f"b{number + 1}")),)))
        assert not await idle.enqueue(THREE)            # it finds that others were there, looks again,
        assert await idle.enqueue(THREE)                # and is not refused


async def test_what_does_not_wait_at_once_needs_no_room() -> None:
    bounds = Bounds(MemoryLedger(), KEYS, Clock())
    bundle = Enqueue("a1", "m:f", "q", 60, "sync", b"")
    assert await bounds.room(bundle, QueueRecord()) is None
    assert await bounds.room(msgspec.structs.replace(bundle, delay_s=1.0), ONE) is None
    waits = Terms(after=(Upstream("b1", "1"),))
    assert await bounds.room(msgspec.structs.replace(bundle, terms=waits), ONE) is None
    assert await bounds.room(bundle, ONE) is not None           # larger than the bound: nothing waits


async def test_a_damaged_record_is_counted_anew() -> None:
    ledger, clock = MemoryLedger(), Clock()
    async with Commits(ledger) as commits:
        node = Node(ledger, commits, "a", clock)
        assert await node.enqueue(THREE)
        await ledger.commit(Txn((), (Put(KEYS.bound("q"), b"nonsense"),)))
        assert not await node.enqueue(THREE) and await node.enqueue(THREE) and await node.enqueue(THREE)
        with pytest.raises(QueueFull):
            await node.enqueue(THREE)


