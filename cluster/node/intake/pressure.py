"""Whether the store serves this node, and how full it is: enqueues are shed in time, history is compacted if asked."""

from __future__ import annotations

import asyncio

from rota.client.errors import LedgerError, StoreRewound

from ...context import IdentityContext
from ...ledger.ledger import StoreStatus
from ..membership.reach import Reach
from ..membership.standing import Standing
from .intake import Intake

LOOK_S = 2.0
HISTORY_S = 60.0
"""Of the store's history is kept, where the master is told to compact it."""

NEARLY_FULL = 0.8
FULL = "the store is full (etcd's NOSPACE alarm): free space or raise its quota, then disarm the alarm"
LITTLE_SPACE = "the store is four fifths full: raise its quota or let jobs finish"


class Pressure:
    """One identity's look at the store. `key`: its member key; `compacts`: whether it is to, while it is master."""

    def __init__(
        self, context: IdentityContext, key: bytes, intake: Intake, reach: Reach, standing: Standing, *,
        compacts: bool,
    ) -> None:
        self._ledger = context.ledger
        self._key = key
        self._intake = intake
        self._reach = reach
        self._standing = standing
        self._compacts = compacts
        self._history: list[int] = []

    async def run(self) -> None:
        while True:
            try:
                await self.look()
            except StoreRewound:
                raise
            except LedgerError as error:
                self._reach.failed(error)
            await asyncio.sleep(LOOK_S)

    async def look(self) -> None:
        """Once. Raises `LedgerError` where the store does not answer."""
        await self._ledger.read(self._key, keys_only=True)
        self._reach.served()
        status = await self._ledger.status()
        self._shed(status)
        await self._compact(status.revision)

    def _shed(self, status: StoreStatus) -> None:
        nearly = status.quota_bytes is not None and status.bytes_in_use > NEARLY_FULL * status.quota_bytes
        self._intake.full = FULL if status.no_space else None
        self._intake.nearly_full = LITTLE_SPACE if nearly else None

    async def _compact(self, revision: int) -> None:
        history, looks = self._history, int(HISTORY_S / LOOK_S)
        history.append(revision)
        if self._compacts and self._standing.is_master and len(history) > looks:
            await self._ledger.compact(history[0])
            history.clear()
        del history[:-looks - 1]
