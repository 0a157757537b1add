"""When the master decides: at once, or a moment later, together with what comes meanwhile. Pure.

A round costs a transaction, whatever it gives out. So what comes in a stream that nobody waits for (`calm`) is given
out at most every `CALM_S`; after a pause it waits for nothing. Whatever else happens (another job, a slot that
something waits for, a head, settings, members) is decided at once, and takes along what has arrived (decision 37).
"""

from __future__ import annotations

CALM_S = 0.02
"""From one round that gave something out to the next that only a stream asks for."""

ROUND_BUNDLES = 64
ROUND_JOBS = 1_000
"""With so many there is nothing to wait for: their claims fill a transaction, or their jobs the nodes."""


class Pacing:
    """What has happened since the last round, and when the next is due."""

    __slots__ = ("_at_once", "_bundles", "_gave_at", "_jobs")

    def __init__(self) -> None:
        self._at_once = False
        self._bundles = self._jobs = 0      # that have arrived
        self._gave_at = float("-inf")

    def arrived(self, jobs: int, *, calm: bool) -> None:
        """A token that waits."""
        self._at_once = self._at_once or not calm
        self._bundles += 1
        self._jobs += jobs

    def changed(self) -> None:
        """Anything else that what waits may depend on."""
        self._at_once = True

    def due(self, now: float) -> float | None:
        """When to decide; None: there is nothing to."""
        if self._at_once or self._bundles >= ROUND_BUNDLES or self._jobs >= ROUND_JOBS:
            return now
        return max(now, self._gave_at + CALM_S) if self._bundles else None

    def decided(self, now: float, *, gave: bool) -> None:
        """A round is over: all that had happened was looked at."""
        self._at_once = False
        self._bundles = self._jobs = 0
        if gave:
            self._gave_at = now
