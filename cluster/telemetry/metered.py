"""A ledger that is counted: how large and how quick commits are, and what goes wrong. Otherwise the one within."""

from __future__ import annotations

import time
from typing import Any

from rota.client.errors import LedgerError

from ..ledger.ledger import Get, Ledger, Page, Put, StoreStatus, Txn, TxnResult
from .tally import Distribution

SIZES = (1, 2, 5, 10, 20, 50, 100, 200, 500)
"""Upper bounds of operations in one commit that are counted together."""


class StoreFigures:
    """What was seen of the store, since the start of the process."""

    def __init__(self) -> None:
        self.commits = Distribution()
        self.operations = [0] * (len(SIZES) + 1)
        self.operations_total = 0
        self.bytes_total = 0
        self.refused = 0                                    # commits of which a condition did not hold
        self.errors: dict[tuple[str, str], int] = {}        # (call, class of the error)
        self.status: StoreStatus | None = None

    def committed(self, txn: Txn, result: TxnResult, seconds: float) -> None:
        self.commits.add(seconds)
        size = len(txn.then)
        place = next((place for place, bound in enumerate(SIZES) if size <= bound), len(SIZES))
        self.operations[place] += 1
        self.operations_total += size
        self.bytes_total += sum(len(op.value) for op in txn.then if type(op) is Put)
        self.refused += not result.succeeded

    def failed(self, call: str, error: LedgerError) -> None:
        key = call, type(error).__name__
        self.errors[key] = self.errors.get(key, 0) + 1


class MeteredLedger:
    """Implements `ledger.Ledger`."""

    def __init__(self, ledger: Ledger) -> None:
        self._ledger = ledger
        self.figures = StoreFigures()
        self.watch = ledger.watch
        self.close = ledger.close

    async def read(self, key: bytes, range_end: bytes = b"", **options: Any) -> Page:
        try:
            return await self._ledger.read(key, range_end, **options)
        except LedgerError as error:
            self.figures.failed("read", error)
            raise

    async def commit(self, txn: Txn) -> TxnResult:
        began = time.monotonic()
        try:
            result = await self._ledger.commit(txn)
        except LedgerError as error:
            self.figures.failed("commit", error)
            raise
        if txn.then and type(txn.then[0]) is not Get:
            self.figures.committed(txn, result, time.monotonic() - began)
        return result

    async def grant(self, ttl_s: int, lease: int) -> int:
        try:
            return await self._ledger.grant(ttl_s, lease)
        except LedgerError as error:
            self.figures.failed("grant", error)
            raise

    async def keep_alive(self, lease: int) -> int:
        try:
            return await self._ledger.keep_alive(lease)
        except LedgerError as error:
            self.figures.failed("keep_alive", error)
            raise

    async def revoke(self, lease: int) -> None:
        try:
            await self._ledger.revoke(lease)
        except LedgerError as error:
            self.figures.failed("revoke", error)
            raise

    async def status(self) -> StoreStatus:
        try:
            status = self.figures.status = await self._ledger.status()
        except LedgerError as error:
            self.figures.failed("status", error)
            raise
        return status

    async def compact(self, revision: int) -> None:
        try:
            await self._ledger.compact(revision)
        except LedgerError as error:
            self.figures.failed("compact", error)
            raise
