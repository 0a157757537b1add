"""What a node says of the jobs that run on it: one small record below `running/`, on its lease, for people who look.

It is written when it changes, once a second at most, and holds jobs only that have run for a second: quick ones cost
nothing. Of very many it holds the oldest.
"""

from __future__ import annotations

import asyncio

from rota.worker.pool.interface import Runners

from ...clock import Clock
from ...context import IdentityContext
from ...ledger.ledger import Put
from ...state.records import RunningJob, RunningRecord, encode
from ..claims.held import LocalJob
from ..membership.standing import Standing
from .volatile import FIRST_KEY, Volatile

LOOK_S = 0.5
SHOWN_AFTER_S = 1.0
JOBS_MAX = 200
JOBS_PER_SECOND = 100
"""A record of many jobs is written less often: a second for each of so many."""


class Shown:
    """`standing` says what lies under this node, `volatile` what lies in its memory only."""

    def __init__(self, runners: Runners, clock: Clock, standing: Standing, volatile: Volatile) -> None:
        self._runners = runners
        self._clock = clock
        self._standing = standing
        self._volatile = volatile
        self.node = ""
        self._since: dict[tuple[int, int], int] = {}        # (key, index) -> when it was first seen to run, in ms

    async def report(self, context: IdentityContext, lease: int) -> None:
        """As long as the identity lives."""
        self.node = context.node
        written: list[RunningJob] = []
        while True:
            await asyncio.sleep(LOOK_S)
            jobs = self.look()
            if jobs == written:
                continue
            record = RunningRecord(jobs[:JOBS_MAX], max(0, len(jobs) - JOBS_MAX))
            put = Put(context.keys.running_on(context.node), encode(record), lease)
            await context.commits.write((context.member,), (put,))
            written = jobs
            await asyncio.sleep(SHOWN_AFTER_S * max(1.0, min(len(jobs), JOBS_MAX) / JOBS_PER_SECOND))

    def look(self) -> list[RunningJob]:
        """What has run for a while, the oldest first."""
        now_ms, before = int(self._clock.wall() * 1000), self._since
        self._since = {slot: before.get(slot, now_ms) for slot in self._runners.running()}
        jobs = []
        for (key, index), since_ms in self._since.items():
            if (held := self._standing.claims.by_key(key)) is not None:
                held.began.setdefault(index, since_ms)
            job = self.job_of(key, index)
            if job is not None and since_ms + SHOWN_AFTER_S * 1000 <= now_ms:
                jobs.append(_shown(job, since_ms))
        return sorted(jobs, key=lambda job: (job.since_ms, job.bundle, job.index))

    def results(self, bundle: str) -> list[bytes] | None:
        """Of a bundle of level `none` that was taken here."""
        return self._volatile.past(bundle)

    def job(self, bundle: str, index: int) -> RunningJob | None:
        """A job that runs on this very node, or, of level `none`, lies there (then `since_ms` is 0)."""
        for key, number in self._runners.running():
            job = self.job_of(key, number)
            if job is not None and (job.bundle, job.index) == (bundle, index):
                return _shown(job, self._since.get((key, number), int(self._clock.wall() * 1000)))
        waiting = self._volatile.find(bundle, index)
        return _shown(waiting, 0) if waiting is not None else None

    def job_of(self, key: int, index: int) -> LocalJob | None:
        """Which job the runners mean."""
        return self._volatile.job_of(key, index) if key >= FIRST_KEY else self._standing.claims.job_of(key, index)


def _shown(job: LocalJob, since_ms: int) -> RunningJob:
    return RunningJob(job.bundle, job.index, since_ms, job.attempt, job.task, job.queue, job.volatile)
