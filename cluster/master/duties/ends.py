"""What comes into a serial queue late, because it is due now or has waited for other jobs, stands at its very end.

The queue's tail says where that is, and guards it. Without that, a node that has seen less of the store than the master
could append before what the master has just put there, and that would not be the head any more when it is tried again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import NamedTuple, TypeAlias
from weakref import WeakValueDictionary

from ...ledger.commits import Commits, Verdict, Write, merged, unmodified
from ...ledger.ledger import Condition, Ledger
from ...state.keys import Keys
from ...state.tails import end_of

TOGETHER = 20
"""What is due in one serial queue goes into it so many at a time."""

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
        self.is_serial = is_serial
        self._turns: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def enter_all(self, entries: Iterable[Entry]) -> None:
        """In the order given; what is for other queues does not wait for what is for a serial one."""
        plain, serial = list[asyncio.Future[Verdict]](), dict[str, list[Entry]]()
        for entry in entries:
            if self.is_serial(entry.queue):
                serial.setdefault(entry.queue, []).append(entry)
            else:
                plain.append(self._commits.submit(entry.write(entry.order, None)))
        await asyncio.gather(*plain, *(self._enter_in_turn(some) for some in serial.values()))

    async def _enter_in_turn(self, entries: list[Entry]) -> None:
        """Many at a time; where one of them has moved meanwhile, each by itself."""
        queue = entries[0].queue
        async with self._turn(queue):
            for start in range(0, len(entries), TOGETHER):
                some = entries[start : start + TOGETHER]
                if not (await self._append(queue, some)).applied:
                    for entry in some if len(some) > 1 else ():
                        await self._append(queue, [entry])

    async def enter(self, entry: Entry) -> Verdict:
        if not self.is_serial(entry.queue):
            return await self._commits.submit(entry.write(entry.order, None))
        async with self._turn(entry.queue):
            return await self._append(entry.queue, [entry])

    def _turn(self, queue: str) -> asyncio.Lock:
        return self._turns.setdefault(queue, asyncio.Lock())

    async def _append(self, queue: str, entries: list[Entry]) -> Verdict:
        """All or none, each behind the one before."""
        key = self._keys.tail(queue)
        while True:
            at, last = await end_of(self._ledger, self._keys, queue)
            writes = []
            for entry in entries:
                last = max(entry.order, last + 1)
                writes.append(entry.write(last, unmodified(key, at)))
            verdict = await self._commits.submit(merged(writes))
            if verdict.applied or verdict.failed is None or verdict.failed.key != key:
                return verdict
