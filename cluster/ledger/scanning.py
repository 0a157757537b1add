"""Reading a range page by page, in key order: each page is as fresh as its read."""

from __future__ import annotations

from collections.abc import AsyncIterator

from .ledger import Ledger, Record, prefix_end

PAGE = 5_000


async def scan(
    ledger: Ledger, prefix: bytes, *, after: bytes = b"", limit: int = 1_000_000, page: int = PAGE,
    keys_only: bool = False,
) -> AsyncIterator[Record]:
    """The records below `prefix` (behind the key `after`, if it is given), at most `limit`."""
    key, end, left, more = after + b"\0" if after else prefix, prefix_end(prefix), limit, True
    while more and left > 0:
        read = await ledger.read(key, end, limit=min(page, left), keys_only=keys_only)
        for record in read.records:
            yield record
        left -= len(read.records)
        more = read.more
        if read.records:
            key = read.records[-1].key + b"\0"
