"""What of a node's bundles is begun, and goes on to its outcome, or back to its queue.

What a claim needs is read and verified (`bodies`) before a runner sees a byte; what ends is committed (`reporter`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import groupby
from operator import itemgetter

from msgspec.structs import replace

from rota.client.model import EXPIRED, Outcome
from rota.worker.pool.interface import Runners

from ...context import IdentityContext
from ...events.aside import teller
from ...events.records import BundleTaken, JobStarted
from ...ledger.commits import Verdict
from ...ledger.ledger import Record
from ...state.quarantine import SetAside
from ...state.splitting import piece_name
from ...state.steps import Foreign
from ...state.throughput import SLICE_S
from ..bodies.cache import VerifiedBody
from ..bodies.inputs import Elsewhere
from ..bodies.loading import Bodies, Found
from ..claims.cancels import Cancels
from ..claims.held import Held
from ..claims.memory import Memory
from ..claims.slow import Pace, is_late, is_soon_over, share
from ..claims.suspects import Suspects
from ..claims.table import Claims, must_not_repeat
from ..outcomes.reporter import AGAIN_S, Reporter
from ..outcomes.settle import Keep
from .handback import HandBack
from .refusals import Refusals
from .remembering import Remembering

ELSEWHERE_S = 1.0
"""A job that this node cannot verify is held so long, where the master would only give it to us again."""


UNKNOWN_S = 0.5
"""A job of a task that is not here any more goes back after this: by then the master may know."""


_KEY = itemgetter(0)


class Running:
    """One identity's bundles, from the claim to the outcome. `open()`, then `work()` in the background; `close()`."""

    def __init__(
        self, context: IdentityContext, claims: Claims, cancels: Cancels, runners: Runners, *,
        may_start: Callable[[], bool], keep: Keep,
    ) -> None:
        self._context = context
        self._claims = claims
        self._cancels = cancels
        self._runners = runners
        self._may_start = may_start
        self._reporter = Reporter(context, runners, keep, self.forget)
        self._bodies = Bodies(context)
        aside = SetAside(
            context.ledger, context.keys, context.clock, context.seal, context.buckets,
            teller(context.events),
        )
        self._refusals = Refusals(context, aside)
        self._handback = HandBack(context, claims, runners, self._reporter, aside)
        self.remembering = Remembering(context, claims.by_key, self._reporter.advance)
        self._pace = Pace()
        self._suspects = Suspects()
        self._wake = asyncio.Event()
        self._draining = self._is_known_to_drain = False
        self._over = False

    @property
    def finished(self) -> int:
        """Jobs whose outcome is committed."""
        return self._reporter.finished

    def open(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self._reporter.open(group)

    def close(self) -> None:
        """The identity has ended."""
        self._over = True
        self._reporter.close()
        for held in self._claims:
            if held.memory is not None:
                held.memory.give_up()

    async def work(self) -> None:
        """Fetch what is wanted; commit what is due."""
        while True:
            self._wake.clear()
            for batch in self._bodies.batches():
                self._group.create_task(self._fetch(batch), name="fetch-bodies")
            try:
                async with asyncio.timeout(self._reporter.flush_due()):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def forget(self, held: Held) -> None:
        """It does not lie here any more."""
        self._claims.forget(held)
        if (alone := self._suspects.leave(held)) is not None:
            self._reporter.mark_started(alone, self.submit)

    def drop(self, held: Held) -> None:
        """Somebody else has it, or nobody: nothing of it has an outcome here."""
        self.forget(held)
        self._runners.withdraw([held.key])

    # -- jobs begin --------------------------------------------------------------------------------------------------

    def take(self, held: Held, known: VerifiedBody | None) -> None:
        """A claim has come. `known`: its body, if this node took it in and has verified it."""
        if known is None:
            self._bodies.want(held)
            self._wake.set()
        else:
            held.body, held.header, held.jobs = known
            self._found(self._bodies.compare(held))

    async def _fetch(self, batch: list[Held]) -> None:
        async for found in self._bodies.fetch(batch):
            self._found(found)

    def _found(self, found: Found) -> None:
        held = found.held
        if found.refused:
            self._refuse(held, found.refused)
        elif found.elsewhere is not None:
            self._give_elsewhere(held, found.elsewhere)
        elif held.claim.suspect or (must_not_repeat(self._runners.tasks, held.claim) and not held.claim.started):
            self._start_marked(held)
        elif held.claim.until_begun and held.claim.unique:
            self._reporter.mark_started(held, self.submit, started=False)
        else:
            self.submit(held)

    def submit(self, held: Held) -> None:
        """To the runners, as soon as that may be."""
        header = held.header
        assert header is not None
        if self._over or held.submitted or held.over:
            return
        if self._draining:      # until its record says so, it would be given the same again at once
            if self._is_known_to_drain and held.is_settled:
                self._release([held])
            return
        if not self._may_start():       # the lease is not being renewed: soon it is, or this claim is not ours
            asyncio.get_running_loop().call_later(AGAIN_S, self.submit, held)
            return
        if header.function and held.code is None:
            held.code = self._bodies.function(header)
            if held.code is None:
                self._group.create_task(self._fetch_function(held), name="fetch-function")
                return
        if held.claim.inputs and held.inputs is None:
            self._group.create_task(self._fetch_inputs(held), name="fetch-inputs")
            return
        if held.claim.steps and held.memory is None:
            self._group.create_task(self._fetch_steps(held), name="fetch-steps")
            return
        if not header.function and not self._as_it_runs_here(held):
            asyncio.get_running_loop().call_later(UNKNOWN_S, self._release_unknown, held)
            return
        held.submitted = True
        if held.claim.expires and self._context.clock.wall() * 1000 >= held.claim.expires:
            late = [(held.key, Outcome(i, "expired", error=EXPIRED)) for i, _ in held.without_outcome()]
            asyncio.get_running_loop().call_soon(self.on_outcomes, late)
            return
        cancelled = self._cancels.of(held.bundle)
        jobs = held.without_outcome()
        unwanted = [(held.key, Outcome(i, "cancelled", error="cancelled")) for i, _ in jobs if i in cancelled]
        if unwanted:
            jobs = [job for job in jobs if job[0] not in cancelled]
            asyncio.get_running_loop().call_soon(self.on_outcomes, unwanted)
        if jobs:
            self._hand_over(held, jobs)
            self._review_after(held, self._pace.patience_s(held.bundle))

    def _as_it_runs_here(self, held: Held) -> bool:
        """A task runs in the mode that the code here has, whatever it was when the job was enqueued. False if it is not
        here (any more): this node's record says so, or will in a moment."""
        info = self._runners.tasks.get(held.claim.task)
        if info is not None and info.mode != held.claim.mode:
            held.claim = replace(held.claim, mode=info.mode)
        return info is not None

    def _release_unknown(self, held: Held) -> None:
        if held.claim.task in self._runners.tasks or not held.is_settled:
            self.submit(held)
        else:
            self._release([held])

    async def _fetch_function(self, held: Held) -> None:
        found = await self._bodies.fetch_function(held)
        if found is not None and found.refused:
            self._refuse(held, found.refused)
        elif found is not None:
            self.submit(held)

    async def _fetch_inputs(self, held: Held) -> None:
        found = await self._bodies.inputs(held)
        if held.over:
            return
        if isinstance(found, str):
            self._refuse(held, found)
        elif isinstance(found, Elsewhere):
            self._give_elsewhere(held, found.key_id)
        else:
            held.inputs = found
            self.submit(held)

    async def _fetch_steps(self, held: Held) -> None:
        found = await self._bodies.steps(held)
        if held.over:
            return
        if isinstance(found, str):
            self._refuse(held, found)
        elif isinstance(found, Foreign):
            self._give_elsewhere(held, found.key_id)
        else:
            held.memory = Memory(found, held.claim.late_indexes)
            self.submit(held)

    def _hand_over(self, held: Held, jobs: list[tuple[int, bytes]]) -> None:
        claim, events = held.claim, self._context.events
        if events.wanted(BundleTaken):
            waited_s = max(self._context.clock.wall() - claim.at / 1000, 0.0)
            events.emit(BundleTaken(held.bundle, claim.task, claim.queue, len(jobs), claim.attempt, waited_s))
        self._runners.submit(held.work(jobs, report_start=events.wanted(JobStarted)))

    def _start_marked(self, held: Held) -> None:
        """Its start is committed before it happens, so that its loss can be told from bad company."""
        if (now := self._suspects.admit(held)) is not None:
            self._reporter.mark_started(now, self.submit)

    # -- jobs end ----------------------------------------------------------------------------------------------------

    def on_outcomes(self, outcomes: Iterable[tuple[int, Outcome]]) -> None:
        """Called by the runners."""
        now = self._context.clock.monotonic()
        for key, items in groupby(outcomes, _KEY):      # a bundle's mostly come together
            held = self._claims.by_key(key)
            if held is None:
                continue            # handed back, taken over, or of an earlier identity
            ended = [outcome for _, outcome in items]
            self._pace.note_ended(held.claim.mode, len(ended), now)
            if self._reporter.take(held, ended, now) and not self._wake.is_set():
                self._wake.set()

    def is_stored(self, held: Held) -> None:
        """Level `delayed`: its claim is in the store now, and what has ended meanwhile can go there, too."""
        self._reporter.advance(held)
        if not held.submitted:
            self.submit(held)

    # -- jobs that are slow, or wait behind such ---------------------------------------------------------------------

    def _review_after(self, held: Held, seconds: float) -> None:
        held.review = asyncio.get_running_loop().call_later(seconds, self._review, held)

    def _review(self, held: Held) -> None:
        """Of those that have not begun, keep a share, and let others have the rest."""
        held.review = None
        if self._over or held.over or self._draining:
            return
        if self._runners.keeps(held.key) or not self._may_start():
            self._review_after(held, SLICE_S)
            return
        mode, pending, now = held.claim.mode, held.pending, self._context.clock.monotonic()
        through, late = self._pace.through(mode, now), is_late(now - held.since)
        if self._runners.begins(mode) or not pending or (is_soon_over(pending, through) and not late):
            self._review_after(held, SLICE_S)
            return
        not_begun = dict(self._runners.withdraw([held.key])).get(held.key, [])
        mine = share(
            held.bundle, not_begun, pending=pending, through=through, busy=self._runners.busy(mode, held.claim.queue),
            late=late,
            settled=held.is_settled,
        )
        if mine.whole:
            self._pace.note_given_back(held.bundle)
            self._release([held])
            return
        if mine.keep:
            self._submit_rest(held, mine.keep)
            self._review_after(held, SLICE_S)
        if mine.back:
            self._reporter.give_back(held, mine.back, mine.size)

    def _submit_rest(self, held: Held, indexes: list[int]) -> None:
        """Some jobs of a begun bundle were taken back from the runners: give them out again, to end with the rest; as
        they run here by now. Where their code is gone meanwhile they go back, but for the one by whose name it lies
        here."""
        if self._over or held.over:
            return
        assert held.header is not None
        if not held.header.function and not self._as_it_runs_here(held):
            stays = [index for index in indexes if piece_name(held.bundle, [index]) == held.bundle]
            if back := [index for index in indexes if index not in stays]:
                self._reporter.give_back(held, back, len(back))
            if stays:
                asyncio.get_running_loop().call_later(UNKNOWN_S, self._submit_rest, held, stays)
            return
        wanted = set(indexes)
        self._hand_over(held, [job for job in held.jobs if job[0] in wanted])

    # -- what must not be run, or not here ---------------------------------------------------------------------------

    def _refuse(self, held: Held, reason: str) -> None:
        self.forget(held)
        self._group.create_task(self._refusals.refuse(held, reason), name="set-aside")

    def refuse_unreadable(self, record: Record) -> None:
        """A claim that is none."""
        self._group.create_task(self._refusals.unreadable(record), name="set-aside")

    def _give_elsewhere(self, held: Held, key_id: str) -> None:
        """Signed with a key that is not here: back to its queue; but not too fast, where it would only come again."""
        if self._refusals.note_missing(held, key_id):
            self._release([held])
        else:
            asyncio.get_running_loop().call_later(ELSEWHERE_S, self._release, [held])

    # -- handing back ------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Nothing is begun any more: what comes goes back, from `release_unstarted` on."""
        self._draining = True

    def _release(self, batch: Iterable[Held]) -> list[asyncio.Future[Verdict]]:
        """Hand bundles back to their queues, as if they had never been given. No attempt is used up."""
        futures = []
        for held in batch:
            if held.over:
                continue
            futures.append(self._handback.one(held))
            self.forget(held)
        return futures

    async def release_unstarted(self) -> int:
        """Hand back what no runner has begun, and what comes from now on, if this node drains: its record says so by
        now. Part of a begun bundle stays: its bundle ends here."""
        self._is_known_to_drain = self._draining
        withdrawn = dict(self._runners.withdraw(None))
        batch = []
        for key, indexes in withdrawn.items():
            held = self._claims.by_key(key)
            if held is None:
                continue
            if len(indexes) >= held.pending and held.is_settled:
                batch.append(held)
            else:
                self._submit_rest(held, indexes)
        batch.extend(held for held in self._claims if not held.submitted and held.is_settled)
        futures = self._release(batch)
        await asyncio.gather(*futures, return_exceptions=True)
        return len(batch)

    async def release_all(self) -> int:
        """Hand back everything that lies under us, whatever the runners did with it: they are dead. Lists afresh. What
        has come since then, and been begun, stays."""
        ran: dict[str, int] = {}
        for held in self._claims:
            if held.record.create_revision or self._draining:
                if began_ms := held.runs_since_ms:
                    ran[held.bundle] = began_ms
                self._flush_before_release(held)
            else:
                self._begin_again_when_stored(held)
        why = "its node was stopped" if self._draining else "its node was cut off from the store"
        return await self._handback.all(but_held=not self._draining, ran=ran, why=why)

    def _begin_again_when_stored(self, held: Held) -> None:
        """Level `delayed`: what has ended waits for the claim as before, but what has not was killed."""
        if held.review is not None:
            held.review.cancel()
        held.submitted = False

    def _flush_before_release(self, held: Held) -> None:
        if held.header is not None and held.has_news:
            self._reporter.flush(held)
        self.forget(held)
