"""How many jobs may begin now where a rate says how many in a time: of a task, of a key of it, or of a queue. Pure.

The generic cell rate algorithm (ITU-T I.371, annex A; a token bucket that needs one number): a job may begin if its
theoretical arrival time, `tat`, is no further ahead than the burst allows, and moves that on by the interval of the
rate. Two things are added. What was given out and is not known to be stored may be stored at any time: it counts as if
it began now. And `tat` may only move up to what is written in the store beforehand (`until`), so that another master
begins where this one may have come to, and never with a second burst: it loses what was written ahead and not used, at
the most half a second's worth, or one job where a job takes longer than that.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import NamedTuple, TypeAlias

from rota.client.model import Rate

from ...ledger.ledger import Event
from ...state.keys import Keys
from ...state.records import QueueRecord, RateRecord, TaskRecord, decode
from .queues import UNLIMITED

AHEAD_MS = 500.0
"""Written ahead at a time."""

HOLD_MS = 5_000.0
"""What the master before had under way may just have been stored: so long, at the most, a burst is held back."""

KEPT = 1_000

Name: TypeAlias = tuple[str, str, str]
"""("task", task, ""), ("key", task, key) or ("queue", queue, "")."""


class Reserve(NamedTuple):
    """Write ahead: up to `until_ms`. `mod_revision`: of the record as it was seen, 0 if there is none."""

    name: Name
    key: bytes
    until_ms: int
    mod_revision: int


class Bucket:
    """One rate's state. `unsure`: jobs given out, and not known to be stored. `until`: what the store says."""

    __slots__ = ("asking", "due_ms", "inherited", "interval", "mod_revision", "tat", "unsure", "until")

    def __init__(self) -> None:
        self.tat = self.until = self.interval = 0.0
        self.unsure = 0
        self.due_ms: float | None = None
        self.mod_revision = 0
        self.asking = self.inherited = False

    def change(self, interval: float, now_ms: float) -> None:
        """Another rate: as many jobs as had to be waited for before have to be now."""
        if self.interval and self.tat > now_ms and not self.inherited:
            self.tat = now_ms + (self.tat - now_ms) * interval / self.interval
        self.interval = interval


