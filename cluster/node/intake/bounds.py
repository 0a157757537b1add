"""Queues that take so many waiting jobs only: whether there is room for more.

Nobody keeps a count of what waits: it would be one more write for each job that begins. But each enqueue to such a
queue counts on in a record of the queue, and is guarded by it. So this node knows, of what it counted some time ago,
how many have come since, whoever took them, and by how many at the most there can be more: what has left since makes
them fewer. Only where that says that the queue is full it counts anew.
"""

from __future__ import annotations

from rota.client.errors import QueueFull
from rota.client.model import Enqueue

from ...clock import Clock
from ...ledger.commits import unmodified
from ...ledger.ledger import Ledger
from ...ledger.scan import scan
from ...state import moves
from ...state.keys import Keys
from ...state.records import BoundRecord, QueueRecord, decode, token_in

COUNTED_S = 5.0
"""A count is not older than that: what came back to its queue meanwhile (tried again, due) is not in it."""

SHARE = 5
"""Counting takes at most one part in so many of the time."""

AGAIN_S = 0.25
"""When to ask again where a queue is full: by then something may have begun."""

KEPT_MAX = 1_000


class _Count:
    """`waiting` were there when `enqueued` had been enqueued in all, at the most."""

    __slots__ = ("at", "enqueued", "mod_revision", "next_at", "since", "waiting")

    def __init__(self) -> None:
        self.mod_revision = -1          # of the record, as last seen; -1: it has to be read
        self.enqueued = self.since = self.waiting = 0
        self.at = float("-inf")         # when it was counted
        self.next_at = float("-inf")    # not to be counted before

    @property
    def most(self) -> int:
        """As many may wait now."""
        return self.waiting + self.enqueued - self.since


class Bounds:
    """One identity's. One enqueue at a time of each queue: whoever calls sees to that."""

    def __init__(self, ledger: Ledger, keys: Keys, clock: Clock) -> None:
        self._ledger = ledger
        self._keys = keys
        self._clock = clock
        self._counts: dict[str, _Count] = {}

    async def room(self, bundle: Enqueue, settings: QueueRecord) -> moves.Bound | None:
        """For an enqueue that would wait at once; None: nothing bounds it. Raises `QueueFull`."""
        most = settings.max_waiting
        if most is None or bundle.delay_s > 0 or (bundle.terms is not None and bundle.terms.after):
            return None
        count = await self._known(bundle.queue)
        now = self._clock.monotonic()
        if (not _fits(count, bundle, most) and now >= count.next_at) or now - count.at > COUNTED_S:
            await self._count(bundle.queue, count)
        if not _fits(count, bundle, most):
            raise QueueFull(
                f"{count.most:,} jobs wait in queue {bundle.queue}, which takes {most:,}: try again later, or have "
                'more nodes, or let enqueues wait: rota.Queue(…, on_full="wait")',
                AGAIN_S if settings.on_full == "wait" else 1.0, waits=settings.on_full == "wait",
            )
        return moves.Bound(unmodified(self._keys.bound(bundle.queue), count.mod_revision), count.enqueued)

    def took(self, bundle: Enqueue, revision: int) -> None:
        """It is stored, and counted."""
        if (count := self._counts.get(bundle.queue)) is not None:
            count.mod_revision, count.enqueued = revision, count.enqueued + bundle.count

    def changed(self, queue: str) -> None:
        """Others have enqueued, or may have."""
        if (count := self._counts.get(queue)) is not None:
            count.mod_revision = -1

    async def _known(self, queue: str) -> _Count:
        count = self._counts.get(queue)
        if count is None:
            if len(self._counts) >= KEPT_MAX:
                self._counts.clear()
            count = self._counts[queue] = _Count()
        if count.mod_revision < 0:
            page = await self._ledger.read(self._keys.bound(queue))
            record = page.records[0] if page.records else None
            bound = decode(BoundRecord, record.value) if record is not None else None
            if bound is None or bound.enqueued < count.enqueued:     # new, or damaged: counted anew
                count.at = count.next_at = float("-inf")
            count.mod_revision = record.mod_revision if record is not None else 0
            count.enqueued = bound.enqueued if bound is not None else 0
        return count

    async def _count(self, queue: str, count: _Count) -> None:
        """What is enqueued while it is counted, is counted twice: so there are never more than this says."""
        began, waiting = self._clock.monotonic(), 0
        count.mod_revision = -1
        await self._known(queue)
        since = count.enqueued
        async for record in scan(self._ledger, self._keys.queue_jobs(queue)):
            token = token_in(queue, record.value)
            waiting += token.pending if token is not None else 1
        now = self._clock.monotonic()
        count.waiting, count.since, count.at = waiting, since, now
        count.next_at = now + max(AGAIN_S / 2, SHARE * (now - began))


def _fits(count: _Count, bundle: Enqueue, most: int) -> bool:
    """A bundle that is larger than the bound is taken where nothing waits: else it never would be."""
    return count.most + bundle.count <= most or not count.most
