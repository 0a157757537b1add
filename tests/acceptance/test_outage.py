"""The store goes away and comes back; garbage lies in it; strangers knock. Nothing is lost, each has its own error."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest

import rota
from rota.client.ids import job_id
from rota.client.model import Header
from rota.client.wire.codec import encode_body
from rota.client.wire.keyring import UNSIGNED, Keyring
from rota.cluster.boot.embedded import EmbeddedConfig, EmbeddedEtcd
from rota.cluster.ledger.ledger import Put, Txn
from rota.cluster.state.keys import split_job
from rota.cluster.state.records import FailedRecord, Token, decode, encode

from .apps import work
from .rig import Rig, read_journal, until
from .test_takeover import all_end, enqueue_naps


@pytest.mark.parametrize("away_s", [4.0, 12.0], ids=["within the lease", "past the lease"])
async def test_etcd_goes_away_under_load_and_comes_back(away_s: float, cluster_name: str, tmp_path: Path) -> None:
    """The lease is 6 s: a short outage is only a pause; in a long one all runners die, and everything starts over."""
    journal = tmp_path / "journal"
    data = tmp_path / "etcd"
    etcd = EmbeddedEtcd(EmbeddedConfig(data, tcp=True))
    await etcd.start()
    try:
        async with Rig(etcd.endpoint, cluster_name, tmp_path, ttl_s=6) as rig:
            handles = await enqueue_naps(rig, journal, count=100, seconds=0.2)
            etcd.kill()
            during = asyncio.create_task(rig.client.enqueue(work.echo, "while it was away"))
            await asyncio.sleep(away_s)
            await etcd.start()
            handles.append(await during)
            await all_end(handles)
            await rig.drained()
            assert len(await rig.members()) == 3
    finally:
        await etcd.stop()


async def test_garbage_in_the_store_is_put_aside(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    secrets = init(tmp_path)
    async with Rig(etcd.endpoint, cluster_name, tmp_path, nodes=2, **secrets) as rig:
        keys = rig.keys
        task = "tests.acceptance.apps.work:echo"

        async def put(key: bytes, value: bytes) -> None:
            await rig.ledger.commit(Txn((), (Put(key, value),)))

        def token(**changes: Any) -> bytes:
            return encode(Token(**({
                "task": task, "queue": "default", "priority": 0, "order": 1, "count": 1, "mode": "sync", "at": 0
            } | changes)))

        header = Header("aaaaaaaaaaaa-00000003", task, "default", "sync", [0], [3], 0.0)
        unsigned = encode_body(header, [b"abc"])
        foreign = encode_body(
            Keyring({"k1": b"f" * 32}).sign(
                msgspec.structs.replace(header, bundle="aaaaaaaaaaaa-00000004"), [b"abc"], cluster_name
            ),
            [b"abc"],
        )
        await put(keys.job("default", 0, 1, "aaaaaaaaaaaa-00000001"), b"\xff\x00 no token")
        await put(keys.body("aaaaaaaaaaaa-00000002"), b"\xff\x00 no body")
        await put(keys.job("default", 0, 2, "aaaaaaaaaaaa-00000002"), token())
        await put(keys.body("aaaaaaaaaaaa-00000003"), unsigned)
        await put(keys.job("default", 0, 3, "aaaaaaaaaaaa-00000003"), token())
        await put(keys.body("aaaaaaaaaaaa-00000004"), foreign)
        await put(keys.job("default", 0, 4, "aaaaaaaaaaaa-00000004"), token())
        await put(keys.job("default", 0, 5, "aaaaaaaaaaaa-00000005"), token())         # no body at all
        await put(keys.jobs + b"not/ours", b"left alone")
        await put(keys.nodes + b"stranger", b"{}")
        handle = await rig.client.enqueue(work.echo, "fine")
        assert await handle.aresult(timeout=60) == (("fine",), {})

        async def put_aside() -> bool:
            return len(await rig.client.failed()) == 3

        await until(put_aside, "what cannot be read is in the failed set")
        reasons = sorted(view.reason for view in await rig.client.failed())
        assert reasons == ["body missing", "body unreadable", "unreadable"]

        async def why(number: int) -> str:
            view = await rig.client.handle(f"aaaaaaaaaaaa_0000000{number}_0").astatus()
            return view.why if view.place == "waiting" else ""

        await until(lambda: why(3), "what is unsigned is back in its queue")
        assert "unsigned" in await why(3)
        await until(lambda: why(4), "what others have to verify is back in its queue")
        assert "k1" in await why(4)
        assert await rig.read(keys.jobs + b"not/ours")
        assert len(await rig.members()) == 3        # two nodes and the stranger's key: nobody touched it


async def test_strangers_are_refused(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    secrets = init(tmp_path)
    async with Rig(etcd.endpoint, cluster_name, tmp_path, nodes=1, **secrets) as rig:
        urls = await rig.urls()
        async with rota.AsyncClient(urls, token="wrong", key=secrets["key_file"]) as client:
            with pytest.raises(rota.Unauthorized):
                await client.enqueue(work.echo, 1)
        token = rig.credentials()["token"]
        async with rota.AsyncClient(urls, token=token, key=UNSIGNED) as client:
            with pytest.raises(rota.SignatureRefused):
                await client.enqueue(work.echo, 1)
        async with rota.AsyncClient(urls, token=token, key=Keyring({"k1": b"x" * 32})) as client:
            with pytest.raises(rota.SignatureRefused):
                await client.enqueue(work.echo, 1)
        handle = await rig.client.enqueue(work.echo, 1)
        assert await handle.aresult(timeout=60) == ((1,), {})


async def test_a_node_waits_for_etcd_and_says_so(cluster_name: str, tmp_path: Path) -> None:
    etcd = EmbeddedEtcd(EmbeddedConfig(tmp_path / "etcd", tcp=True))
    await etcd.start()
    etcd.kill()
    rig = Rig(etcd.endpoint, cluster_name, tmp_path, nodes=1)
    name = rig.start()
    try:
        await until(lambda: "no etcd answers at" in rig.log(name), "the node has said what is missing")
        await etcd.start()
        await rig.joined([name])
    finally:
        rig._kill_all()
        await rig.ledger.close()
        await etcd.stop()


async def test_a_poison_job_is_put_aside_and_its_mates_are_done(etcd: Any, cluster_name: str, tmp_path: Path) -> None:
    """It kills its node whenever it runs: in the end it lies in the failed set, and nodes live on."""
    journal = tmp_path / "journal"
    async with Rig(etcd.endpoint, cluster_name, tmp_path, nodes=3, restart=True) as rig:
        poison = await rig.client.enqueue(work.kill_my_guard)
        handles = await enqueue_naps(rig, journal, count=20, seconds=0.05)

        async def condemned() -> bool:
            for guard in [name for name, process in rig.guards.items() if process.poll() is not None]:
                del rig.guards[guard]
                rig.start()
            return bool(await rig.read(rig.keys.failed))

        await until(condemned, "the poison job is in the failed set", 55)
        (record,) = await rig.read(rig.keys.failed)
        failed = decode(FailedRecord, record.value)
        assert failed is not None
        assert (job_id(*split_job(failed.id)), failed.reason) == (poison.id, "orphaned")
        await rig.drained()
        ended = {line.job for line in read_journal(journal) if line.what == "end"}
        assert ended == {handle.id for handle in handles}


def init(folder: Path) -> dict[str, str]:
    """Key and token as `rota init` makes them."""
    import sys

    done = subprocess.run(
        [Path(sys.executable).parent / "rota", "init", "--directory", str(folder / "secrets")], capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    files = {path.name: str(path) for path in (folder / "secrets").iterdir()}
    return {"key_file": files["rota.key"], "token_file": files["rota.token"]}


