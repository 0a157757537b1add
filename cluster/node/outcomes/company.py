"""Which outcomes may wait for company: a few milliseconds, for a transaction that is made anyway (decision 37)."""

from __future__ import annotations

from collections.abc import Callable

from ..claims.held import Held

CALM_S = 0.02
"""Outcomes of a stream that nobody waits for begin no transaction sooner than this after their node's last."""


class Company:
    """`is_limited`: whether jobs of this task and queue may have to wait for others of them to end."""

    def __init__(self, is_limited: Callable[[str, str], bool]) -> None:
        self._is_limited = is_limited

    def patience_s(self, held: Held) -> float:
        """How long its outcomes may wait. Not at all where somebody waits for it, or another job for its end: what is
        limited, is retried, takes several slots, was lost before, or has a unique key."""
        claim = held.claim
        if not claim.calm or claim.serial or claim.unique or claim.weight > 1 or claim.lost or held.retries:
            return 0.0
        return 0.0 if self._is_limited(claim.task, claim.queue) else CALM_S
