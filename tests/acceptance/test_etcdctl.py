"""What somebody sees who has nothing but `etcdctl`."""

from __future__ import annotations

import asyncio
import json
import os
from pathlib import Path
from typing import Any

from .apps import work
from .rig import Rig, until
from .test_full_store import etcdctl_binary

CONTROL = {"ETCDCTL_API": "3", "PATH": os.environ["PATH"]}


async def run(endpoint: str, *arguments: str) -> str:
    process = await asyncio.create_subprocess_exec(
        etcdctl_binary(), "--endpoints", endpoint, *arguments, stdout=asyncio.subprocess.PIPE, env=CONTROL
    )
    output, _ = await process.communicate()
    assert process.returncode == 0
    return output.decode()


async def test_the_store_reads_like_a_page(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    async with Rig(etcd.endpoint, cluster_name, tmp_path, nodes=2) as rig:
        root = f"/rota/{cluster_name}/"
        running = await rig.client.enqueue(work.nap, str(tmp_path / "journal"), 3.0)
        await (await rig.client.enqueue(work.echo, 1)).aresult(timeout=60)
        await until(lambda: (tmp_path / "journal").exists(), "the nap has begun")
        page = await run(etcd.endpoint, "get", "--prefix", root)
        rows = page.splitlines()
        seen = dict(zip(rows[::2], rows[1::2], strict=True))
        assert all(key.startswith(root) for key in seen)
        kinds = {key[len(root):].split("/")[0] for key in seen}
        assert {"nodes", "master", "tasks", "claims"} <= kinds
        for key, value in seen.items():
            if f"{root}master/" not in key:
                assert isinstance(json.loads(value), dict | int), key
        (claim,) = [json.loads(value) for key, value in seen.items() if "/claims/" in key]
        assert claim["task"] == "tests.acceptance.apps.work:nap"
        await running.aresult(timeout=30)


async def test_etcdctl_tells_who_is_master(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    """`etcdctl elect --listen` follows the election, and a watch sees who leaves."""
    async with Rig(etcd.endpoint, cluster_name, tmp_path, nodes=2) as rig:
        listen = await asyncio.create_subprocess_exec(
            etcdctl_binary(), "--endpoints", etcd.endpoint, "elect", "--listen", f"/rota/{cluster_name}/master",
            stdout=asyncio.subprocess.PIPE, env=CONTROL,
        )
        watch = await asyncio.create_subprocess_exec(
            etcdctl_binary(), "--endpoints", etcd.endpoint, "watch", "--prefix", f"/rota/{cluster_name}/nodes/",
            stdout=asyncio.subprocess.PIPE, env=CONTROL,
        )
        assert listen.stdout is not None
        assert watch.stdout is not None
        try:
            first = await rig.master()
            assert await told(listen.stdout, first)
            rig.kill_node(first)
            await until(lambda: another(rig, first), "another is master")
            assert await told(listen.stdout, await rig.master())
            assert await told(watch.stdout, first)
        finally:
            listen.kill()
            watch.kill()
            await asyncio.gather(listen.wait(), watch.wait())


async def another(rig: Rig, than: str) -> bool:
    return await rig.master() not in ("", than)


async def told(output: asyncio.StreamReader, name: str) -> bool:
    """Wait for a line that names a node."""
    async with asyncio.timeout(20):
        while line := await output.readline():
            if name in line.decode():
                return True
    return False
