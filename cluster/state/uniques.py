"""Unique keys: which job has one for itself, and whether it still is there.

A job's key is created in the transaction that enqueues it, and deleted in the one that ends it (or, if its enqueue says
so, begins it): while the token of a bundle says `unique`, the key is its own. What is held for a time lies on a lease,
and ends whatever becomes of the job. A key whose holder has no body any more (somebody has deleted things by hand, or a
token could not be read) is nobody's: the next enqueue has it.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import Meta

from ..ledger.commits import created, unmodified
from ..ledger.ledger import Condition, Get, Ledger, Record, Txn
from .keys import Keys
from .records import Bundle, Place, Schema, Token, decode, schema, waiting_at


class UniqueRecord(msgspec.Struct, frozen=True, omit_defaults=True):
    """`bundle` holds the key since `at`, and until `until_ms` if that is said (ms since 1970). `place`: where its token
    was put last, below the cluster's root."""

    bundle: Bundle
    place: Annotated[str, Meta(max_length=1_000)]
    at: Place
    until: Place = 0
    v: Schema = msgspec.field(default_factory=schema)


class Hold(msgspec.Struct, frozen=True, gc=False):
    """A key that is to be had: as it was seen, and until when, on which lease (0: until the token gives it up).
    `orphan`: that it was nobody's any more."""

    at: Condition
    until_ms: int = 0
    lease: int = 0
    orphan: Condition | None = None

    @property
    def conditions(self) -> tuple[Condition, ...]:
        return (self.at,) if self.orphan is None else (self.at, self.orphan)


class Holder(msgspec.Struct, frozen=True, gc=False):
    """Who has a key. `token`: where it waits, if no attempt of it has begun."""

    bundle: str
    at: Condition
    record: Record | None = None
    token: Token | None = None


async def look(ledger: Ledger, keys: Keys, key: bytes, now_ms: int) -> Holder | Hold:
    """Who has a key; or how to have it. (The parts are read one after another: every write that stands on them is
    guarded by them.)"""
    page = await ledger.read(key)
    if not page.records:
        return Hold(created(key, 0))
    at = unmodified(key, page.records[0].mod_revision)
    held = decode(UniqueRecord, page.records[0].value)
    if held is None or 0 < held.until <= now_ms:
        return Hold(at)
    body, place = (await ledger.commit(Txn((), (
        Get(keys.body(held.bundle), b"", True), Get(keys.root + held.place.encode()),
    )))).answers
    if not body and not held.until:
        return Hold(at, orphan=created(keys.body(held.bundle), 0))
    token = waiting_at(keys, place[0]) if place else None
    if token is None or not token.untouched or token.count != 1:
        return Holder(held.bundle, at)
    return Holder(held.bundle, at, place[0], token)
