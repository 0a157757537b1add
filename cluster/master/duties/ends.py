"""What comes into a serial queue late, because it is due now or has waited for other jobs, stands at its very end.

The queue's tail says where that is, and guards it. Without that, a node that has seen less of the store than the master
could append before what the master has just put there, and that would not be the head any more when it is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias
from weakref import WeakValueDictionary

from ...ledger.commits import Commits, Verdict, Write, unmodified
from ...ledger.ledger import Condition, Ledger
from ...state.keys import Keys
from ...state.records import tail_of

Writes: TypeAlias = Callable[[int, Condition | None], Write]


class Entry(NamedTuple):
    """`write`: what puts it into its queue, by its order (at least `order`) and the tail that it moves, if any."""

    queue: str
    order: int
    write: Writes


class Ends:
    """One term's. `is_serial`: as far as the master knows."""

    def __init__(self, ledger: Ledger, keys: Keys, commits: Commits, is_serial: Callable[[str], bool]) -> None:
        self._ledger = ledger
        self._keys = keys
        self._commits = commits
        self._is_serial = is_serial
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def enter_all(self, entries: Iterable[Entry]) -> None:
        """In the order given; what is for other queues does not wait for what is for a serial one."""
        plain, serial = list[asyncio.Future[Verdict]](), dict[str, list[Entry]]()
        for entry in entries:
            if self._is_serial(entry.queue):
                serial.setdefault(entry.queue, []).append(entry)
            else:
                plain.append(self._commits.submit(entry.write(entry.order, None)))
        await asyncio.gather(*plain, *(self._enter_in_turn(some) for some in serial.values()))

    async def _enter_in_turn(self, entries: list[Entry]) -> None:
        for entry in entries:
            await self.enter(entry)

    async def enter(self, entry: Entry) -> Verdict:
        if not self._is_serial(entry.queue):
            return await self._commits.submit(entry.write(entry.order, None))
        key = self._keys.tail(entry.queue)
        turn = self._turns.setdefault(entry.queue, asyncio.Lock())
        async with turn:
            while True:
                found = (await self._ledger.read(key)).records
                at, last = (found[0].mod_revision, tail_of(found[0])) if found else (0, 0)
                verdict = await self._commits.submit(entry.write(max(entry.order, last + 1), unmodified(key, at)))
                if verdict.applied or verdict.failed is None or verdict.failed.key != key:
                    return verdict
