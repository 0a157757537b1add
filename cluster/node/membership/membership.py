"""A node's lease: joining, keeping alive, and knowing when it may no longer act.

The lease's deadline is counted from when the last good keepalive was *sent*, on the clock that runs while the machine
is suspended. Past the deadline the node is **suspended**: its runners are dead (the guard sees to that) and it starts
nothing. When the store answers again, the same lease is tried first: if it lives, the node goes on as itself; if it
is gone, the identity has ended and a new one must join.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

from rota.client.errors import LeaseGone, LedgerDenied, LedgerError, LedgerUnavailable, NoSpace, StoreBusy, WriteUnknown
from rota.client.ids import ALPHABET

from ...context import NodeContext
from ...events.records import JoinFailed, KeepaliveFailed, KeepaliveResumed
from ...ledger.commits import created
from ...ledger.ledger import Condition, Put, Txn
from ...state.records import Member, encode
from .reach import Reach

RETRY_S = 0.5
START_FRACTION = 2 / 3
"""Nothing is started in the last third of a lease that was not renewed."""


class IdentityLost(Exception):
    """The lease is gone: what lay under this identity belongs to others now."""


class Identity:
    """What a node is while its lease lives."""

    def __init__(self, node: str, lease: int, ttl_s: int, key: bytes, create_revision: int) -> None:
        self.node = node
        self.lease = lease
        self.ttl_s = ttl_s
        self.key = key
        self.condition: Condition = created(key, create_revision)
        self.create_revision = create_revision


class Leaseholder(Protocol):
    """Who is told what becomes of the lease."""

    def on_renewed(self, lease: int, deadline: float) -> None:
        """It runs until then, on the clock that runs while the machine is suspended."""
        ...

    def on_suspended(self) -> None:
        """Its deadline has passed: the runners are dead."""
        ...

    def on_resumed(self) -> None:
        """It lives after all."""
        ...


class Membership:
    """The one owner of an identity's lease."""

    def __init__(
        self, context: NodeContext, holder: Leaseholder, reach: Reach, *, name: str, ttl_s: int
    ) -> None:
        self._ledger = context.ledger
        self._keys = context.keys
        self._clock = context.clock
        self._rng = context.rng
        self._events = context.events
        self._holder = holder
        self._reach = reach
        self._name = name
        self._ttl_s = ttl_s
        self._failures = 0
        self._failing_since = 0.0
        self.joining = ""
        """Why it cannot join yet, or ""."""
        self.identity: Identity | None = None
        self.deadline = 0.0
        self.suspended = False

    async def join(self, member: Member) -> Identity:
        """Grant a lease and register; retries until the store takes it. Under a new name: none is ever used again."""
        while True:
            node = f"{self._name}-{''.join(self._rng.choice(ALPHABET) for _ in range(6))}"
            lease = self._rng.getrandbits(62) + 1
            try:
                sent = self._clock.monotonic()
                ttl_s = await self._ledger.grant(self._ttl_s, lease)
                key = self._keys.node(node)
                txn = Txn((created(key, 0),), (Put(key, encode(member), lease),))
                result = await self._register(txn)
            except (LedgerUnavailable, WriteUnknown, StoreBusy, NoSpace, LeaseGone) as error:
                if not self.joining:
                    self._events.emit(JoinFailed(str(error)))
                self.joining = str(error) or type(error).__name__
                await asyncio.sleep(RETRY_S + self._rng.random() * RETRY_S)
                continue
            self.identity = Identity(node, lease, ttl_s, key, result)
            self.deadline, self.suspended = sent + ttl_s, False
            self._renewed(sent, ttl_s)
            return self.identity

    async def _register(self, txn: Txn) -> int:
        result = await self._ledger.commit(txn)
        if not result.succeeded:
            raise LedgerUnavailable("the name is taken")      # one chance in 10**9: draw another
        return result.revision

    @property
    def is_sure(self) -> bool:
        """Whether the lease runs for certain. Past its deadline the runners are dead, noticed or not."""
        return self.identity is not None and not self.suspended and self._clock.monotonic() < self.deadline

    def may_start(self) -> bool:
        """Whether a job may be started now: not in the last third of a lease that has not been renewed."""
        if self.identity is None or self.suspended:
            return False
        margin = self.identity.ttl_s * (1 - START_FRACTION)
        return self._clock.monotonic() < self.deadline - margin

    async def keep(self) -> None:
        """Renew until the identity ends; raises IdentityLost then. A node that the store has shut out does not renew:
        nobody would do what lies under it."""
        identity = self.identity
        assert identity is not None
        pause = identity.ttl_s / 3
        while True:
            await self._sleep_or_suspend(pause)
            sent = self._clock.monotonic()
            try:
                if self._reach.shut_out:
                    raise LedgerDenied("the store does not let this node in, so its work is left to others")
                ttl_s = await self._ledger.keep_alive(identity.lease)
            except LeaseGone as error:
                raise IdentityLost(f"the lease of {identity.node} is gone") from error
            except LedgerError as error:
                self._not_renewed(error)
                pause = min(RETRY_S, identity.ttl_s / 10) * (0.5 + self._rng.random())
                self._check_deadline()
                continue
            self._renewed_again()
            self._renewed(sent, ttl_s)
            pause = max(sent + identity.ttl_s / 3 - self._clock.monotonic(), 0.0)   # what it is worth began when sent

    def _not_renewed(self, error: LedgerError) -> None:
        """Said once; how often it was, when it is over."""
        if not self._failures:
            assert self.identity is not None
            self._events.emit(KeepaliveFailed(self.identity.node, str(error)))
            self._failing_since = self._clock.monotonic()
        self._failures += 1

    def _renewed_again(self) -> None:
        if self._failures:
            assert self.identity is not None
            away_s = self._clock.monotonic() - self._failing_since
            self._events.emit(KeepaliveResumed(self.identity.node, self._failures, round(away_s, 1)))
        self._failures = 0

    async def _sleep_or_suspend(self, pause: float) -> None:
        """Sleep, but notice the deadline when it comes."""
        until = self._clock.monotonic() + pause
        while (now := self._clock.monotonic()) < until:
            wait = until - now
            if not self.suspended:
                wait = min(wait, max(self.deadline - now, 0.0) + 0.001)
            await asyncio.sleep(wait)
            self._check_deadline()

    def _check_deadline(self) -> None:
        if not self.suspended and self._clock.monotonic() >= self.deadline:
            self.suspended = True
            self._holder.on_suspended()

    def _renewed(self, sent: float, ttl_s: int) -> None:
        assert self.identity is not None
        self._check_deadline()      # a node that was frozen past its deadline must notice, even if the lease lives
        self.deadline = sent + ttl_s
        if self._clock.monotonic() >= self.deadline:
            return                  # the answer itself came too late to be worth anything
        self._holder.on_renewed(self.identity.lease, self.deadline)
        if self.suspended:
            self.suspended = False
            self._holder.on_resumed()

    async def leave(self) -> None:
        """Revoke the lease: the member key, and with it everything on the lease, goes in one revision."""
        if self.identity is not None:
            await self._ledger.revoke(self.identity.lease)
            self.identity = None
