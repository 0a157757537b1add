"""The ledger in memory: one client's handle on a `MemoryStore`, and its watches.

It serves the tests of applications and the simulation; `tests/conformance` holds it against real etcd.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

from rota.client.errors import Compacted, LedgerError, LedgerUnavailable, StoreRewound, TransactionInvalid

from .keyspace import Change, covers
from .ledger import Changes, Event, Page, StoreStatus, Txn, TxnResult, is_empty
from .memory_store import MemoryStore as MemoryStore

PROGRESS_PERIOD_S = 1.0
"""A quiet watch tells this often up to where it has seen everything."""

REVISIONS_PER_DELIVERY = 1000


class MemoryWatch:
    """See `ledger.Watch`. Iterate inside `async with`."""

    def __init__(
        self,
        store: MemoryStore,
        key: bytes,
        range_end: bytes,
        from_revision: int,
        on_close: Callable[[MemoryWatch], None],
        *,
        deletes_only: bool = False,
    ) -> None:
        if from_revision < 1:
            raise TransactionInvalid(f"a watch starts at a revision from 1 on, not at {from_revision}")
        if is_empty(key, range_end):
            raise TransactionInvalid(f"the range {key!r} to {range_end!r} holds no key")
        self._store = store
        self._key = key
        self._range_end = range_end
        self._deletes_only = deletes_only
        self._from_revision = from_revision
        self._delivered = from_revision - 1
        self._on_close = on_close
        self._error: LedgerError | None = None
        self._entered = False
        self._pending: deque[tuple[int, tuple[Event, ...]]] = deque()
        self._news: asyncio.Future[None] | None = None
        self._progress: asyncio.TimerHandle | None = None
        self._progress_due = False

    async def __aenter__(self) -> Self:
        self.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Changes:
        assert self._entered, "iterate a watch inside `async with`"
        while not self._pending:
            if self._error:
                raise self._error
            if self._progress_due and self._store.revision > self._delivered:
                break
            if self._store.revision > self._delivered and self._progress is None:
                self._promise_progress()
            await self._wait()
        self._progress_due = False
        events: list[Event] = []
        for _ in range(min(len(self._pending), REVISIONS_PER_DELIVERY)):
            self._delivered, some = self._pending.popleft()
            events += some
        if not self._pending:
            self._delivered = self._store.revision
        return Changes(self._delivered, tuple(events))

    def open(self) -> None:
        """Start: take what history there is, then listen."""
        self._entered = True
        keyspace = self._store.keyspace
        self._store.listen(self)
        if self._from_revision > keyspace.revision + 1:
            self.close(StoreRewound(f"a watch from {self._from_revision}, but the store is at {keyspace.revision}"))
        elif self._from_revision < keyspace.compacted:
            self.close(Compacted(keyspace.compacted))
        else:
            for revision, changes in keyspace.history(self._from_revision):
                self.offer(revision, changes)

    def offer(self, revision: int, changes: tuple[Change, ...]) -> None:
        """Take from a revision what this watch is for."""
        events = tuple(
            change.event for change in changes if covers(self._key, self._range_end, change.event.record.key)
            and (change.event.deleted or not self._deletes_only)
        )
        if events:
            self._pending.append((revision, events))
            self._wake()
        elif self._news is not None and self._progress is None:
            self._promise_progress()

    def close(self, error: LedgerError | None = None) -> None:
        self._error = self._error or error or LedgerUnavailable("the watch is closed")
        self._pending.clear()
        if self._progress is not None:
            self._progress.cancel()
        self._store.leave(self)
        self._on_close(self)
        self._wake()

    def _promise_progress(self) -> None:
        """Something happened that this watch is not for: tell after a while that it has been seen. (A store in which
        nothing happens sets no timers, so that a simulation can tell that it is stuck.)"""
        self._progress = asyncio.get_running_loop().call_later(PROGRESS_PERIOD_S, self._keep_promise)

    def _keep_promise(self) -> None:
        self._progress = None
        self._progress_due = True
        self._wake()

    async def _wait(self) -> None:
        self._news = asyncio.get_running_loop().create_future()
        try:
            await self._news
        finally:
            self._news = None

    def _wake(self) -> None:
        if self._news is not None and not self._news.done():
            self._news.set_result(None)


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

    def watch(
        self, key: bytes, range_end: bytes = b"", *, from_revision: int, deletes_only: bool = False
    ) -> MemoryWatch:
        watch = MemoryWatch(self.store, key, range_end, from_revision, self._forget, deletes_only=deletes_only)
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
