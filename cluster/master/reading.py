"""Reading on in one queue at one priority, at a cost that follows what is read.

etcd walks over all keys of a range, whatever the limit, and lets nothing be written meanwhile: of a million jobs that
wait, a page to the end of its lane costs half a second. So it is read in windows of `order` that lie side by side, each
as much wider than the one before as it takes; only where no more can lie ahead, to the end. Nothing is left out.
"""

from __future__ import annotations

from typing import NamedTuple

from ..ledger.ledger import Ledger, Record, prefix_end
from ..state.keys import Keys

SPAN = 16
"""Orders of the first window. One order may be that of a hundred jobs: of those that were enqueued at the same time."""

WIDER_MAX = 16
"""A window is so many times the one before at the most: it may hold far more than that did."""


class LanePage(NamedTuple):
    """`more`: there may be others behind the last."""

    records: list[Record]
    more: bool


async def read_lane(
    ledger: Ledger, keys: Keys, queue: str, priority: int, *, limit: int, after: bytes = b"", first_stop: int = 0,
    revision: int = 0,
) -> LanePage:
    """The next `limit` tokens behind the key `after` (of this lane; without it, from its beginning), at `revision` (or
    each window as it is by then). `first_stop`: the order where the first window ends, if little lies before that.
    Raises what `Ledger.read` raises."""
    lane = keys.lane(queue, priority)
    key, end = after + b"\0" if after else lane, prefix_end(lane)
    place = keys.parse_job(after) if after else None
    order, span, records = place.order if place is not None else 0, SPAN, list[Record]()
    stop_at: int | None = max(first_stop, order + SPAN) if after else first_stop or None
    while True:
        stop = keys.lane_from(queue, priority, stop_at) if stop_at is not None else end
        if key < stop:
            page = await ledger.read(key, stop, limit=limit - len(records), revision=revision)
            records += page.records
            if page.more or len(records) >= limit:
                return LanePage(records, page.more or stop_at is not None)
            if stop_at is None:
                return LanePage(records, False)
            span = _wider(span, len(page.records), limit - len(records))
            key, newest = stop, page.revision
            stop_at = stop_at + span if stop_at + span <= newest else None
        elif stop_at is not None:           # `after` is a key that rota did not write
            stop_at = None
        else:
            return LanePage(records, False)


def _wider(span: int, found: int, wanted: int) -> int:
    return span * min(WIDER_MAX, max(1, wanted // found)) if found else span * WIDER_MAX
