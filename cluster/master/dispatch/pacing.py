"""When the master decides: at once, or a moment later, together with what comes meanwhile. Pure.

A round costs a transaction, whatever it gives out. So what only *arrives* while jobs run is given out at most every
`BUSY_S`, and what comes in a stream that nobody waits for (`calm`) at most every `CALM_S`; after a pause nothing
waits. Whatever else happens (a slot that something waits for, a head, settings, members) is decided at once, and takes
along what has arrived (decision 37).
"""

from __future__ import annotations

BUSY_S = 0.005
CALM_S = 0.02
"""From one round that gave something out to the next that only arrivals ask for."""

ROUND_BUNDLES = 64
ROUND_JOBS = 1_000
"""With so many there is nothing to wait for: their claims fill a transaction, or their jobs the nodes."""


class Pacing:
    """What has happened since the last round, and when the next is due."""

    __slots__ = ("_at_once", "_bundles", "_gave_at", "_jobs", "_waits")

    def __init__(self) -> None:
        self._at_once = self._waits = False
        self._bundles = self._jobs = 0
        self._gave_at = float("-inf")

    def arrived(self, jobs: int, *, calm: bool) -> None:
        """A token that waits: of itself it asks for no haste."""
        self._bundles += 1
        self._jobs += jobs
        self._waits = self._waits or not calm

    def changed(self) -> None:
        """Anything else that what waits may depend on."""
        self._at_once = True

    def due(self, now: float, *, busy: bool) -> float | None:
        """When to decide; None: there is nothing to. `busy`: something that was given out has not ended."""
        if self._at_once or self._bundles >= ROUND_BUNDLES or self._jobs >= ROUND_JOBS:
            return now
        if not self._bundles:
            return None
        if not self._waits:
            return max(now, self._gave_at + CALM_S)
        return max(now, self._gave_at + BUSY_S) if busy else now

    def decided(self, now: float, *, gave: bool) -> None:
        """A round is over: all that had happened was looked at."""
        self._at_once = self._waits = False
        self._bundles = self._jobs = 0
        if gave:
            self._gave_at = now
