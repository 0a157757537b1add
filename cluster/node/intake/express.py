"""The express lane: a lone bundle brings its own claim along, and begins here when the watch shows that, as any does.

Whether it may is decided by its transaction alone (`ahead_of_nothing`); what is looked at before is what this node
knows, so that hardly any is refused. What is refused, or not tried, goes the ordinary way, by the master. That puts the
flag of its queue up, and this node hears when it is taken down.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Protocol

from msgspec.structs import replace

from rota.client.model import Enqueue, Mode
from rota.client.wire.codec import enqueue_digest

from ...context import IdentityContext
from ...ledger.buckets import Bucket
from ...ledger.commits import Verdict
from ...ledger.follow import Listing, Show, follow
from ...ledger.ledger import Condition
from ...recent import Recent
from ...state import moves
from ...state.directory import Directory
from ...state.express import ahead_of_nothing, is_plain
from ...state.records import Token, claim_of
from ..bodies.cache import BodyCache, VerifiedBody
from ..membership.own_record import OwnRecord

PAUSE_S, PAUSE_S_MAX = 0.1, 30.0
"""How long a queue is left alone when something stood before what was to go past; twice as long each further time."""

QUEUES_KEPT = 1_000

UNDER_WAY = 1 << 62
"""In place of a revision: it is not known yet."""


class Place(Protocol):
    """Where claims of this node come to lie."""

    def is_idle(self) -> bool:
        """Whether nothing lies here, or is expected to, and something may begin."""
        ...

    def expect(self, bundle: str) -> None:
        """Our own claim is being stored; jobs begin when it is seen."""
        ...

    def expect_no_more(self, bundle: str) -> None:
        """It was not."""
        ...


class Express:
    """One identity's."""

    def __init__(
        self, context: IdentityContext, directory: Directory, record: OwnRecord, cache: BodyCache, receipts: Bucket,
        place: Place,
    ) -> None:
        self._context = context
        self._keys = context.keys
        self._directory = directory
        self._record = record
        self._cache = cache
        self._receipts = receipts
        self._place = place
        self._up: Recent[str, int] = Recent(QUEUES_KEPT)        # queues of which we have put the flag, and when last
        self._refused: Recent[str, tuple[float, float]] = Recent(QUEUES_KEPT)   # until when, how long it was

    async def run(self) -> None:
        """Hear which flags are taken down."""
        async with follow(self._context.ledger, self._keys.nonempty, show=Show.NOTHING, deletes_only=True) as news:
            async for seen in news:
                if isinstance(seen, Listing):       # what has been taken down in between was not heard of
                    self._up = Recent(QUEUES_KEPT)
                    continue
                for event in seen.events:
                    self._is_down(self._keys.parse_flag(event.record.key), event.record.mod_revision)

    def _is_down(self, queue: str | None, revision: int) -> None:
        """A flag was taken down: unless we put it again meanwhile, nothing of ours waits there."""
        if queue is not None and self._up.get(queue, UNDER_WAY) < revision:
            self._up.drop(queue)

    def note_waiting(self, bundle: Enqueue, stored: asyncio.Future[Verdict]) -> None:
        """It goes the ordinary way: the flag of its queue goes up, if it is to wait there."""
        if not self._directory.express or bundle.delay_s > 0 or bundle.terms is not None:
            return
        self._up.put(bundle.queue, UNDER_WAY)
        stored.add_done_callback(partial(self._waits, bundle.queue))

    def _waits(self, queue: str, stored: asyncio.Future[Verdict]) -> None:
        if not stored.cancelled() and stored.exception() is None and (verdict := stored.result()).applied:
            self._up.put(queue, verdict.revision)
        else:
            self._up.drop(queue)

    async def store(
        self, token: Callable[[Enqueue, VerifiedBody, int], Token], bundle: Enqueue, body: VerifiedBody, order: int
    ) -> asyncio.Future[Verdict] | None:
        """Begin to store it together with this node's own claim. None: it goes the ordinary way. Raises LedgerError
        where the store grants no lease for its receipt."""
        if (way := self.way(bundle)) is None:
            return None
        if (lease := self._receipts.take()) is None:
            lease = await self._receipts.lease()
            if (way := self.way(bundle)) is None:       # it took a moment
                return None
        mode, ahead = way
        claim = claim_of(replace(token(bundle, body, order), mode=mode), 0)
        self._cache.put(bundle.bundle, body)
        self._place.expect(bundle.bundle)
        future = self._context.commits.submit(moves.enqueue_express(
            self._keys, (self._context.member,), bundle.bundle, claim, self._context.node, bundle.body,
            enqueue_digest(*body[:2]).hex(), lease, ahead=ahead,
        ))
        future.add_done_callback(partial(self._settled, bundle))
        return future

    def way(self, bundle: Enqueue) -> tuple[Mode, tuple[Condition, ...]] | None:
        """How this node runs it, and what must be so for it to begin at once; None: it goes the ordinary way."""
        word_at, task = self._directory.express, self._directory.tasks.get(bundle.task)
        if not word_at or task is None or not self._place.is_idle() or not _is_plain(bundle) or not is_plain(task):
            return None
        queue, member = bundle.queue, self._record.member
        if queue in self._directory.queues or queue in self._up or self._is_left_alone(queue):
            return None
        mode, task_at = member.mode_of(bundle), self._directory.task_revisions.get(bundle.task)
        if mode is None or task_at is None or member.state != "active" or not member.serves(queue) or (
            member.slots(bundle) < bundle.count
        ):
            return None
        return mode, ahead_of_nothing(self._keys, queue, bundle.task, word_at=word_at, task_at=task_at)

    def stopped(self, bundle: Enqueue, by: Condition) -> bool:
        """Whether this is what kept it from beginning with its enqueue."""
        ahead = ahead_of_nothing(self._keys, bundle.queue, bundle.task, word_at=0, task_at=0)
        return by.key in [condition.key for condition in ahead]

    def _is_left_alone(self, queue: str) -> bool:
        """Something stood before the last that was tried there."""
        refused = self._refused.get(queue)
        return refused is not None and self._context.clock.monotonic() < refused[0]

    def _settled(self, bundle: Enqueue, future: asyncio.Future[Verdict]) -> None:
        if future.cancelled() or future.exception() is not None:
            self._place.expect_no_more(bundle.bundle)
            return
        verdict = future.result()
        if verdict.applied:
            self._refused.drop(bundle.queue)
            return
        self._place.expect_no_more(bundle.bundle)       # (it may have been all the same, in an earlier try)
        if verdict.failed is not None and self.stopped(bundle, verdict.failed):
            _, before_s = self._refused.get(bundle.queue) or (0.0, PAUSE_S / 2)
            pause_s = min(2 * before_s, PAUSE_S_MAX)
            self._refused.put(bundle.queue, (self._context.clock.monotonic() + pause_s, pause_s))


def _is_plain(bundle: Enqueue) -> bool:
    """Whether it says nothing but where it goes."""
    return bundle.level == "durable" and bundle.terms is None and not (
        bundle.function or bundle.key or bundle.delay_s > 0
    )
