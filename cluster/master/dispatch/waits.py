"""What waits because of a rate, and until when. Pure."""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable

from ...state.records import Token
from .lanes import Lane
from .limits import Limits
from .queues import Queue
from .rates import Name, Rates


class Waits:
    """`wake` is told of queues that may give something out again."""

    def __init__(self, rates: Rates, limits: Limits, wake: Callable[[str], None]) -> None:
        self._rates = rates
        self._limits = limits
        self._wake = wake
        self._now_ms = 0
        self._due: list[tuple[float, Name]] = []
        self._at: dict[Name, float] = {}        # when each is looked at; what `_due` has of it besides is stale

    @property
    def times(self) -> list[int]:
        """When to decide at the latest."""
        times = [self._due[0][0]] if self._due else []
        if self._rates.soonest_ms is not None:
            times.append(self._rates.soonest_ms)
        return [math.ceil(ms) for ms in times]

    def begin(self, now_ms: int) -> None:
        """A pass begins: what is due is looked at again."""
        self._now_ms = now_ms
        while self._due and self._due[0][0] <= now_ms:
            due, name = heapq.heappop(self._due)
            if self._at.get(name) == due:
                del self._at[name]
                self._again(name)
        self._rates.begin()

    def happened(self, names: tuple[Name, ...]) -> None:
        """Something was stored, or was not: there may be more to give out."""
        for name in names:
            self._again(name)

    def _again(self, name: Name) -> None:
        kind, of, key = name
        if kind == "key":
            self._limits.unpark(of, key)
        elif kind == "queue":
            self._wake(of)

    def left(self, queue: Queue, token: Token) -> int:
        rates, now = self._rates, self._now_ms
        return min(
            rates.of_task(token.task, now), rates.of_key(token.task, token.rated_by, now),
            rates.of_queue(queue.name, queue.settings, now),
        )

    def rests(self, queue: Queue) -> bool:
        """Whether its rate lets nothing of it begin now."""
        if self._rates.of_queue(queue.name, queue.settings, self._now_ms) > 0:
            return False
        self._note(("queue", queue.name, ""))
        return True

    def parks(self, token: Token, lane: Lane) -> bool:
        """Whether the rate of its key lets nothing of this lane begin now: it is not looked at until it may."""
        if self._rates.of_key(token.task, token.rated_by, self._now_ms) > 0:
            return False
        self._limits.park(token.task, token.rated_by, lane)
        self._note(("key", token.task, token.rated_by))
        return True

    def _note(self, name: Name) -> None:
        """To be looked at again when it is due: earlier than it was, perhaps, since a rate may be raised."""
        due = self._rates.due_ms(name)
        if due is not None and due < self._at.get(name, math.inf):
            self._at[name] = due
            heapq.heappush(self._due, (due, name))
