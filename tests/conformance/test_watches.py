"""Watches: every revision once, in order, whole."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from rota.client.errors import Compacted, LedgerUnavailable, StoreRewound, TransactionInvalid
from rota.cluster.ledger.ledger import Changes, Delete, Event, Ledger, Put, Record, Txn, Watch, prefix_end

from .backends import OpenLedger

PATIENCE_S = 20


async def until(watch: Watch, revision: int) -> list[Changes]:
    """What a watch delivers up to a revision."""
    seen: list[Changes] = []
    async with asyncio.timeout(PATIENCE_S):
        async for changes in watch:
            seen.append(changes)
            if changes.revision >= revision:
                break
    return seen


def events(seen: list[Changes]) -> list[Event]:
    return [event for changes in seen for event in changes.events]


async def write(ledger: Ledger, *keys: bytes, value: bytes = b"v") -> int:
    return (await ledger.commit(Txn((), tuple(Put(key, value) for key in keys)))).revision


async def test_history_first_then_what_comes(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger:
        first = await write(ledger, prefix + b"a")
        second = await write(ledger, prefix + b"b")
        async with ledger.watch(prefix, prefix_end(prefix), from_revision=first) as watch:
            assert [e.record.key for e in events(await until(watch, second))] == [prefix + b"a", prefix + b"b"]
            third = await write(ledger, prefix + b"c")
            assert [e.record.mod_revision for e in events(await until(watch, third))] == [third]


async def test_of_deletes_only(open_ledger: OpenLedger, prefix: bytes) -> None:
    """Those of the history and those that come; it tells how far it has seen all the same."""
    key = prefix + b"k"
    async with open_ledger() as ledger:
        first = await write(ledger, key, prefix + b"other")
        gone = (await ledger.commit(Txn((), (Delete(key),)))).revision
        async with ledger.watch(prefix, prefix_end(prefix), from_revision=first, deletes_only=True) as watch:
            assert events(await until(watch, gone)) == [Event(True, Record(key, b"", 0, gone, 0))]
            await write(ledger, key)
            again = (await ledger.commit(Txn((), (Delete(key),)))).revision
            assert events(await until(watch, again)) == [Event(True, Record(key, b"", 0, again, 0))]


async def test_events_are_what_was_written(open_ledger: OpenLedger, prefix: bytes) -> None:
    key = prefix + b"k"
    async with open_ledger() as ledger:
        first = await write(ledger, key, value=b"1")
        second = await write(ledger, key, value=b"2")
        gone = (await ledger.commit(Txn((), (Delete(key),)))).revision
        async with ledger.watch(key, from_revision=first) as watch:
            assert events(await until(watch, gone)) == [
                Event(False, Record(key, b"1", first, first, 1)),
                Event(False, Record(key, b"2", first, second, 2)),
                Event(True, Record(key, b"", 0, gone, 0)),
            ]


async def test_the_order_within_a_revision_is_the_transactions(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger:
        await write(ledger, prefix + b"c", prefix + b"d")
        txn = Txn((), (Put(prefix + b"z", b""), Delete(prefix + b"c", prefix + b"e"), Put(prefix + b"a", b"")))
        revision = (await ledger.commit(txn)).revision
        async with ledger.watch(prefix, prefix_end(prefix), from_revision=revision) as watch:
            seen = events(await until(watch, revision))
        assert [(e.record.key.removeprefix(prefix), e.deleted) for e in seen] == [
            (b"z", False), (b"c", True), (b"d", True), (b"a", False)
        ]


async def test_only_the_range(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger:
        first = await write(ledger, prefix + b"a", prefix + b"b", prefix + b"c", prefix + b"d")
        await write(ledger, prefix + b"a")
        last = await write(ledger, prefix + b"b", prefix + b"d")
        async with ledger.watch(prefix + b"b", prefix + b"d", from_revision=first) as watch:
            seen = events(await until(watch, last))
        assert [(e.record.key.removeprefix(prefix), e.record.mod_revision) for e in seen] == [
            (b"b", first), (b"c", first), (b"b", last)
        ]


async def test_a_long_backlog_comes_whole_and_in_order(open_ledger: OpenLedger, prefix: bytes) -> None:
    """More revisions than etcd puts into one message, and more bytes than gRPC's default limit."""
    value = b"x" * 40_000
    async with open_ledger() as ledger:
        first = (await ledger.read(prefix)).revision + 1
        revisions = await asyncio.gather(
            *(write(ledger, *(prefix + b"%04d-%d" % (i, j) for j in range(3))) for i in range(1100)),
            *(write(ledger, prefix + b"large-%d" % i, value=value) for i in range(150)),
        )
        async with ledger.watch(prefix, prefix_end(prefix), from_revision=first) as watch:
            seen = await until(watch, max(revisions))
    reached = first - 1
    for changes in seen:
        inside = [event.record.mod_revision for event in changes.events]
        assert inside == sorted(inside)
        assert all(reached < revision <= changes.revision for revision in inside), "a revision was spread"
        reached = max(reached, changes.revision)
    assert len(events(seen)) == 3 * 1100 + 150
    assert sorted({event.record.mod_revision for event in events(seen)}) == sorted(revisions)


