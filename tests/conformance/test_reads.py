"""Reads: ranges, pages at one revision, old revisions, compaction, status."""

from __future__ import annotations

import pytest

from rota.client.errors import Compacted, TransactionInvalid
from rota.cluster.ledger.ledger import Delete, Ledger, Page, Put, Record, Txn, prefix_end

from .backends import OpenLedger


async def put(ledger: Ledger, *keys: bytes, value: bytes = b"v") -> int:
    return (await ledger.commit(Txn((), tuple(Put(key, value) for key in keys)))).revision


def names(page: Page, prefix: bytes) -> list[bytes]:
    return [record.key.removeprefix(prefix) for record in page.records]


async def test_ranges(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger:
        revision = await put(ledger, *(prefix + name for name in (b"a", b"ab", b"b", b"\xff", b"\xff\xff")))
        everything = await ledger.read(prefix, prefix_end(prefix))
        assert names(everything, prefix) == [b"a", b"ab", b"b", b"\xff", b"\xff\xff"]
        assert everything.revision == revision
        assert not everything.more
        assert names(await ledger.read(prefix + b"a", prefix + b"b"), prefix) == [b"a", b"ab"]
        assert names(await ledger.read(prefix + b"a", prefix_end(prefix + b"a")), prefix) == [b"a", b"ab"]
        assert names(await ledger.read(prefix + b"\xff", prefix_end(prefix + b"\xff")), prefix)[:2] == [
            b"\xff", b"\xff\xff"
        ]
        assert names(await ledger.read(prefix + b"a", b"\0"), prefix)[:3] == [b"a", b"ab", b"b"]
        assert names(await ledger.read(prefix + b"b", prefix + b"a"), prefix) == []
        assert names(await ledger.read(prefix + b"b", prefix + b"b"), prefix) == []
        assert names(await ledger.read(prefix + b"x"), prefix) == []


async def test_limits_and_keys_only(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger:
        revision = await put(ledger, prefix + b"a", prefix + b"b", prefix + b"c")
        for limit, found, more in ((1, 1, True), (2, 2, True), (3, 3, False), (4, 3, False), (0, 3, False)):
            page = await ledger.read(prefix, prefix_end(prefix), limit=limit)
            assert (len(page.records), page.more, page.total) == (found, more, 3), limit
        await put(ledger, prefix + b"d")
        assert (await ledger.read(prefix, prefix_end(prefix), limit=1, revision=revision)).total == 3, "as it was"
        bare = await ledger.read(prefix, prefix + b"b", keys_only=True)
        assert bare.records == (Record(prefix + b"a", b"", revision, revision, 1),)


async def test_pages_at_one_revision(open_ledger: OpenLedger, prefix: bytes) -> None:
    keys = [prefix + b"%03d" % i for i in range(100)]
    async with open_ledger() as ledger:
        revision = await put(ledger, *keys)
        found: list[Record] = []
        start, more = prefix, True
        while more:
            page = await ledger.read(start, prefix_end(prefix), limit=17, revision=revision)
            assert page.revision == revision
            found += page.records
            start, more = page.records[-1].key + b"\0", page.more
            await put(ledger, keys[len(found) // 2], prefix + b"0500-new-%d" % len(found), value=b"later")
            await ledger.commit(Txn((), (Delete(keys[-len(found)]),)))
        assert found == [Record(key, b"v", revision, revision, 1) for key in keys]


async def test_old_revisions(open_ledger: OpenLedger, prefix: bytes) -> None:
    key = prefix + b"k"
    async with open_ledger() as ledger:
        before = (await ledger.read(key)).revision
        first = await put(ledger, key, value=b"1")
        second = await put(ledger, key, value=b"2")
        gone = (await ledger.commit(Txn((), (Delete(key),)))).revision
        third = await put(ledger, key, value=b"3")
        expected = {
            before: (), first: (Record(key, b"1", first, first, 1),), second: (Record(key, b"2", first, second, 2),),
            gone: (), third: (Record(key, b"3", third, third, 1),),
        }
        for revision, records in expected.items():
            if revision > 0:
                page = await ledger.read(key, revision=revision)
                assert (page.records, page.revision) == (records, revision)


async def test_only_what_was_changed_since(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger:
        await put(ledger, prefix + b"a", prefix + b"b", prefix + b"c")
        since = await put(ledger, prefix + b"b")
        await put(ledger, prefix + b"c")
        page = await ledger.read(prefix, prefix_end(prefix), min_mod_revision=since)
        assert names(page, prefix) == [b"b", b"c"]
        page = await ledger.read(prefix, prefix_end(prefix), min_mod_revision=since, limit=1)
        assert names(page, prefix) == [b"b"]
        assert page.more


async def test_serializable_reads(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger:
        revision = await put(ledger, prefix + b"a")
        page = await ledger.read(prefix, prefix_end(prefix), serializable=True, revision=revision)
        assert names(page, prefix) == [b"a"]


async def test_compaction(open_ledger: OpenLedger, prefix: bytes) -> None:
    key, other = prefix + b"k", prefix + b"other"
    async with open_ledger() as ledger:
        await put(ledger, other)
        first = await put(ledger, key, value=b"1")
        second = await put(ledger, key, value=b"2")
        third = await put(ledger, key, value=b"3")
        await ledger.compact(second)
        with pytest.raises(Compacted):
            await ledger.read(key, revision=first)
        assert (await ledger.read(key, revision=second)).records[0].value == b"2"
        assert (await ledger.read(other, revision=second)).records[0].value == b"v"
        assert (await ledger.read(key)).records[0].version == 3
        await ledger.compact(second)
        await ledger.compact(first)
        await ledger.compact(third)
        with pytest.raises(Compacted):
            await ledger.read(key, revision=second)
        assert (await ledger.read(key, revision=third)).records[0].value == b"3"


async def test_the_future_is_refused(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger:
        revision = await put(ledger, prefix + b"a")
        with pytest.raises(TransactionInvalid):
            await ledger.compact(revision + 1_000_000)
        with pytest.raises(TransactionInvalid):
            await ledger.read(prefix + b"a", revision=revision + 1_000_000)


async def test_status(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger:
        revision = await put(ledger, prefix + b"a")
        status = await ledger.status()
        assert status.revision == revision
        assert [int(part) for part in status.version.split(".")] >= [3, 4, 0]
        assert 0 < status.bytes_in_use <= status.bytes_total
        assert not status.no_space
        assert status.cluster_id > 0
