"""What a master decides to do."""

from __future__ import annotations

from typing import NamedTuple, TypeAlias

from ...ledger.ledger import Record
from .lanes import Item
from .members import Assignment, NodeLoad
from .rates import Reserve


class GiveClaim(NamedTuple):
    item: Item
    node: NodeLoad
    held: Assignment          # the reservation
    serial: bool


class Split(NamedTuple):
    """Into pieces of `size` jobs."""

    item: Item
    size: int


class Expire(NamedTuple):
    """It is too late for what this token has not begun."""

    item: Item


class LoadPage(NamedTuple):
    queue: str
    priority: int
    after: bytes
    limit: int


class TakeOver(NamedTuple):
    node: str


class Quarantine(NamedTuple):
    """A token nobody can read: it goes to the failed set, its bytes kept."""

    record: Record


Command: TypeAlias = GiveClaim | Split | Expire | Reserve | LoadPage | TakeOver | Quarantine
