"""What running jobs say, on its way to the store: a key for each job that says how far it is, on the lease of its node,
deleted when the job has ended here; and the log lines that are kept of it, on a lease of their own.

Nothing waits for these writes: they decide nothing. What is said of a job that lies here under a claim is guarded by
that claim, so that no late twin of the write outlives the job; and is deleted as it was last written, so that no late
twin of the delete takes what its next run says. The key of a node that is lost goes with its lease: an identity that
comes after writes anew what is still said.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from rota.client.errors import LedgerError
from rota.client.model import LOG_LINES_MAX, Outcome
from rota.client.wire.views import LogLine
from rota.worker.channel.frames import ProgressUpdate

from ...context import IdentityContext
from ...ledger.commits import Verdict, Write, created, unmodified
from ...ledger.ledger import Condition, Delete, Put, Target
from ...state.keys import Keys
from ...state.records import LogRecord, ProgressRecord, encode
from ..claims.held import LocalJob

EVERY_S = 0.5
"""Of one job, at the least."""
WRITES_PER_S = 200
"""Of one node: of very many jobs each is written less often."""
JOBS_MAX = 10_000
LOG_BYTES_MAX = 32 * 1024
LOG_KEPT_S = 86_400.0
SWEEP_S = 5.0
TWIN_S = 5.0
"""A write that no claim guards, and that had to be repeated, may apply once more within this time: what it says is
deleted again then."""

JobRef = tuple[int, int]
Name = tuple[str, int]


class _Job:
    """One run of a job here."""

    __slots__ = (
        "dropped",
        "ended",
        "lines",
        "lines_new",
        "local",
        "new",
        "next_at",
        "progress",
        "revision",
        "size",
        "unsure",
        "written",
    )

    def __init__(self, local: LocalJob) -> None:
        self.local = local
        self.progress: ProgressRecord | None = None
        self.lines: deque[LogLine] = deque()
        self.size = self.dropped = 0
        self.new = self.lines_new = self.written = self.ended = self.unsure = False
        self.revision = 0       # at which it was last written; 0: that is not known
        self.next_at = 0.0

    @property
    def name(self) -> Name:
        return self.local.bundle, self.local.index

    def inherit(self, before: _Job) -> None:
        """What an earlier run of the job has written here is this one's to write over, and to delete."""
        self.written, self.unsure, self.revision = before.written, before.unsure, before.revision

    def add(self, update: ProgressUpdate) -> None:
        for line in update.lines:
            self.lines.append(line)
            self.size += len(line.text)
            self.lines_new = True
        self.dropped += update.dropped
        while self.size > LOG_BYTES_MAX or len(self.lines) > min(update.keep, LOG_LINES_MAX):
            self.size -= len(self.lines.popleft().text)
            self.dropped += 1

    def next(self, who: Condition, keys: Keys, lease: int, *, ended: bool) -> Write | None:
        """What is to be written of how far it is."""
        key = keys.progress_of(*self.name)
        if ended:
            return Write((who, mine(key, lease, self.revision)), (Delete(key),)) if self.written else None
        if not self.new or self.progress is None:
            return None
        self.new, self.written = False, True
        claim = self.local.claim         # (of level `delayed` it may not be in the store yet)
        here = (created(claim.key, claim.create_revision),) if claim is not None and claim.create_revision else ()
        return Write((who, *here), (Put(key, encode(self.progress), lease),))

    def wrote(self, verdict: Verdict | BaseException) -> None:
        """What became of `next`."""
        applied = isinstance(verdict, Verdict) and verdict.applied
        self.unsure |= not isinstance(verdict, Verdict) or verdict.repeated or (self.ended and not applied)
        self.revision = verdict.revision if isinstance(verdict, Verdict) and applied and not self.unsure else 0
        self.new |= not applied         # (a store that is full keeps no progress, until it is not)

    def log(self, keys: Keys, lease: int) -> Put:
        self.lines_new = False
        record = LogRecord(list(self.lines), self.local.attempt, self.dropped)
        return Put(keys.log_of(*self.name), encode(record), lease)


