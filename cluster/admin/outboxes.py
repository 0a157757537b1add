"""Whose turn it is to move the rows of an outbox into rota: one relay's at a time, on a lease of its own.

The turn keeps relays from getting into each other's way; that a row is moved once rests on the name of its bundle.
"""

from __future__ import annotations

import random

from rota.client.errors import InvalidJob, LeaseGone, LedgerUnavailable, Overloaded
from rota.client.ids import NAME_RULE
from rota.client.wire.views import OutboxTurn, OutboxView, TurnAsked

from ..context import IdentityContext
from ..ledger.commits import created, unmodified
from ..ledger.ledger import Condition, Delete, Put, Record, prefix_end
from ..state.keys import is_name
from ..state.outboxes import OutboxRecord
from ..state.records import decode, encode

TTL_S = 10
"""How long the rows of a relay that has died wait for another."""

TRIES_MAX = 20
OUTBOXES_MAX = 1_000


class Outboxes:
    """One identity's."""

    def __init__(self, context: IdentityContext, rng: random.Random) -> None:
        self._ledger = context.ledger
        self._commits = context.commits
        self._keys = context.keys
        self._clock = context.clock
        self._member = context.member
        self._rng = rng

    async def turn(self, name: str, asked: TurnAsked) -> OutboxTurn:
        """Take, keep or leave the turn. Raises `InvalidJob`, `LedgerError`."""
        if not is_name(name):
            raise InvalidJob(f"{name[:200]!r} is not a valid name of an outbox: {NAME_RULE}")
        key = self._keys.outbox(name)
        for _ in range(TRIES_MAX):
            page = await self._ledger.read(key)
            there = page.records[0] if page.records else None
            record = decode(OutboxRecord, there.value) if there is not None else None
            if there is None or record is None or not there.lease:
                done = asked.leave or await self._take(key, there, asked)
            elif record.holder != asked.holder:
                return OutboxTurn(False, record.holder, TTL_S)
            elif asked.leave:
                done = await self._write(unmodified(key, there.mod_revision), Delete(key))
            else:
                done = await self._keep(key, there, record, asked)
            if done:
                return OutboxTurn(not asked.leave, "" if asked.leave else asked.holder, TTL_S)
        raise LedgerUnavailable(f"whose turn it is at outbox {name} changes all the time: try again")

    async def list(self) -> list[OutboxView]:
        prefix = self._keys.outboxes
        page = await self._ledger.read(prefix, prefix_end(prefix), limit=OUTBOXES_MAX)
        views = []
        for found in page.records:
            name, record = self._keys.parse_outbox(found.key), decode(OutboxRecord, found.value)
            if name is not None and record is not None:
                views.append(OutboxView(
                    name, record.holder, record.since / 1000, record.moved, record.waiting, record.aside,
                    record.oldest / 1000 if record.oldest else None,
                ))
        return views

    async def _take(self, key: bytes, there: Record | None, asked: TurnAsked) -> bool:
        """What cannot be read there, or would never end, is nobody's turn."""
        if there is None:
            outboxes = self._keys.outboxes
            page = await self._ledger.read(outboxes, prefix_end(outboxes), limit=OUTBOXES_MAX, keys_only=True)
            if len(page.records) >= OUTBOXES_MAX:
                raise Overloaded(f"{OUTBOXES_MAX:,} outboxes have a relay already", 5.0)
        lease = self._rng.getrandbits(62) + 1
        await self._ledger.grant(TTL_S, lease)
        free = created(key, 0) if there is None else unmodified(key, there.mod_revision)
        taken = await self._write(free, Put(key, self._record(asked, self._now_ms()), lease))
        if not taken:
            await self._ledger.revoke(lease)
        return taken

    async def _keep(self, key: bytes, there: Record, record: OutboxRecord, asked: TurnAsked) -> bool:
        try:
            await self._ledger.keep_alive(there.lease)
        except LeaseGone:
            return False
        value = self._record(asked, record.since)
        if value == there.value:
            return True
        return await self._write(unmodified(key, there.mod_revision), Put(key, value, there.lease))

    async def _write(self, condition: Condition, op: Put | Delete) -> bool:
        try:
            return (await self._commits.write((self._member, condition), (op,))).applied
        except LeaseGone:
            return False

    def _record(self, asked: TurnAsked, since_ms: int) -> bytes:
        return encode(OutboxRecord(asked.holder, since_ms, asked.moved, asked.waiting, asked.aside, asked.oldest_ms))

    def _now_ms(self) -> int:
        return int(self._clock.wall() * 1000)
