"""The ledger on an etcd of three members, of which some die; and on a store that went back in time."""

from __future__ import annotations

import asyncio
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rota.client import errors
from rota.cluster.boot.embedded import EmbeddedConfig, EmbeddedEtcd, free_port
from rota.cluster.ledger.etcd import EtcdConfig, EtcdLedger
from rota.cluster.ledger.ledger import Condition, Put, Target, Txn, prefix_end

from ...proxy import Mode, Proxy

TRIO = ("one", "two", "three")


@asynccontextmanager
async def three_members(folder: Path, binary: Path | None) -> AsyncIterator[list[EmbeddedEtcd]]:
    ports = {name: free_port() for name in TRIO}
    cluster = ",".join(f"{name}=http://127.0.0.1:{port}" for name, port in ports.items())
    members = [
        EmbeddedEtcd(
            EmbeddedConfig(
                folder / name, binary=binary, name=name, peer_port=port, initial_cluster=cluster,
                heartbeat_ms=20, election_ms=200, tcp=True,
            )
        )
        for name, port in ports.items()
    ]
    try:
        for member in members:
            member.launch()
        for member in members:
            await member.wait_healthy()
        yield members
    finally:
        for member in members:
            member.kill()


def config_for(*endpoints: str) -> EtcdConfig:
    return EtcdConfig(
        endpoints, connect_timeout_s=0.5, read_try_s=0.5, read_timeout_s=2.0, keep_alive_try_s=0.5,
        progress_interval_s=0.2, shuffle=False,
    )


@asynccontextmanager
async def trio(folder: Path, binary: Path | None) -> AsyncIterator[tuple[list[EmbeddedEtcd], EtcdLedger]]:
    async with (
        three_members(folder, binary) as members,
        EtcdLedger(config_for(*(member.endpoint for member in members))) as ledger,
    ):
        yield members, ledger


def put(key: bytes, value: bytes) -> Txn:
    return Txn((), (Put(key, value),))


async def commit_until_definite(ledger: EtcdLedger, txn: Txn, limit_s: float = 15.0) -> bool:
    async with asyncio.timeout(limit_s):
        while True:
            try:
                return (await ledger.commit(txn)).succeeded
            except (errors.LedgerUnavailable, errors.WriteUnknown):
                await asyncio.sleep(0.05)


async def test_members_die(tmp_path: Path, etcd_binary: Path | None) -> None:
    """Through the death of a member: writes, a watch without a gap, a lease. Then, of two members: a refusal."""
    async with trio(tmp_path, etcd_binary) as (members, ledger):
        await ledger.grant(60, 77)
        start = (await ledger.commit(Txn((), (Put(b"/lease", b"", 77),)))).revision + 1
        async with ledger.watch(b"/n/", prefix_end(b"/n/"), from_revision=start) as watch:
            for i in range(30):
                if i == 10:
                    members[0].kill()
                created = Txn((Condition(b"/n/%03d" % i, Target.CREATE, "==", 0),), (Put(b"/n/%03d" % i, b""),))
                await commit_until_definite(ledger, created)
            seen: list[bytes] = []
            async for changes in watch:
                seen += [event.record.key for event in changes.events]
                if len(seen) >= 30:
                    break
        assert seen == [b"/n/%03d" % i for i in range(30)]
        assert await ledger.keep_alive(77) == 60
        assert (await ledger.status()).version == members[1].version

        members[0].launch()
        await members[0].wait_healthy()
        for member in members[1:]:
            member.kill()
        with pytest.raises(errors.LedgerUnavailable):
            await ledger.read(b"/n/000")
        assert (await ledger.read(b"/n/000", serializable=True)).records
        with pytest.raises((errors.LedgerUnavailable, errors.WriteUnknown)):
            async with asyncio.timeout(5):
                await ledger.commit(put(b"/n/x", b""))


async def test_a_member_that_stands_still(tmp_path: Path, etcd_binary: Path | None) -> None:
    """SIGSTOP: sockets stay open and nothing answers."""
    async with trio(tmp_path, etcd_binary) as (members, ledger):
        start = (await ledger.commit(put(b"/a", b"0"))).revision
        async with ledger.watch(b"/a", from_revision=start + 1) as watch:
            members[0].signal(signal.SIGSTOP)
            await commit_until_definite(ledger, put(b"/a", b"1"))
            async for changes in watch:
                if changes.events:
                    break
            assert changes.events[0].record.value == b"1"
            assert (await ledger.read(b"/a")).records[0].value == b"1"
        members[0].signal(signal.SIGCONT)


async def test_another_store_behind_the_same_address(
    tmp_path: Path, etcd: EmbeddedEtcd, etcd_binary: Path | None
) -> None:
    async with (
        EmbeddedEtcd(EmbeddedConfig(tmp_path, binary=etcd_binary, tcp=True)) as other,
        Proxy(etcd.client_port) as proxy,
        EtcdLedger(config_for(proxy.endpoint)) as ledger,
    ):
        start = (await ledger.commit(put(b"/a", b""))).revision
        async with ledger.watch(b"/a", from_revision=start) as watch:
            await anext(aiter(watch))
            proxy.target_port = other.client_port
            await proxy.set(Mode.RESET)
            await proxy.set(Mode.PASS)
            with pytest.raises(errors.StoreRewound):
                async with asyncio.timeout(10):
                    await anext(aiter(watch))
        with pytest.raises(errors.StoreRewound):
            await ledger.commit(put(b"/a", b""))


async def test_a_store_restored_from_a_copy(tmp_path: Path, etcd_binary: Path | None) -> None:
    """The same cluster id, but revisions that have been seen are gone."""
    live, copy = tmp_path / "live", tmp_path / "copy"
    config = EmbeddedConfig(live, binary=etcd_binary, tcp=True, client_port=free_port(), peer_port=free_port())
    server = EmbeddedEtcd(config)
    async with server, EtcdLedger(config_for(server.endpoint)) as ledger:
        await ledger.commit(put(b"/a", b"1"))
    shutil.copytree(live, copy)
    async with EtcdLedger(config_for(server.endpoint)) as reader, EtcdLedger(config_for(server.endpoint)) as watcher:
        async with server:
            await reader.commit(put(b"/a", b"2"))
            seen = await reader.commit(put(b"/a", b"3"))
            await watcher.read(b"/a")
            server.kill()
        shutil.rmtree(live)
        copy.rename(live)
        async with server:
            with pytest.raises(errors.StoreRewound):
                await reader.read(b"/a")
            with pytest.raises(errors.StoreRewound):
                await reader.keep_alive(1)
            async with watcher.watch(b"/a", from_revision=seen.revision + 1) as watch:
                with pytest.raises(errors.StoreRewound):
                    async with asyncio.timeout(10):
                        await anext(aiter(watch))
