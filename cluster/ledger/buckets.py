"""Leases for records that expire: one lease per stretch of time, shared by many keys.

A lease of its own for each record would be a write more per record; one lease for all would end with one enormous
revision. So a lease takes up to `KEYS_MAX` keys or `STRETCH_S` seconds, whichever comes first. Retention is therefore
"at least": up to a stretch longer, and longer still if etcd changes its leader (which restarts leases).
"""

from __future__ import annotations

import asyncio
import random

from ..clock import Clock
from .ledger import Ledger

KEYS_MAX = 2_000
STRETCH_S = 60.0


class Bucket:
    """The current lease of one retention time, granted when it is first needed."""

    def __init__(self, ledger: Ledger, clock: Clock, rng: random.Random, retention_s: float) -> None:
        self._ledger = ledger
        self._clock = clock
        self._rng = rng
        self._ttl_s = int(retention_s + STRETCH_S)
        self._lease = 0
        self._keys = 0
        self._until = 0.0
        self._granting = asyncio.Lock()

    def take(self, keys: int = 1) -> int | None:
        """A lease for some more keys, or None if one has to be granted first (`await refill()`)."""
        if self._lease and self._keys + keys <= KEYS_MAX and self._clock.monotonic() < self._until:
            self._keys += keys
            return self._lease
        return None

    async def lease(self, keys: int = 1) -> int:
        """A lease for some more keys. Raises LedgerError where the store does not grant one."""
        while (lease := self.take(keys)) is None:
            async with self._granting:
                if self.take(0) is None or self._keys + keys > KEYS_MAX:
                    await self._grant()
        return lease

    async def _grant(self) -> None:
        lease = self._rng.getrandbits(62) + 1
        asked = self._clock.monotonic()
        await self._ledger.grant(self._ttl_s, lease)
        self._lease, self._keys, self._until = lease, 0, asked + STRETCH_S

    def drop(self) -> None:
        """The store does not know the lease any more: take a new one next time."""
        self._lease = 0


class Buckets:
    """Buckets by retention time."""

    def __init__(self, ledger: Ledger, clock: Clock, rng: random.Random) -> None:
        self._ledger = ledger
        self._clock = clock
        self._rng = rng
        self._buckets: dict[int, Bucket] = {}

    def of(self, retention_s: float) -> Bucket:
        """Rounded up to a power of two, so that there are few."""
        rounded = 1
        while rounded < retention_s:
            rounded *= 2
        retention = int(retention_s) if retention_s in (120, 3600) else rounded
        bucket = self._buckets.get(retention)
        if bucket is None:
            bucket = self._buckets[retention] = Bucket(self._ledger, self._clock, self._rng, retention)
        return bucket

    def drop_all(self) -> None:
        for bucket in self._buckets.values():
            bucket.drop()

