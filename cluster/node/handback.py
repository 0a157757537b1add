"""Everything that lies under a node goes back to its queues, as if it had never been given: its runners are dead."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from ..ledger.commits import Commits, Write, unmodified
from ..ledger.ledger import Condition, Ledger, Record, prefix_end
from ..state import moves
from ..state.keys import Keys
from ..state.quarantine import SetAside
from ..state.records import Claim, claim_in

PAGE = 500


class HandBack:
    """`is_kept` says which claims stay. `on_write` hears of the others: the watch may yet show them."""

    def __init__(
        self, ledger: Ledger, commits: Commits, keys: Keys, aside: SetAside, *, node: str,
        member: Condition, must_not_repeat: Callable[[Claim], bool], is_kept: Callable[[str, Record], bool],
        on_write: Callable[[str, int], None],
    ) -> None:
        self._ledger = ledger
        self._commits = commits
        self._keys = keys
        self._aside = aside
        self._node = node
        self._member = member
        self._must_not_repeat = must_not_repeat
        self._is_kept = is_kept
        self._on_write = on_write

    async def all(self) -> int:
        """Lists afresh until nothing is left to hand back, or the membership has ended; returns how many bundles."""
        prefix = self._keys.claims_of(self._node)
        start, moved, again = prefix, 0, False
        while True:
            page = await self._ledger.read(start, prefix_end(prefix), limit=PAGE)
            writes = [write for record in page.records if (write := await self._write(record)) is not None]
            verdicts = await asyncio.gather(*(self._commits.submit(write) for write in writes))
            if any(verdict.failed is not None and verdict.failed.key == self._member.key for verdict in verdicts):
                return moved
            moved += sum(verdict.applied for verdict in verdicts)
            again |= bool(verdicts)
            if page.more:
                start = page.records[-1].key + b"\0"
            elif again:
                start, again = prefix, False        # what has come, or changed, since it was read
            else:
                return moved

    async def _write(self, record: Record) -> Write | None:
        """None for what stays: what is kept, and a key that rota did not write."""
        claim, parsed = claim_in(record.value), self._keys.parse_claim(record.key)
        if parsed is None or self._is_kept(parsed[1], record):
            return None
        if claim is None:
            return await self._aside.unreadable((self._member,), record)
        bundle = parsed[1]
        self._on_write(bundle, record.create_revision)
        if claim.started and self._must_not_repeat(claim):
            return await self._aside.fail((self._member,), record, claim, "lost", node=self._node)
        at = unmodified(record.key, record.mod_revision)
        return moves.hand_back(self._keys, (self._member,), at, bundle, claim)
