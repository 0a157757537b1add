"""Limits, and a store that is full."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rota.client.errors import NoSpace, TransactionTooLarge
from rota.cluster.ledger.ledger import (
    OPS_MAX,
    REQUEST_BYTES_MAX,
    Condition,
    Delete,
    Get,
    Op,
    Put,
    Target,
    Txn,
    prefix_end,
)
from rota.cluster.ledger.releases import release

from .backends import ETCDS, MEMORY, OpenLedger, start_backend

FULL_AT_BYTES = 16 * 1024**2


def many(kind: str, prefix: bytes, count: int) -> tuple[Op, ...]:
    keys = [prefix + b"%04d" % i for i in range(count)]
    if kind == "put":
        return tuple(Put(key, b"v") for key in keys)
    return tuple(Delete(key) if kind == "delete" else Get(key) for key in keys)


@pytest.mark.parametrize("kind", ["put", "delete", "get"])
async def test_operations_of_a_branch(open_ledger: OpenLedger, prefix: bytes, kind: str) -> None:
    async with open_ledger() as ledger:
        conditions = tuple(Condition(prefix + b"%04d" % i, Target.CREATE, "==", 0) for i in range(OPS_MAX + 1))
        fits, over = many(kind, prefix, OPS_MAX), many(kind, prefix, OPS_MAX + 1)
        assert (await ledger.commit(Txn(conditions[:OPS_MAX], fits, many("get", prefix, OPS_MAX)))).succeeded
        for txn in (Txn((), over), Txn((), fits, over), Txn(conditions, fits)):
            with pytest.raises(TransactionTooLarge):
                await ledger.commit(txn)


async def test_bytes_of_a_request(open_ledger: OpenLedger, prefix: bytes) -> None:
    async with open_ledger() as ledger:
        value = b"x" * (REQUEST_BYTES_MAX // 100)
        await ledger.commit(Txn((), tuple(Put(prefix + b"%d" % i, value) for i in range(100))))
        before = (await ledger.read(prefix)).revision
        for size in (1536 * 1024 + 1, 5 * 1024**2):
            with pytest.raises(TransactionTooLarge):
                await ledger.commit(Txn((), (Put(prefix + b"big", b"x" * size),)))
            with pytest.raises(TransactionTooLarge):
                await ledger.commit(Txn((), (), (Put(prefix + b"big", b"x" * size),)))
        assert (await ledger.read(prefix + b"big")).records == ()
        assert (await ledger.read(prefix)).revision == before
        await ledger.commit(Txn((), (Delete(prefix, prefix_end(prefix)),)))


def deletes_pass_when_full(version: str) -> bool:
    """Before 3.4.20 and 3.5.7 etcd refuses even deletes once its file is over the quota (etcd #14254, #14884)."""
    number = release(version)
    return (3, 4, 20) <= number < (3, 5, 0) or number >= (3, 5, 7)


@pytest.mark.parametrize("name", [MEMORY, *ETCDS])
def test_a_full_store(name: str, tmp_path: Path) -> None:
    """Puts and grants are refused, even a put in the branch that is not taken; what frees space and keeps nodes alive
    goes on."""
    async def main() -> None:
        async with backend.ledger() as ledger:
            key, small = b"/a", b"/small"
            await ledger.grant(600, 1)
            await ledger.grant(600, 2)
            await ledger.commit(Txn((), (Put(small, b"", 1), Put(b"/b", b""), Put(b"/c", b""))))
            with pytest.raises(NoSpace):
                for i in range(40):
                    await ledger.commit(Txn((), (Put(key, bytes([i]) * 1024**2),)))
            absent = Condition(b"/absent", Target.CREATE, "==", 0)
            for txn in (
                Txn((), (Put(b"/new", b""),)),
                Txn((absent,), (Delete(small),), (Put(b"/new", b""),)),
                Txn((), (Delete(small), Put(b"/new", b""))),
            ):
                with pytest.raises(NoSpace):
                    await ledger.commit(txn)
            with pytest.raises(NoSpace):
                await ledger.grant(600, 3)
            assert (await ledger.read(small)).records
            assert (await ledger.read(b"/new")).records == ()
            assert await ledger.keep_alive(1) == 600
            await ledger.revoke(1)
            assert not (await ledger.read(small)).records
            if deletes_pass_when_full((await ledger.status()).version):
                deletes = Txn((absent,), (Delete(b"/b"), Get(b"/c")), (Get(small), Delete(b"/c")))
                assert (await ledger.commit(deletes)).succeeded
                assert not (await ledger.read(b"/b")).records
            with pytest.raises(NoSpace):
                await ledger.grant(600, 2)      # even the repeat of a grant that had succeeded
            await ledger.compact((await ledger.read(key)).revision)
            status = await ledger.status()
            assert status.no_space
            assert status.bytes_in_use <= status.bytes_total

    with start_backend(name, tmp_path, quota_bytes=FULL_AT_BYTES) as backend:
        asyncio.run(main())