class Rates:
    """Fed by the watch (`see`) and by verdicts (`settled`, `reserved`)."""

    def __init__(self, keys: Keys, tasks: Mapping[str, TaskRecord]) -> None:
        self._keys = keys
        self._tasks = tasks
        self._buckets: dict[Name, Bucket] = {}
        self._wanted: dict[Name, float] = {}
        self._sweep_at = KEPT
        self._rated: set[tuple[str, str]] = set()
        self.any = False
        """Whether anything has a rate: nothing else is asked otherwise."""
        self.soonest_ms: float | None = None
        """When something may begin that was seen to wait, in this pass."""

    # -- what has a rate -----------------------------------------------------------------------------------------------

    def note(self, kind: str, name: str, *, rated: bool) -> None:
        """What a task ("task") or a queue ("queue") says by now."""
        if rated:
            self._rated.add((kind, name))
        else:
            self._rated.discard((kind, name))
        self.any = bool(self._rated)

    def limits(self, task: str) -> bool:
        record = self._tasks.get(task)
        return record is not None and (record.rate is not None or record.rate_per_key is not None)

    def _applying(self, task: str, key: str, queue: str, settings: QueueRecord | None) -> Iterator[tuple[Name, Rate]]:
        record = self._tasks.get(task)
        if record is not None and record.rate is not None:
            yield ("task", task, ""), record.rate
        if record is not None and record.rate_per_key is not None and key:
            yield ("key", task, key), record.rate_per_key
        if settings is not None and settings.rate is not None:
            yield ("queue", queue, ""), settings.rate

    # -- how many now --------------------------------------------------------------------------------------------------

    def of_task(self, task: str, now_ms: float) -> int:
        record = self._tasks.get(task)
        if record is None or record.rate is None:
            return UNLIMITED
        return self._left(("task", task, ""), record.rate, now_ms)

    def of_key(self, task: str, key: str, now_ms: float) -> int:
        record = self._tasks.get(task)
        if record is None or record.rate_per_key is None or not key:
            return UNLIMITED
        return self._left(("key", task, key), record.rate_per_key, now_ms)

    def of_queue(self, queue: str, settings: QueueRecord, now_ms: float) -> int:
        return UNLIMITED if settings.rate is None else self._left(("queue", queue, ""), settings.rate, now_ms)

    def _left(self, name: Name, rate: Rate, now_ms: float) -> int:
        interval, bucket = _interval_ms(rate), self._bucket(name)
        if interval != bucket.interval:
            bucket.change(interval, now_ms)
        tolerance, stock = (rate.burst - 1) * interval, max(1, math.ceil(AHEAD_MS / interval))
        if bucket.inherited:
            bucket.inherited = False        # (what lies further ahead was written for another rate, which was lower)
            used_to = min(bucket.until, now_ms + tolerance + stock * interval)
            bucket.tat = max(used_to, now_ms + min(rate.burst * interval, HOLD_MS))
        ahead = max(bucket.tat, now_ms) + bucket.unsure * interval
        by_time = max(0, math.floor((now_ms + tolerance - ahead) / interval + 1e-6) + 1)
        by_store = max(0, math.floor((bucket.until - ahead) / interval + 1e-6))
        bucket.due_ms = None
        if not by_time and not bucket.unsure:
            bucket.due_ms = ahead - tolerance
            self._note(bucket.due_ms)
        if by_time and by_store < min(by_time, (stock + 1) // 2) and not bucket.asking:
            self._wanted[name] = ahead + stock * interval
        return min(by_time, by_store)

    def _note(self, at_ms: float) -> None:
        if self.soonest_ms is None or at_ms < self.soonest_ms:
            self.soonest_ms = at_ms

    def due_ms(self, name: Name) -> float | None:
        """When one of these may begin, if that is a matter of time alone. (Else something will be stored, or not.)"""
        return self._bucket(name).due_ms

    def begin(self) -> None:
        """A pass begins."""
        self.soonest_ms = None

    def _bucket(self, name: Name) -> Bucket:
        bucket = self._buckets.get(name)
        if bucket is None:
            bucket = self._buckets[name] = Bucket()
        return bucket

    # -- what was given out --------------------------------------------------------------------------------------------

    def take(self, task: str, key: str, queue: str, settings: QueueRecord, jobs: int) -> tuple[Name, ...]:
        """Jobs are given out; returns what they are counted by."""
        names = []
        for name, rate in self._applying(task, key, queue, settings):
            bucket, interval = self._bucket(name), _interval_ms(rate)
            if interval != bucket.interval:         # (a rate that nobody has asked for yet)
                bucket.interval = interval
            bucket.unsure += jobs
            names.append(name)
        return tuple(names)

    def settled(self, names: tuple[Name, ...], jobs: int, now_ms: float, *, begun: bool) -> None:
        """What was taken is stored (or may be), or certainly is not."""
        for name in names:
            bucket = self._bucket(name)
            bucket.unsure = max(0, bucket.unsure - jobs)
            if begun:
                bucket.tat = max(bucket.tat, now_ms) + jobs * bucket.interval
        if len(self._buckets) > self._sweep_at:
            self._sweep(now_ms)

    def _sweep(self, now_ms: float) -> None:
        """What is full again need not be known."""
        self._buckets = {
            name: bucket for name, bucket in self._buckets.items()
            if bucket.unsure or bucket.asking or max(bucket.tat, bucket.until) > now_ms
        }
        self._sweep_at = 2 * len(self._buckets) + KEPT

    # -- the store -----------------------------------------------------------------------------------------------------

    def see(self, event: Event) -> bool:
        """A record of a rate, from the snapshot or the watch. False: it is none of ours."""
        name = self._keys.parse_rate(event.record.key)
        record = None if event.deleted else decode(RateRecord, event.record.value)
        if name is None or (record is None and not event.deleted):
            return False
        if record is None:
            if (known := self._buckets.get(name)) is not None:
                known.mod_revision = 0
            return True
        bucket = self._bucket(name)
        if event.record.mod_revision > bucket.mod_revision:
            bucket.inherited = bucket.inherited or not bucket.asking
            bucket.mod_revision, bucket.until = event.record.mod_revision, max(bucket.until, float(record.until))
        return True

    def wanted(self) -> Iterator[Reserve]:
        """What is to be written before more can begin."""
        wanted, self._wanted = self._wanted, {}
        for name, until_ms in wanted.items():
            bucket = self._bucket(name)
            if not bucket.asking:
                bucket.asking = True
                yield Reserve(name, self._keys.rate(*name), math.ceil(until_ms), bucket.mod_revision)

    def reserved(self, name: Name, until_ms: int, mod_revision: int, *, applied: bool) -> None:
        """It is written; or not, since the record is another (`mod_revision`; 0: it is gone)."""
        bucket = self._bucket(name)
        bucket.asking, bucket.mod_revision = False, mod_revision
        if applied:
            bucket.until = max(bucket.until, float(until_ms))


def _interval_ms(rate: Rate) -> float:
    return rate.per_s * 1000 / rate.count