class Progress:
    """Of one node. `local_job(key, index)` names a job by what the runners call it; None: it is not here any more."""

    def __init__(self, local_job: Callable[[int, int], LocalJob | None]) -> None:
        self._local_job = local_job
        self._jobs: dict[JobRef, _Job] = {}
        self._refs: dict[Name, JobRef] = {}      # under which a job runs now, if it has said anything
        self._lease = 0
        self._wake = asyncio.Event()
        self._again: deque[tuple[float, Name]] = deque()        # whose keys are to be deleted once more, and when

    def say(self, update: ProgressUpdate) -> None:
        """A runner calls."""
        ref = (update.key, update.index)
        local = self._local_job(*ref)
        if local is None:
            return
        job = self._jobs.get(ref)
        if job is None or not _same(job.local, local):
            job = self._begin(ref, local)
            if job is None:
                return
        job.local = local         # its claim may be in the store by now
        if update.progress is not None:
            done, total, note, at = update.progress
            job.progress, job.new = ProgressRecord(done, total, note, int(at * 1000), local.attempt), True
        if update.lines:
            job.add(update)
        self._wake.set()

    def _begin(self, ref: JobRef, local: LocalJob) -> _Job | None:
        """It may have run here before, also under the same reference: what is retried where it lies keeps its own."""
        job = _Job(local)
        earlier = self._refs.get(job.name)
        if earlier != ref and (old := self._jobs.get(ref)) is not None:
            self._drop(ref, old)               # of an earlier identity, which has counted the same
        if earlier is not None:
            job.inherit(self._jobs.pop(earlier))
        elif len(self._jobs) >= JOBS_MAX:
            return None
        self._jobs[ref], self._refs[job.name] = job, ref
        return job

    def _now(self, name: Name) -> _Job | None:
        """Its run here, if that has said anything."""
        ref = self._refs.get(name)
        return None if ref is None else self._jobs[ref]

    def _drop(self, ref: JobRef, job: _Job) -> None:
        if self._jobs.get(ref) is job:
            del self._jobs[ref]
        if self._refs.get(job.name) == ref:
            del self._refs[job.name]

    def ended(self, outcomes: Iterable[tuple[int, Outcome]]) -> None:
        """Of any jobs, whether they have said something or not."""
        if not self._jobs:
            return
        for key, outcome in outcomes:
            job = self._jobs.get((key, outcome.index))
            if job is not None:
                job.ended = True
                self._wake.set()

    async def report(self, context: IdentityContext, lease: int) -> None:
        """As long as the identity lives."""
        self._take_up(lease)
        swept = context.clock.monotonic()
        while True:
            try:
                async with asyncio.timeout(self._patience_s(context.clock.monotonic())):
                    await self._wake.wait()
            except TimeoutError:
                pass
            self._wake.clear()
            now = context.clock.monotonic()
            if now >= swept + SWEEP_S:
                swept = now
                self._sweep()
            self._delete_again(context, now)
            wait_s = await self._write(context, lease, now)
            if wait_s is not None:
                await asyncio.sleep(wait_s)
                self._wake.set()

    def _take_up(self, lease: int) -> None:
        """What an earlier identity has written went with its lease. What is still said is written again; also where
        this one begins anew, since what was on its way may not have arrived."""
        another, self._lease = lease != self._lease, lease
        if another:
            self._again.clear()
        for ref, job in list(self._jobs.items()):
            local = self._local_job(*ref)
            if another and (local is None or not _same(job.local, local)):
                self._drop(ref, job)
                continue
            job.new, job.next_at = job.progress is not None, 0.0
            job.revision, job.written = 0, job.written and not another
        self._wake.set()

    def _sweep(self) -> None:
        """What was handed back, or taken over, has no outcome here."""
        for ref, job in self._jobs.items():
            local = self._local_job(*ref)
            if local is None or not _same(job.local, local):
                job.ended = True

    async def _write(self, context: IdentityContext, lease: int, now: float) -> float | None:
        """Returns when to come again, if anything is left to write."""
        commits: list[tuple[_Job, bool, asyncio.Future[Verdict]]] = []
        kept: list[asyncio.Future[Verdict]] = []
        pause_s = max(EVERY_S, len(self._jobs) / WRITES_PER_S)
        soonest: float | None = None
        for ref, job in list(self._jobs.items()):
            if not (job.ended or job.new or job.lines_new):
                continue
            if not job.ended and now < job.next_at:
                soonest = job.next_at if soonest is None else min(soonest, job.next_at)
                continue
            job.next_at = now + pause_s
            ended = job.ended       # as of now: what ends while a lease is granted is written the next time
            if job.lines_new and (log_lease := await self._log_lease(context)):
                kept.append(context.commits.submit(Write((context.member,), (job.log(context.keys, log_lease),))))
            if self._jobs.get(ref) is not job:
                continue            # it runs here again: what it has written is not its own any more
            if (write := job.next(context.member, context.keys, lease, ended=ended)) is not None:
                commits.append((job, ended, context.commits.submit(write)))
            if ended:
                self._drop(ref, job)
        verdicts = await asyncio.gather(*(write for *_, write in commits), *kept, return_exceptions=True)
        for (job, over, _), verdict in zip(commits, verdicts, strict=False):
            job.wrote(verdict)
            if not over and (heir := self._now(job.name)) not in (job, None):
                heir.inherit(job)   # it began while that was on its way
            if over and job.unsure:
                self._again.append((now + TWIN_S, job.name))
            elif not over and job.new:
                soonest = job.next_at if soonest is None else min(soonest, job.next_at)
        return None if soonest is None else max(soonest - context.clock.monotonic(), 0.01)

    def _patience_s(self, now: float) -> float | None:
        if self._again:
            return min(SWEEP_S, max(self._again[0][0] - now, 0.0) + 0.01)
        return SWEEP_S if self._jobs else None

    def _delete_again(self, context: IdentityContext, now: float) -> None:
        """What a late twin may have put back; but not what the job has said since, if it runs here once more: then
        that run deletes it, whether it says anything or not."""
        while self._again and self._again[0][0] <= now:
            _, name = self._again.popleft()
            if (job := self._now(name)) is not None:
                job.written = job.unsure = True
            else:
                key = context.keys.progress_of(*name)
                context.commits.submit(Write((context.member, mine(key, self._lease)), (Delete(key),)))

    @staticmethod
    async def _log_lease(context: IdentityContext) -> int:
        """For log lines; 0 where the store grants none now."""
        try:
            return await context.buckets.of(LOG_KEPT_S).lease()
        except LedgerError:
            return 0


def mine(key: bytes, lease: int, revision: int = 0) -> Condition:
    """It is as we wrote it: at this revision, if that is known; another node may be at it by now."""
    return unmodified(key, revision) if revision else Condition(key, Target.LEASE, "==", lease)


def _same(before: LocalJob, now: LocalJob) -> bool:
    """Whether it is the same run of the same job."""
    return (before.bundle, before.index, before.attempt) == (now.bundle, now.index, now.attempt)
