"""Bulk operations: retry or delete many failed jobs, empty a queue, cancel many jobs. The master carries them out.

Each is a record below `operations/`, written by the node that was asked, and all that a new master needs. Several at
once hinder nobody: who comes first does it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rota.client.errors import LedgerError

from ...context import TermContext
from ...events.records import BulkEnded
from ...ledger.buckets import Buckets
from ...ledger.commits import unmodified
from ...ledger.ledger import Changes, Delete
from ...ledger.scan import scan
from ...state.nonempty import commits_of
from ...state.records import operation_in
from ...state.words import Words
from ..election.authority import Authority
from .ends import Ends
from .operation import Operation, Writer, name_of

AT_ONCE_MAX = 4
"""Operations under way at a time; others wait for their turn."""

AGAIN_S = 1.0
"""After this it goes on if the store did not take what it wrote."""


class Bulk:
    """One term's."""

    def __init__(self, context: TermContext, authority: Authority, is_serial: Callable[[str], bool]) -> None:
        self._context = context
        self._authority = authority
        self._is_serial = is_serial
        self._ledger, self._keys = context.ledger, context.keys
        self._buckets = Buckets(context.ledger, context.clock, context.rng)
        self._words = Words(context.seal)
        self._waiting: dict[bytes, None] = {}       # keys of operations, in the order in which they came
        self._at_work: set[bytes] = set()
        self._more = asyncio.Event()

    def see(self, changes: Changes) -> None:
        for event in changes.events:
            key = event.record.key
            if key.startswith(self._keys.operations) and not event.deleted and key not in self._at_work:
                self._waiting[key] = None
                self._more.set()

    async def run(self) -> None:
        """Carry out what there is and what comes, a few at a time."""
        found = [record async for record in scan(self._ledger, self._keys.operations, keys_only=True)]
        for record in sorted(found, key=lambda record: record.create_revision):
            self._waiting[record.key] = None
        async with commits_of(self._ledger, self._keys) as commits, asyncio.TaskGroup() as group:
            self._commits = commits
            ends = Ends(self._ledger, self._keys, commits, self._is_serial)
            self._writer = Writer(self._context, self._authority, commits, self._buckets, ends)
            while True:
                while self._waiting and len(self._at_work) < AT_ONCE_MAX:
                    key = next(iter(self._waiting))
                    del self._waiting[key]
                    self._at_work.add(key)
                    group.create_task(self._until_over(key), name="bulk-operation")
                self._more.clear()
                await self._more.wait()

    async def _until_over(self, key: bytes) -> None:
        try:
            while True:
                try:
                    await self._carry_out(key)
                    return
                except LedgerError:         # a passing fault of the store is no outcome: go on from what is there
                    await asyncio.sleep(AGAIN_S)
        finally:
            self._at_work.discard(key)
            self._more.set()

    async def _carry_out(self, key: bytes) -> None:
        page = await self._ledger.read(key)
        record = page.records[0] if page.records else None
        if record is None:
            return
        operation = operation_in(record.value)
        if operation is None:
            self._context.events.emit(BulkEnded(name_of(key), "unknown", 0, "its record cannot be read"))
            await self._commits.write((self._context.fence, unmodified(key, record.mod_revision)), (Delete(key),))
            return
        at_work = Operation(self._context, self._writer, self._words, record, operation, page.revision)
        try:
            await (at_work.begin() if operation.state == "waiting" else at_work.resume())
        finally:
            at_work.cancel()
