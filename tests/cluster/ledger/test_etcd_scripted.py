"""Watches against a scripted etcd: what releases do that cannot be had here, and races no real one shows on demand."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import grpc
import grpc.aio
import pytest
from aetcd import rpc
from aetcd.rpc import rpc_pb2_grpc

from rota.client import errors
from rota.cluster.ledger.etcd import EtcdConfig, EtcdLedger

Script: TypeAlias = Callable[["ScriptedEtcd", Any], AsyncIterator[Any]]
"""What one watch stream says: given the server and the request that opened it."""

OURS, ALL = 0, -1


@dataclass
class ScriptedEtcd:
    script: Script
    version: str = "3.6.14"
    revision: int = 10
    streams: list[int] = field(default_factory=list)
    """The start revisions of the streams opened so far."""
    asked: asyncio.Event = field(default_factory=asyncio.Event)
    """A progress request has arrived."""

    def header(self, revision: int = 0) -> Any:
        self.revision = max(self.revision, revision)
        return rpc.ResponseHeader(cluster_id=7, member_id=1, revision=revision or self.revision)

    def created(self) -> Any:
        return rpc.WatchResponse(header=self.header(), created=True)

    def progress(self, revision: int, watch_id: int) -> Any:
        return rpc.WatchResponse(header=self.header(revision), watch_id=watch_id)

    def put(self, revision: int, *keys: bytes, fragment: bool = False) -> Any:
        kvs = [rpc.KeyValue(key=key, mod_revision=revision, create_revision=revision, version=1) for key in keys]
        return rpc.WatchResponse(
            header=self.header(revision), events=[rpc.Event(kv=kv) for kv in kvs], fragment=fragment
        )

    async def Watch(self, requests: AsyncIterator[Any], context: Any) -> AsyncIterator[Any]:
        opening = await anext(requests)
        self.streams.append(opening.create_request.start_revision)
        listener = asyncio.create_task(self._listen(requests), name="scripted etcd")
        try:
            async for answer in self.script(self, opening.create_request):
                yield answer
        finally:
            listener.cancel()
            await asyncio.gather(listener, return_exceptions=True)

    async def Status(self, request: Any, context: Any) -> Any:
        return rpc.StatusResponse(header=self.header(), version=self.version)

    async def Range(self, request: Any, context: Any) -> Any:
        return rpc.RangeResponse(header=self.header())

    async def _listen(self, requests: AsyncIterator[Any]) -> None:
        async for _ in requests:
            self.asked.set()


@asynccontextmanager
async def serve(etcd: ScriptedEtcd) -> AsyncIterator[EtcdLedger]:
    server = grpc.aio.server()
    rpc_pb2_grpc.add_WatchServicer_to_server(etcd, server)
    for service, name, answer in (
        ("Maintenance", "Status", etcd.Status), ("KV", "Range", etcd.Range)
    ):
        requests = getattr(rpc, f"{name}Request")
        handler = grpc.unary_unary_rpc_method_handler(
            answer, request_deserializer=requests.FromString, response_serializer=lambda m: m.SerializeToString()
        )
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(f"etcdserverpb.{service}",
                                                                              {name: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with EtcdLedger(EtcdConfig((f"127.0.0.1:{port}",), progress_interval_s=0.1, read_try_s=1.0)) as ledger:
            yield ledger
    finally:
        await server.stop(None)


async def forever() -> None:
    await asyncio.Event().wait()


async def test_an_idle_store_is_not_a_stalled_stream() -> None:
    """Newer releases tell no progress to a watch that starts at the next revision."""

    async def say(etcd: ScriptedEtcd, request: Any) -> AsyncIterator[Any]:
        yield etcd.created()
        await asyncio.sleep(1.5)        # 15 periods
        yield etcd.put(11, b"a")
        await forever()

    etcd = ScriptedEtcd(say)
    async with serve(etcd) as ledger, ledger.watch(b"a", from_revision=11) as watch:
        changes = await anext(aiter(watch))
        assert changes.revision == 11 and len(changes.events) == 1
    assert etcd.streams == [11]


async def test_a_stream_that_falls_silent_is_left() -> None:
    async def say(etcd: ScriptedEtcd, request: Any) -> AsyncIterator[Any]:
        yield etcd.created()
        if len(etcd.streams) == 1:
            yield etcd.put(11, b"a")
            await forever()
        yield etcd.put(12, b"a")
        await forever()

    etcd = ScriptedEtcd(say)
    async with serve(etcd) as ledger, ledger.watch(b"a", from_revision=11) as watch:
        revisions = [(await anext(aiter(watch))).revision for _ in range(2)]
        assert revisions == [11, 12]
    assert etcd.streams == [11, 12]


async def test_a_store_that_moves_on_in_silence() -> None:
    """The store has passed where the watch began, and the stream still says nothing: it is stalled."""

    async def say(etcd: ScriptedEtcd, request: Any) -> AsyncIterator[Any]:
        yield etcd.created()
        if len(etcd.streams) == 1:
            etcd.revision = 20
            await forever()
        yield etcd.put(15, b"a")
        await forever()

    etcd = ScriptedEtcd(say)
    async with serve(etcd) as ledger, ledger.watch(b"a", from_revision=11) as watch:
        assert (await anext(aiter(watch))).revision == 15
    assert etcd.streams == [11, 11]


@pytest.mark.parametrize(("version", "trusted"), [("3.5.7", False), ("3.5.8", True)])
async def test_progress_that_overtakes_events(version: str, trusted: bool) -> None:
    """Before 3.5.8 an answer to our request may name revisions whose events are still to come."""

    async def say(etcd: ScriptedEtcd, request: Any) -> AsyncIterator[Any]:
        yield etcd.created()
        await etcd.asked.wait()
        if trusted:
            yield etcd.put(11, b"a")
        yield etcd.progress(12, ALL)
        if not trusted:
            yield etcd.put(11, b"a")
        yield etcd.progress(13, OURS)       # the server's own notification never overtakes
        await forever()

    etcd = ScriptedEtcd(say, version=version)
    async with serve(etcd) as ledger, ledger.watch(b"a", from_revision=11) as watch:
        events, revision = [], 0
        while revision < 13:
            changes = await anext(aiter(watch))
            events += changes.events
            revision = changes.revision
        assert len(events) == 1


async def test_repeats_and_fragments() -> None:
    """A revision is handed on when it is whole, and once, even if the stream breaks in the middle of it."""

    async def say(etcd: ScriptedEtcd, request: Any) -> AsyncIterator[Any]:
        yield etcd.created()
        yield etcd.put(11, b"a", b"b")
        yield etcd.put(12, b"a", fragment=True)
        if len(etcd.streams) == 1:
            return
        yield etcd.put(12, b"b")
        await forever()

    etcd = ScriptedEtcd(say)
    async with serve(etcd) as ledger, ledger.watch(b"a", from_revision=11) as watch:
        seen: list[tuple[int, bytes]] = []
        while len(seen) < 4:
            seen += [(event.record.mod_revision, event.record.key) for event in (await anext(aiter(watch))).events]
    assert seen == [(11, b"a"), (11, b"b"), (12, b"a"), (12, b"b")]
    assert etcd.streams == [11, 12]


async def test_the_end_that_a_server_gives_a_watch() -> None:
    """It waits until it is let in again, but what was compacted does not come back."""
    async def refuse(etcd: ScriptedEtcd, request: Any) -> AsyncIterator[Any]:
        reason = "etcdserver: permission denied"
        if len(etcd.streams) < 3:
            yield rpc.WatchResponse(
                header=etcd.header(), created=True, canceled=True, watch_id=ALL, cancel_reason=reason
            )
        else:
            yield etcd.created()
            yield etcd.put(12, b"a")
        await forever()

    async with serve(ScriptedEtcd(refuse)) as ledger, ledger.watch(b"a", from_revision=11) as watch:
        assert (await anext(aiter(watch))).events

    async def compacted(etcd: ScriptedEtcd, request: Any) -> AsyncIterator[Any]:
        yield etcd.created()
        yield rpc.WatchResponse(header=etcd.header(), canceled=True, compact_revision=9)
        await forever()

    async with serve(ScriptedEtcd(compacted)) as ledger, ledger.watch(b"a", from_revision=1) as watch:
        with pytest.raises(errors.Compacted) as refusal:
            await anext(aiter(watch))
        assert refusal.value.revision == 9
