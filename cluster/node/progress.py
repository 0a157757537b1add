"""What running jobs say, on its way to the store: a key for each job that says how far it is, on the lease of its node,
deleted when the job has ended here; and the log lines that are kept of it, on a lease of their own.

Nothing waits for these writes, and none is guarded by a claim: they decide nothing. The key of a node that is lost goes
with its lease.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable

from rota.client.errors import LedgerError
from rota.client.model import LOG_LINES_MAX, Outcome
from rota.client.views import LogLine
from rota.worker.channel.frames import Said

from ..context import IdentityContext
from ..ledger.commits import Verdict, Write
from ..ledger.ledger import Delete, Put
from ..state.keys import Keys
from ..state.records import LogRecord, ProgressRecord, encode
from .held import LocalJob

EVERY_S = 0.5
"""Of one job, at the least."""
WRITES_PER_S = 200
"""Of one node: of very many jobs each is written less often."""
JOBS_MAX = 10_000
LOG_BYTES_MAX = 32 * 1024
LOG_KEPT_S = 86_400.0
SWEEP_S = 5.0
TWIN_S = 5.0
"""A write that had to be repeated may apply once more within this time: what it says is deleted again then."""

Slot = tuple[int, int]


class _Job:
    __slots__ = ("attempt", "bundle", "dropped", "ended", "index", "lines", "lines_new", "new", "next_at", "progress",
                 "size", "unsure", "written")

    def __init__(self, told: LocalJob) -> None:
        self.bundle, self.index, self.attempt = told.bundle, told.index, told.attempt
        self.progress: ProgressRecord | None = None
        self.lines: deque[LogLine] = deque()
        self.size = self.dropped = 0
        self.new = self.lines_new = self.written = self.ended = self.unsure = False
        self.next_at = 0.0

    def add(self, said: Said) -> None:
        for line in said.lines:
            self.lines.append(line)
            self.size += len(line.text)
            self.lines_new = True
        self.dropped += said.dropped
        while self.size > LOG_BYTES_MAX or len(self.lines) > min(said.keep, LOG_LINES_MAX):
            self.size -= len(self.lines.popleft().text)
            self.dropped += 1

    def next(self, keys: Keys, lease: int, *, ended: bool) -> Put | Delete | None:
        """What is to be written of how far it is."""
        key = keys.progress_of(self.bundle, self.index)
        if ended:
            return Delete(key) if self.written else None
        if not self.new or self.progress is None:
            return None
        self.new, self.written = False, True
        return Put(key, encode(self.progress), lease)

    def log(self, keys: Keys, lease: int) -> Put:
        self.lines_new = False
        record = LogRecord(list(self.lines), self.attempt, self.dropped)
        return Put(keys.log_of(self.bundle, self.index), encode(record), lease)


class Progress:
    """Of one node. `told(key, index)` names a job by what the runners call it; None: it is not here any more."""

    def __init__(self, told: Callable[[int, int], LocalJob | None]) -> None:
        self._told = told
        self._jobs: dict[Slot, _Job] = {}
        self._wake = asyncio.Event()
        self._again: deque[tuple[float, bytes]] = deque()       # keys to be deleted once more, and when

    def say(self, said: Said) -> None:
        """A runner calls."""
        slot = (said.key, said.index)
        job = self._jobs.get(slot)
        if job is None:
            told = self._told(*slot)
            if told is None or len(self._jobs) >= JOBS_MAX:
                return
            job = self._jobs[slot] = _Job(told)
        if said.progress is not None:
            done, total, note, at = said.progress
            job.progress, job.new = ProgressRecord(done, total, note, int(at * 1000), job.attempt), True
        if said.lines:
            job.add(said)
        self._wake.set()

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
        """As long as the identity lives. What an earlier one has written went with its lease."""
        self._jobs.clear()
        self._again.clear()
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

    def _sweep(self) -> None:
        """What was handed back, or taken over, has no outcome here."""
        for slot, job in self._jobs.items():
            if self._told(*slot) is None:
                job.ended = True

    async def _write(self, context: IdentityContext, lease: int, now: float) -> float | None:
        """Returns when to come again, if anything is left to write."""
        writes: list[tuple[_Job, asyncio.Future[Verdict]]] = []
        pause_s = max(EVERY_S, len(self._jobs) / WRITES_PER_S)
        soonest: float | None = None
        for slot, job in list(self._jobs.items()):
            if not (job.ended or job.new or job.lines_new):
                continue
            if not job.ended and now < job.next_at:
                soonest = job.next_at if soonest is None else min(soonest, job.next_at)
                continue
            job.next_at = now + pause_s
            ended = job.ended       # as of now: what ends while a lease is granted is written the next time
            if job.lines_new and (kept := await self._lease(context)):
                writes.append((job, _write(context, job.log(context.keys, kept))))
            if (op := job.next(context.keys, lease, ended=ended)) is not None:
                writes.append((job, _write(context, op)))
            if ended:
                del self._jobs[slot]
                if job.unsure:
                    self._again.append((now + TWIN_S, context.keys.progress_of(job.bundle, job.index)))
        verdicts = await asyncio.gather(*(write for _, write in writes), return_exceptions=True)
        for (job, _), verdict in zip(writes, verdicts, strict=True):    # (a store that is full keeps no progress)
            job.unsure |= isinstance(verdict, Verdict) and verdict.repeated
        return None if soonest is None else max(soonest - context.clock.monotonic(), 0.01)

    def _patience_s(self, now: float) -> float | None:
        if self._again:
            return min(SWEEP_S, max(self._again[0][0] - now, 0.0) + 0.01)
        return SWEEP_S if self._jobs else None

    def _delete_again(self, context: IdentityContext, now: float) -> None:
        """What a late twin may have put back; but not what the job has said since, if it runs here once more."""
        if not self._again or self._again[0][0] > now:
            return
        here = {context.keys.progress_of(job.bundle, job.index) for job in self._jobs.values()}
        while self._again and self._again[0][0] <= now:
            _, key = self._again.popleft()
            if key not in here:
                _write(context, Delete(key))

    @staticmethod
    async def _lease(context: IdentityContext) -> int:
        """For log lines; 0 where the store grants none now."""
        try:
            return await context.buckets.of(LOG_KEPT_S).lease()
        except LedgerError:
            return 0


def _write(context: IdentityContext, op: Put | Delete) -> asyncio.Future[Verdict]:
    return context.commits.submit(Write((context.member,), (op,)))
