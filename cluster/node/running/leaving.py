"""What lies under a node goes back to its queues: what has not begun, when it leaves; everything, when its runners are
dead.
"""

from __future__ import annotations

import asyncio

from rota.worker.pool.interface import Runners

from ..claims.held import Held
from ..claims.table import Claims
from .running import Running


class Leaving:
    """One identity's: `drain`, then `release_unstarted`; or `release_all`."""

    def __init__(self, claims: Claims, runners: Runners, running: Running) -> None:
        self._claims = claims
        self._runners = runners
        self._running = running

    def drain(self) -> None:
        """Nothing is begun any more: what comes goes back, from `release_unstarted` on."""
        self._running.drain()

    async def release_unstarted(self) -> int:
        """Hand back what no runner has begun, and what comes from now on, if this node drains: its record says so by
        now. Part of a begun bundle stays: its bundle ends here."""
        if self._running.drains:
            self._running.is_known_to_drain()
        batch = []
        for key, indexes in dict(self._runners.withdraw(None)).items():
            held = self._claims.by_key(key)
            if held is None:
                continue
            if len(indexes) >= held.pending and held.is_settled:
                batch.append(held)
            else:
                self._running.submit_rest(held, indexes)
        batch.extend(held for held in self._claims if not held.submitted and held.is_settled)
        futures = self._running.release(batch)
        await asyncio.gather(*futures, return_exceptions=True)
        return len(batch)

    async def release_all(self) -> int:
        """Hand back everything that lies under us, whatever the runners did with it: they are dead. Lists afresh. What
        has come since then, and been begun, stays."""
        ran: dict[str, int] = {}
        for held in self._claims:
            if held.record.create_revision or self._running.drains:
                if began_ms := held.runs_since_ms:
                    ran[held.bundle] = began_ms
                self._flush_before_release(held)
            else:
                self._begin_again_when_stored(held)
        why = "its node was stopped" if self._running.drains else "its node was cut off from the store"
        return await self._running.handback.all(but_held=not self._running.drains, ran=ran, why=why)

    def _begin_again_when_stored(self, held: Held) -> None:
        """Level `delayed`: what has ended waits for the claim as before, but what has not was killed."""
        if held.review is not None:
            held.review.cancel()
        held.submitted = False

    def _flush_before_release(self, held: Held) -> None:
        if held.header is not None and held.has_news:
            self._running.reporter.flush(held)
        self._running.forget(held)
