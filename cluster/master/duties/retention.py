"""Emptying the failed set of what is older than an operator wants kept. Off unless a node is told `--keep-failed`.

The master does it, guarded by its fence, and says in the log how many jobs it dropped: nothing goes in silence, as it
would if the records hung on leases.
"""

from __future__ import annotations

import asyncio

from ...context import TermContext
from ...events.records import FailedDropped
from ...ledger.commits import Write, unmodified
from ...ledger.ledger import Record
from ...ledger.scan import pages
from ...state import moves
from ...state.records import failed_at

PAGE = 500
LOOKS = 20
"""The failed set is read through so often within the time that its jobs are kept, within these bounds:"""
LOOK_S_MIN, LOOK_S_MAX = 0.5, 600.0


class Retention:
    """One term's. `keep_s` 0: for ever."""

    def __init__(self, context: TermContext, keep_s: float) -> None:
        self._ledger = context.ledger
        self._keys = context.keys
        self._clock = context.clock
        self._commits = context.commits
        self._fence = context.fence
        self._events = context.events
        self._keep_s = keep_s

    async def run(self) -> None:
        while self._keep_s:
            dropped = await self.sweep()
            if dropped:
                self._events.emit(FailedDropped(dropped, self._keep_s))
            await asyncio.sleep(min(max(self._keep_s / LOOKS, LOOK_S_MIN), LOOK_S_MAX))

    async def sweep(self) -> int:
        """Read the failed set once; returns how many jobs were dropped."""
        dropped = 0
        async for page in pages(self._ledger, self._keys.failed, size=PAGE):
            writes = [write for record in page.records if (write := self._drop(record)) is not None]
            verdicts = await asyncio.gather(*(self._commits.submit(write) for write in writes))
            dropped += sum(verdict.applied for verdict in verdicts)
        return dropped

    def _drop(self, record: Record) -> Write | None:
        failed, parsed = failed_at(self._keys, record), self._keys.parse_failed(record.key)
        if failed is None or parsed is None or not failed.at or failed.at + self._keep_s > self._clock.wall():
            return None         # (one that cannot be read does not say since when it lies here)
        at = unmodified(record.key, record.mod_revision)
        return moves.delete(self._keys, (self._fence,), at, parsed[1], parsed[2])
