"""From an outcome to the store: what the runners report is gathered bundle by bundle, and committed in order.

A bundle whose jobs have all ended is committed at once, part of one after a moment. Every write is guarded by the
node's member key and by the claim as this node last wrote it; of one claim only one write is under way at a time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rota.client.errors import LeaseGone, LedgerError, NoSpace
from rota.client.model import Outcome
from rota.worker.pool.interface import Runners

from ...context import IdentityContext
from ...events.records import JobEnded, OutcomeVoid, OverwriteMended
from ...ledger.commits import Verdict, Write, unmodified
from ...ledger.ledger import Condition
from ...state import moves
from ...state.keys import shown
from ...state.records import begun, bits
from ..claims.held import Held
from ..claims.settlement import Settlement
from .company import Company
from .settle import GOES_ON, Keep, give_back, settle

AGAIN_S = 0.5
"""After this a write that the store refused is tried again."""

PARTIAL_S = 0.05
"""Outcomes of a bundle that is not finished are committed at the latest after this."""

TOGETHER_S = PARTIAL_S / 2
"""With those that are due go those that would be so soon: several bundles that run at once share their transactions."""


class Reporter:
    """One identity's outcomes. `on_end` hears of each bundle whose claim has ended. `finished` counts jobs: those whose
    outcome is committed."""

    def __init__(
        self, context: IdentityContext, runners: Runners, keep: Keep, on_end: Callable[[Held], None],
        company: Company | None = None,
    ) -> None:
        self._context = context
        self._commits = context.commits
        self._clock = context.clock
        self._events = context.events
        self._runners = runners
        self._keep = keep
        self._on_end = on_end
        self._company = company or Company(lambda task, queue: False)
        self._partial: dict[int, Held] = {}     # by key: bundles that have outcomes of which no write was made
        self._soonest: float | None = None      # when to look at the clock, as was said last
        self.over = False
        self.finished = 0

    def open(self, group: asyncio.TaskGroup) -> None:
        """What has to wait for a lease does so in this group."""
        self._group = group

    def close(self) -> None:
        """The identity has ended: nothing can be written any more."""
        self.over = True

    def take(self, held: Held, outcomes: list[Outcome], now: float) -> bool:
        """Of one bundle. Returns whether `flush_due` has to look at the clock for it."""
        self._events.runs_ended(held.claim.task, outcomes)
        if self._events.wanted(JobEnded):
            for outcome in outcomes:
                self._events.emit(_ended(held, outcome))
        again = ("failed", *GOES_ON) if held.claim.serial else GOES_ON
        if retries := [outcome for outcome in outcomes if outcome.status in again]:
            held.retries += retries
            outcomes = [outcome for outcome in outcomes if outcome.status not in again]
        held.outcomes += outcomes
        if held.key not in self._partial:
            self._partial[held.key] = held
            held.flush_at = now + PARTIAL_S
        if held.is_complete:
            self.flush(held)
            return False
        return self._soonest is None        # else it is due later than what the clock is looked at for

    def flush_due(self) -> float | None:
        """Commit the outcomes of unfinished bundles that have waited long enough; say when to look again."""
        now = self._clock.monotonic()
        self._soonest = self._next_due()
        if self._soonest is not None and self._soonest <= now:
            for held in list(self._partial.values()):
                if held.has_news and held.flush_at <= now + TOGETHER_S:
                    self.flush(held)
            self._soonest = self._next_due()
        return None if self._soonest is None else max(self._soonest - now, 0.001)

    def _next_due(self) -> float | None:
        for held in list(self._partial.values()):
            if held.over:
                del self._partial[held.key]
        # (without news there are only retries so far: they are moved with the rest of the bundle)
        return min((held.flush_at for held in self._partial.values() if held.has_news), default=None)

    def flush(self, held: Held) -> None:
        complete = held.is_complete
        self._partial.pop(held.key, None)
        outcomes, held.outcomes = held.outcomes, []
        held.done |= bits([outcome.index for outcome in outcomes])
        held.slept |= held.asleep
        result_s, finished_s = self._keep_result_of(held), self._keep_finished_of(held)
        keep = Keep(max(result_s, finished_s) if result_s else 0.0, finished_s)     # who is kept keeps its result
        held.queue.extend(settle(self._context, held, outcomes, complete=complete, keep=keep))
        self.advance(held)

    def _keep_result_of(self, held: Held) -> float:
        assert held.header is not None
        asked = held.header.options.keep_result_s
        if asked is not None:
            return asked
        info = self._runners.tasks.get(held.header.task)
        return info.keep_result_s if info is not None else self._keep.result_s

    def _keep_finished_of(self, held: Held) -> float:
        assert held.header is not None
        asked, info = held.header.options.keep_finished_s, self._runners.tasks.get(held.header.task)
        if asked is None and info is not None:
            asked = info.keep_finished_s
        return self._keep.finished_s if asked is None else asked

    def give_back(self, held: Held, indexes: list[int], size: int) -> None:
        """Jobs of a bundle that have not begun return to their queue, in pieces of `size`."""
        held.done |= bits(indexes)
        held.back += len(indexes)
        if held.memory is not None:
            held.memory.leave(indexes)
        held.queue.append(give_back(self._context, held, indexes, size))
        if held.is_complete:
            self.flush(held)
        else:
            self.advance(held)

    def mark_started(self, held: Held, then: Callable[[Held], None], *, started: bool = True) -> None:
        """Record that it begins; `then` begins it, once that is in the store. `started`: its loss counts from here."""
        if self.over or held.over:
            return
        marked = begun(held.claim, started=started)
        held.marking = True     # until it is known, it does not go back: as what it was, it would have its key again
        member, at = self.conditions(held)
        future = self._commits.submit(moves.mark_started(self._context.keys, (member,), at, held.claim, marked))

        def again() -> None:
            self.mark_started(held, then, started=started)

        def settled(done: asyncio.Future[Verdict]) -> None:
            error = None if done.cancelled() else done.exception()
            if done.cancelled() or self.over or held.over:
                return
            if error is not None:
                asyncio.get_running_loop().call_later(AGAIN_S, again)
            elif not done.result().repeated and self.overwritten(held, done.result()):
                again()
            elif self.took_place(held, done.result()):
                held.claim, held.marking = marked, False
                then(held)
            else:
                self.void(held)

        future.add_done_callback(settled)

    def conditions(self, held: Held) -> tuple[Condition, Condition]:
        """By the claim as we last wrote it, not only as it was created: a late twin of an earlier write must not put
        an older bitmap back."""
        return (self._context.member, unmodified(held.record.key, held.mod_revision))

    @staticmethod
    def took_place(held: Held, verdict: Verdict) -> bool:
        """Whether a write to a claim is in the store. One that was repeated and then found its condition broken had
        applied before: nobody else writes to a claim while its node lives."""
        if verdict.applied:
            held.mod_revision = verdict.revision
            return True
        if not verdict.repeated or verdict.failed is None or verdict.failed.key != held.record.key:
            return False
        if verdict.found is not None and verdict.found.create_revision == held.record.create_revision:
            held.mod_revision = verdict.found.mod_revision
        return True

    def overwritten(self, held: Held, verdict: Verdict) -> bool:
        """Whether a write of ours was refused because somebody else wrote over our claim. What we know of it counts:
        the write is made again, over that."""
        found = verdict.found
        if verdict.applied or found is None or verdict.failed is None or verdict.failed.key != held.record.key:
            return False
        if found.create_revision != held.record.create_revision:
            return False
        held.mod_revision = found.mod_revision
        self._events.emit(OverwriteMended(shown(found.key)))
        return True

    def advance(self, held: Held) -> None:
        """Commit the next write of a bundle. One at a time: the one that ends the claim must come last."""
        if held.writing or not held.queue or self.over:
            return
        held.writing = True
        settlement = held.queue[0]
        if not settlement.leased:
            self._group.create_task(self._lease_first(held, settlement), name="result-lease")
            return
        future = self._commits.submit(
            Write(self.conditions(held), settlement.ops), patience_s=self._company.patience_s(held)
        )
        future.add_done_callback(lambda done: self._settled(held, settlement, done))

    async def _lease_first(self, held: Held, settlement: Settlement) -> None:
        while True:
            try:
                settlement = settlement.with_leases([
                    await kept.bucket.lease(len(kept.keys)) for kept in settlement.kept
                ])
                break
            except NoSpace:
                if settlement.without_puts is not None:
                    settlement = settlement.delete_only()
                    break
                await asyncio.sleep(0.5)
            except LedgerError:
                await asyncio.sleep(0.2)
        held.queue[0] = settlement
        held.writing = False
        self.advance(held)

    def _settled(self, held: Held, settlement: Settlement, done: asyncio.Future[Verdict]) -> None:
        held.writing = False
        if done.cancelled():
            return
        error = done.exception()
        if error is not None:
            self._not_stored(held, settlement, error)
            return
        verdict = done.result()
        if (settlement.final or not verdict.repeated) and self.overwritten(held, verdict):
            self.advance(held)
            return
        if not self.took_place(held, verdict):
            self.void(held)
            return
        held.queue.popleft()
        if settlement.stored is not None:
            settlement.stored()
        self.finished += settlement.jobs
        if settlement.final:
            self._on_end(held)
        else:
            self.advance(held)

    def _not_stored(self, held: Held, settlement: Settlement, error: BaseException) -> None:
        if isinstance(error, NoSpace) and settlement.without_puts is not None:
            held.queue[0] = settlement.delete_only()    # a full store takes deletes only: finished, no result
            self.advance(held)
        elif isinstance(error, LedgerError) and not held.over:
            if isinstance(error, LeaseGone):
                self._context.buckets.drop_all()
            held.queue[0] = settlement.refreshed()
            asyncio.get_running_loop().call_later(AGAIN_S, self.advance, held)

    def void(self, held: Held) -> None:
        """The claim is not ours any more: whatever was run here has no outcome."""
        self._events.emit(OutcomeVoid(held.bundle))
        self._on_end(held)
        self._runners.withdraw([held.key])


def _ended(held: Held, outcome: Outcome) -> JobEnded:
    claim = held.claim
    return JobEnded(
        held.bundle, outcome.index, claim.task, claim.queue, claim.attempt, outcome.status, outcome.error,
        outcome.ran_s,
    )
