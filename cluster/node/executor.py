"""From a claim to its outcome: what a node does with the bundles that were given to it.

The watch over `claims/<node>/` is the subscription. What a claim needs is read and verified (`bodies`) before a runner
sees a byte; what ends is committed (`reporter`); what cannot go on here goes back to its queue (`handback`).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable

import msgspec

from rota.client.codec import Seal
from rota.client.errors import LedgerError
from rota.client.model import Outcome
from rota.worker.pool.runners import Runners, Work

from ..clock import Clock
from ..events.hub import Events
from ..events.records import BundleTaken, KeyMissing
from ..events.sparse import Sparse
from ..ledger.buckets import Buckets
from ..ledger.commits import Commits, Verdict, Write
from ..ledger.follow import Listing, Show, follow
from ..ledger.ledger import Condition, Ledger, Record
from ..ledger.patience import patiently
from ..state import moves
from ..state.keys import Keys, whole
from ..state.quarantine import SetAside
from ..state.records import Claim, bits, claim_in, hex_bits
from ..state.splitting import piece_name
from ..state.throughput import SLICE_S, Throughput
from .bodies import Bodies
from .handback import HandBack
from .held import Held
from .intake import BodyCache, VerifiedBody
from .outcomes import give_back
from .reporter import AGAIN_S, Reporter

log = logging.getLogger(__name__)
trying = Sparse(log)

KEEP_SLICES = 5
"""What a node gets through in as many slices it keeps, though others could begin it sooner."""

ELSEWHERE_S = 1.0
"""A job that this node cannot verify is held so long, where the master would only give it to us again."""

MISSING_MAX = 100
"""Ids of missing keys that are said once each."""

ENDED_MAX = 20_000
"""Ended claims that are remembered, because the watch may lag behind our own commits."""


class Executor:
    """One identity's claims. `run()` watches and works; `release_all()` hands back."""

    def __init__(
        self, ledger: Ledger, commits: Commits, keys: Keys, clock: Clock, runners: Runners, seal: Seal,
        *, node: str, member: Condition, buckets: Buckets, cache: BodyCache, may_start: Callable[[], bool],
        keep_result_s: float, keep_finished_s: float, events: Events,
    ) -> None:
        self._ledger = ledger
        self._commits = commits
        self._keys = keys
        self._clock = clock
        self._runners = runners
        self._node = node
        self._member = member
        self._cache = cache
        self._may_start = may_start
        self._events = events
        self._reporter = Reporter(
            commits, keys, clock, runners, seal, buckets, node=node, member=member, keep_result_s=keep_result_s,
            keep_finished_s=keep_finished_s, on_end=lambda held: self._forget(held), events=events,
        )
        self._bodies = Bodies(
            ledger, keys, seal, on_ready=lambda held: self._start(held), on_function=lambda held: self._submit(held),
            on_refused=self._refuse, on_elsewhere=self._give_elsewhere, events=events,
        )
        self._aside = SetAside(ledger, keys, clock, seal, buckets)
        self._handback = HandBack(
            ledger, commits, keys, self._aside, node=node, member=member,
            must_not_repeat=lambda claim: self._must_not_repeat(claim), on_write=self._note_ended,
            is_kept=lambda bundle, record: not self.draining and self._is_held(bundle, record),
        )
        self._held: dict[str, Held] = {}
        self._by_key: dict[int, Held] = {}
        self._next_key = 1
        self._alone: list[Held] = []
        self._wake = asyncio.Event()
        self._less = asyncio.Event()
        self._through = {"async": Throughput(), "sync": Throughput()}
        self.draining = False
        self._over = False
        self._ended: dict[tuple[str, int], None] = {}    # (bundle, create revision) of ended claims, newest last
        self._gave_back: dict[str, int] = {}        # bundles, and how often they were; newest last
        self._begun: dict[str, None] = {}           # bundles that began before they were stored, newest last
        self._cancels: dict[str, set[int]] = {}     # bundle as enqueued -> indexes
        self._missing: set[str] = set()             # ids of keys that jobs had and this node has not

    @property
    def running(self) -> int:
        return len(self._runners.running())

    @property
    def finished(self) -> int:
        """Jobs whose outcome is committed."""
        return self._reporter.finished

    @property
    def held(self) -> int:
        return len(self._held)

    # -- claims come in ----------------------------------------------------------------------------------------------

    async def run(self, revision: int) -> None:
        """Claims that come after this revision, until the identity ends."""
        try:
            async with asyncio.TaskGroup() as group:
                self._group = self._reporter.group = group
                group.create_task(self._watch(revision), name="claims-watch")
                group.create_task(self._watch_cancels(), name="cancels-watch")
                group.create_task(self._work(), name="executor")
        finally:
            self._over = self._reporter.over = True

    async def _watch(self, revision: int) -> None:
        prefix = self._keys.claims_of(self._node)
        async with follow(self._ledger, prefix, after=revision) as news:
            async for seen in news:
                if isinstance(seen, Listing):
                    self._compare(seen)
                    continue
                for event in seen.events:
                    if event.deleted:
                        self._gone(event.record.key)
                    else:
                        self._seen(event.record)

    async def _watch_cancels(self) -> None:
        """Requests to cancel: rare, so every node sees all of them."""
        prefix = self._keys.cancels
        async with follow(self._ledger, prefix, show=Show.KEYS) as news:
            async for seen in news:
                if isinstance(seen, Listing):
                    self._cancels = {}
                    for record in seen.records:
                        self._cancel(record.key, ended=False)
                    continue
                for event in seen.events:
                    self._cancel(event.record.key, ended=event.deleted)

    def _cancel(self, key: bytes, *, ended: bool) -> None:
        parsed = self._keys.parse_cancel(key)
        if parsed is None:
            return
        bundle, index = parsed
        requests = self._cancels.setdefault(bundle, set())
        if ended:
            requests.discard(index)
            if not requests:
                del self._cancels[bundle]
            return
        requests.add(index)
        for held in self._held.values():
            if held.submitted and whole(held.bundle) == bundle and index in (i for i, _ in held.jobs):
                self._runners.cancel(held.key, index)

    def _compare(self, listing: Listing) -> None:
        """After a compaction overtook the watch: compare with what lies under us."""
        present = {record.key for record in listing.records}
        for held in list(self._held.values()):
            if held.record.key not in present and held.record.create_revision <= listing.revision:
                self._gone(held.record.key)     # (our own claim, of level `delayed`, may be newer than what we read)
        for record in listing.records:
            self._seen(record)

    def _seen(self, record: Record) -> None:
        parsed = self._keys.parse_claim(record.key)
        if parsed is None:
            return
        bundle = parsed[1]
        held = self._held.get(bundle)
        if held is not None:
            if held.record.create_revision in (0, record.create_revision):
                return              # our own update of its bitmap, or our own claim (level `delayed`)
            self._forget(held)      # it left and came again while we did not look
        elif (bundle, record.create_revision) in self._ended:
            return                  # an update of ours that the watch shows after its end was committed
        claim = claim_in(record.value)
        if claim is None:
            self._group.create_task(
                self._set_aside(record, lambda now: self._aside.unreadable((self._member,), now)), name="set-aside"
            )
            return
        held = Held(
            self._next_key, bundle, record, claim, mod_revision=record.mod_revision, done=claim.done_bits
        )
        self._next_key += 1
        self._held[bundle] = held
        self._by_key[held.key] = held
        taken = self._cache.take(bundle)
        if taken is not None:
            held.body, held.header, held.jobs = taken
            if self._bodies.may_run(held):
                self._start(held)
        else:
            self._bodies.want(held)
            self._wake.set()

    def begin(self, bundle: str, claim: Claim, body: VerifiedBody, stored: asyncio.Future[Verdict]) -> None:
        """Level `delayed`: start a bundle whose claim is still being written. Its outcomes wait for that. A repeat,
        which will find the receipt, starts nothing."""
        if bundle in self._begun or bundle in self._held:
            return
        self._begun[bundle] = None
        if len(self._begun) > ENDED_MAX:
            del self._begun[next(iter(self._begun))]
        record = Record(self._keys.claim(self._node, bundle), b"", 0, 0, 1)
        held = Held(self._next_key, bundle, record, claim, body=body[0], header=body[1], jobs=body[2], writing=True)
        self._next_key += 1
        self._held[bundle] = held
        self._by_key[held.key] = held
        stored.add_done_callback(lambda done: self._stored(held, done))
        self._submit(held)

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
        page = await patiently(lambda: self._ledger.read(held.record.key))
        found, receipt = page.records[0] if page.records else None, verdict.found if verdict is not None else None
        if found is not None and receipt is not None and found.create_revision == receipt.create_revision:
            self._adopt(held, found.create_revision)
            return
        log.warning("bundle %s was started, but could not be stored: its outcome is not kept", held.bundle)
        if verdict is None:
            self._begun.pop(held.bundle, None)      # it may be asked for again
        self._forget(held)
        self._runners.withdraw([held.key])
        if found is not None:
            self._seen(found)

    def _adopt(self, held: Held, revision: int) -> None:
        """Our own claim is in the store: from here on it is like any other."""
        if held.over:
            return              # given up meanwhile, by a node that leaves
        held.record = msgspec.structs.replace(held.record, create_revision=revision, mod_revision=revision)
        held.mod_revision, held.writing = revision, False
        self._reporter.advance(held)     # with what has ended meanwhile
        if not held.submitted:
            self._submit(held)

    def _gone(self, key: bytes) -> None:
        held = self._held.get(key.rpartition(b"/")[2].decode(errors="replace"))
        if held is not None and held.record.key == key and not held.writing:
            self._forget(held)
            self._runners.withdraw([held.key])

    def _review(self, held: Held) -> None:
        """These jobs are slow, or wait behind such: of those that have not begun, keep what this node gets through in a
        slice, and give the others back, in pieces of that size. If it gets through nothing, give back all."""
        held.review = None
        if self._over or held.over or self.draining or not self._may_start():
            return
        if self._runners.keeps(held.key):
            held.review = asyncio.get_running_loop().call_later(SLICE_S, self._review, held)
            return
        mode, pending = held.claim.mode, held.pending
        through = self._through[mode].in_a_slice(self._clock.monotonic())
        if self._runners.begins(mode) or pending <= KEEP_SLICES * through:      # soon begun, or soon done
            held.review = asyncio.get_running_loop().call_later(SLICE_S, self._review, held)
            return
        size = max(1, through)
        withdrawn = dict(self._runners.withdraw([held.key])).get(held.key, [])
        if len(withdrawn) == pending and through == 0 and self._is_stuck(held):
            self._gave_back[held.bundle] = self._gave_back.pop(held.bundle, 0) + 1
            if len(self._gave_back) > ENDED_MAX:
                del self._gave_back[next(iter(self._gave_back))]
            self._release([held])
            return
        if len(withdrawn) <= KEEP_SLICES * through:     # soon done: not worth the pieces
            size = len(withdrawn)
        keep_max = 0 if through == 0 and self._is_stuck(held) else size
        back = [index for index in withdrawn[keep_max:] if piece_name(held.bundle, [index]) != held.bundle]
        keep = [index for index in withdrawn if index not in back]
        if keep:
            self._submit_rest(held, keep)
            held.review = asyncio.get_running_loop().call_later(SLICE_S, self._review, held)
        if back:
            held.done |= bits(back)
            held.back += len(back)
            held.queue.append(give_back(self._keys, held, back, size))
            if held.is_complete:
                self._reporter.flush(held)
            else:
                self._reporter.advance(held)

    def _is_stuck(self, held: Held) -> bool:
        """Whether nothing of it has begun, and nothing soon will: all slots are taken by jobs that go on and on."""
        return held.is_settled and not held.claim.suspect and self._runners.busy(held.claim.mode)

    def _forget(self, held: Held) -> None:
        held.end()
        if self._held.get(held.bundle) is held:     # it may have come again, under another claim
            del self._held[held.bundle]
        self._note_ended(held.bundle, held.record.create_revision)
        self._by_key.pop(held.key, None)
        self._less.set()
        if held in self._alone:
            self._alone.remove(held)
            self._next_alone()

    def _note_ended(self, bundle: str, create_revision: int) -> None:
        self._ended[bundle, create_revision] = None
        if len(self._ended) > ENDED_MAX:
            del self._ended[next(iter(self._ended))]

    def _is_held(self, bundle: str, record: Record) -> bool:
        held = self._held.get(bundle)
        return held is not None and held.record.create_revision in (0, record.create_revision)

    # -- jobs begin and end ------------------------------------------------------------------------------------------

    async def _work(self) -> None:
        """Fetch what is wanted; commit what is due."""
        while True:
            self._wake.clear()
            for batch in self._bodies.batches():
                self._group.create_task(self._bodies.fetch(batch), name="fetch-bodies")
            try:
                async with asyncio.timeout(self._reporter.flush_due()):
                    await self._wake.wait()
            except TimeoutError:
                pass

    def _start(self, held: Held) -> None:
        if held.claim.suspect or (self._must_not_repeat(held.claim) and not held.claim.started):
            self._start_suspect(held)
        else:
            self._submit(held)

    def _must_not_repeat(self, claim: Claim) -> bool:
        info = self._runners.tasks.get(claim.task)
        return info is not None and info.on_orphan == "fail"

    def _submit(self, held: Held) -> None:
        header = held.header
        assert header is not None
        if self._over or held.submitted or held.over:
            return
        if self.draining:
            if held.is_settled:
                self._release([held])
            return
        if not self._may_start():       # the lease is not being renewed: soon it is, or this claim is not ours
            asyncio.get_running_loop().call_later(AGAIN_S, self._submit, held)
            return
        if header.function and held.code is None:
            held.code = self._bodies.function(header)
            if held.code is None:
                self._group.create_task(self._bodies.fetch_function(held), name="fetch-function")
                return
        held.submitted = True
        cancelled = self._cancels.get(whole(held.bundle), set())
        ended = held.done | bits([outcome.index for outcome in (*held.outcomes, *held.retries)])
        jobs = [job for job in held.jobs if not ended >> job[0] & 1]
        unwanted = [(held.key, Outcome(i, "cancelled", error="cancelled")) for i, _ in jobs if i in cancelled]
        if unwanted:
            jobs = [job for job in jobs if job[0] not in cancelled]
            asyncio.get_running_loop().call_soon(self.on_outcomes, unwanted)
        if jobs:
            self._hand_over(held, jobs)
            patience_s = SLICE_S * 2.0 ** min(self._gave_back.get(held.bundle, 0), 10)     # nobody else may have room
            held.review = asyncio.get_running_loop().call_later(patience_s, self._review, held)

    def _hand_over(self, held: Held, jobs: list[tuple[int, bytes]]) -> None:
        header = held.header
        assert header is not None
        if self._events.wanted(BundleTaken):
            waited_s = max(self._clock.wall() - held.claim.at / 1000, 0.0)
            self._events.emit(BundleTaken(
                held.bundle, header.task, header.queue, len(jobs), held.claim.attempt, waited_s
            ))
        self._runners.submit(Work(
            held.key, header.bundle, header.task, header.queue, header.mode, held.claim.attempt,
            held.record.create_revision, header.enqueued_at, header.codec, jobs,
            held.code, header.options,
        ))

    # -- suspects: their node was lost once ---------------------------------------------------------------------------

    def _start_suspect(self, held: Held) -> None:
        """Its start is committed before it happens, so that its loss can be told from bad company. One that was lost
        before runs when no other such suspect does."""
        if held.claim.lost > 0:
            self._alone.append(held)
            self._next_alone()
        else:
            self._mark_started(held)

    def _next_alone(self) -> None:
        if self._alone and not self._alone[0].claim.started:
            self._mark_started(self._alone[0])

    def _mark_started(self, held: Held) -> None:
        if self._over or held.over:
            return
        held.claim = msgspec.structs.replace(held.claim, started=True)
        member, at = self._reporter.conditions(held)
        future = self._commits.submit(moves.mark_started((member,), at, held.claim))

        def marked(done: asyncio.Future[Verdict]) -> None:
            if done.cancelled() or self._over or held.over:
                return
            if done.exception() is not None:
                asyncio.get_running_loop().call_later(AGAIN_S, self._mark_started, held)
            elif not done.result().repeated and self._reporter.overwritten(held, done.result()):
                self._mark_started(held)
            elif self._reporter.took_place(held, done.result()):
                self._submit(held)
            else:
                self._reporter.void(held)

        future.add_done_callback(marked)

    def on_outcomes(self, outcomes: Iterable[tuple[int, Outcome]]) -> None:
        """Called by the runners."""
        now = self._clock.monotonic()
        for key, outcome in outcomes:
            held = self._by_key.get(key)
            if held is None:
                continue            # handed back, taken over, or of an earlier identity
            self._through[held.claim.mode].add(1, now)
            if self._reporter.take(held, outcome, now) and not self._wake.is_set():
                self._wake.set()

    # -- what must not be run, or not here ---------------------------------------------------------------------------

    def _refuse(self, held: Held, reason: str) -> None:
        record = msgspec.structs.replace(held.record, mod_revision=held.mod_revision)
        claim, body = held.claim, held.body
        self._forget(held)
        self._group.create_task(self._set_aside(
            record, lambda now: self._aside.fail((self._member,), now, claim, reason, node=self._node, body=body)
        ), name="set-aside")

    async def _set_aside(self, record: Record, make: Callable[[Record], Awaitable[Write]]) -> None:
        """Until the store takes it, or the claim is not ours any more."""
        while True:
            try:
                verdict = await self._commits.submit(await make(record))
                found = verdict.found
                if verdict.applied or found is None or found.create_revision != record.create_revision:
                    return
                page = await self._ledger.read(record.key)      # somebody has written over it
                if not page.records:
                    return
                record = page.records[0]
            except LedgerError as error:
                trying.warn("not set aside, to be tried again: %s", error)
                await asyncio.sleep(AGAIN_S)

    def _give_elsewhere(self, held: Held, key_id: str) -> None:
        """Signed with a key that is not here: back to its queue, with a token that says which key that is. The master
        gives it to others then. One that knew, and gave it to us, does not look at keys (it is of the release before):
        not too fast, then."""
        if key_id not in self._missing and len(self._missing) < MISSING_MAX:
            self._missing.add(key_id)
            self._events.emit(KeyMissing(held.bundle, key_id))
        signed = held.claim.signed
        if signed is None or signed.partition("#")[0] != key_id:
            held.claim = msgspec.structs.replace(held.claim, signed=key_id)
            self._release([held])
        else:
            asyncio.get_running_loop().call_later(ELSEWHERE_S, self._release, [held])

    # -- handing back ------------------------------------------------------------------------------------------------

    def _release(self, batch: Iterable[Held]) -> list[asyncio.Future[Verdict]]:
        """Hand bundles back to their queues, as if they had never been given. No attempt is used up."""
        futures = []
        for held in batch:
            if held.over:
                continue
            futures.append(self._insist(held))
            self._forget(held)
        return futures

    def _insist(self, held: Held) -> asyncio.Future[Verdict]:
        """Nobody else will repeat it: while the store refuses it (it may be full), try again."""
        member, at = self._reporter.conditions(held)
        claim = msgspec.structs.replace(held.claim, done=hex_bits(held.done))
        future = self._commits.submit(moves.hand_back(self._keys, (member,), at, held.bundle, claim))

        def settled(done: asyncio.Future[Verdict]) -> None:
            if done.cancelled() or self._over:
                return
            if (error := done.exception()) is not None:
                trying.warn("not stored, to be tried again: %s", error)
                asyncio.get_running_loop().call_later(AGAIN_S, self._insist, held)
            elif self._reporter.overwritten(held, done.result()):
                self._insist(held)

        future.add_done_callback(settled)
        return future

    async def release_unstarted(self) -> int:
        """Hand back what no runner has begun. Part of a begun bundle stays: its bundle ends here."""
        withdrawn = dict(self._runners.withdraw(None))
        batch = []
        for key, indexes in withdrawn.items():
            held = self._by_key.get(key)
            if held is None:
                continue
            if len(indexes) >= held.pending and held.is_settled:
                batch.append(held)
            else:
                self._submit_rest(held, indexes)
        batch.extend(held for held in self._held.values() if not held.submitted and held.is_settled)
        futures = self._release(batch)
        await asyncio.gather(*futures, return_exceptions=True)
        return len(batch)

    def _submit_rest(self, held: Held, indexes: list[int]) -> None:
        """Some jobs of a begun bundle were taken back from the runners: give them out again, to end with the rest."""
        wanted = set(indexes)
        self._hand_over(held, [job for job in held.jobs if job[0] in wanted])

    async def release_all(self) -> int:
        """Hand back everything that lies under us, whatever the runners did with it: they are dead. Lists afresh. What
        has come since then, and been begun, stays."""
        for held in list(self._held.values()):
            if held.record.create_revision or self.draining:
                self._flush_before_release(held)
            else:
                self._begin_again_when_stored(held)
        return await self._handback.all()

    def _begin_again_when_stored(self, held: Held) -> None:
        """Level `delayed`: what has ended waits for the claim as before, but what has not was killed."""
        if held.review is not None:
            held.review.cancel()
        held.submitted = False

    def _flush_before_release(self, held: Held) -> None:
        if held.header is not None and held.outcomes:
            self._reporter.flush(held)
        self._forget(held)

    async def until_idle(self) -> None:
        """Everything that was begun has its outcome committed."""
        while self._held:
            self._less.clear()
            await self._less.wait()
