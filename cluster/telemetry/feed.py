"""Who listens to what happens, as it happens: a bounded queue for each, so that a slow reader costs nobody anything."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import msgspec

from ..clock import Clock
from ..events import records as r
from ..events.hub import Events
from .records import Happened
from .tally import rare

WAITING_MAX = 500
LISTENERS_MAX = 100
"""Streams that one node serves at a time."""

OF_JOBS = (r.JobEnded,)


class TooMany(Exception):
    """So many listen already."""


class Listener:
    """`queue` holds what has happened; `missed` counts what found no room in it."""

    def __init__(self, *, jobs: bool) -> None:
        self.queue: asyncio.Queue[Happened] = asyncio.Queue(WAITING_MAX)
        self.jobs = jobs
        self.missed = 0

    def put(self, happened: Happened) -> None:
        try:
            self.queue.put_nowait(happened)
        except asyncio.QueueFull:
            self.missed += 1


class Feed:
    """What happens here, and what others wrote into the history. `jobs`: also what happens to each job on this node."""

    def __init__(self, events: Events, clock: Clock, name: Callable[[], str]) -> None:
        self._events = events
        self._clock = clock
        self._name = name
        self._listeners: set[Listener] = set()
        self._stop_jobs: Callable[[], None] | None = None
        events.listen(self._own, rare())

    @property
    def listeners(self) -> int:
        return len(self._listeners)

    @contextmanager
    def listen(self, *, jobs: bool = False) -> Iterator[Listener]:
        if len(self._listeners) >= LISTENERS_MAX:
            raise TooMany(f"{LISTENERS_MAX} streams of events are open at this node")
        listener = Listener(jobs=jobs)
        self._listeners.add(listener)
        self._want_jobs()
        try:
            yield listener
        finally:
            self._listeners.discard(listener)
            self._want_jobs()

    def put(self, happened: Happened) -> None:
        """Something that happened elsewhere."""
        for listener in self._listeners:
            listener.put(happened)

    def describe(self, event: r.ClusterEvent) -> Happened:
        return Happened(round(self._clock.wall(), 3), self._name(), event.name, msgspec.structs.asdict(event))

    def _own(self, event: r.ClusterEvent) -> None:
        if self._listeners:
            self.put(self.describe(event))

    def _of_job(self, event: r.ClusterEvent) -> None:
        happened = self.describe(event)
        for listener in self._listeners:
            if listener.jobs:
                listener.put(happened)

    def _want_jobs(self) -> None:
        """Only while somebody wants them: they come with every job."""
        wanted = any(listener.jobs for listener in self._listeners)
        if wanted and self._stop_jobs is None:
            self._stop_jobs = self._events.listen(self._of_job, OF_JOBS)
        elif not wanted and self._stop_jobs is not None:
            self._stop_jobs()
            self._stop_jobs = None
