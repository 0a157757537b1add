"""Reading a range that may be large: page by page, at one revision. The one place that pages.

A page is a read of its own, so a range that is written to meanwhile would show some of it before and some after a
change: all pages are read at the revision of the first. That revision can be compacted away before the last page:
`pages` says so, `scan` reads what is left as it is by then.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial

from rota.client.errors import Compacted

from .ledger import Ledger, Page, Record, prefix_end
from .patience import patiently

PAGE = 5_000
"""Small pages are quadratic in etcd, which walks over all that is left of the range for each of them."""


async def pages(
    ledger: Ledger, key: bytes, range_end: bytes = b"", *, size: int = PAGE, revision: int = 0,
    keys_only: bool = False, patient: bool = False,
) -> AsyncGenerator[Page, None]:
    """All pages of [key, range_end) (without an end: of everything that begins with `key`), at `revision` or, if that
    is 0, at that of the first page; there is at least one, which may be empty. `patient`: while the store does not
    answer, it is asked again. Raises what `Ledger.read` raises: `Compacted` if the revision is gone."""
    end, more = range_end or prefix_end(key), True
    while more:
        read = partial(ledger.read, key, end, limit=size, revision=revision, keys_only=keys_only)
        page = await (patiently(read) if patient else read())
        yield page
        revision, more = page.revision, page.more
        if page.records:
            key = page.records[-1].key + b"\0"


async def scan(
    ledger: Ledger, prefix: bytes, *, after: bytes = b"", limit: int | None = None, size: int = PAGE,
    keys_only: bool = False,
) -> AsyncGenerator[Record, None]:
    """The records below `prefix` (behind the key `after`, if it is given), one by one; with a `limit` no more than
    that. Raises what `Ledger.read` raises."""
    key, end, left = after + b"\0" if after else prefix, prefix_end(prefix), limit
    while left != 0:
        try:
            async with aclosing(pages(ledger, key, end, size=min(size, left or size), keys_only=keys_only)) as read:
                async for page in read:
                    for record in page.records:
                        yield record
                        key = record.key + b"\0"
                        if left is not None:
                            left -= 1
                            if left == 0:
                                return
            return
        except Compacted:
            continue
