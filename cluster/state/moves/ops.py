"""What moves are made of."""

from __future__ import annotations

from typing import TypeAlias

from ...ledger.ledger import Condition, Delete, Put
from ..keys import Keys
from ..records import Token, encode

Conditions: TypeAlias = tuple[Condition, ...]
Ops: TypeAlias = tuple[Put | Delete, ...]


def put_waiting(keys: Keys, bundle: str, token: Token) -> Put:
    """The token at its place in its queue."""
    return Put(keys.job(token.queue, token.priority, token.order, bundle), encode(token))


def put_scheduled(keys: Keys, bundle: str, token: Token, due_ms: int) -> Put:
    return Put(keys.due(due_ms, token.queue, bundle), encode(token))
