"""When tokens expire that wait in their queues: known as far as the queues are. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping

from .lanes import Item
from .queues import Queue

SWEEP_AT = 1_000

Entry = tuple[int, str, int, bytes]
"""When, and where it lay then: queue, priority, key."""


class Expiries:
    """A heap. What is not there any more is passed over by who looks, and forgotten when it is most of the heap."""

    def __init__(self, queues: Mapping[str, Queue]) -> None:
        self._queues = queues
        self._soonest: list[Entry] = []
        self._sweep_at = SWEEP_AT

    def __bool__(self) -> bool:
        return bool(self._soonest)

    @property
    def next_ms(self) -> int | None:
        return self._soonest[0][0] if self._soonest else None

    def note(self, item: Item, priority: int) -> None:
        heapq.heappush(self._soonest, (item.token.expires, item.token.queue, priority, item.key))
        if len(self._soonest) > self._sweep_at:
            self._soonest = [entry for entry in set(self._soonest) if self._is_there(entry)]
            heapq.heapify(self._soonest)
            self._sweep_at = 2 * len(self._soonest) + SWEEP_AT

    def _is_there(self, entry: Entry) -> bool:
        expires, name, priority, key = entry
        queue = self._queues.get(name)
        window = queue.windows.get(priority) if queue is not None else None
        item = window.get(key) if window is not None else None
        return item is not None and item.token.expires == expires

    def due(self, wall_ms: int) -> Iterator[tuple[str, int, bytes]]:
        """(queue, priority, key) of tokens that may have expired; each once, as far as one reads."""
        while self._soonest and self._soonest[0][0] <= wall_ms:
            _, queue, priority, key = heapq.heappop(self._soonest)
            yield queue, priority, key
