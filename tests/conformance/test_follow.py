"""List, watch, list again: nothing is missed, over a compaction neither."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from rota.client.errors import LedgerUnavailable
from rota.cluster.ledger.follow import Listing, News, Show, follow
from rota.cluster.ledger.ledger import Changes, Delete, Put, Txn

from .backends import OpenLedger
from .test_watches import write

PATIENCE_S = 20


async def changes_up_to(news: AsyncIterator[News], revision: int) -> list[tuple[bytes, bool]]:
    """(key, deleted) of what a watch tells, up to a revision."""
    found: list[tuple[bytes, bool]] = []
    async with asyncio.timeout(PATIENCE_S):
        async for seen in news:
            assert isinstance(seen, Changes)
            found += [(event.record.key, event.deleted) for event in seen.events]
            if seen.revision >= revision:
                break
    return found


async def test_first_what_there_is_then_what_changes(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger:
        await write(ledger, prefix + b"a", prefix + b"b")
        async with follow(ledger, prefix) as news:
            listing = await anext(news)
            assert isinstance(listing, Listing)
            assert [(record.key, record.value) for record in listing.records] == [
                (prefix + b"a", b"v"), (prefix + b"b", b"v")
            ]
            await write(ledger, prefix + b"c")
            last = (await ledger.commit(Txn((), (Delete(prefix + b"a"),)))).revision
            assert await changes_up_to(news, last) == [(prefix + b"c", False), (prefix + b"a", True)]


async def test_what_is_written_while_it_is_listed_is_seen_once(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger:
        await write(ledger, prefix + b"a")
        async with follow(ledger, prefix) as news:
            await anext(news)
            last = await write(ledger, prefix + b"b")       # the watch is not open yet
            assert await changes_up_to(news, last) == [(prefix + b"b", False)]


async def test_after_a_revision_nothing_is_listed(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger:
        first = await write(ledger, prefix + b"a")
        last = await write(ledger, prefix + b"b")
        async with follow(ledger, prefix, after=first) as news:
            assert await changes_up_to(news, last) == [(prefix + b"b", False)]


@pytest.mark.parametrize("after", [None, "the first"])
async def test_it_lists_again_when_a_compaction_has_overtaken_it(
    open_ledger: OpenLedger, prefix: bytes, after: str | None
) -> None:
    """What was deleted meanwhile is told by its absence; and from there it goes on."""
    async with open_ledger() as ledger:
        first = await write(ledger, prefix + b"a", prefix + b"b")
        async with follow(ledger, prefix, after=first if after else None) as news:
            if after is None:
                await anext(news)
            await ledger.commit(Txn((), (Delete(prefix + b"a"), Put(prefix + b"c", b""))))
            await ledger.compact(await write(ledger, prefix + b"d"))
            listing = await anext(news)
            assert isinstance(listing, Listing)
            assert [record.key for record in listing.records] == [prefix + b"b", prefix + b"c", prefix + b"d"]
            last = await write(ledger, prefix + b"e")
            assert await changes_up_to(news, last) == [(prefix + b"e", False)]


@pytest.mark.parametrize(("show", "records"), [
    (Show.RECORDS, [(b"a", b"v"), (b"b", b"v")]), (Show.KEYS, [(b"a", b""), (b"b", b"")]), (Show.NOTHING, []),
])
async def test_a_listing_shows_as_much_as_is_wanted(
    open_ledger: OpenLedger, prefix: bytes, show: Show, records: list[tuple[bytes, bytes]]
) -> None:
    async with open_ledger() as ledger:
        revision = await write(ledger, prefix + b"a", prefix + b"b")
        async with follow(ledger, prefix, show=show) as news:
            listing = await anext(news)
            assert isinstance(listing, Listing)
            assert [(record.key.removeprefix(prefix), record.value) for record in listing.records] == records
            assert listing.revision >= revision
            last = await write(ledger, prefix + b"c")
            assert await changes_up_to(news, last) == [(prefix + b"c", False)]


async def test_one_key_only(open_ledger: OpenLedger, prefix: bytes) -> None:
    key = prefix + b"a"
    async with open_ledger() as ledger:
        await write(ledger, key, key + b"b")
        async with follow(ledger, key, key + b"\0") as news:
            listing = await anext(news)
            assert isinstance(listing, Listing) and [record.key for record in listing.records] == [key]
            last = await write(ledger, key, key + b"c")
            assert await changes_up_to(news, last) == [(key, False)]


async def test_it_ends_with_its_ledger(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger, follow(ledger, prefix) as news:
        await anext(news)
        waiting = asyncio.ensure_future(anext(news))
        await asyncio.sleep(0)
        await ledger.close()
        with pytest.raises(LedgerUnavailable):
            async with asyncio.timeout(PATIENCE_S):
                await waiting
