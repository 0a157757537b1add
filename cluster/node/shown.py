"""What a node says of the jobs that run on it: one small record below `running/`, on its lease, for people who look.

It is written when it changes, once a second at most, and holds jobs only that have run for a second: quick ones cost
nothing. Of very many it holds the oldest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rota.worker.pool.runners import Runners

from ..clock import Clock
from ..ledger.commits import Commits
from ..ledger.ledger import Condition, Put
from ..state.keys import Keys
from ..state.records import RunningJob, RunningRecord, encode
from .held import Held, Told
from .volatile import Volatile

LOOK_S = 0.5
SHOWN_AFTER_S = 1.0
JOBS_MAX = 200
JOBS_PER_SECOND = 100
"""A record of many jobs is written less often: a second for each of so many."""


class Shown:
    """`told(key, index)` names a job by what the runners call it; `held(key)` is what lies under this node of it."""

    def __init__(
        self, runners: Runners, clock: Clock, told: Callable[[int, int], Told | None],
        held: Callable[[int], Held | None], volatile: Volatile,
    ) -> None:
        self._runners = runners
        self._clock = clock
        self._told = told
        self._held = held
        self._volatile = volatile
        self.node = ""
        self._since: dict[tuple[int, int], int] = {}        # (key, index) -> when it was first seen to run, in ms

    async def report(self, commits: Commits, keys: Keys, member: Condition, node: str, lease: int) -> None:
        """As long as the identity lives."""
        self.node = node
        written: list[RunningJob] = []
        while True:
            await asyncio.sleep(LOOK_S)
            jobs = self.look()
            if jobs == written:
                continue
            record = RunningRecord(jobs[:JOBS_MAX], max(0, len(jobs) - JOBS_MAX))
            await commits.write((member,), (Put(keys.running_on(node), encode(record), lease),))
            written = jobs
            await asyncio.sleep(SHOWN_AFTER_S * max(1.0, min(len(jobs), JOBS_MAX) / JOBS_PER_SECOND))

    def look(self) -> list[RunningJob]:
        """What has run for a while, the oldest first."""
        now_ms, before = int(self._clock.wall() * 1000), self._since
        self._since = {slot: before.get(slot, now_ms) for slot in self._runners.running()}
        jobs = []
        for (key, index), since_ms in self._since.items():
            if (held := self._held(key)) is not None:
                held.began.setdefault(index, since_ms)
            told = self._told(key, index)
            if told is not None and since_ms + SHOWN_AFTER_S * 1000 <= now_ms:
                jobs.append(_shown(told, since_ms))
        return sorted(jobs, key=lambda job: (job.since_ms, job.bundle, job.index))

    def results(self, bundle: str) -> list[bytes] | None:
        """Of a bundle of level `none` that was taken here."""
        return self._volatile.past(bundle)

    def job(self, bundle: str, index: int) -> RunningJob | None:
        """A job that runs on this very node, or, of level `none`, lies there (then `since_ms` is 0)."""
        for key, number in self._runners.running():
            told = self._told(key, number)
            if told is not None and (told.bundle, told.index) == (bundle, index):
                return _shown(told, self._since.get((key, number), int(self._clock.wall() * 1000)))
        waiting = self._volatile.find(bundle, index)
        return _shown(waiting, 0) if waiting is not None else None


def _shown(told: Told, since_ms: int) -> RunningJob:
    return RunningJob(told.bundle, told.index, since_ms, told.attempt, told.task, told.queue, told.volatile)
