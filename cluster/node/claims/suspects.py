"""Bundles whose node was lost while they ran: of these a node runs one at a time, so that the next loss tells which it
was. Plain data; those that were only held by a lost node do not wait for each other.
"""

from __future__ import annotations

from .held import Held


class Suspects:
    def __init__(self) -> None:
        self._queue: list[Held] = []        # the first of them runs, or is about to

    def admit(self, held: Held) -> Held | None:
        """Which bundle to begin now, if any: this one, unless another such runs."""
        if held.claim.lost == 0:
            return held
        self._queue.append(held)
        return self._next()

    def leave(self, held: Held) -> Held | None:
        """It has ended, or does not lie here any more. Which bundle to begin now, if any."""
        left = [other for other in self._queue if other is not held]
        if len(left) == len(self._queue):
            return None
        self._queue = left
        return self._next()

    def _next(self) -> Held | None:
        return self._queue[0] if self._queue and not self._queue[0].claim.started else None
