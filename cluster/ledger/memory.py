"""The ledger in memory: one client's handle on a `MemoryStore`, and its watches.

It serves the tests of applications and the simulation; `tests/conformance` holds it against real etcd.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rota.client.errors import Compacted, LedgerUnavailable, StoreRewound

from .keyspace import Change, covers
from .ledger import Changes, Event, Page, StoreStatus, Txn, TxnResult
from .memory_store import MemoryStore as MemoryStore

PROGRESS_PERIOD_S = 1.0
"""A quiet watch tells this often up to where it has seen everything."""

REVISIONS_PER_DELIVERY = 1000


class MemoryWatch:
    """An open watch. It starts when it is entered or first iterated."""

    def __init__(
        self,
        store: MemoryStore,
        key: bytes,
        range_end: bytes,
        from_revision: int,
        on_close: Callable[[MemoryWatch], None],
    ) -> None:
        self._store = store
        self._key = key
        self._range_end = range_end
        self._from_revision = from_revision
        self._on_close = on_close
        self._started = self._closed = False
        self._pending: deque[tuple[int, tuple[Event, ...]]] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __anext__(self) -> Changes:
        if not self._started:
            self._start()
        if not self._pending and not self._closed:
            await self._wait()
        if self._closed:
            raise StopAsyncIteration
        if not self._pending:
            return Changes(self._store.revision, ())
        events: list[Event] = []
        for _ in range(min(len(self._pending), REVISIONS_PER_DELIVERY)):
            revision, some = self._pending.popleft()
            events += some
        return Changes(revision if self._pending else self._store.revision, tuple(events))

    def offer(self, revision: int, changes: tuple[Change, ...]) -> None:
        """Take from a revision what this watch is for."""
        if revision < self._from_revision:
            return
        events = tuple(
            change.event for change in changes if covers(self._key, self._range_end, change.event.record.key)
        )
        if events:
            self._pending.append((revision, events))
            self._wake()

    def close(self) -> None:
        self._closed = True
        self._store.leave(self)
        self._on_close(self)
        self._wake()

    def _start(self) -> None:
        self._started = True
        keyspace = self._store.keyspace
        self._store.listen(self)
        if self._from_revision <= 0:
            self._from_revision = keyspace.revision + 1
        if self._from_revision > keyspace.revision + 1:
            self.close()
            raise StoreRewound(f"a watch from {self._from_revision} was asked for, the store is at {keyspace.revision}")
        if self._from_revision < keyspace.compacted:
            self.close()
            raise Compacted(keyspace.compacted)
        for revision, changes in keyspace.history(self._from_revision):
            self.offer(revision, changes)

    async def _wait(self) -> None:
        """Until there is something, or for as long as a quiet watch keeps quiet."""
        loop = asyncio.get_running_loop()
        self._waiter = loop.create_future()
        timer = loop.call_later(PROGRESS_PERIOD_S, self._wake)
        try:
            await self._waiter
        finally:
            timer.cancel()
            self._waiter = None

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class MemoryLedger:
    """One client's handle on a store. `name` says in the journal who wrote."""

    def __init__(self, store: MemoryStore | None = None, name: str = "") -> None:
        self.store = store or MemoryStore()
        self.name = name
        self._closed = False
        self._watches: dict[MemoryWatch, None] = {}

    async def read(
        self,
        key: bytes,
        range_end: bytes = b"",
        *,
        limit: int = 0,
        revision: int = 0,
        keys_only: bool = False,
        serializable: bool = False,
        min_mod_revision: int = 0,
    ) -> Page:
        await self._turn()
        return self.store.read(key, range_end, limit, revision, keys_only, min_mod_revision)

    async def commit(self, txn: Txn) -> TxnResult:
        await self._turn()
        return self.store.commit(txn, self.name)

    def watch(self, key: bytes, range_end: bytes = b"", *, from_revision: int) -> MemoryWatch:
        watch = MemoryWatch(self.store, key, range_end, from_revision, self._forget)
        self._watches[watch] = None
        return watch

    async def grant(self, ttl_s: int, lease: int) -> int:
        await self._turn()
        return self.store.grant(ttl_s, lease)

    async def keep_alive(self, lease: int) -> int:
        await self._turn()
        return self.store.keep_alive(lease)

    async def revoke(self, lease: int) -> None:
        await self._turn()
        self.store.end_lease(lease, self.name)

    async def status(self) -> StoreStatus:
        await self._turn()
        return self.store.status()

    async def compact(self, revision: int) -> None:
        await self._turn()
        self.store.compact(revision)

    async def close(self) -> None:
        self._closed = True
        for watch in tuple(self._watches):
            watch.close()

    def _forget(self, watch: MemoryWatch) -> None:
        self._watches.pop(watch, None)

    async def _turn(self) -> None:
        """Give way once, as every request to a real store does: a loop of requests must not starve the others."""
        await asyncio.sleep(0)
        if self._closed:
            raise LedgerUnavailable("the ledger is closed")
