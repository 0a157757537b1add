"""What a node's process does beside its node: the relay of an outbox, and clearing the object store."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from rota.client.errors import ClientClosed, ConfigError, JobUnknown
from rota.client.wire import offload
from rota.client.wire.views import JobView
from rota.cluster.boot import beside
from rota.cluster.boot.config import EtcdConfig, NodeConfig
from rota.outbox.sqlalchemy import Outbox
from rota.testing import MemoryCluster

from ...client.fake_service import KEYRING
from ...outbox import shop

ETCD = EtcdConfig(endpoints=("127.0.0.1:1",))


def config(**changes: Any) -> NodeConfig:
    return NodeConfig(etcd=ETCD, key_file="k", token_file="t", **changes)


async def test_a_node_moves_the_rows_of_its_outbox_until_it_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    database = f"sqlite:///{tmp_path}/shop.db"
    engine, outbox = sa.create_engine(database), Outbox()
    outbox.metadata.create_all(engine)
    with MemoryCluster() as cluster:
        key = tmp_path / "key"
        key.write_text(f"testing:{cluster._key.hex()}\n")
        key.chmod(0o600)
        monkeypatch.setenv("ROTA_KEY_FILE", str(key))
        with engine.begin() as connection:
            outbox.enqueue(connection, shop.note, "by the node")

        class Node:
            """The cluster's, seen from this loop."""

            service = cluster._node.service
            leaving = asyncio.Event()

        node: Any = Node()
        wanted = config(outbox=database, outbox_name="shop")
        (work,) = beside.works(node, wanted, cluster.url, cluster._keyring, cluster.token, {})
        task = asyncio.create_task(work)
        async with asyncio.timeout(20):
            while "by the node" not in shop.ran:        # noqa: ASYNC110 - no one says so
                await asyncio.sleep(0.02)
        (view,) = await asyncio.to_thread(cluster.client.outboxes)
        assert view.name == "shop"
        node.leaving.set()
        await asyncio.wait_for(task, 15)
        assert not await asyncio.to_thread(cluster.client.outboxes), "another relay may begin at once"
    engine.dispose()


def test_settings_of_an_outbox_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    node: Any = None
    with pytest.raises(ConfigError, match="database's address"):
        beside.works(node, config(outbox="nothing"), "", None, None, {})   # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="port is not a number") as told:
        beside.works(node, config(outbox="postgresql://u:se:cret@h:port/db"), "", None, None, {})   # type: ignore[arg-type]
    assert "cret" not in str(told.value)
    with pytest.raises(ConfigError, match="name of an outbox"):
        config(outbox="sqlite://", outbox_name="a/b")
    with pytest.raises(ConfigError, match=r"nowhere\.pem cannot be read"), monkeypatch.context() as patched:
        patched.setenv("ROTA_CA_FILE", "nowhere.pem")
        beside.works(node, config(outbox="sqlite://"), "https://127.0.0.1:1", KEYRING, "t", {})
    with pytest.raises(ConfigError, match="--outbox needs --key-file"):
        NodeConfig(etcd=ETCD, insecure_no_key=True, outbox="sqlite://")
    for never in (config(offload_url="memory://x", offload_sweep_s=0), config(offload_url="memory://x", dev=True)):
        assert not beside.works(node, never, "", None, None, {})    # type: ignore[arg-type]


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    offload.use(f"file://{tmp_path}/objects")
    yield tmp_path / "objects"
    offload.use(None)


def test_objects_go_with_their_job_and_results_are_kept(store: Path) -> None:
    """Only old arguments of a job that nobody knows any more: not those of one that waits, not what was put there a
    moment ago, and no result that another job may have been given."""
    bundles = {name: offload.names.next() for name in ("over", "waits", "new", "result")}
    bundles["moves"] = offload.names.next()
    for name, bundle in bundles.items():
        offload.stored(name.encode(), bundle, 0, "result" if name == "result" else "arguments")
    old = time.time() - offload.GRACE_S - 60
    for file in store.iterdir():
        if not file.name.startswith(bundles["new"]):
            os.utime(file, (old, old))

    def job(id_: str) -> JobView:
        if id_.startswith(bundles["waits"].replace("-", "_")):
            return JobView(id_, "waiting", "t", "q")
        if id_.startswith(bundles["moves"].replace("-", "_")):
            return JobView(id_, "unknown", enqueued_at=1.0)     # its body is there; where its token is, was not found
        raise JobUnknown(id_)

    def deposed(id_: str) -> JobView:
        raise ClientClosed("master no more")

    assert beside.cleared(deposed) is None and len(list(store.iterdir())) == 5
    swept = beside.cleared(job)
    assert swept is not None and (swept.deleted, swept.kept) == (1, 4)
    assert sorted(file.read_bytes() for file in store.iterdir()) == [b"moves", b"new", b"result", b"waits"]


def test_where_clusters_share_a_folder_nothing_is_deleted(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Neither knows the jobs of the other: each took them for jobs that are over."""
    offload.stored(b"staging's", offload.names.next(), 0, "arguments")
    for file in store.iterdir():
        os.utime(file, (1, 1))

    def unknown(id_: str) -> JobView:
        raise JobUnknown(id_)

    assert beside.marked("pro/duction") and beside.marked("staging") and beside.marked("staging")
    assert beside.cleared(unknown) is None and "several clusters (pro/duction, staging)" in caplog.text
    assert len(offload.content().objects) == 1
    (store / "cluster.staging").unlink()
    assert beside.cleared(unknown) == (0, 1)


def test_a_store_that_keeps_its_lists_is_listed_anew(store: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fs, folder = offload._open()
    kept: dict[str, Any] = {}
    ls = fs.ls

    class Listing:
        """As s3fs does: what was listed once is listed from memory."""

        def ls(self, path: str, **options: Any) -> Any:
            return kept.setdefault(path, ls(path, **options))

        def invalidate_cache(self, path: str | None = None) -> None:
            kept.clear()

        def __getattr__(self, name: str) -> Any:
            return getattr(fs, name)

    monkeypatch.setattr(offload, "_store", (os.getpid(), Listing(), folder))
    for count in (1, 2):
        offload.stored(b"x", offload.names.next(), 0, "arguments")
        assert len(offload.content().objects) == count


def test_a_store_that_does_not_answer_is_told_and_harms_nothing(caplog: pytest.LogCaptureFixture) -> None:
    offload.use("nothing-known://bucket")
    try:
        assert beside.cleared(lambda id_: JobView(id_, "waiting", "t", "q")) is None
    finally:
        offload.use(None)
    assert "is not cleared now" in caplog.text


async def test_where_a_stored_job_lies_is_not_looked_for() -> None:
    class Service:
        async def body(self, id_: str) -> bytes:
            if id_ != "stored":
                raise JobUnknown(id_)
            return b""

        async def job(self, id_: str) -> JobView:
            assert id_ != "stored"
            return JobView(id_, "finished")

    service: Any = Service()
    assert (await beside.found(service, "stored")).place == "waiting"
    assert (await beside.found(service, "ended")).place == "finished"


def test_whatever_goes_wrong_with_a_sweep_does_not_end_the_node(store: Path, caplog: pytest.LogCaptureFixture) -> None:
    offload.stored(b"x", offload.names.next(), 0, "arguments")
    for file in store.iterdir():
        os.utime(file, (1, 1))

    def broken(id_: str) -> JobView:
        raise KeyError(id_)

    assert beside.cleared(broken) is None and "is not cleared now" in caplog.text
