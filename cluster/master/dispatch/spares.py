"""Queues that wait while nothing of them runs: after a while they may have a spare slot, if some node has one, so that
one slow queue never holds up another (decision 0011)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from .queues import Queue

AFTER_S = 0.5
"""For so long nothing of a queue has run, though it waits. Among quick jobs its turn comes sooner."""

LOOKED_AT_MAX = 100
"""In one pass; those that were looked at stand at the end."""


class Starved:
    """Which queues may be, and since when. `note` those of which nothing runs; what has changed since is found out."""

    def __init__(self, queues: Mapping[str, Queue]) -> None:
        self._queues = queues
        self._since: dict[str, float | None] = {}

    def note(self, name: str) -> None:
        self._since.setdefault(name, None)

    def forget(self, name: str) -> None:
        """Nothing of it waits, nor runs."""
        self._since.pop(name, None)

    def __len__(self) -> int:
        return len(self._since)

    def now(self, now: float) -> Iterator[Queue]:
        """Those that have waited long enough."""
        for name in list(self._since)[:LOOKED_AT_MAX]:
            since = self._since.pop(name)
            queue = self._queues.get(name)
            if queue is None or queue.running or not queue.size:
                continue
            self._since[name] = since = now if since is None else since
            if now - since >= AFTER_S and not queue.settings.paused:
                yield queue
