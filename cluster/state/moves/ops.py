"""What moves are made of."""

from __future__ import annotations

from typing import TypeAlias

from ...ledger.ledger import Condition, Delete, Put
from ..keys import Keys
from ..records import Awaiting, Token, encode
from ..uniques import UniqueRecord

Conditions: TypeAlias = tuple[Condition, ...]
Ops: TypeAlias = tuple[Put | Delete, ...]


def freed(keys: Keys, token: Token) -> Ops:
    """What it had for itself, others may have from here on."""
    return (Delete(keys.unique(token.task, token.unique)),) if token.unique else ()


def put_held(keys: Keys, key: bytes, bundle: str, at: Put, now_ms: int, until_ms: int = 0, lease: int = 0) -> Put:
    """A bundle has this key for itself. `at`: its token, where others find it."""
    place = at.key.removeprefix(keys.root).decode()
    return Put(key, encode(UniqueRecord(bundle, place, now_ms, until_ms)), lease)


def moved_tail(tail: Condition | None, order: int) -> tuple[Conditions, Ops]:
    """Of a serial queue whose new end has this order. `tail`: as it was seen; None: there is none to be moved."""
    return ((tail,), (Put(tail.key, b"%d" % order),)) if tail is not None else ((), ())


def put_waiting(keys: Keys, bundle: str, token: Token) -> Put:
    """The token at its place in its queue."""
    return Put(keys.job(token.queue, token.priority, token.order, bundle), encode(token))


def put_awaiting(keys: Keys, bundle: str, token: Awaiting) -> Put:
    return Put(keys.awaits(token.queue, bundle), encode(token))


def put_scheduled(keys: Keys, bundle: str, token: Token, due_ms: int) -> Put:
    return Put(keys.due(due_ms, token.queue, bundle), encode(token))
