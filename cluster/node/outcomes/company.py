"""Which outcomes may wait for company: a few milliseconds, for a transaction that is made anyway (decision 37)."""

from __future__ import annotations

from collections.abc import Callable, Sized

from ..claims.held import Held

BUSY_S = 0.005
"""While something else runs here, an outcome begins no transaction sooner than this after the last."""

CALM_S = 0.02
"""Likewise that of a job that came in a stream, and that nobody waits for."""


class Company:
    """Of one identity. `claims`: what lies here. `is_limited`: whether jobs of this task and queue may have to wait for
    others of them to end."""

    def __init__(self, claims: Sized, is_limited: Callable[[str, str], bool]) -> None:
        self._claims = claims
        self._is_limited = is_limited
        self._ended: set[int] = set()       # bundles that lie here, though all of their jobs have ended

    def ended(self, held: Held) -> None:
        """All of its jobs have."""
        self._ended.add(held.key)

    def left(self, held: Held) -> None:
        """It does not lie here any more."""
        self._ended.discard(held.key)

    def patience_s(self, held: Held) -> float:
        """How long its outcomes may wait. Not at all where another job waits for this one's end: what is limited, is
        retried, takes several slots, was lost before, or has a unique key."""
        claim = held.claim
        if claim.serial or claim.unique or claim.weight > 1 or claim.lost or held.retries:
            return 0.0
        if not claim.calm and len(self._claims) <= len(self._ended):
            return 0.0
        if self._is_limited(claim.task, claim.queue):
            return 0.0
        return CALM_S if claim.calm else BUSY_S
