"""The ends of serial queues, as this node has last seen them, and whose turn it is to enqueue behind them."""

from __future__ import annotations

import asyncio

from ...ledger.ledger import Ledger
from ...state.keys import Keys
from ...state.tails import end_of

TAILS_MAX = 10_000
"""Queues that are kept in mind."""


class Tails:
    """Also the locks of queues that take one enqueue after the other for another reason."""

    def __init__(self, ledger: Ledger, keys: Keys) -> None:
        self._ledger = ledger
        self._keys = keys
        self._tails: dict[str, tuple[int, int]] = {}        # queue -> (mod revision, order) of its tail
        self._locks: dict[str, asyncio.Lock] = {}

    def turn(self, queue: str) -> asyncio.Lock:
        if len(self._locks) > TAILS_MAX:
            self._forget()
        return self._locks.setdefault(queue, asyncio.Lock())

    async def end_of(self, queue: str) -> tuple[int, int]:
        """(mod revision, order) of its tail. It is known again when what follows is stored."""
        known = self._tails.pop(queue, None)
        return known if known is not None else await end_of(self._ledger, self._keys, queue)

    def stored(self, queue: str, mod_revision: int, order: int) -> None:
        self._tails[queue] = mod_revision, order

    def _forget(self) -> None:
        """Of queues that nobody enqueues to now: what they were can be read again."""
        self._locks = {queue: lock for queue, lock in self._locks.items() if lock.locked()}
        self._tails = {queue: tail for queue, tail in self._tails.items() if queue in self._locks}