async def test_progress_without_events(open_ledger: OpenLedger, prefix: bytes) -> None:
    """A quiet watch still tells that it has seen everything."""
    async with open_ledger() as ledger:
        first = (await ledger.read(prefix)).revision
        async with ledger.watch(prefix, prefix_end(prefix), from_revision=first + 1) as watch:
            elsewhere = await write(ledger, b"/elsewhere" + prefix)
            seen = await until(watch, elsewhere)
            assert events(seen) == []
            mine = await write(ledger, prefix + b"a")
            assert [e.record.mod_revision for e in events(await until(watch, mine))] == [mine]


async def test_cancelling_a_wait_loses_nothing(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger:
        first = (await ledger.read(prefix)).revision + 1
        async with ledger.watch(prefix, prefix_end(prefix), from_revision=first) as watch:
            iterator = aiter(watch)
            seen: list[Changes] = [Changes(0, ())]
            last = 0
            for i in range(20):
                waiting = asyncio.ensure_future(anext(iterator))
                await asyncio.sleep(0.002)
                last = await write(ledger, prefix + b"%d" % i)
                waiting.cancel()
                with suppress(asyncio.CancelledError):
                    seen.append(await waiting)
            if seen[-1].revision < last:
                seen += await until(watch, last)
        assert [event.record.key for event in events(seen)] == [prefix + b"%d" % i for i in range(20)]


async def test_from_before_a_compaction(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger:
        first = await write(ledger, prefix + b"a")
        await write(ledger, prefix + b"a")
        third = await write(ledger, prefix + b"a")
        await ledger.compact(third)
        last = await write(ledger, prefix + b"a")
        async with ledger.watch(prefix, prefix_end(prefix), from_revision=first) as watch:
            with pytest.raises(Compacted):
                await until(watch, last)
        async with ledger.watch(prefix, prefix_end(prefix), from_revision=third) as watch:
            assert [e.record.mod_revision for e in events(await until(watch, last))] == [third, last]


async def test_an_open_watch_outlives_a_compaction(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger:
        first = await write(ledger, prefix + b"a")
        async with ledger.watch(prefix, prefix_end(prefix), from_revision=first) as watch:
            await until(watch, first)
            second = await write(ledger, prefix + b"b")
            await until(watch, second)
            await ledger.compact(second)
            third = await write(ledger, prefix + b"c")
            assert [e.record.key for e in events(await until(watch, third))] == [prefix + b"c"]


async def test_many_watches(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger, open_ledger() as other:
        first = (await ledger.read(prefix)).revision + 1

        async def follow(source: Ledger, name: bytes) -> list[int]:
            async with source.watch(prefix + name, from_revision=first) as watch:
                return [event.record.mod_revision for event in events(await until(watch, last))]

        revisions = [await write(ledger, prefix + b"a", prefix + b"b") for _ in range(10)]
        last = revisions[-1]
        found = await asyncio.gather(*(follow(source, name) for source in (ledger, other) for name in (b"a", b"b")))
        assert found == [revisions] * 4


async def test_a_watch_that_is_closed(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger:
        first = await write(ledger, prefix + b"a")
        async with ledger.watch(prefix, prefix_end(prefix), from_revision=first + 1) as watch:
            waiting = asyncio.ensure_future(anext(aiter(watch)))
            await asyncio.sleep(0)
        with pytest.raises(LedgerUnavailable):
            await waiting
        with pytest.raises(LedgerUnavailable):
            await anext(aiter(watch))


async def test_where_a_watch_cannot_start(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger:
        with pytest.raises(TransactionInvalid):
            ledger.watch(prefix, from_revision=0)
        with pytest.raises(TransactionInvalid):
            ledger.watch(prefix + b"b", prefix + b"a", from_revision=1)
        revision = (await ledger.read(prefix)).revision
        async with ledger.watch(prefix, from_revision=revision + 1_000_000) as watch:
            for _ in range(2):
                with pytest.raises(StoreRewound):
                    await anext(aiter(watch))
