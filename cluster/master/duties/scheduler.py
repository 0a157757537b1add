"""Moving scheduled jobs to their queues when they are due. The master runs it; its wall clock decides.

It keeps no list: it reads what is due, moves it, and looks up when the next is. A million scheduled jobs cost it no
memory; nor etcd any work, which walks over all keys of a range that is read, whatever the limit: no read goes further
ahead than the next look.
"""

from __future__ import annotations

import asyncio

from ...context import TermContext
from ...ledger.commits import Write, unmodified
from ...ledger.ledger import Changes, Condition, Record
from ...ledger.scan import pages
from ...state import moves
from ...state.discarding import Discards
from ...state.quarantine import SetAside
from ...state.records import token_in
from .due import LOOK_S_MAX, until_due
from .ends import Ends, Entry

PAGE = 1_000


class Scheduler:
    def __init__(self, context: TermContext, aside: SetAside, discards: Discards, ends: Ends) -> None:
        self._ledger = context.ledger
        self._keys = context.keys
        self._clock = context.clock
        self._commits = context.commits
        self._fence = context.fence
        self._aside = aside
        self._discards = discards
        self._ends = ends
        self._next_ms = 0
        self._earlier = asyncio.Event()
        self._seen = 0

    def see(self, changes: Changes) -> None:
        """A job was scheduled before we would look again: wake up."""
        self._seen = changes.revision
        for event in changes.events:
            if not event.deleted and event.record.key.startswith(self._keys.scheduled):
                parsed = self._keys.parse_due(event.record.key)
                if parsed is not None and parsed[0] < self._next_ms:
                    self._next_ms = parsed[0]
                    self._earlier.set()

    async def run(self) -> None:
        while True:
            self._earlier.clear()
            await self.move_due()
            await until_due(self._clock, self._next_ms, self._earlier)

    async def move_due(self) -> None:
        """Put what is due into its queue."""
        keys = self._keys
        now_ms = int(self._clock.wall() * 1000)
        self._next_ms = now_ms + 1          # what is shown to be due by then, and was not in its page, wakes us
        async for page in pages(self._ledger, keys.scheduled, keys.due_before(now_ms), size=PAGE):
            moves_ = [move for record in page.records if (move := await self._move(record)) is not None]
            await asyncio.gather(
                *(self._commits.submit(move) for move in moves_ if isinstance(move, Write)),
                self._ends.enter_all(move for move in moves_ if isinstance(move, Entry)),
            )
        self._next_ms = horizon_ms = now_ms + int(LOOK_S_MAX * 1000)    # from here on, what is seen brings it forward
        after = await self._ledger.read(
            keys.due_before(now_ms), keys.due_before(horizon_ms), limit=1, keys_only=True
        )
        parsed = keys.parse_due(after.records[0].key) if after.records else None
        if parsed is not None:
            self._next_ms = min(self._next_ms, parsed[0])

    async def _move(self, record: Record) -> Write | Entry | None:
        """A job that is due gets a fresh order: it stands in line behind those that came before it was due."""
        parsed = self._keys.parse_due(record.key)
        if parsed is None:
            return None         # not ours: left alone
        token = token_in(parsed[1], record.value)
        if token is None:
            return await self._aside.unreadable((self._fence,), record)
        if token.expires and token.expires <= self._clock.wall() * 1000:
            return await self._discards.expired((self._fence,), record, token)
        order = max(self._seen, self._commits.revision, token.order)
        at = unmodified(record.key, record.mod_revision)

        def become_due(order: int, tail: Condition | None) -> Write:
            return moves.become_due(self._keys, (self._fence,), at, parsed[2], token, order, tail)

        return Entry(token.queue, order, become_due)

