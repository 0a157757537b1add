"""What goes wrong between a node and its store, drawn from a seed: `FaultyLedger` wraps one handle on a `MemoryStore`.

The worst of it is the late twin: a commit whose answer is lost, that a read then shows absent, and that applies after
all (faults.md, 1.4). Everything else is a milder form of that, of silence, or of delay.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import Any, Self

import msgspec

from rota.client.errors import LeaseGone, LedgerDenied, LedgerError, LedgerUnavailable, StoreBusy, WriteUnknown
from rota.cluster.ledger.ledger import Changes, Page, StoreStatus, Txn, TxnResult
from rota.cluster.ledger.memory import MemoryLedger, MemoryWatch


class Faults(msgspec.Struct, frozen=True, kw_only=True):
    """How often (per request, 0 .. 1) and how long (seconds, lowest and highest). The default is a healthy network."""

    latency_s: tuple[float, float] = (0.0005, 0.005)
    watch_latency_s: tuple[float, float] = (0.0005, 0.005)

    refused: float = 0.0            # LedgerUnavailable: never got there
    busy: float = 0.0               # StoreBusy
    answer_lost: float = 0.0        # applied, but WriteUnknown (of a lease: LedgerUnavailable)
    request_lost: float = 0.0       # WriteUnknown, never applied
    late: float = 0.0               # WriteUnknown, applied later, perhaps after a read
    late_s: tuple[float, float] = (0.0, 5.0)
    slow: float = 0.0
    slow_s: tuple[float, float] = (0.1, 2.0)
    lease_lost: float = 0.0         # per keepalive: the store has dropped the lease early
    watch_stall: float = 0.0        # per delivery
    watch_stall_s: tuple[float, float] = (0.5, 5.0)

    write_deadline_s: float = 9.0
    read_deadline_s: float = 5.0
    lease_deadline_s: float = 3.0


CALM = Faults()
ROUGH = Faults(
    latency_s=(0.0005, 0.05),
    watch_latency_s=(0.0005, 0.1),
    refused=0.01,
    busy=0.005,
    answer_lost=0.01,
    request_lost=0.005,
    late=0.01,
    slow=0.01,
    watch_stall=0.01,
)


class Fate(Enum):
    APPLIED = "applied"
    REFUSED = "refused"
    BUSY = "busy"
    ANSWER_LOST = "answer lost"
    REQUEST_LOST = "request lost"
    LATE = "late"


class FaultyLedger:
    """A `Ledger` that fails as a network does. `note` hears of each fault, for the trace; `watched` of each commit
    when it is sent and, if it succeeded, when it has just been applied."""

    def __init__(
        self,
        inner: MemoryLedger,
        faults: Faults = CALM,
        *,
        seed: int | random.Random = 0,
        note: Callable[[str], None] = lambda _: None,
        watched: Callable[[Txn, bool], None] = lambda txn, applied: None,
    ) -> None:
        self.inner = inner
        self.faults = faults
        self.next_fates: list[Fate] = []
        """Fates of the next commits, before chance decides again: for tests that need one fault at one place."""
        self.hold_answer_s = 0.0
        """So long the answer to the commit that is being watched is under way."""
        self.shut_out = False
        """The store knows our password no more; leases it renews for anybody."""
        self.counts: dict[str, int] = {}
        self._chance = seed if isinstance(seed, random.Random) else random.Random(seed)
        self._note = note
        self._watched = watched
        self._connected = asyncio.Event()
        self._connected.set()
        self._cuts = 0
        self._after_read: list[Txn] = []

    @property
    def cut(self) -> bool:
        return not self._connected.is_set()

    @property
    def cuts(self) -> int:
        """How often the connection has been cut: a watch opened before a cut has to reconnect after it."""
        return self._cuts

    def disconnect(self) -> None:
        """From now on everything hangs to its deadline, and watches are silent."""
        if self._connected.is_set():
            self._connected.clear()
            self._cuts += 1
            self._count("cut")

    def reconnect(self) -> None:
        self._connected.set()

    async def connected(self) -> None:
        await self._connected.wait()

    async def read(self, key: bytes, range_end: bytes = b"", **options: Any) -> Page:
        await self._request("read", self.faults.read_deadline_s)
        page = await self.inner.read(key, range_end, **options)
        await self._answer(self.faults.read_deadline_s)
        for txn in self._after_read:
            self._apply_later(txn)
        self._after_read.clear()
        return page

    async def commit(self, txn: Txn) -> TxnResult:
        fate = self.next_fates.pop(0) if self.next_fates else self._draw_fate()
        if fate is not Fate.APPLIED:
            self._count(fate.value)
        self._watched(txn, False)
        await self._send(txn)
        self._let_in()
        match fate:
            case Fate.REFUSED:
                raise LedgerUnavailable("simulated: no endpoint could be reached")
            case Fate.BUSY:
                raise StoreBusy("simulated: too many requests")
            case Fate.REQUEST_LOST | Fate.LATE:
                if fate is Fate.LATE:
                    self._apply_late(txn)
                await self._pause(self.faults.slow_s)
                raise WriteUnknown("simulated: deadline exceeded")
        result = await self.inner.commit(txn)
        if result.succeeded:
            self._watched(txn, True)
        hold_s, self.hold_answer_s = self.hold_answer_s, 0.0
        if hold_s:
            await asyncio.sleep(hold_s)
        try:
            await self._answer(self.faults.write_deadline_s)
        except LedgerUnavailable as error:
            raise WriteUnknown("simulated: the connection was cut before the answer came") from error
        if fate is Fate.ANSWER_LOST:
            raise WriteUnknown("simulated: the answer was lost")
        return result

    def watch(
        self, key: bytes, range_end: bytes = b"", *, from_revision: int, deletes_only: bool = False
    ) -> FaultyWatch:
        return FaultyWatch(self, key, range_end, from_revision, deletes_only=deletes_only)

    async def grant(self, ttl_s: int, lease: int) -> int:
        await self._request("grant", self.faults.lease_deadline_s)
        ttl_s = await self.inner.grant(ttl_s, lease)
        await self._answer(self.faults.lease_deadline_s, losable=True)
        return ttl_s

    async def keep_alive(self, lease: int) -> int:
        await self._request("keep-alive", self.faults.lease_deadline_s)
        if self._strikes(self.faults.lease_lost):
            self.lose_lease(lease)
        ttl_s = await self.inner.keep_alive(lease)
        await self._answer(self.faults.lease_deadline_s, losable=True)
        return ttl_s

    def lose_lease(self, lease: int) -> None:
        """The store drops a lease early, as an old leader of etcd can: its keys go, nobody is told."""
        self._count("lease lost")
        self.inner.store.end_lease(lease, "lease lost")

    async def revoke(self, lease: int) -> None:
        await self._request("revoke", self.faults.lease_deadline_s)
        with suppress(LeaseGone):
            await self.inner.revoke(lease)
        await self._answer(self.faults.lease_deadline_s, losable=True)

    async def status(self) -> StoreStatus:
        await self._request("status", self.faults.read_deadline_s)
        return await self.inner.status()

    async def compact(self, revision: int) -> None:
        await self._request("compact", self.faults.read_deadline_s)
        await self.inner.compact(revision)

    async def close(self) -> None:
        await self.inner.close()

    def watch_delay_s(self) -> float:
        delay_s = self._chance.uniform(*self.faults.watch_latency_s)
        if self._strikes(self.faults.watch_stall):
            self._count("watch stalled")
            delay_s += self._chance.uniform(*self.faults.watch_stall_s)
        return delay_s

    def _draw_fate(self) -> Fate:
        draw = self._chance.random()
        for fate, rate in (
            (Fate.REFUSED, self.faults.refused),
            (Fate.BUSY, self.faults.busy),
            (Fate.ANSWER_LOST, self.faults.answer_lost),
            (Fate.REQUEST_LOST, self.faults.request_lost),
            (Fate.LATE, self.faults.late),
        ):
            draw -= rate
            if draw < 0:
                return fate
        return Fate.APPLIED

    async def _request(self, what: str, deadline_s: float) -> None:
        """The way of a request that may be repeated at will."""
        await self._reach(deadline_s)
        if self._strikes(self.faults.refused):
            self._count(f"{what} refused")
            raise LedgerUnavailable("simulated: no endpoint could be reached")
        await self._travel()
        if what != "keep-alive":
            self._let_in()

    def _let_in(self) -> None:
        if self.shut_out:
            raise LedgerDenied("simulated: authentication failed")

    async def _send(self, txn: Txn) -> None:
        """The way of a commit. What hangs in a cut connection may still be delivered when it heals."""
        try:
            await self._reach(self.faults.write_deadline_s)
        except LedgerUnavailable as error:
            luck = self._chance.random()
            if luck < 0.3:
                raise
            if luck < 0.6:
                self._count("late after a cut")
                self._apply_late(txn)
            raise WriteUnknown("simulated: deadline exceeded") from error
        await self._travel()

    async def _reach(self, deadline_s: float) -> None:
        if self.cut:
            try:
                async with asyncio.timeout(deadline_s):
                    await self._connected.wait()
            except TimeoutError:
                raise LedgerUnavailable("simulated: the connection is cut") from None

    async def _travel(self) -> None:
        await self._pause(self.faults.latency_s)
        if self._strikes(self.faults.slow):
            self._count("slow")
            await self._pause(self.faults.slow_s)

    async def _answer(self, deadline_s: float, *, losable: bool = False) -> None:
        await self._reach(deadline_s)
        await self._pause(self.faults.latency_s)
        if self._strikes(self.faults.slow):
            self._count("slow answer")
            await self._pause(self.faults.slow_s)
        if losable and self._strikes(self.faults.answer_lost):
            self._count(Fate.ANSWER_LOST.value)
            raise LedgerUnavailable("simulated: the answer was lost")

    def _apply_late(self, txn: Txn) -> None:
        """Now or never is what everybody expects: so half of the late twins wait for a read that does not see them."""
        if self._chance.random() < 0.5:
            self._after_read.append(txn)
        else:
            self._apply_later(txn)

    def deliver_late(self, txn: Txn) -> None:
        """What was under way when its sender died may still arrive."""
        self._count("late from the dead")
        self._apply_later(txn)

    def _apply_later(self, txn: Txn) -> None:
        delay_s = self._chance.uniform(*self.faults.late_s)
        asyncio.get_running_loop().call_later(delay_s, self._apply_now, txn)

    def _apply_now(self, txn: Txn) -> None:
        with suppress(LedgerError):
            result = self.inner.store.commit(txn, self.inner.name)
            self._count("late twin applied" if result.succeeded else "late twin refused")

    async def _pause(self, bounds_s: tuple[float, float]) -> None:
        await asyncio.sleep(self._chance.uniform(*bounds_s))

    def _strikes(self, rate: float) -> bool:
        return rate > 0 and self._chance.random() < rate

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1
        self._note(f"{self.inner.name}: {what}")


class FaultyWatch:
    """A watch behind a network: deliveries come late, never when the connection is cut, and after a cut it is opened
    again where it had been (`Compacted` if that is gone). Cancelling a delivery does not lose it."""

    def __init__(
        self, ledger: FaultyLedger, key: bytes, range_end: bytes, from_revision: int, *, deletes_only: bool
    ) -> None:
        self._ledger = ledger
        self._key = key
        self._range_end = range_end
        self._deletes_only = deletes_only
        self._next_revision = from_revision
        self._inner: MemoryWatch | None = None
        self._cuts = 0
        self._held: Changes | None = None
        self._due = 0.0

    def __aiter__(self) -> Self:
        return self

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._inner is not None:
            self._inner.close()

    async def __anext__(self) -> Changes:
        while True:
            await self._ledger.connected()
            while self._ledger.shut_out:        # noqa: ASYNC110 - in virtual time
                await asyncio.sleep(0.05)
            watch = self._open()
            if self._held is None:
                self._held = await watch.__anext__()
                self._due = asyncio.get_running_loop().time() + self._ledger.watch_delay_s()
            await asyncio.sleep(self._due - asyncio.get_running_loop().time())
            if not self._ledger.cut and self._cuts == self._ledger.cuts and not self._ledger.shut_out:
                break
        changes, self._held = self._held, None
        self._next_revision = changes.revision + 1
        return changes

    def _open(self) -> MemoryWatch:
        """The watch on the store; a new one after a cut."""
        if self._inner is not None and self._cuts == self._ledger.cuts:
            return self._inner
        if self._inner is not None:
            self._inner.close()
            self._held = None
        self._cuts = self._ledger.cuts
        self._inner = self._ledger.inner.watch(
            self._key, self._range_end, from_revision=self._next_revision, deletes_only=self._deletes_only
        )
        self._inner.open()
        return self._inner
