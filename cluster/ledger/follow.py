"""What lies in a range, and every change of it: list, watch, and list again when a compaction has overtaken the watch.

    async with follow(ledger, prefix) as news:
        async for seen in news:
            match seen:
                case Listing():     what was known before counts no more: this is all there is
                case Changes():     what has changed since

Without a gap: the watch begins at the revision after the listing's. A watch is edges, not truth, and a listing is how a
gap shows: what it does not hold has gone unseen.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from enum import Enum
from functools import partial
from typing import TypeAlias

import msgspec

from rota.client.errors import Compacted

from .ledger import Changes, Ledger, Record, prefix_end
from .patience import patiently
from .scan import pages


class Listing(msgspec.Struct, frozen=True, gc=False):
    """All records of the range at one revision (without their values, or none at all, where so asked)."""

    records: tuple[Record, ...]
    revision: int


News: TypeAlias = Listing | Changes


class Show(Enum):
    """What a listing holds. `NOTHING`: only its revision, for those who look up what they need by themselves."""

    RECORDS = "records"
    KEYS = "keys"
    NOTHING = "nothing"


@asynccontextmanager
async def follow(
    ledger: Ledger, key: bytes, range_end: bytes = b"", *, after: int | None = None, show: Show = Show.RECORDS,
    deletes_only: bool = False,
) -> AsyncIterator[AsyncIterator[News]]:
    """Follow [key, range_end); without an end, everything that begins with `key`. It begins with a listing; with
    `after`, with the changes after that revision (`deletes_only`: only what is deleted). It never ends by itself, and
    listing waits for a store that does not answer. Raises `StoreRewound` after a restore from backup,
    `LedgerUnavailable` once the ledger is closed."""
    async with aclosing(_follow(ledger, key, range_end or prefix_end(key), after, show, deletes_only)) as news:
        yield news


async def _follow(
    ledger: Ledger, key: bytes, end: bytes, after: int | None, show: Show, deletes_only: bool
) -> AsyncGenerator[News, None]:
    while True:
        try:
            if after is None:
                listing = await _list(ledger, key, end, show)
                yield listing
                after = listing.revision
            async with ledger.watch(key, end, from_revision=after + 1, deletes_only=deletes_only) as watch:
                async for changes in watch:
                    yield changes
                    after = changes.revision
        except Compacted:
            after = None


async def _list(ledger: Ledger, key: bytes, end: bytes, show: Show) -> Listing:
    if show is Show.NOTHING:
        page = await patiently(partial(ledger.read, key, end, limit=1, keys_only=True))
        return Listing((), page.revision)
    found: list[Record] = []
    revision = 0
    async for page in pages(ledger, key, end, keys_only=show is Show.KEYS, patient=True):
        found += page.records
        revision = page.revision
    return Listing(tuple(found), revision)
