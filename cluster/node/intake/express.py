"""The express lane: a lone bundle brings its own claim along, and begins here when that is committed.

Whether it may is decided by its transaction alone (`ahead_of_nothing`); what is looked at before is what this node
knows, so that hardly any is refused. What is refused, or not tried, goes the ordinary way, by the master.
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
from ...ledger.ledger import Condition
from ...recent import Recent
from ...state import moves
from ...state.directory import Directory
from ...state.express import ahead_of_nothing, is_plain
from ...state.records import Claim, Token, claim_of
from ..bodies.cache import BodyCache, VerifiedBody
from ..membership.own_record import OwnRecord

BEHIND_S = 0.05
"""So long a bundle that this node has stored in a queue, and has not been given, is taken to wait there."""

PAUSE_S, PAUSE_S_MAX = 0.1, 30.0
"""How long a queue is left alone when something stood before what was to go past; twice as long each further time."""

QUEUES_KEPT = 1_000


class Begun(Protocol):
    """Who begins what has come to lie here."""

    def is_idle(self) -> bool:
        """Whether nothing lies here, and something may begin."""
        ...

    def begin_stored(self, bundle: str, claim: Claim, revision: int) -> None:
        """Our own claim has come to be at this revision."""
        ...


class Express:
    """One identity's."""

    def __init__(
        self, context: IdentityContext, directory: Directory, record: OwnRecord, cache: BodyCache, receipts: Bucket,
        begun: Begun,
    ) -> None:
        self._context = context
        self._keys = context.keys
        self._directory = directory
        self._record = record
        self._cache = cache
        self._receipts = receipts
        self._begun = begun
        self._under_way = False         # one at a time: another would be beside it
        self._last: Recent[str, tuple[str, float]] = Recent(QUEUES_KEPT)    # of a queue: what was stored in it, when
        self._refused: Recent[str, tuple[float, float]] = Recent(QUEUES_KEPT)   # until when, how long it was

    async def store(
        self, token: Callable[[Enqueue, VerifiedBody, int], Token], bundle: Enqueue, body: VerifiedBody, order: int
    ) -> asyncio.Future[Verdict] | None:
        """Begin to store it together with this node's own claim: its jobs start when both are in the store. None: it
        goes the ordinary way. Raises LedgerError where the store grants no lease for its receipt."""
        if (way := self.way(bundle)) is None:
            return None
        if (lease := self._receipts.take()) is None:
            lease = await self._receipts.lease()
            if (way := self.way(bundle)) is None:       # it took a moment
                return None
        mode, ahead = way
        claim = claim_of(replace(token(bundle, body, order), mode=mode), 0)
        self._cache.put(bundle.bundle, body)
        self._under_way = True
        future = self._context.commits.submit(moves.enqueue_express(
            self._keys, (self._context.member,), bundle.bundle, claim, self._context.node, bundle.body,
            enqueue_digest(bundle.body).hex(), lease, ahead=ahead,
        ))
        future.add_done_callback(partial(self._settled, bundle, claim))
        return future

    def way(self, bundle: Enqueue) -> tuple[Mode, tuple[Condition, ...]] | None:
        """How this node runs it, and what must be so for it to begin at once; None: it goes the ordinary way."""
        lent, task = self._directory.lent.get(""), self._directory.tasks.get(bundle.task)
        if lent is None or task is None or self._under_way or not self._begun.is_idle() or not _is_plain(bundle):
            return None
        if bundle.queue in self._directory.queues or not lent[1].admits(bundle.queue) or not is_plain(task):
            return None
        if self._stands_behind(bundle.queue):
            return None
        member, task_at = self._record.member, self._directory.task_revisions.get(bundle.task)
        mode = member.mode_of(bundle)
        if mode is None or task_at is None or member.state != "active" or not member.serves(bundle.queue) or (
            member.slots(bundle) < bundle.count
        ):
            return None
        return mode, ahead_of_nothing(
            self._keys, self._context.node, bundle.queue, bundle.task, lent_at=lent[0], task_at=task_at
        )

    def note_waiting(self, bundle: Enqueue) -> None:
        """It goes the ordinary way."""
        self._last.put(bundle.queue, (bundle.bundle, self._context.clock.monotonic()))

    def stopped(self, bundle: Enqueue, by: Condition) -> bool:
        """Whether this is what kept it from beginning with its enqueue."""
        conditions = ahead_of_nothing(
            self._keys, self._context.node, bundle.queue, bundle.task, lent_at=0, task_at=0
        )
        return by.key in [condition.key for condition in conditions]

    def _stands_behind(self, queue: str) -> bool:
        """Whether something is likely to wait there."""
        now = self._context.clock.monotonic()
        until, _ = self._refused.get(queue) or (0.0, 0.0)
        if now < until:
            return True
        last = self._last.get(queue)
        return last is not None and now < last[1] + BEHIND_S and self._cache.holds(last[0])

    def _settled(self, bundle: Enqueue, claim: Claim, future: asyncio.Future[Verdict]) -> None:
        self._under_way = False
        if future.cancelled() or future.exception() is not None:
            return
        verdict = future.result()
        if verdict.applied:
            self._refused.drop(bundle.queue)
            self._begun.begin_stored(bundle.bundle, claim, verdict.revision)
        elif verdict.failed is not None and self.stopped(bundle, verdict.failed):
            _, before_s = self._refused.get(bundle.queue) or (0.0, PAUSE_S / 2)
            pause_s = min(2 * before_s, PAUSE_S_MAX)
            self._refused.put(bundle.queue, (self._context.clock.monotonic() + pause_s, pause_s))


def _is_plain(bundle: Enqueue) -> bool:
    """Whether it says nothing but where it goes."""
    return bundle.level == "durable" and bundle.terms is None and not (
        bundle.function or bundle.key or bundle.delay_s > 0
    )
