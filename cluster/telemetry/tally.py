"""Counters that only grow, of one node. On the path of every job, so nothing here formats, locks or allocates much.

Names come from users: each table has so many of them and no more, and what is beyond counts as `OTHERS`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Sequence
from typing import TypeVar

from rota.client.model import Outcome

from ..events import records as r
from ..events.hub import Events

BUCKETS_S = (
    0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0,
)
"""Upper bounds of what is counted together, in seconds; behind them comes one without a bound."""

NAMES_MAX = 200
OTHERS = "(others)"
SECONDS_MAX = 10**9

T = TypeVar("T")


class Distribution:
    """How often something took how long."""

    __slots__ = ("counts", "total_s")

    def __init__(self) -> None:
        self.counts = [0] * (len(BUCKETS_S) + 1)
        self.total_s = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        """What is no duration (a runner can say anything) counts as none."""
        if not 0.0 <= seconds < SECONDS_MAX:
            seconds = 0.0
        self.counts[bisect_left(BUCKETS_S, seconds)] += count
        self.total_s += seconds * count

    def add_each(self, durations: list[float]) -> None:
        """What is no duration counts as none."""
        total_s, least, most = sum(durations), min(durations, default=0.0), max(durations, default=0.0)
        if least >= 0.0 and total_s < SECONDS_MAX:      # (NaN is less than nothing, and makes a sum that is none)
            bucket = bisect_left(BUCKETS_S, most)
            if bucket == bisect_left(BUCKETS_S, least):     # as nearly always, of jobs of one bundle
                self.counts[bucket] += len(durations)
                self.total_s += total_s
                return
        for seconds in durations:
            self.add(seconds, 1)

    @property
    def count(self) -> int:
        return sum(self.counts)


class Tally:
    """Since the start of the process. `listen` begins it."""

    def __init__(self) -> None:
        self.ended: dict[str, defaultdict[str, int]] = {}   # task -> outcome -> runs that ended so
        self.ran: dict[str, Distribution] = {}              # by task
        self.waited: dict[str, Distribution] = {}           # by queue
        self._tasks: dict[str, tuple[defaultdict[str, int], Distribution]] = {}     # of `ended` and `ran`
        self.events: dict[str, int] = {}                    # by name, but for those of every job
        self.takeovers = Distribution()
        self.takeover_claims = 0
        self.last_takeover_s: float | None = None

    def listen(self, events: Events) -> None:
        events.count_runs(self.runs_ended)
        events.listen(self.bundle_taken, (r.BundleTaken,))
        events.listen(self.happened, rare())

    def runs_ended(self, task: str, ended: Sequence[Outcome]) -> None:
        known = self._tasks.get(task)
        if known is None:
            known = self._learn(task)
        outcomes, ran = known
        statuses = [outcome.status for outcome in ended]
        if statuses.count("ok") == len(statuses):
            outcomes["ok"] += len(statuses)
        else:
            for status in statuses:
                outcomes[status] += 1
        ran.add_each([outcome.ran_s for outcome in ended])

    def _learn(self, name: str) -> tuple[defaultdict[str, int], Distribution]:
        name = _bounded(self.ended, name)
        outcomes = self.ended.setdefault(name, defaultdict(int))
        found = outcomes, self.ran.setdefault(name, Distribution())
        if name != OTHERS:
            self._tasks[name] = found
        return found

    def bundle_taken(self, event: r.ClusterEvent) -> None:
        assert isinstance(event, r.BundleTaken)
        waited = self.waited.get(event.queue)
        if waited is None:
            waited = self.waited.setdefault(_bounded(self.waited, event.queue), Distribution())
        waited.add(event.waited_s, event.jobs)

    def happened(self, event: r.ClusterEvent) -> None:
        self.events[event.name] = self.events.get(event.name, 0) + 1
        if isinstance(event, r.TookOver):
            self.takeovers.add(event.duration_s)
            self.takeover_claims += event.claims
            self.last_takeover_s = event.duration_s


def rare() -> list[type[r.ClusterEvent]]:
    """All kinds but those that come with every job."""
    return [kind for kind in r.ClusterEvent.__subclasses__() if kind not in r.OF_EVERY_JOB]


def _bounded(table: dict[str, T], name: str) -> str:
    return name if name in table or len(table) < NAMES_MAX else OTHERS
