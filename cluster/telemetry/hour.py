"""The last hour, minute by minute: what a node's counters did in each. Pure.

Nodes add up: the minutes of several are one cluster's.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from .tally import BUCKETS_S, Distribution, Tally

MINUTES = 60


class Minute(msgspec.Struct, array_like=True, gc=False):
    """`at`: minutes since 1970. `ok`, `failed`, `retried` (or snoozed) and `cancelled` count runs that ended; `waited`
    and `ran` how many jobs took how long (see `tally.BUCKETS_S`), as counts up to the last that is not 0."""

    at: int
    enqueued: int = 0
    ok: int = 0
    failed: int = 0
    retried: int = 0
    cancelled: int = 0
    waited: list[int] = []
    ran: list[int] = []

    @property
    def ended(self) -> int:
        return self.ok + self.failed + self.retried + self.cancelled

    @property
    def is_empty(self) -> bool:
        return not (self.enqueued or self.ended or self.waited)


class Hour:
    """Of one node: `sample` now and then, `minutes` whenever somebody asks."""

    def __init__(self) -> None:
        self._minutes: dict[int, Minute] = {}
        self._before = Minute(0)
        self._taken = 0

    def sample(self, wall_s: float, tally: Tally, taken: int) -> None:
        """What was counted since the last time belongs to this minute. `taken`: jobs taken in, of this identity."""
        now, before = _totals(tally), self._before
        at = int(wall_s // 60)
        minute = self._minutes.setdefault(at, Minute(at))
        minute.enqueued += taken - self._taken if taken >= self._taken else taken
        minute.ok += now.ok - before.ok
        minute.failed += now.failed - before.failed
        minute.retried += now.retried - before.retried
        minute.cancelled += now.cancelled - before.cancelled
        minute.waited = plus(minute.waited, minus(now.waited, before.waited))
        minute.ran = plus(minute.ran, minus(now.ran, before.ran))
        self._before, self._taken = now, taken
        for old in [old for old in self._minutes if old <= at - MINUTES]:
            del self._minutes[old]

    def minutes(self) -> list[Minute]:
        """Those in which something happened, the oldest first."""
        return [minute for _, minute in sorted(self._minutes.items()) if not minute.is_empty]


def _totals(tally: Tally) -> Minute:
    totals = Minute(0)
    for outcomes in tally.ended.values():
        totals.ok += outcomes.get("ok", 0)
        totals.failed += outcomes.get("failed", 0)
        totals.retried += outcomes.get("retry", 0) + outcomes.get("snooze", 0)
        totals.cancelled += outcomes.get("cancelled", 0)
    totals.waited = _sum(tally.waited.values())
    totals.ran = _sum(tally.ran.values())
    return totals


def _sum(parts: Iterable[Distribution]) -> list[int]:
    total: list[int] = []
    for part in parts:
        total = plus(total, part.counts)
    return total


def merged(hours: Iterable[Iterable[Minute]], wall_s: float) -> list[Minute]:
    """The last hour of several nodes as one: a minute each, the quiet ones too. What clocks ahead of ours call the
    future is left out."""
    last = int(wall_s // 60)
    found = {at: Minute(at) for at in range(last - MINUTES + 1, last + 1)}
    for hour in hours:
        for minute in hour:
            total = found.get(minute.at)
            if total is None:
                continue
            total.enqueued += minute.enqueued
            total.ok += minute.ok
            total.failed += minute.failed
            total.retried += minute.retried
            total.cancelled += minute.cancelled
            total.waited = plus(total.waited, minute.waited)
            total.ran = plus(total.ran, minute.ran)
    return list(found.values())


def plus(one: list[int], other: list[int]) -> list[int]:
    longer, shorter = (one, other) if len(one) >= len(other) else (other, one)
    return _cut([count + (shorter[place] if place < len(shorter) else 0) for place, count in enumerate(longer)])


def minus(one: list[int], other: list[int]) -> list[int]:
    return _cut([count - (other[place] if place < len(other) else 0) for place, count in enumerate(one)])


def _cut(counts: list[int]) -> list[int]:
    end = len(counts)
    while end and not counts[end - 1]:
        end -= 1
    return counts[:end]


def quantile(counts: list[int], share: float) -> float | None:
    """Which time that share of the jobs did not exceed, in seconds: within a bucket, evenly. None without jobs. Beyond
    the last bound nothing is known but that."""
    total = sum(counts)
    if not total:
        return None
    wanted, below = share * total, 0
    for place, count in enumerate(counts):
        if count and below + count >= wanted:
            if place >= len(BUCKETS_S):
                break
            low = BUCKETS_S[place - 1] if place else 0.0
            return low + (BUCKETS_S[place] - low) * (wanted - below) / count
        below += count
    return BUCKETS_S[-1]
