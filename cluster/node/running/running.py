"""What of a node's bundles is begun, and goes on to its outcome, or back to its queue.

What a claim needs is read and verified (`bodies`) before a runner sees a byte; what ends is committed (`reporter`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from itertools import groupby
from operator import itemgetter

from rota.client.model import Outcome
from rota.worker.pool.interface import Runners

from ...context import IdentityContext
from ...events.aside import teller
from ...events.records import BundleTaken, JobStarted
from ...ledger.commits import Verdict
from ...ledger.ledger import Record
from ...state.quarantine import SetAside
from ...state.splitting import piece_name
from ...state.throughput import SLICE_S
from ..bodies.cache import VerifiedBody
from ..bodies.loading import Bodies, Found
from ..bodies.needs import Need, Needs
from ..claims.cancels import Cancels
from ..claims.held import Held
from ..claims.slow import Pace
from ..claims.suspects import Suspects
from ..claims.table import Claims, must_not_repeat, take_mode_of_here
from ..outcomes.company import Company
from ..outcomes.reporter import AGAIN_S, Reporter
from ..outcomes.settle import Keep
from .handback import HandBack
from .refusals import Refusals
from .remembering import Remembering
from .review import Review
from .unwanted import unwanted

ELSEWHERE_S = 1.0
"""A job that this node cannot verify is held so long, where the master would only give it to us again."""


UNKNOWN_S = 0.5
"""A job of a task that is not here any more goes back after this: by then the master may know."""


_KEY = itemgetter(0)


class Running:
    """One identity's bundles, from the claim to the outcome. `open()`, then `work()` in the background; `close()`."""

    def __init__(
        self, context: IdentityContext, claims: Claims, cancels: Cancels, runners: Runners, *,
        may_start: Callable[[], bool], keep: Keep, is_limited: Callable[[str, str], bool],
    ) -> None:
        self._context = context
        self._claims = claims
        self._cancels = cancels
        self._runners = runners
        self._may_start = may_start
        self.reporter = Reporter(context, runners, keep, self.forget, Company(is_limited))
        self._bodies = Bodies(context)
        self._needs = Needs(self._bodies)
        aside = SetAside(
            context.ledger, context.keys, context.clock, context.seal, context.buckets,
            teller(context.events),
        )
        self._refusals = Refusals(context, aside)
        self.handback = HandBack(context, claims, runners, self.reporter, aside)
        self.remembering = Remembering(context, claims.by_key, self.reporter.advance)
        self._pace = Pace()
        self._reviews = Review(runners, self._pace, context.clock)
        self._suspects = Suspects()
        self._wake = asyncio.Event()
        self._draining = self._returns = False
        self._over = False

    @property
    def finished(self) -> int:
        """Jobs whose outcome is committed."""
        return self.reporter.finished

    def open(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        self.reporter.open(group)

    def close(self) -> None:
        """The identity has ended."""
        self._over = True
        self.reporter.close()
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
                async with asyncio.timeout(self.reporter.flush_due()):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def forget(self, held: Held) -> None:
        """It does not lie here any more."""
        self._claims.forget(held)
        if (alone := self._suspects.leave(held)) is not None:
            self.reporter.mark_started(alone, self.submit)

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
            self.reporter.mark_started(held, self.submit, started=False)
        else:
            self.submit(held)

    def submit(self, held: Held) -> None:
        """To the runners, as soon as that may be."""
        header = held.header
        assert header is not None
        if self._over or held.submitted or held.over:
            return
        if self._draining:      # until its record says so, it would be given the same again at once
            if self._returns and held.is_settled:
                self.release([held])
            return
        if not self._may_start():       # the lease is not being renewed: soon it is, or this claim is not ours
            asyncio.get_running_loop().call_later(AGAIN_S, self.submit, held)
            return
        if (need := self._needs.of(held)) is not None:
            self._group.create_task(self._fetch_need(held, need), name=f"fetch-{need}")
            return
        if not header.function and not take_mode_of_here(self._runners.tasks, held):
            asyncio.get_running_loop().call_later(UNKNOWN_S, self._release_unknown, held)
            return
        held.submitted = True
        jobs = held.without_outcome()
        if ended := unwanted(held, jobs, self._cancels.of(held.bundle), self._context.clock):
            gone = {outcome.index for _, outcome in ended}
            jobs = [job for job in jobs if job[0] not in gone]
            asyncio.get_running_loop().call_soon(self.on_outcomes, ended)
        if jobs:
            self._hand_over(held, jobs)
            self._review_after(held, self._pace.patience_s(held.bundle))

    def _release_unknown(self, held: Held) -> None:
        if held.claim.task in self._runners.tasks or not held.is_settled:
            self.submit(held)
        else:
            self.release([held])

    async def _fetch_need(self, held: Held, need: Need) -> None:
        found = await self._needs.fetch(held, need)
        if found is not None and found.refused:
            self._refuse(held, found.refused)
        elif found is not None and found.elsewhere is not None:
            self._give_elsewhere(held, found.elsewhere)
        elif found is not None:
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
            self.reporter.mark_started(now, self.submit)

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
            if self.reporter.take(held, ended, now) and not self._wake.is_set():
                self._wake.set()

    def is_stored(self, held: Held) -> None:
        """Level `delayed`: its claim is in the store now, and what has ended meanwhile can go there, too."""
        self.reporter.advance(held)
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
        mine = self._reviews.of(held) if self._may_start() else None
        if mine is None:
            self._review_after(held, SLICE_S)
            return
        if mine.whole:
            self._pace.note_given_back(held.bundle)
            self.release([held])
            return
        if mine.keep:
            self.submit_rest(held, mine.keep)
            self._review_after(held, SLICE_S)
        if mine.back:
            self.reporter.give_back(held, mine.back, mine.size)

    def submit_rest(self, held: Held, indexes: list[int]) -> None:
        """Some jobs of a begun bundle were taken back from the runners: give them out again, to end with the rest; as
        they run here by now. Where their code is gone meanwhile they go back, but for the one by whose name it lies
        here."""
        if self._over or held.over:
            return
        assert held.header is not None
        if not held.header.function and not take_mode_of_here(self._runners.tasks, held):
            stays = [index for index in indexes if piece_name(held.bundle, [index]) == held.bundle]
            if back := [index for index in indexes if index not in stays]:
                self.reporter.give_back(held, back, len(back))
            if stays:
                asyncio.get_running_loop().call_later(UNKNOWN_S, self.submit_rest, held, stays)
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
            self.release([held])
        else:
            asyncio.get_running_loop().call_later(ELSEWHERE_S, self.release, [held])

    # -- handing back ------------------------------------------------------------------------------------------------

    def drain(self) -> None:
        """Nothing is begun any more."""
        self._draining = True

    @property
    def may_begin(self) -> bool:
        return not (self._over or self._draining) and self._may_start()

    @property
    def drains(self) -> bool:
        return self._draining

    def is_known_to_drain(self) -> None:
        """Its record says so: what comes goes back from now on."""
        self._returns = True

    def release(self, batch: Iterable[Held]) -> list[asyncio.Future[Verdict]]:
        """Hand bundles back to their queues, as if they had never been given. No attempt is used up."""
        futures = []
        for held in batch:
            if held.over:
                continue
            futures.append(self.handback.one(held))
            self.forget(held)
        return futures
