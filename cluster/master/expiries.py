"""When tokens expire that wait in their queues: known as far as the queues are. Pure."""

from __future__ import annotations

import heapq
from collections.abc import Iterator

from .lanes import Item


class Expiries:
    """A heap of when, and where it lay then. What is not there any more is passed over by who looks."""

    def __init__(self) -> None:
        self._soonest: list[tuple[int, str, int, bytes]] = []

    def __bool__(self) -> bool:
        return bool(self._soonest)

    @property
    def next_ms(self) -> int | None:
        return self._soonest[0][0] if self._soonest else None

    def note(self, item: Item, priority: int) -> None:
        heapq.heappush(self._soonest, (item.token.expires, item.token.queue, priority, item.key))

    def due(self, wall_ms: int) -> Iterator[tuple[str, int, bytes]]:
        """(queue, priority, key) of tokens that may have expired; each once, as far as one reads."""
        while self._soonest and self._soonest[0][0] <= wall_ms:
            _, queue, priority, key = heapq.heappop(self._soonest)
            yield queue, priority, key
