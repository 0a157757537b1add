"""The ledger on one healthy etcd: what is particular to etcd (the shared semantics are in tests/conformance)."""

from __future__ import annotations

import asyncio
import random

import pytest

from rota.client import errors
from rota.cluster.boot.embedded import EmbeddedEtcd
from rota.cluster.ledger.etcd import EtcdConfig, EtcdLedger
from rota.cluster.ledger.ledger import Changes, Condition, Delete, Get, Put, Target, Txn, prefix_end


def lease_id() -> int:
    return random.randrange(1, 2**63)


def ledger_on(etcd: EmbeddedEtcd) -> EtcdLedger:
    return EtcdLedger(EtcdConfig((etcd.endpoint,)))


async def test_commit_and_read(etcd: EmbeddedEtcd, cluster_name: str) -> None:
    root = f"/{cluster_name}/".encode()
    async with ledger_on(etcd) as ledger:
        absent = Condition(root + b"a", Target.CREATE, "==", 0)
        done = await ledger.commit(Txn((absent,), (Put(root + b"a", b"1"), Put(root + b"b", b"2"))))
        assert done.succeeded and done.answers == ((), ())
        again = await ledger.commit(Txn((absent,), (Put(root + b"a", b"3"),), (Get(root, prefix_end(root)),)))
        assert not again.succeeded
        assert [record.value for record in again.answers[0]] == [b"1", b"2"]
        page = await ledger.read(root, prefix_end(root), limit=1, keys_only=True)
        assert page.more and page.records[0].key == root + b"a" and page.records[0].value == b""
        await ledger.commit(Txn((), (Delete(root, prefix_end(root)),)))
        old = await ledger.read(root, prefix_end(root), revision=done.revision)
        assert len(old.records) == 2 and old.revision == done.revision


async def test_watch_delivers_whole_revisions(etcd: EmbeddedEtcd, cluster_name: str) -> None:
    root = f"/{cluster_name}/".encode()
    async with ledger_on(etcd) as ledger:
        first = await ledger.commit(Txn((), (Put(root + b"a", b"1"),)))
        async with ledger.watch(root, prefix_end(root), from_revision=first.revision) as watch:
            await ledger.commit(Txn((), (Put(root + b"b", b"2"), Delete(root + b"a"))))
            last = await ledger.commit(Txn((), (Put(root + b"c", b"3"),)))
            seen: list[tuple[bytes, bool]] = []
            async for changes in watch:
                seen += [(event.record.key[len(root):], event.deleted) for event in changes.events]
                if changes.revision >= last.revision:
                    break
            assert seen == [(b"a", False), (b"b", False), (b"a", True), (b"c", False)]


async def test_leases(etcd: EmbeddedEtcd, cluster_name: str) -> None:
    key = f"/{cluster_name}/leased".encode()
    async with ledger_on(etcd) as ledger:
        lease = lease_id()
        assert await ledger.grant(2, lease) == 2
        assert await ledger.grant(2, lease) == 2
        await ledger.commit(Txn((), (Put(key, b"", lease),)))
        assert (await ledger.read(key)).records[0].lease == lease
        assert await ledger.keep_alive(lease) == 2
        await ledger.revoke(lease)
        await ledger.revoke(lease)
        assert (await ledger.read(key)).records == ()
        with pytest.raises(errors.LeaseGone):
            await ledger.keep_alive(lease)
        with pytest.raises(errors.LeaseGone):
            await ledger.commit(Txn((), (Put(key, b"", lease),)))


async def test_status(etcd: EmbeddedEtcd) -> None:
    async with ledger_on(etcd) as ledger:
        status = await ledger.status()
        assert status.version == etcd.version
        assert not status.no_space and status.bytes_total > 0 and status.cluster_id


async def test_quiet_watch_reports_progress(etcd: EmbeddedEtcd, cluster_name: str) -> None:
    root = f"/{cluster_name}/".encode()
    async with EtcdLedger(EtcdConfig((etcd.endpoint,), progress_interval_s=0.1)) as ledger:
        start = (await ledger.commit(Txn((), (Put(b"/elsewhere/" + root, b""),)))).revision
        async with ledger.watch(root, prefix_end(root), from_revision=start) as watch:
            await ledger.commit(Txn((), (Put(b"/elsewhere/" + root, b"1"),)))
            changes: Changes = await anext(aiter(watch))
            assert changes.events == () and changes.revision > start


async def test_close_ends_a_watch(etcd: EmbeddedEtcd, cluster_name: str) -> None:
    ledger = ledger_on(etcd)
    start = (await ledger.read(b"x")).revision
    async with ledger.watch(b"/none/", from_revision=start + 1) as watch:
        waiting = asyncio.ensure_future(anext(aiter(watch)))
        await asyncio.sleep(0.05)
        await ledger.close()
        with pytest.raises(errors.LedgerUnavailable):
            await waiting
    with pytest.raises(errors.LedgerUnavailable):
        await ledger.read(b"x")
