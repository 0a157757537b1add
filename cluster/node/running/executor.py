"""The claims of one identity: they come, they go, and in between they run (`running`).

The watch over `claims/<node>/` is the subscription. What this node knows of its claims is a table (`claims`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable

from msgspec.structs import replace

from rota.client.model import Outcome
from rota.worker.pool.interface import Runners

from ...context import IdentityContext
from ...ledger.commits import Verdict
from ...ledger.follow import Listing, follow
from ...ledger.ledger import Record
from ...ledger.patience import patiently
from ...state.keys import whole
from ...state.records import Claim, claim_in
from ..bodies.cache import BodyCache, VerifiedBody
from ..claims.cancels import Cancels
from ..claims.held import Held
from ..claims.table import Claims
from ..outcomes.settle import Keep
from .leaving import Leaving
from .remembering import Remembering
from .running import Running

log = logging.getLogger(__name__)


class Executor:
    """`run()` watches and works; `drain()` begins nothing more; `release_all()` hands back."""

    def __init__(
        self, context: IdentityContext, runners: Runners, cache: BodyCache, *, may_start: Callable[[], bool],
        keep: Keep, cancel_volatile: Callable[[str, int], bool] = lambda bundle, index: False,
        is_limited: Callable[[str, str], bool] = lambda task, queue: False,
    ) -> None:
        self._context = context
        self._runners = runners
        self._cache = cache
        self._cancel_volatile = cancel_volatile
        self.claims = Claims()
        self._expected = set[str]()     # bundles whose claims this node is storing itself
        self._cancels = Cancels(context.ledger, context.keys)
        self._running = Running(
            context, self.claims, self._cancels, runners, may_start=may_start, keep=keep, is_limited=is_limited
        )
        self._leaving = Leaving(self.claims, runners, self._running)
        self._over = False

    @property
    def finished(self) -> int:
        """Jobs whose outcome is committed."""
        return self._running.finished

    @property
    def held(self) -> int:
        return len(self.claims)

    async def run(self, revision: int) -> None:
        """Claims that come after this revision, until the identity ends."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = group
                self._running.open(group)
                group.create_task(self._watch(revision), name="claims-watch")
                group.create_task(self._watch_cancels(), name="cancels-watch")
                group.create_task(self._running.work(), name="executor")
        finally:
            self._over = True
            self._running.close()

    # -- claims come and go ------------------------------------------------------------------------------------------

    async def _watch(self, revision: int) -> None:
        prefix = self._context.keys.claims_of(self._context.node)
        async with follow(self._context.ledger, prefix, after=revision) as news:
            async for seen in news:
                if isinstance(seen, Listing):
                    self._compare(seen)
                    continue
                for event in seen.events:
                    if event.deleted:
                        self._gone(event.record.key)
                    else:
                        self._seen(event.record)

    def _compare(self, listing: Listing) -> None:
        """After a compaction overtook the watch: compare with what lies under us."""
        present = {record.key for record in listing.records}
        self._expected.clear()          # they may have come and gone
        for held in self.claims:
            if held.record.key not in present and held.record.create_revision <= listing.revision:
                self._gone(held.record.key)     # (our own claim, of level `delayed`, may be newer than what we read)
        for record in listing.records:
            self._seen(record)

    def _seen(self, record: Record) -> None:
        parsed = self._context.keys.parse_claim(record.key)
        if parsed is None:
            return
        bundle = parsed[1]
        held = self.claims.of(bundle)
        if held is not None:
            if self.claims.is_held(bundle, record.create_revision):
                return              # our own update of its bitmap, or our own claim (level `delayed`)
            self._running.forget(held)      # it left and came again while we did not look
        elif self.claims.has_ended(bundle, record.create_revision):
            return                  # an update of ours that the watch shows after its end was committed
        claim = claim_in(record.value)
        if claim is None:
            self._running.refuse_unreadable(record)
            return
        held = self.claims.add(
            bundle, record, claim, mod_revision=record.mod_revision, done=claim.done_bits,
            since=self._context.clock.monotonic(),
        )
        too_late = len(self.claims) > 1 and self._has_come_too_late(held)
        self._expected.discard(bundle)
        if too_late:
            self._running.release([held])
        else:
            self._running.take(held, self._cache.take(bundle))

    def _gone(self, key: bytes) -> None:
        held = self.claims.of(key.rpartition(b"/")[2].decode(errors="replace"))
        if held is not None and held.record.key == key and not held.writing:
            self._running.drop(held)

    async def _watch_cancels(self) -> None:
        async for bundle, index in self._cancels.requests():
            self._cancel_volatile(bundle, index)
            for held in self.claims:
                if held.submitted and whole(held.bundle) == bundle and index in (i for i, _ in held.jobs):
                    self._runners.cancel(held.key, index)

    # -- what this node claims as it takes it in ---------------------------------------------------------------------

    def is_idle(self) -> bool:
        """Whether nothing lies here, or is expected to, and something may begin."""
        return not len(self.claims) and not self._expected and not self._over and self._running.may_begin

    def expect(self, bundle: str) -> None:
        """Our own claim is being stored; its jobs begin when it is seen: behind whatever was given to us before."""
        self._expected.add(bundle)

    def expect_no_more(self, bundle: str) -> None:
        self._expected.discard(bundle)

    def _has_come_too_late(self, held: Held) -> bool:
        """Our own claim, where the master has just given the slots to others; or what takes several slots, where we
        have just taken some ourselves (of what takes one some is given ahead, and looked at when it waits:
        `review`)."""
        claim = held.claim
        if held.bundle not in self._expected and (claim.weight == 1 or all(other.claim.fence for other in self.claims)):
            return False
        used = sum(other.pending * other.claim.weight for other in self.claims if other.claim.mode == claim.mode)
        return used > self._runners.capacity[claim.mode]

    # -- level `delayed`: jobs start while their claim is being written ----------------------------------------------

    def begin(self, bundle: str, claim: Claim, body: VerifiedBody, stored: asyncio.Future[Verdict]) -> None:
        """Their outcomes wait for `stored`. A repeat, which will find the receipt, starts nothing."""
        if not self.claims.note_begun(bundle):
            return
        record = Record(self._context.keys.claim(self._context.node, bundle), b"", 0, 0, 1)
        held = self.claims.add(
            bundle, record, claim, body=body[0], header=body[1], jobs=body[2], writing=True,
            since=self._context.clock.monotonic(),
        )
        stored.add_done_callback(lambda done: self._stored(held, done))
        self._running.submit(held)

    def _stored(self, held: Held, done: asyncio.Future[Verdict]) -> None:
        if self._over or done.cancelled():
            return
        if done.exception() is None and done.result().applied:
            self._adopt(held, done.result().revision)
        else:
            verdict = done.result() if done.exception() is None else None
            self._group.create_task(self._look_for_own(held, verdict), name="own-claim")

    async def _look_for_own(self, held: Held, verdict: Verdict | None) -> None:
        """Our own claim was not written, or not that we know: in an earlier try it may have been, beside the receipt
        that is there now. What lies there otherwise came from the master, and the watch was taken for our own."""
        page = await patiently(lambda: self._context.ledger.read(held.record.key))
        found, receipt = page.records[0] if page.records else None, verdict.found if verdict is not None else None
        if found is not None and receipt is not None and found.create_revision == receipt.create_revision:
            self._adopt(held, found.create_revision)
            return
        log.warning("bundle %s was started, but could not be stored: its outcome is not kept", held.bundle)
        if verdict is None:
            self.claims.may_begin_again(held.bundle)
        self._running.drop(held)
        if found is not None:
            self.claims.lies_here(held.bundle, found.create_revision)      # though it was to go back
            self._seen(found)

    def _adopt(self, held: Held, revision: int) -> None:
        """Our own claim is in the store: from here on it is like any other."""
        if held.over:
            return              # given up meanwhile, by a node that leaves
        held.record = replace(held.record, create_revision=revision, mod_revision=revision)
        held.mod_revision, held.writing = revision, False
        self._running.is_stored(held)

    # -- what others call --------------------------------------------------------------------------------------------

    def on_outcomes(self, outcomes: Iterable[tuple[int, Outcome]]) -> None:
        """Called by the runners."""
        self._running.on_outcomes(outcomes)

    @property
    def remembering(self) -> Remembering:
        """What its jobs remember."""
        return self._running.remembering

    def drain(self) -> None:
        """Begin nothing any more; what comes goes back."""
        self._leaving.drain()

    async def release_unstarted(self) -> int:
        """Hand back what no runner has begun; returns how many bundles."""
        return await self._leaving.release_unstarted()

    async def release_all(self) -> int:
        """Hand back everything that lies under us: the runners are dead. Returns how many bundles."""
        return await self._leaving.release_all()

    async def until_idle(self) -> None:
        """Everything that was begun has its outcome committed."""
        await self.claims.until_empty()
