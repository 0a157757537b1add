"""A bundle that has not ended after a while is looked at: what of it has not begun stays in part, or goes to others."""

from __future__ import annotations

from rota.worker.pool.interface import Runners

from ...clock import Clock
from ..claims.held import Held
from ..claims.slow import Pace, Share, is_late, is_soon_over, share


class Review:
    """One identity's."""

    def __init__(self, runners: Runners, pace: Pace, clock: Clock) -> None:
        self._runners = runners
        self._pace = pace
        self._clock = clock

    def of(self, held: Held) -> Share | None:
        """What to do with it; its jobs that have not begun are taken from the runners by then. None: nothing, for
        now."""
        if self._runners.keeps(held.key):
            return None
        mode, pending, now = held.claim.mode, held.pending, self._clock.monotonic()
        through, late = self._pace.through(mode, now), is_late(now - held.since)
        if self._runners.begins(mode) or not pending or (is_soon_over(pending, through) and not late):
            return None
        not_begun = dict(self._runners.withdraw([held.key])).get(held.key, [])
        return share(
            held.bundle, not_begun, pending=pending, through=through, busy=self._runners.busy(mode, held.claim.queue),
            late=late, settled=held.is_settled,
        )
